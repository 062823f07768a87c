"""Questions in JSON lines: published ones, and the format for a user's own.

Each line of `jsonl:FILE` is an object with these fields; a user's function may
return such objects, too (see sources.py):

    id               unique; defaults to the line number
    question         text
    answers          every accepted form, the canonical one first; or `answer`
    images           a list, or `image`: a path, relative to the file, a data:
                     URI or base64; a function may give bytes or PIL images
    scope, search_required, gold_regions, hops
                     as in `types.Example`, where they are known
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
import dataclasses
import functools
import json
import os
from typing import Any

from PIL import Image as PILImage

from gog_jax import images as image_files
from gog_jax.errors import UserError
from gog_jax.questions import answers
from gog_jax.questions import questions as q
from gog_jax.storage import records
from gog_jax.storage.records import Loaded
from gog_jax.storage.records import Unusable
from gog_jax.types import Box

_LONGEST_PATH = 4096
_OPTIONAL = {
    'scope': (str, 'text'),
    'search_required': (bool, 'true or false'),
    'hops': (int, 'a number'),
}


def lines(path: str) -> Iterator[tuple[str, records.Line | Unusable]]:
  """Yields each line's place, and the line if its value is an object.

  Raises:
    UserError: The file cannot be read.
  """
  for line in records.json_lines(path, max_bytes=q.MAX_FIELD_BYTES):
    found = line
    if isinstance(line.value, Unusable):
      found = line.value
    elif not isinstance(line.value, dict):
      found = Unusable(q.BAD, 'is JSON, but no object')
    yield f'{path}, line {line.number}', found


def field(
    row: Mapping[str, Any],
    column: str,
    types: type | tuple[type, ...] = str,
    expected: str = 'text',
) -> Any:
  """A required field of one of these types; raises Mismatch otherwise."""
  if column not in row:
    raise q.Mismatch(
        column,
        f'has no column {column!r} ({expected}); it has '
        f'{", ".join(map(str, row)) or "none"}',
    )
  value = row[column]
  if not isinstance(value, types) or isinstance(value, bool):
    raise q.Mismatch(
        column,
        f'column {column!r} is {type(value).__name__}, expected {expected}',
    )
  return value


def read(path: str) -> Loaded[q.Question]:
  """Reads a user's own file; no image is kept in memory.

  Raises:
    UserError: The file cannot be read, or none of its lines can be used.
  """
  folder = os.path.dirname(path)

  def question(line: records.Line) -> q.Question:
    made = question_of(line.value, folder, id=str(line.number))
    images = tuple(
        # One that the line itself holds is read from there again.
        image
        if isinstance(image, functools.partial)
        else functools.partial(_read_image, path, line.start, index)
        for index, image in enumerate(made.images)
    )
    return dataclasses.replace(made, images=images)

  return q.load(path, lines(path), question)


def question_of(row: Mapping[str, Any], folder: str, *, id: str) -> q.Question:
  """The question in an object.

  Args:
    row: The object, as above.
    folder: The folder that paths are relative to.
    id: Its id if it has none.

  Raises:
    Unusable: A field is missing or has the wrong type, or an image is missing.
  """
  question = row.get('question')
  if not isinstance(question, str):
    raise Unusable(q.NO_QUESTION, 'its "question" is no text')
  given = {}
  for name, (kind, expected) in _OPTIONAL.items():
    if (value := row.get(name)) is not None:
      if type(value) is not kind:
        raise Unusable(q.BAD, f'its {name!r} is not {expected}')
      given[name] = value
  images = row.get('images', row.get('image'))
  if not isinstance(images, list | tuple):
    images = [] if images is None else [images]
  return q.Question(
      id=str(id if row.get('id') in (None, '') else row['id']),
      question=question.strip(),
      answers=answers.forms(row.get('answers'), row.get('answer')),
      images=tuple(_image(one, folder) for one in images),
      gold_regions=_boxes(row.get('gold_regions')),
      **given,
  )


def _image(value: Any, folder: str) -> q.Image:
  """Returns a partial of `read_image` for a file, else holds the bytes."""
  if isinstance(value, PILImage.Image):
    value = image_files.encode_png(value)
  if isinstance(value, bytes):
    data = value
    return lambda: data
  if not isinstance(value, str | os.PathLike):
    raise Unusable(
        q.BAD, f'an image is {type(value).__name__}, no path or data: URI'
    )
  value = os.fspath(value)
  path = os.path.join(folder, value) if len(value) <= _LONGEST_PATH else ''
  if os.path.isfile(path):
    return functools.partial(q.read_image, path)
  if value.startswith('data:') or '.' not in value:  # No base64 has a stop.
    data = q.base64_bytes(value)
    return lambda: data
  raise Unusable(q.MISSING_IMAGE, f'its image {value[:200]!r} is no file')


def _boxes(value: Any) -> tuple[Box, ...]:
  """Reads gold_regions: [[x1, y1, x2, y2], ...]."""
  try:
    return tuple(
        (float(x1), float(y1), float(x2), float(y2))
        for x1, y1, x2, y2 in value or ()
    )
  except (TypeError, ValueError) as error:
    detail = 'its "gold_regions" are no lists of four numbers'
    raise Unusable(q.BAD, detail) from error


def _read_image(path: str, start: int, index: int) -> bytes:
  """Reads an image of the line that starts at byte `start`."""
  try:
    with open(path, 'rb') as f:
      f.seek(start)
      row = json.loads(f.readline().removeprefix(b'\xef\xbb\xbf'))
    return question_of(row, os.path.dirname(path), id='').images[index]()
  except (OSError, ValueError, LookupError, Unusable) as error:
    raise UserError(f'{path} was changed while it was read') from error

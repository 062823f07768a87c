"""Questions in JSON lines that others wrote, and in those of a user's own.

A question of `jsonl:FILE` is a line with an object; a user's function gives
such objects too (see sources.py):

    id               unique; the number of the line if there is none
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
from gog_jax.types import Example

_LONGEST_PATH = 4096
_OPTIONAL = {
    'scope': (str, 'text'),
    'search_required': (bool, 'true or false'),
    'hops': (int, 'a number'),
}


def lines(
    path: str, *, found: q.QuestionSet, cap: int = q.MAX_FIELD_BYTES
) -> Iterator[tuple[str, records.Line]]:
  """Yields where each object is and its line; the others are dropped.

  Raises:
    UserError: The file cannot be read.
  """
  try:
    for line in records.json_lines(path, max_bytes=cap):
      where = f'{path}, line {line.number}'
      if isinstance(line.value, Unusable):
        found.drop(where, line.value)
      elif not isinstance(line.value, dict):
        found.drop(where, Unusable(q.BAD, 'is JSON, but no object'))
      else:
        yield where, line
  except OSError as error:
    raise UserError(
        f'{path} cannot be read ({error.strerror or error})'
    ) from error


def field(
    row: Mapping[str, Any],
    column: str,
    types: type | tuple[type, ...],
    expected: str,
) -> Any:
  """A field that has to be there, of one of these types; else a Mismatch."""
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


def read(path: str, *, cap: int = q.MAX_FIELD_BYTES) -> Loaded[Example]:
  """Reads a user's own file, see above; no image is kept in memory.

  Raises:
    UserError: The file cannot be read, or no line of it is of use.
  """
  found = q.QuestionSet(path)
  folder = os.path.dirname(path)
  for where, line in lines(path, found=found, cap=cap):
    with found.record(where):
      images = tuple(
          _LineImage(path=path, start=line.start, index=index)
          if isinstance(image, bytes)
          else image
          for index, image in enumerate(images_of(line.value, folder))
      )
      number = line.number
      found.add(question_of(line.value, images, id=str(number), where=where))
  return found.loaded()


def question_of(
    row: Mapping[str, Any], images: tuple[q.Image, ...], *, id: str, where: str
) -> q.Question:
  """What an object asks; `id` is for one that has none.

  Raises:
    Unusable: A field is missing or of another type.
  """
  text = row.get('question')
  if not isinstance(text, str):
    raise Unusable(q.NO_QUESTION, 'its "question" is no text')
  given = {}
  for name, (kind, expected) in _OPTIONAL.items():
    if (value := row.get(name)) is not None:
      if type(value) is not kind:
        raise Unusable(q.BAD, f'its {name!r} is not {expected}')
      given[name] = value
  return q.Question(
      id=str(id if row.get('id') in (None, '') else row['id']),
      text=text.strip(),
      answers=answers.forms(row.get('answers'), row.get('answer')),
      images=images,
      where=where,
      gold_regions=_boxes(row.get('gold_regions')),
      **given,
  )


def images_of(
    row: Mapping[str, Any], folder: str
) -> list[q.FileImage | bytes]:
  """The images of an object, those in files not read.

  Raises:
    Unusable: A file is not there, or an image is given in no known way.
  """
  shown = row.get('images', row.get('image'))
  if shown is None:
    return []
  return [
      _image(one, folder)
      for one in (shown if isinstance(shown, list | tuple) else [shown])
  ]


def _image(value: Any, folder: str) -> q.FileImage | bytes:
  if isinstance(value, bytes):
    return value
  if isinstance(value, PILImage.Image):
    return image_files.encode_png(value)
  if isinstance(value, os.PathLike):
    value = os.fspath(value)
  if not isinstance(value, str):
    raise Unusable(
        q.BAD, f'an image is {type(value).__name__}, no path or data: URI'
    )
  path = os.path.join(folder, value) if len(value) <= _LONGEST_PATH else ''
  if os.path.isfile(path):
    return q.FileImage(path=path)
  if value.startswith('data:') or '.' not in value:  # No base64 has a stop.
    return q.base64_bytes(value)
  raise Unusable(q.MISSING_IMAGE, f'its image {value[:200]!r} is no file')


def _boxes(value: Any) -> tuple[tuple[float, ...], ...]:
  """Of gold_regions: [[x1, y1, x2, y2], ...]."""
  try:
    boxes = tuple(tuple(map(float, box)) for box in value or ())
    if all(len(box) == 4 for box in boxes):
      return boxes
  except (TypeError, ValueError):
    pass
  raise Unusable(q.BAD, 'its "gold_regions" are no lists of four numbers')


@dataclasses.dataclass(frozen=True, kw_only=True)
class _LineImage:
  """An image within a line of a file, which starts at that byte."""

  path: str
  start: int
  index: int

  def read(self) -> bytes:
    try:
      with open(self.path, 'rb') as f:
        f.seek(self.start)
        row = json.loads(f.readline().removeprefix(b'\xef\xbb\xbf'))
      image = images_of(row, os.path.dirname(self.path))[self.index]
      assert isinstance(image, bytes)
      return image
    except (OSError, ValueError, LookupError, AssertionError) as error:
      raise UserError(f'{self.path} was changed while it was read') from error

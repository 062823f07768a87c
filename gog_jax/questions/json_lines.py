"""Questions in JSON lines: published ones, and the format for a user's own.

Each line of `jsonl:FILE` is an object with these fields; a user's function may
return such objects, too (see sources.py):

    id               unique; defaults to the line number
    question         text; `<image>` in it is left out
    answers          every accepted form, the canonical one first, or a list
                     of them in JSON; or `answer`
    images           a list, or `image`: a path in the file's folder or in
                     `questions.images`, an http(s) address, a data: URI or
                     base64, or {bytes, path} with one of them; a function may
                     give bytes or PIL images
    scope, search_required, gold_regions, hops
                     as in `types.Example`, where they are known
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
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
from gog_jax.questions.local_files import ImageFolder
from gog_jax.storage import records
from gog_jax.storage import typed
from gog_jax.storage.records import Loaded
from gog_jax.storage.records import Unusable
from gog_jax.types import Box

_LONGEST_PATH = 4096


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
  value = row.get(column)
  if column not in row or type(value) is bool or not isinstance(value, types):
    raise q.Mismatch(column, expected, row)
  return value


def read(path: str, *, images: str = '') -> Loaded[q.Question]:
  """Reads a user's own file; no image is kept in memory.

  Args:
    path: The file.
    images: A folder of images beside the file's own.

  Raises:
    UserError: The file cannot be read, or none of its lines can be used.
  """
  folder = ImageFolder(images, os.path.dirname(path) or '.')

  def question(line: records.Line) -> q.Question:
    # An image that the line itself holds is read from there again.
    return question_of(
        line.value,
        folder,
        id=str(line.number),
        held=lambda index, data: functools.partial(
            _read_image, path, line.start, index, folder
        ),
    )

  return q.load(path, lines(path), question)


@dataclasses.dataclass(frozen=True)
class _Fields:
  """Fields that are checked by their types; null is as if missing."""

  question: str | None = None
  scope: str | None = None
  search_required: bool | None = None
  hops: int | None = None


def question_of(
    row: Mapping[str, Any],
    folder: ImageFolder,
    *,
    id: str,
    held: Callable[[int, bytes], q.Image] = lambda index, data: lambda: data,
) -> q.Question:
  """The question in an object.

  Args:
    row: The object, as above.
    folder: Where the images are that it names by paths.
    id: Its id if it has none.
    held: Makes a reader of an image that the object holds, by its index.

  Raises:
    Unusable: A field is missing or has the wrong type, or an image is missing.
  """
  try:
    known = typed.read(_Fields, dict(row), ignore_unknown=True)
  except typed.FieldError as error:
    raise Unusable(q.BAD, f'its {error}') from error
  images = row.get('images') or row.get('image')
  if not isinstance(images, list | tuple):
    images = [images]
  return q.Question(
      id=str(id if row.get('id') in (None, '') else row['id']),
      question=(known.question or '').replace('<image>', '').strip(),
      answers=answers.forms(row.get('answers'), row.get('answer')),
      images=tuple(
          _image(image, folder, functools.partial(held, index))
          for index, image in enumerate(filter(None, images))
      ),
      scope=known.scope or '',
      search_required=known.search_required,
      gold_regions=_boxes(row.get('gold_regions')),
      hops=known.hops,
  )


def _image(
    value: Any, folder: ImageFolder, held: Callable[[bytes], q.Image]
) -> q.Image:
  if isinstance(value, dict):
    value = value.get('bytes') or value.get('path') or value.get('url')
  if isinstance(value, PILImage.Image):
    value = image_files.encode_png(value)
  if isinstance(value, bytes):
    return held(value)
  if not isinstance(value, str | os.PathLike):
    raise Unusable(
        q.BAD, f'an image is {type(value).__name__}, no path or data: URI'
    )
  value = os.fspath(value)
  if q.is_address(value):
    return q.Link(value)
  path = folder.by_name(value) if len(value) <= _LONGEST_PATH else None
  if path is None and (value.startswith('data:') or '.' not in value):
    return held(q.base64_bytes(value))  # No base64 has a stop.
  (found,) = q.found_image(path, folder.absent(value))
  return found


def _boxes(value: Any) -> tuple[Box, ...]:
  """Reads gold_regions, [[x1, y1, x2, y2], ...]; a function's may be arrays."""
  try:
    return tuple(
        (float(x1), float(y1), float(x2), float(y2))
        for x1, y1, x2, y2 in ([] if value is None else value)
    )
  except (TypeError, ValueError) as error:
    detail = 'its gold_regions must be lists of four numbers'
    raise Unusable(q.BAD, detail) from error


def _read_image(
    path: str, start: int, index: int, folder: ImageFolder
) -> bytes:
  """Reads an image of the line that starts at byte `start`."""
  try:
    with open(path, 'rb') as f:
      f.seek(start)
      row = json.loads(f.readline().removeprefix(b'\xef\xbb\xbf'))
    return question_of(row, folder, id='').images[index]()
  except (OSError, ValueError, LookupError, Unusable) as error:
    raise UserError(f'{path} was changed while it was read') from error

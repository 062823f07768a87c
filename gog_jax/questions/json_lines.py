"""Questions in JSON lines: published ones, and the format for a user's own.

Each line of `jsonl:FILE` is an object with these fields; a user's function may
return such objects, too (see sources.py):

    id               unique; defaults to the line number
    question         text (or problem, query, prompt), parts or messages, of
                     which the last user's counts; `<image>` keeps its place
    answers          every accepted form, the canonical one first, or a list
                     of them in JSON; or `answer`
    images           a list, or `image`: a path in the file's folder or in
                     `questions.images`, an http(s) address, a data: URI or
                     base64, or {bytes, path} with one of them; a function may
                     give bytes or PIL images
    scope, search_required, gold_regions, hops
                     as in `types.Example`, where they are known; what cannot
                     be read of these is left out, and said
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
import dataclasses
import functools
import itertools
import json
import math
import os
import re
from typing import Any

from PIL import Image as PILImage

from gog_jax import images as image_files
from gog_jax.errors import UserError
from gog_jax.questions import answers
from gog_jax.questions import questions as q
from gog_jax.questions.local_files import ImageFolder
from gog_jax.storage import metrics
from gog_jax.storage import records
from gog_jax.storage.records import Loaded
from gog_jax.storage.records import Unusable
from gog_jax.types import Box

_LONGEST_PATH = 4096
QUESTIONS = ('question', 'problem', 'query', 'prompt', 'messages')
_IMAGES = ('images', 'image', 'image_path', 'img', 'image_url', 'picture')
_ANSWERS = ('answers', 'answer', 'solution', 'ground_truth')
_said = set[str]()
_FLAGS = {
    **dict.fromkeys(('true', '1', '1.0', 'yes'), True),
    **dict.fromkeys(('false', '0', '0.0', 'no'), False),
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
  found = {name: row[name] for name in QUESTIONS if row.get(name) is not None}
  if not found:
    detail = f'has no {" or ".join(QUESTIONS)}; it has {", ".join(row)}'
    raise Unusable(q.NO_QUESTION, detail)
  images = next(filter(None, map(row.get, _IMAGES)), None)
  if not isinstance(images, list | tuple):
    images = [images]
  made = q.Question(
      id=_known(row, 'id', _text) or id,
      question=asked(*next(iter(found.items()))),
      answers=answers.forms(*map(row.get, _ANSWERS)),
      images=tuple(
          _image(image, folder, functools.partial(held, index))
          for index, image in enumerate(filter(None, images))
      ),
      scope=_known(row, 'scope', _text) or '',
      search_required=_known(row, 'search_required', _flag),
      gold_regions=_known(row, 'gold_regions', _boxes) or (),
      hops=_known(row, 'hops', _whole),
  )
  return placed(made) if made.images else made  # Else whoever adds them.


def placed(question: q.Question) -> q.Question:
  """The question without `<image>`: where these stood, if there is one for each
  image and not all are before the text."""
  parts = question.question.split('<image>')
  whole = ''.join(parts)
  text, skipped = whole.strip(), len(whole) - len(whole.lstrip())
  ends = itertools.accumulate(map(len, parts[:-1]))
  places = tuple(min(max(end - skipped, 0), len(text)) for end in ends)
  if len(places) != len(question.images) or not any(places):
    places = ()
  return dataclasses.replace(question, question=text, image_places=places)


def asked(column: str, value: Any) -> str:
  """A question: text, parts, or messages, of which the last user's counts.

  Raises:
    Unusable: It is none of these.
  """
  if isinstance(value, list | tuple) and any(
      isinstance(one, Mapping) and 'role' in one for one in value
  ):
    said = [one for one in value if one.get('role') in ('user', 'human')]
    value = said[-1].get('content') if said else ''
  parts = value if isinstance(value, list | tuple) else [value]
  texts = []
  for part in parts:
    if isinstance(part, Mapping):
      is_image = 'image' in (kind := str(part.get('type')))
      if re.search('video|audio', kind):
        raise Unusable(q.BAD, f'its {column} has a part {kind!r}')
      part = '<image>' if is_image else part.get('text', part.get('content'))
    if not isinstance(part, str | None) or '<video>' in (part or ''):
      raise Unusable(q.BAD, f'its {column} is {part!r:.60}, no text')
    texts.append(part or '')
  return ''.join(texts)


def _text(value: Any) -> str:
  """Text, or the text of a number."""
  if isinstance(value, float) and value.is_integer():
    value = int(value)
  if not isinstance(value, str | int) or value is bool(value):
    raise ValueError('not text')
  return str(value)


def _whole(value: Any) -> int:
  if float(value) != int(float(value)) or isinstance(value, bool):
    raise ValueError('not a whole number')
  return int(float(value))


def _flag(value: Any) -> bool:
  return _FLAGS[str(value).lower()]


def _known(
    row: Mapping[str, Any], name: str, read: Callable[[Any], Any]
) -> Any:
  """A field that may be missing; the first that cannot be read is said."""
  value = row.get(name)
  if value is None or isinstance(value, str) and not value:
    return None
  try:
    return read(value)
  except (TypeError, ValueError, LookupError, OverflowError):
    if name not in _said:
      metrics.say(f'questions: {name} {value!r:.60} cannot be read: left out')
    _said.add(name)
    return None


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
  value = answers.listed(value)
  if isinstance(value, list) and all(
      isinstance(edge, int | float) for edge in value
  ):
    value = [value] if value else []  # The only one.
  boxes = tuple(
      (float(x1), float(y1), float(x2), float(y2)) for x1, y1, x2, y2 in value
  )
  for x1, y1, x2, y2 in boxes:
    if not (0 <= x1 < x2 < math.inf and 0 <= y1 < y2 < math.inf):
      raise ValueError(f'{(x1, y1, x2, y2)} is no region')
  return boxes


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

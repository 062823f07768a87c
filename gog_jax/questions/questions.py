"""The questions of a data set, and the examples they become.

A reader goes through all records once, keeps their text and notes where their
images are, which are read on demand: opening a set of a gigabyte takes far less
memory.
"""

from __future__ import annotations

import base64
import collections
from collections.abc import Callable, Iterable, Mapping, Sequence
import dataclasses
import functools
from typing import Any

from gog_jax.errors import UserError
from gog_jax.storage import files
from gog_jax.storage import records as records_lib
from gog_jax.storage.records import Loaded
from gog_jax.storage.records import Mapped
from gog_jax.storage.records import Unusable
from gog_jax.types import Box
from gog_jax.types import Example

# Reasons for leaving a record out, beside those of storage/records.py.
UNREADABLE = 'unreadable file'
DAMAGED = 'damaged rows'
BAD = 'bad record'
NO_QUESTION = 'no question'
NO_ANSWER = 'no answer'
NO_IMAGE = 'no image'
MISSING_IMAGE = 'missing image'
NOT_FETCHED = 'image not fetched'
NOT_AN_IMAGE = 'not an image'

# No question, answer or photograph is larger.
MAX_FIELD_BYTES = 64 * 2**20

# Reads an image file; a UserError if it is gone. A data set's can be pickled.
Image = Callable[[], bytes]


@dataclasses.dataclass(frozen=True)
class Link:
  """An image by its address; fetched.py has those that can be read."""

  url: str

  def __call__(self) -> bytes:
    raise Unusable(NOT_FETCHED, f'{self.url} is fetched for no published set')


def is_address(name: str) -> bool:
  """Whether it is that of a web page, as far as it can be fetched."""
  return name[:8].lower().startswith(('http://', 'https://'))


@dataclasses.dataclass(frozen=True, kw_only=True)
class Question:
  """A record's text, and how to read its images.

  Attributes:
    images: In the order shown.
    where: File and record, for messages.
    scope: The data set's if ''.
    id, question, answers, search_required, gold_regions, hops, image_places: As
      in `Example`.
  """

  id: str
  question: str
  answers: tuple[str, ...]
  images: tuple[Image, ...] = ()
  where: str = ''
  scope: str = ''
  search_required: bool | None = None
  gold_regions: tuple[Box, ...] = ()
  hops: int | None = None
  image_places: tuple[int, ...] = ()

  def example(self, *, source: str, scope: str = '') -> Example:
    """Reads its images."""
    return Example(
        id=self.id,
        images=tuple(read() for read in self.images),
        question=self.question,
        answers=self.answers,
        source=source,
        scope=self.scope or scope,
        search_required=self.search_required,
        gold_regions=self.gold_regions,
        hops=self.hops,
        image_places=self.image_places,
    )


def examples(
    questions: Sequence[Question], *, source: str, scope: str = ''
) -> Sequence[Example]:
  """Questions as examples, whose images are read on access.

  Read them in order: an image in a parquet file is reached by passing over
  those before it in its row group. No more of such a file is in memory than
  Arrow unpacks at once, a page of at most 1,024 rows.
  """
  read = functools.partial(Question.example, source=source, scope=scope)
  return Mapped(questions, read)


def read_image(path: str) -> bytes:
  """Reads an image that is a file of its own."""
  advice = 'it was there when the data set was opened: put it back'
  with files.readable(path, advice), open(path, 'rb') as f:
    return f.read()


def found_image(
    path: str | None, absent: str = '', reason: str = MISSING_IMAGE
) -> tuple[Image, ...]:
  """A question's only image; Unusable, with `absent` as detail, if None."""
  if path is None:
    raise Unusable(reason, absent)
  return (functools.partial(read_image, path),)


def base64_bytes(text: str) -> bytes:
  """The bytes of base64 text, which may be a data: URI.

  Raises:
    Unusable: It is not base64.
  """
  if text.startswith('data:'):
    text = text.partition(',')[2]
  try:
    return base64.b64decode(''.join(text.split()), validate=True)
  except ValueError as error:
    raise Unusable(NOT_AN_IMAGE, f'an image is no base64 ({error})') from error


class Mismatch(Unusable):
  """A required column is missing from a record or has the wrong type."""

  def __init__(self, column: str, expected: str, row: Mapping[str, Any]):
    if column in row:
      found = type(row[column]).__name__
      detail = f'column {column!r} is {found}, expected {expected}'
    else:
      held = ', '.join(map(str, row)) or 'none'
      detail = f'has no column {column!r} ({expected}); it has {held}'
    super().__init__(BAD, detail)
    self.column = column


def check(one: Question | Example) -> None:
  """Refuses a question that cannot be asked.

  Raises:
    Unusable: It asks nothing, or has no answer or image.
  """
  if not one.question.strip():
    raise Unusable(NO_QUESTION, f'{one.id!r} asks nothing')
  if not any(form.strip() for form in one.answers):
    raise Unusable(NO_ANSWER, f'{one.id!r} has no answer')
  if not one.images:
    raise Unusable(NO_IMAGE, f'{one.id!r} has no image')


def load(
    name: str,
    records: Iterable[tuple[str, Any]],
    question_of: Callable[[Any], Question | None],
) -> Loaded[Question]:
  """Turns the records of a data set into questions.

  Args:
    name: The data set's, for messages.
    records: Pairs of a place and a record, or an Unusable for a damaged one.
    question_of: Turns a record into a question or raises Unusable; returns None
      to skip a record that is not part of the set.

  Raises:
    UserError: A column is missing or has the wrong type in every record, or no
      question is left.
  """
  lacking = collections.defaultdict[str, dict[str, Mismatch]](dict)

  def made(placed: tuple[str, Any]) -> Question | None:
    where, record = placed
    try:
      if isinstance(record, Unusable):
        raise record
      question = question_of(record)
    except Mismatch as error:
      lacking[error.column][where] = error
      raise
    if question is None:
      return None
    check(question)
    return dataclasses.replace(question, where=where)

  found = records_lib.sift(
      name,
      ((where, (where, record)) for where, record in records),
      made,
      id_of=lambda question: question.id,
  )
  seen = {one.where for one in (*found.items, *found.drops)}
  for mismatches in lacking.values():
    if len(mismatches) == len(seen):
      where, error = next(iter(mismatches.items()))
      raise UserError(
          f'{where}: {error} - as in all {len(seen)} records: '
          f'this is no version of {name} that is known'
      )
  return found.required()

"""Questions as files hold them -> examples, whose images are read when asked.

A reader looks at every record once, keeps what it says, and notes where its
images are: opening a set of a gigabyte takes no gigabyte.
"""

from __future__ import annotations

import base64
import collections
from collections.abc import Iterator, Sequence
import contextlib
import dataclasses
from typing import Protocol

from gog_jax.errors import UserError
from gog_jax.storage.records import Drop
from gog_jax.storage.records import Lazy
from gog_jax.storage.records import Loaded
from gog_jax.storage.records import Unusable
from gog_jax.types import Box
from gog_jax.types import Example

# What is wrong, in the words under which it is counted; and those of records.
UNREADABLE = 'unreadable file'
DAMAGED = 'damaged rows'
BAD = 'bad record'
NO_QUESTION = 'no question'
NO_ANSWER = 'no answer'
NO_IMAGE = 'no image'
MISSING_IMAGE = 'missing image'
NOT_AN_IMAGE = 'not an image'
DUPLICATE = 'duplicate id'

# No question, answer or photograph is larger.
MAX_FIELD_BYTES = 64 * 2**20


class Image(Protocol):
  """Where an encoded image is."""

  def read(self) -> bytes:
    """The image file; a UserError if it is gone."""
    ...


@dataclasses.dataclass(frozen=True, kw_only=True)
class FileImage:
  """An image that is a file of its own."""

  path: str

  def read(self) -> bytes:
    try:
      with open(self.path, 'rb') as f:
        return f.read()
    except OSError as error:
      raise UserError(
          f'{self.path} cannot be read ({error.strerror or error}); it was '
          'there when the data set was opened: put it back'
      ) from error


def found_image(path: str | None, absent: str) -> tuple[FileImage, ...]:
  """The one image of a question; Unusable, for that reason, if it is absent."""
  if path is None:
    raise Unusable(MISSING_IMAGE, absent)
  return (FileImage(path=path),)


def base64_bytes(text: str) -> bytes:
  """The bytes of base64 text, which may be a data: URI.

  Raises:
    Unusable: It is no base64.
  """
  if text.startswith('data:'):
    text = text.partition(',')[2]
  try:
    return base64.b64decode(''.join(text.split()), validate=True)
  except ValueError as error:
    raise Unusable(NOT_AN_IMAGE, f'an image is no base64 ({error})') from error


@dataclasses.dataclass(frozen=True, kw_only=True)
class HeldImage:
  """An image that is in memory."""

  data: bytes

  def read(self) -> bytes:
    return self.data


@dataclasses.dataclass(frozen=True, kw_only=True)
class Question:
  """What a record says, and where its images are; other fields as in Example.

  Attributes:
    text: The question, plain.
    images: In the order shown.
    where: File and record, for messages.
    scope: '' is the data set's.
  """

  id: str
  text: str
  answers: tuple[str, ...]
  images: tuple[Image, ...] = ()
  where: str = ''
  scope: str = ''
  search_required: bool | None = None
  gold_regions: tuple[Box, ...] = ()
  hops: int | None = None

  def example(self, *, source: str, scope: str = '') -> Example:
    """Reads its images."""
    return Example(
        id=self.id,
        images=tuple(image.read() for image in self.images),
        question=self.text,
        answers=self.answers,
        source=source,
        scope=self.scope or scope,
        search_required=self.search_required,
        gold_regions=self.gold_regions,
        hops=self.hops,
    )


@dataclasses.dataclass(frozen=True, eq=False)
class Examples(Lazy[Example]):
  """Questions as examples; each reads its images when it is asked for.

  Reading in order is fast: an image of a parquet file is reached through those
  before it in its row group. No more of such a file is in memory than Arrow
  unpacks at once, a page of at most 1,024 rows.
  """

  questions: Sequence[Question]
  source: str
  scope: str = ''

  def __len__(self) -> int:
    return len(self.questions)

  def item(self, index: int) -> Example:
    question = self.questions[index]
    return question.example(source=self.source, scope=self.scope)


class Found(Loaded[Example]):
  """What was read of a data set, its questions not yet with their images."""

  items: Examples


class Mismatch(Unusable):
  """A record without a column that it must have, or with another type in it."""

  def __init__(self, column: str, detail: str):
    super().__init__(BAD, detail)
    self.column = column


class QuestionSet:
  """The questions of a data set as they are read, and what is left out.

  Attributes:
    name: The data set's, for messages.
  """

  def __init__(self, name: str):
    self.name = name
    self._questions: dict[str, Question] = {}
    self._drops: list[Drop] = []
    self._drifts: dict[str, list[Drop]] = collections.defaultdict(list)

  @contextlib.contextmanager
  def record(self, where: str) -> Iterator[None]:
    """Leaves out the record that raises Unusable within."""
    try:
      yield
    except Unusable as error:
      self.drop(where, error)

  def drop(self, where: str, error: Unusable) -> None:
    self._drops.append(drop := Drop.of(where, error))
    if isinstance(error, Mismatch):
      self._drifts[error.column].append(drop)

  def add(self, question: Question) -> None:
    """Takes a question in.

    Raises:
      Unusable: It asks nothing, has no answer or image, or its id is taken.
    """
    id, first = question.id, self._questions.get(question.id)
    if first is not None:
      raise Unusable(
          DUPLICATE,
          f'its id {id!r} is that of {first.where} too; the first is kept',
      )
    if not question.text:
      raise Unusable(NO_QUESTION, f'{id!r} asks nothing')
    if not question.answers:
      raise Unusable(NO_ANSWER, f'{id!r} has no answer')
    if not question.images:
      raise Unusable(NO_IMAGE, f'{id!r} has no image')
    self._questions[id] = question

  def drifted(self, first: object, n: int) -> UserError:
    """What to raise where all `n` records lack a column; `first` is a drop."""
    return UserError(
        f'{first} - as in all {n} records: this is no version of {self.name} '
        'that is known'
    )

  def loaded(self, *, scope: str = '') -> Found:
    """What was read.

    Raises:
      UserError: A column is missing, or of another type, in every record; or
        nothing is left.
    """
    n = len(self._questions) + len(self._drops)
    for drops in self._drifts.values():
      if len(drops) == n:
        raise self.drifted(drops[0], n)
    if not self._questions:
      first = f', first {self._drops[0]}' if self._drops else ''
      raise UserError(
          f'{self.name}: nothing that can be asked was found'
          f' ({len(self._drops)} left out{first})'
      )
    return Found(
        name=self.name,
        items=Examples(
            tuple(self._questions.values()), source=self.name, scope=scope
        ),
        drops=tuple(self._drops),
    )

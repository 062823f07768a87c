"""Questions as files hold them -> examples, whose images are read when asked.

A reader looks at every record once, keeps what is said of it, and notes where
its images are: opening a set of a gigabyte takes no gigabyte.
"""

from __future__ import annotations

import collections
from collections.abc import Sequence
import dataclasses
from typing import overload, Protocol

from gog_jax.errors import UserError
from gog_jax.questions.records import Drop
from gog_jax.questions.records import Records
from gog_jax.types import Example

# What is wrong, in the words under which it is counted.
UNREADABLE = 'unreadable file'
DAMAGED = 'damaged rows'
BAD = 'bad record'
TOO_LARGE = 'field too large'
NO_QUESTION = 'no question'
NO_ANSWER = 'no answer'
NO_IMAGE = 'no image'
MISSING_IMAGE = 'missing image'
NOT_AN_IMAGE = 'not an image'
DUPLICATE = 'duplicate id'

# No question, answer or photograph is larger; what is belongs to no such file.
MAX_FIELD_BYTES = 64 * 2**20


class Image(Protocol):
  """Where an encoded image is."""

  def read(self) -> bytes:
    """The image file.

    Raises:
      UserError: It is there no more, or cannot be read.
    """
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


@dataclasses.dataclass(frozen=True, kw_only=True)
class Question:
  """What a record says, and where its images are.

  Attributes:
    id: Unique within its data set.
    text: The question, plain.
    answers: Every accepted form; the first is the canonical one.
    images: In the order shown.
    where: File and record, for messages.
    search_required: As in Example.
  """

  id: str
  text: str
  answers: tuple[str, ...]
  images: tuple[Image, ...]
  where: str
  search_required: bool | None = None


class Examples(Sequence[Example]):
  """Questions as examples; each reads its images when it is asked for.

  In order is the quick way through: an image of a parquet file is reached
  through those before it in its row group. No more of such a file is in memory
  than Arrow unpacks at once, a page of at most 1,024 rows.
  """

  def __init__(
      self, questions: Sequence[Question], *, source: str, scope: str = ''
  ):
    self.questions = tuple(questions)
    self.source = source
    self.scope = scope

  def __len__(self) -> int:
    return len(self.questions)

  @overload
  def __getitem__(self, index: int) -> Example: ...

  @overload
  def __getitem__(self, index: slice) -> Examples: ...

  def __getitem__(self, index: int | slice) -> Example | Examples:
    if isinstance(index, slice):
      return Examples(
          self.questions[index], source=self.source, scope=self.scope
      )
    question = self.questions[index]
    return Example(
        id=question.id,
        images=tuple(image.read() for image in question.images),
        question=question.text,
        answers=question.answers,
        source=self.source,
        scope=self.scope,
        search_required=question.search_required,
    )


class Mismatch(Exception):
  """A record without a column that it must have, or with another kind in it.

  Attributes:
    column: Its name.
  """

  def __init__(self, column: str, message: str):
    super().__init__(message)
    self.column = column


class Gathering:
  """Questions as they are read, and what is left out."""

  def __init__(self, name: str):
    """`name` is the data set's, for messages."""
    self.name = name
    self._questions: dict[str, Question] = {}
    self._drops: list[Drop] = []
    self._n_rows = 0
    self._drifts: collections.Counter[str] = collections.Counter()
    self._first: dict[str, str] = {}

  def drop(self, where: str, reason: str, detail: str) -> None:
    """Leaves a record out, or a file."""
    self._n_rows += 1
    self._drops.append(Drop(where=where, reason=reason, detail=detail))

  def mismatch(self, where: str, error: Mismatch) -> None:
    """A record that does not have the form of the others; or none has it."""
    self._drifts[error.column] += 1
    self._first.setdefault(error.column, f'{where}: {error}')
    self.drop(where, BAD, str(error))

  def drifted(self, first: str, n: int) -> UserError:
    """What to raise where all `n` records lack a column; `first` says how."""
    return UserError(
        f'{first} - as in all {n} records: this is no version of {self.name} '
        'that is known'
    )

  def add(self, question: Question) -> None:
    """Takes a question in, unless it is of no use."""
    where = question.where
    first = self._questions.get(question.id)
    if first is not None:
      self.drop(
          where,
          DUPLICATE,
          f'its id {question.id!r} is that of {first.where} too; the first '
          'is kept',
      )
    elif not question.text:
      self.drop(where, NO_QUESTION, f'{question.id!r} asks nothing')
    elif not question.answers:
      self.drop(where, NO_ANSWER, f'{question.id!r} has no answer')
    elif not question.images:
      self.drop(where, NO_IMAGE, f'{question.id!r} has no image')
    else:
      self._n_rows += 1
      self._questions[question.id] = question

  def records(self, *, scope: str = '') -> Records[Example]:
    """What was gathered.

    Raises:
      UserError: A column is missing, or of another kind, in every record; or
        nothing is left.
    """
    for column, n in self._drifts.items():
      if n == self._n_rows:
        raise self.drifted(self._first[column], n)
    if not self._questions:
      first = f', first {self._drops[0]}' if self._drops else ''
      raise UserError(
          f'{self.name}: nothing that can be asked was found'
          f' ({len(self._drops)} left out{first})'
      )
    return Records(
        name=self.name,
        items=Examples(
            tuple(self._questions.values()), source=self.name, scope=scope
        ),
        drops=tuple(self._drops),
    )

"""Records that others wrote: those of use, why the others are not, and a
sequence that reads them one at a time.

Real data sets have records without an image, ids that occur twice, lines cut
off. None of these stops the rest; each is counted and reported in one line.
"""

from __future__ import annotations

import abc
import collections
from collections.abc import Callable, Iterable, Iterator, Sequence
import dataclasses
import json
import os
from typing import Any, Generic, TypeVar

from etils import epath

from gog_jax.errors import UserError
from gog_jax.storage import files

T = TypeVar('T')

TOO_LARGE = 'too large'
NOT_JSON = 'not JSON'
DUPLICATE = 'duplicate id'
_SKIP = 2**20  # Bytes read at a time of a line that is too long.


class NothingOfUse(UserError):
  """No record is left; `drops` are those that were left out."""

  def __init__(self, message: str, drops: Sequence[Drop]):
    super().__init__(message)
    self.drops = drops


class Unusable(Exception):
  """A record that nothing can be made of.

  Attributes:
    reason: The few words under which it is counted, e.g. 'no image'.
    detail: One line for people.
  """

  def __init__(self, reason: str, detail: str = ''):
    super().__init__(detail or reason)
    self.reason, self.detail = reason, detail or reason


@dataclasses.dataclass(frozen=True, kw_only=True)
class Drop:
  """A record that was left out.

  Attributes:
    where: Where it stands, e.g. 'a.parquet, row 12'.
    reason: That of `Unusable`.
    detail: Likewise.
  """

  where: str
  reason: str
  detail: str

  def __str__(self) -> str:
    return f'{self.where}: {self.detail}'


@dataclasses.dataclass(frozen=True, kw_only=True)
class Loaded(Generic[T]):
  """What was read from `name`, in its order, and what was left out."""

  name: str
  items: Sequence[T]
  drops: tuple[Drop, ...] = ()

  def reasons(self) -> dict[str, int]:
    """How many were left out, by reason, the commonest first."""
    return dict(
        collections.Counter(drop.reason for drop in self.drops).most_common()
    )

  def required(self) -> Loaded[T]:
    """Itself, unless nothing is left.

    Raises:
      NothingOfUse: Says why the first was left out.
    """
    if not self.items:
      n = len(self.drops)
      why = f', {n} dropped, first {self.drops[0]}' if n else ''
      message = f'{self.name} holds nothing of use{why}'
      raise NothingOfUse(message, self.drops)
    return self


def sift(
    name: str,
    records: Iterable[tuple[str, Any]],
    make: Callable[[Any], T | None],
    *,
    id_of: Callable[[T], str] | None = None,
    drops: Iterable[Drop] = (),
    most: int | None = None,
) -> Loaded[T]:
  """Makes an item of each record; drops those that are unusable.

  Args:
    name: Where the records are from.
    records: Each with its place, for messages.
    make: Raises Unusable; returns None to skip a record without a drop.
    id_of: Of items with the same id the first is kept.
    drops: What was dropped before.
    most: The number of items after which to stop.
  """
  items: list[T] = []
  dropped = list(drops)
  places: dict[str, str] = {}
  for where, record in records:
    try:
      item = make(record)
      if item is None:
        continue
      if id_of is not None:
        id = id_of(item)
        if id in places:
          detail = f'its id {id!r} is that of {places[id]} too'
          raise Unusable(DUPLICATE, f'{detail}; the first is kept')
        places[id] = where
      items.append(item)
      if len(items) == most:
        break
    except Unusable as error:
      dropped.append(
          Drop(where=where, reason=error.reason, detail=error.detail)
      )
  return Loaded(name=name, items=items, drops=tuple(dropped))


class Lazy(Sequence[T]):
  """A sequence whose items are read when asked for; slices are lists."""

  @abc.abstractmethod
  def item(self, index: int) -> T:
    """Reads one; `index` is in [0, len)."""

  def __getitem__(self, index: Any) -> Any:
    if isinstance(index, slice):
      return [self.item(i) for i in range(len(self))[index]]
    return self.item(range(len(self))[index])


class Mapped(Lazy[T]):
  """What `make` makes of each item, made when it is asked for."""

  def __init__(self, items: Sequence[Any], make: Callable[[Any], T]):
    self._items, self._make = items, make

  def __len__(self) -> int:
    return len(self._items)

  def item(self, index: int) -> T:
    return self._make(self._items[index])


@dataclasses.dataclass(frozen=True)
class Line:
  """A line of JSON: from 1, its first byte, and its value or what is wrong."""

  number: int
  start: int
  value: Any


def json_lines(
    path: str | os.PathLike[str], *, max_bytes: int, advice: str = ''
) -> Iterator[Line]:
  """Yields the lines that are not blank, each an Unusable if it cannot be read.

  Args:
    path: The file.
    max_bytes: Of a longer line no more are held.
    advice: What to do where it cannot be read.

  Raises:
    UserError: The file cannot be read.
  """
  with files.readable(path, advice), epath.Path(path).open('rb') as f:
    start = number = 0
    while line := f.readline(max_bytes + 1):
      number += 1
      size = len(line)
      if size > max_bytes:
        while line and not line.endswith(b'\n'):
          line = f.readline(_SKIP)
          size += len(line)
        detail = f'has {size} bytes, over the {max_bytes} that are read'
        yield Line(number, start, Unusable(TOO_LARGE, detail))
      elif number == 1 and line[:2] in (b'\xff\xfe', b'\xfe\xff'):
        files.text_of(line)  # Says what it is, once.
      elif text := line.removeprefix(b'\xef\xbb\xbf').strip():
        yield Line(number, start, parse(text))
      start += size


def parse(line: bytes) -> Any:
  """The value of a line of JSON, or an Unusable."""
  try:
    return json.loads(line.decode())
  except UnicodeDecodeError as error:
    return Unusable(NOT_JSON, f'is not UTF-8 ({error.reason})')
  except (ValueError, RecursionError) as error:
    return Unusable(NOT_JSON, f'is not JSON ({error})')

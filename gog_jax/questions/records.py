"""What files that others wrote hold: the records of use, and the others.

Real data sets have records without an image, ids that occur twice, lines cut
off. None of these stops what is made of the rest; each is counted, and said in
one line.
"""

from __future__ import annotations

import collections
from collections.abc import Sequence
import dataclasses
from typing import Generic, TypeVar

T = TypeVar('T')


@dataclasses.dataclass(frozen=True, kw_only=True)
class Drop:
  """A record that is of no use.

  Attributes:
    where: File and record, e.g. 'train.parquet, row 12'.
    reason: What is wrong, in the few words under which it is counted, e.g.
      'no image'.
    detail: The one line that people are shown, beside `where`.
  """

  where: str
  reason: str
  detail: str

  def __str__(self) -> str:
    return f'{self.where}: {self.detail}'


@dataclasses.dataclass(frozen=True, kw_only=True)
class Records(Generic[T]):
  """The records of one source, in its order.

  Attributes:
    name: Of the source, for messages.
    items: Random access; may be read from disk as they are asked for.
    drops: What was left out.
  """

  name: str
  items: Sequence[T]
  drops: tuple[Drop, ...] = ()

  def reasons(self) -> dict[str, int]:
    """How many were left out, by reason, the commonest first."""
    return dict(
        collections.Counter(drop.reason for drop in self.drops).most_common()
    )

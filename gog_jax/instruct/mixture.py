"""Which of the samples that passed make the set."""

from __future__ import annotations

import collections
from collections.abc import Sequence

NO_SEARCH, SEARCH = 'no_search', 'search'


def sizes(n: int, no_search: float) -> dict[str, int]:
  """How many of each kind make a set of `n`: the share, exact to one."""
  n_no_search = round(no_search * n)
  return {NO_SEARCH: n_no_search, SEARCH: n - n_no_search}


def choose(kinds: Sequence[str], *, n: int, no_search: float) -> list[int]:
  """The largest set of this share, of at most `n`: the first of each kind.

  Returns:
    Their indices, in order.
  """
  held = collections.Counter(kinds)
  while any(
      needed > held[kind] for kind, needed in sizes(n, no_search).items()
  ):
    n -= 1
  left = sizes(n, no_search)
  chosen = []
  for index, kind in enumerate(kinds):
    if left[kind]:
      left[kind] -= 1
      chosen.append(index)
  return chosen

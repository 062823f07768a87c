"""Which of the samples that passed make the set."""

from __future__ import annotations

from collections.abc import Sequence

NO_SEARCH, SEARCH = 'no_search', 'search'


def sizes(n: int, no_search: float) -> dict[str, int]:
  """How many of each kind make a set of `n`: the share, exact to one."""
  n_no_search = round(no_search * n)
  return {NO_SEARCH: n_no_search, SEARCH: n - n_no_search}


def most(kinds: Sequence[str], *, n: int, no_search: float) -> int:
  """The largest set, of `n` at most, that these kinds can fill."""
  held = {kind: kinds.count(kind) for kind in (NO_SEARCH, SEARCH)}
  while n and any(
      needed > held[kind] for kind, needed in sizes(n, no_search).items()
  ):
    n -= 1
  return n


def choose(kinds: Sequence[str], *, n: int, no_search: float) -> list[int]:
  """The first of each kind, in their own order; there have to be enough."""
  left = sizes(n, no_search)
  chosen = []
  for index, kind in enumerate(kinds):
    if left[kind]:
      left[kind] -= 1
      chosen.append(index)
  if any(left.values()):
    raise ValueError(f'{left} are missing from a set of {n}')
  return chosen

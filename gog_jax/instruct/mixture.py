"""Chooses the samples of a set: a share of each kind, or as they come."""

from __future__ import annotations

import collections
from collections.abc import Sequence

NO_SEARCH, SEARCH = 'no_search', 'search'
AS_IT_COMES = -1.0  # In place of the share.


def sizes(n: int, no_search: float) -> dict[str, int]:
  """How many of each kind a set of `n` has; the share is exact to one.

  Empty where the kinds are taken as they come.
  """
  if no_search == AS_IT_COMES:
    return {}
  n_no_search = round(no_search * n)
  return {NO_SEARCH: n_no_search, SEARCH: n - n_no_search}


def choose(kinds: Sequence[str], *, n: int, no_search: float) -> list[int]:
  """Chooses the first samples of each kind, as many as keep the share.

  Args:
    kinds: Of all samples.
    n: The most to choose.
    no_search: The share of those that do not search, or AS_IT_COMES.

  Returns:
    The indices of the chosen samples, in order.
  """
  if no_search == AS_IT_COMES:
    return list(range(min(n, len(kinds))))
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

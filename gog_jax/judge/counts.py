"""What is counted of a judge: whom it was asked about, and what came of it."""

from __future__ import annotations

import collections
from collections.abc import Mapping
from typing import Any

from gog_jax.tools.counts import listed

_FAILURE = 'failures/'


class JudgeCounts:
  """Totals of one judge.

  Each answer is one of: `exact_match`, `empty` and `too_long`, about which
  nobody is asked; `same`, as another one of its batch; `cached`; and `asked`.
  Of those asked, `failed` got no verdict, and `failures` says why. `requests`
  were sent, which took `prompt_tokens` and `completion_tokens` where the
  endpoint says so, and `price` US dollars.
  """

  def __init__(self):
    self._totals: dict[str, float] = collections.defaultdict(int)
    self._taken: dict[str, float] = {}

  def add(self, what: str, value: float = 1) -> None:
    self._totals[what] += value

  def add_failure(self, reason: str) -> None:
    self.add('failed')
    self.add(_FAILURE + reason)

  def __getitem__(self, what: str) -> float:
    return self._totals[what]

  def totals(self) -> dict[str, Any]:
    """All since it was made; what is zero is left out."""
    return _nested(self._totals)

  def take(self) -> dict[str, Any]:
    """All since the last time; what is zero is left out."""
    taken, self._taken = self._taken, dict(self._totals)
    return _nested({k: v - taken.get(k, 0) for k, v in self._taken.items()})

  def commonest_failure(self) -> str:
    failures = self.totals()['failures']
    return max(failures, key=failures.get)


def describe(counts: Mapping[str, Any]) -> str:
  """What `take` gave, in one line; empty where nothing was judged."""
  parts = listed(
      counts,
      asked='asked about',
      failed='failed',
      cached='known already',
      same='the same as another',
      exact_match='exact matches',
      empty='empty',
      too_long='too long',
  )
  return ', '.join(parts)


def _nested(totals: Mapping[str, float]) -> dict[str, Any]:
  counts: dict[str, Any] = {}
  for what, value in totals.items():
    if value and what.startswith(_FAILURE):
      failures = counts.setdefault('failures', {})
      failures[what.removeprefix(_FAILURE)] = value
    elif value:
      counts[what] = value
  return counts

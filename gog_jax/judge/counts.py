"""What is counted of a judge: whom it was asked about, and what came of it."""

from __future__ import annotations

import collections
from collections.abc import Mapping
from typing import Any


class JudgeCounts:
  """Totals of one judge.

  Each answer is one of: `exact_match`, `empty` and `too_long`, about which
  nobody is asked; `same`, as another one of its batch; `cached`; and `asked`.
  Of those asked, `failed` got no verdict, and `failures` says why. `requests`
  were sent, which took `prompt_tokens` and `completion_tokens` where the
  endpoint says so, and `price` US dollars.
  """

  def __init__(self):
    self._totals = collections.Counter[str]()
    self._failures = collections.Counter[str]()
    self._taken = self._totals.copy(), self._failures.copy()

  def add(self, what: str, value: float = 1) -> None:
    self._totals[what] += value  # type: ignore[assignment]

  def add_failure(self, reason: str) -> None:
    self.add('failed')
    self._failures[reason] += 1

  def __getitem__(self, what: str) -> float:
    return self._totals[what]

  def totals(self) -> dict[str, Any]:
    """All since it was made; what is zero is left out."""
    return _nested(self._totals, self._failures)

  def take(self) -> dict[str, Any]:
    """All since the last time; what is zero is left out."""
    new = self._totals.copy(), self._failures.copy()
    for counter, taken in zip(new, self._taken, strict=True):
      counter.subtract(taken)
    self._taken = self._totals.copy(), self._failures.copy()
    return _nested(*new)

  def commonest_failure(self) -> str:
    return self._failures.most_common(1)[0][0]


def describe(counts: Mapping[str, Any]) -> str:
  """What `take` gave, in one line; empty where nothing was judged."""
  parts = [
      f'{counts[what]:.0f} {words}'
      for what, words in (
          ('asked', 'asked about'),
          ('failed', 'failed'),
          ('cached', 'known already'),
          ('same', 'the same as another'),
          ('exact_match', 'exact matches'),
          ('empty', 'empty'),
          ('too_long', 'too long'),
      )
      if counts.get(what)
  ]
  if price := counts.get('price'):
    parts.append(f'${price:.4f} spent')
  return ', '.join(parts)


def _nested(
    totals: Mapping[str, float], failures: Mapping[str, int]
) -> dict[str, Any]:
  counts: dict[str, Any] = {k: v for k, v in totals.items() if v}
  if reasons := {k: v for k, v in failures.items() if v}:
    counts['failures'] = reasons
  return counts

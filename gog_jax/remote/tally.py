"""Counts of requests: over a whole run, and since somebody last looked."""

from __future__ import annotations

import collections
from collections.abc import Mapping
from typing import Any


class Tally:
  """Sums by name; a name 'a/b' belongs to the group 'a'."""

  def __init__(self):
    self._totals: dict[str, float] = {}
    self._taken: dict[str, float] = {}

  def add(self, name: str, value: float = 1) -> None:
    self._totals[name] = self[name] + value

  def __getitem__(self, name: str) -> float:
    return self._totals.get(name, 0)

  def totals(self) -> dict[str, float]:
    """All sums that are not zero; any other is 0 when asked for."""
    sums = {name: value for name, value in self._totals.items() if value}
    return collections.defaultdict(int, sums)

  def take(self) -> dict[str, Any]:
    """What was added since the last time, with a dict for each group."""
    taken: dict[str, Any] = {}
    totals = dict(self._totals)  # Calls under way may add to it.
    for name, value in totals.items():
      if new := value - self._taken.get(name, 0):
        group, _, what = name.partition('/')
        if what:
          taken.setdefault(group, {})[what] = new
        else:
          taken[name] = new
    self._taken = totals
    return taken


def listed(counts: Mapping[str, float], **words: str) -> list[str]:
  """Counts that are not zero, by their `words`, and what was spent."""
  parts = [
      f'{counts[what]:.0f} {said}'
      for what, said in words.items()
      if counts.get(what)
  ]
  if price := counts.get('price'):
    parts.append(f'${price:.4f} spent')
  return parts

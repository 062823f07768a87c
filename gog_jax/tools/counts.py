"""What is counted of tool calls: their fates, retries, seconds and dollars."""

from __future__ import annotations

import collections
from collections.abc import Iterable, Mapping

import numpy as np

from gog_jax.types import ToolStatus

# What calls to tools that do not exist are counted under: policies invent
# names without end.
UNKNOWN = 'unknown'

_WHAT = (
    *(status.value for status in ToolStatus),
    'cancelled',
    'retries',
    'cached',
    'replayed',
    'searches',
    'seconds',
    'price',
)
_QUANTILES = {'latency_p50_s': 0.5, 'latency_p95_s': 0.95}


class ToolCounts:
  """Totals by tool, which several executors may share.

  Of each tool: `ok`, `model_error`, `infra_error` and `cancelled` add up to the
  calls; `retries` are attempts after a search's first; `cached` and `replayed`
  are calls that were answered without a search of their own; `searches` are
  sub-queries that came back, wherever from; `seconds` wall time including the
  wait for a turn; `price` US dollars that were really spent. Calls to tools
  that do not exist are those of 'unknown'.
  """

  def __init__(self):
    # By 'tool/what'.
    self._totals: dict[str, float] = collections.defaultdict(int)
    self._latencies: dict[str, list[float]] = {}
    self._taken: dict[str, float] = {}

  def expect(self, tools: Iterable[str]) -> None:
    """Tools that are listed even if they are never called."""
    for tool in tools:
      for what in _WHAT:
        self.add(tool, what, 0)

  def add(self, tool: str, what: str, value: float = 1) -> None:
    self._totals[f'{tool}/{what}'] += value

  def add_latency(self, tool: str, seconds: float) -> None:
    """The seconds that one call took."""
    self.add(tool, 'seconds', seconds)
    self._latencies.setdefault(tool, []).append(seconds)

  def totals(self) -> dict[str, float]:
    """All since it was made, as 'tool/what'."""
    return dict(self._totals)

  def take(self) -> dict[str, dict[str, float]]:
    """Of each tool that was called since the last time, what is not zero.

    With the quantiles `latency_p50_s` and `latency_p95_s` of its calls, and
    all tools together as 'all'.
    """
    totals = self.totals()
    taken: dict[str, dict[str, float]] = {}
    for name, value in totals.items():
      if new := value - self._taken.get(name, 0):
        tool, _, what = name.partition('/')
        taken.setdefault(tool, {})[what] = new
        if tool != UNKNOWN:
          every = taken.setdefault('all', {})
          every[what] = every.get(what, 0) + new
    self._taken = totals
    everything = [
        s
        for tool, latencies in self._latencies.items()
        if tool != UNKNOWN
        for s in latencies
    ]
    for tool, seconds in {**self._latencies, 'all': everything}.items():
      if seconds and tool in taken:
        for what, share in _QUANTILES.items():
          taken[tool][what] = float(np.quantile(seconds, share))
    self._latencies = {}
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


def trouble(counts: Mapping[str, float]) -> str:
  """What went otherwise with calls than one search each; empty if nothing.

  Args:
    counts: Of one tool, or of all, as `ToolCounts.take` gives them.
  """
  parts = listed(
      counts,
      infra_error='failed',
      retries='attempts anew',
      cached='answers at hand',
      replayed='replayed',
  )
  if not parts:
    return ''
  slow = f'95 % within {counts.get("latency_p95_s", 0.0):.2f} s'
  return ', '.join([f'{counts.get("searches", 0):.0f} searches', *parts, slow])

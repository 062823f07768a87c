"""Counts of tool calls: how they ended, retries, seconds and dollars."""

from __future__ import annotations

import collections
from collections.abc import Mapping
from typing import Any

import numpy as np

from gog_jax.remote.tally import listed
from gog_jax.remote.tally import Tally

# What calls of tools that do not exist are counted under: policies invent
# names without end.
UNKNOWN = 'unknown'
_ALL = 'all'


class ToolCounts(Tally):
  """Sums by 'tool/what', which several executors may share.

  For each tool, `ok`, `model_error`, `infra_error` and `cancelled` add up to
  its calls; `retries` are attempts after a call's first; `cached` and
  `replayed` are calls that were answered without a search of their own;
  `searches` are those that came back, wherever from; `seconds` is wall time
  including the wait for a slot; `price` is in US dollars that were spent.
  """

  def __init__(self):
    super().__init__()
    self._latencies: dict[str, list[float]] = collections.defaultdict(list)

  def add_latency(self, tool: str, seconds: float) -> None:
    """The seconds that one call took."""
    self.add(f'{tool}/seconds', seconds)
    self._latencies[tool].append(seconds)
    if tool != UNKNOWN:
      self._latencies[_ALL].append(seconds)

  def take(self) -> dict[str, Any]:
    """What was added since the last time, by tool.

    With the quantiles `latency_p50_s` and `latency_p95_s` of the calls; the
    tools that exist together are 'all'.
    """
    taken = super().take()
    every: dict[str, float] = collections.defaultdict(int)
    for tool, counts in taken.items():
      for what, value in counts.items() if tool != UNKNOWN else ():
        every[what] += value
    if every:
      taken[_ALL] = dict(every)
    for tool, seconds in self._latencies.items():
      for percent in (50, 95):
        quantile = float(np.quantile(seconds, percent / 100))
        taken[tool][f'latency_p{percent}_s'] = quantile
    self._latencies.clear()
    return taken


def trouble(counts: Mapping[str, float]) -> str:
  """How calls differed from one search each; empty where they did not.

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

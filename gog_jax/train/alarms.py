"""Alarms: signs that RL goes wrong, from the metrics of its last steps."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

# Metric, whether the bound is its least or its most, and what it means.
_SIGNS = {
    'sampler_gap_p99': ('most', 'what samples is not the policy in training'),
    'kl': ('most', 'the policy has left the SFT policy far behind'),
    'entropy': ('least', 'the policy says the same in every rollout'),
    'live_groups': ('least', 'hardly a group has anything to learn from'),
    'no_search': ('most', 'the policy has stopped to search'),
    'format': ('least', 'most trajectories are malformed'),
    'sampled_tokens': ('least', 'trajectories have become very short'),
}
METRICS = tuple(_SIGNS)


def raised(
    rows: Sequence[Mapping[str, Any]],
    *,
    bounds: Mapping[str, float],
    patience: int,
) -> dict[str, str]:
  """Which bounds each of the last `patience` steps has overstepped.

  Args:
    rows: Metrics of all steps so far.
    bounds: Metric (of METRICS) to its bound; others are not looked at.
    patience: A sign has to last for so many steps.

  Returns:
    Metric to one line of explanation.
  """
  recent = rows[-patience:]
  if len(recent) < patience:
    return {}
  found = {}
  for metric, bound in bounds.items():
    kind, meaning = _SIGNS[metric]
    values = [row[metric] for row in recent if metric in row]
    over = [
        # What is not a number is over any bound.
        not (value <= bound if kind == 'most' else value >= bound)
        for value in values
    ]
    if len(over) == patience and all(over):
      found[metric] = (
          f'{meaning}: {metric} is {values[-1]:.3g}, at {kind} {bound:g} is '
          'expected'
      )
  return found

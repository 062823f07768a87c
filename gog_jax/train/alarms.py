"""Alarms: signs that RL goes wrong, from the metrics of its last steps."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from gog_jax.config.training import AlarmsConfig
from gog_jax.errors import UserError
from gog_jax.storage.metrics import say

# Metric, whether the bound is its least or its most, and what it means.
SIGNS = {
    'sampler_gap_p99': ('most', 'the sampler is not the policy in training'),
    'kl': ('most', 'the policy is far from the SFT policy'),
    'entropy': ('least', 'all rollouts say nearly the same'),
    'live_groups': ('least', 'hardly any group has anything to learn from'),
    'no_search': ('most', 'the policy has stopped searching'),
    'format': ('least', 'most trajectories are malformed'),
    'sampled_tokens': ('least', 'trajectories have become very short'),
}


def raised(
    rows: Sequence[Mapping[str, Any]], config: AlarmsConfig
) -> dict[str, str]:
  """The bounds that each of the last steps has overstepped.

  Args:
    rows: Metrics of all steps so far.
    config: A bound for each of SIGNS, and for how many steps, `patience`, a
      sign has to last.

  Returns:
    Metric to one line of explanation.
  """
  recent = rows[-config.patience :]
  if len(recent) < config.patience:
    return {}
  found = {}
  for metric, (kind, meaning) in SIGNS.items():
    bound = getattr(config, metric)
    values = [row[metric] for row in recent if row.get(metric) is not None]
    over = [
        # NaN is over any bound.
        not (value <= bound if kind == 'most' else value >= bound)
        for value in values
    ]
    if len(over) == config.patience and all(over):
      found[metric] = (
          f'{meaning}: {metric} is {values[-1]:.3g}, at {kind} {bound:g} is '
          'expected'
      )
  return found


def heed(
    found: Mapping[str, str],
    rows: Sequence[Mapping[str, Any]],
    config: AlarmsConfig,
) -> None:
  """Says what was raised at the last step but not at the one before.

  Raises:
    UserError: Something was raised, and `stop` is set.
  """
  before = rows[-2]['alarms'] if len(rows) > 1 else ()
  for metric, line in found.items():
    if metric not in before:
      say(f'rl: alarm at step {rows[-1]["step"]}: {line}')
    if config.stop:
      raise UserError(
          f'stopped by an alarm after step {rows[-1]["step"]}: {line}; go on '
          f'with another --config.rl.alarms.{metric} or with '
          '--config.rl.alarms.stop=False, or begin anew in another --workdir '
          'with other settings of rl'
      )

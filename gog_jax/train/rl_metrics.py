"""What a step of RL logs, beside its loss."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from gog_jax.rewards import behaviour
from gog_jax.rewards.score import RECORDED
from gog_jax.run import Run
from gog_jax.train.groups import Group
from gog_jax.types import ToolStatus
from gog_jax.types import Trajectory


def describe_step(
    run: Run,
    groups: Sequence[Group],
    update: Mapping[str, Any],
    seconds: Mapping[str, float],
) -> dict[str, Any]:
  """A step's row: its rollouts, its update, its tools and its judge."""
  counts = take_counts(run)
  every = counts['tools'].get('all', {})
  return {
      **describe(groups),
      **update,
      **seconds,
      'price': every.get('price', 0.0),
      'tool_retries': every.get('retries', 0),
      'tool_cached': every.get('cached', 0),
      'tool_latency_p50_s': every.get('latency_p50_s'),
      'tool_latency_p95_s': every.get('latency_p95_s'),
      **counts,
  }


def take_counts(run: Run) -> dict[str, Any]:
  """What tools and the judge, if there is one, counted since the last time."""
  counts = {'tools': run.toolbox.counts.take()}
  if run.judge is not None:
    counts['judge'] = run.judge.counts.take()
  return counts


def describe(groups: Sequence[Group]) -> dict[str, Any]:
  """Means over valid trajectories, and what was left out of them."""
  pairs = [(group.example, t) for group in groups for t in group.trajectories]
  flat = [t for _, t in pairs]
  valid = [t for t in flat if t.valid]
  results = [result for t in flat for _, result in t.calls]

  def mean(value) -> float:
    return behaviour.mean([value(t) for t in valid]) or 0.0

  def count(status: ToolStatus) -> int:
    return sum(r.status == status for r in results)

  return {
      'reward': mean(lambda t: t.reward),
      'accuracy': mean(lambda t: t.reward_parts['accuracy']),
      'format': mean(lambda t: t.reward_parts['format']),
      **behaviour.measure([(e, t) for e, t in pairs if t.valid]),
      'tokens': mean(lambda t: len(t.token_ids)),
      'sampled_tokens': mean(lambda t: int(t.loss_mask.sum())),
      'live_groups': float(np.mean([g.live for g in groups])),
      'format_only_groups': float(np.mean([g.format_only for g in groups])),
      **{
          f'reward/{name}': behaviour.mean(
              [t.reward_parts.get(name) for t in valid]
          )
          for name in sorted({n for t in valid for n in t.reward_parts})
          if name not in RECORDED
      },
      'masked': 1 - len(valid) / len(flat),
      'masked_by_calls': masked_by_calls(flat),
      'model_errors': count(ToolStatus.MODEL_ERROR),
      'infra_errors': count(ToolStatus.INFRA_ERROR),
      'seconds_tools': sum(r.latency_s for r in results),
  }


def masked_by_calls(trajectories: Sequence[Trajectory]) -> dict[str, float]:
  """Share of masked trajectories by number of calls.

  Dropping failed searches would favour not searching: this shows how much.
  """
  by_calls: dict[int, list[bool]] = {}
  for trajectory in trajectories:
    n_calls = len(trajectory.calls)
    by_calls.setdefault(n_calls, []).append(not trajectory.valid)
  return {str(n): float(np.mean(m)) for n, m in sorted(by_calls.items())}


def reward_trend(rows: Sequence[dict[str, Any]]) -> dict[str, float]:
  """Mean training reward of the first and the last fifth of the run."""
  rewards_by_step = [row['reward'] for row in rows]
  n = max(len(rewards_by_step) // 5, 1)
  return {
      'reward_first_fifth': float(np.mean(rewards_by_step[:n])),
      'reward_last_fifth': float(np.mean(rewards_by_step[-n:])),
  }

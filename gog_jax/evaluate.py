"""Greedy rollouts on held-out questions; the report reads what this writes."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from etils import epath
import numpy as np

from gog_jax.rollout import trajectories as trajectories_lib
from gog_jax.rollout.policy import Policy
from gog_jax.run import Run
from gog_jax.types import Example


def evaluate(
    run: Run,
    policy: Policy,
    examples: Sequence[Example],
    folder: epath.Path,
    *,
    name: str,
) -> None:
  """Rolls `policy` out once per example and writes the scored trajectories."""
  scored = run.rollout_once(
      policy, examples, seed=('eval',), what=f'eval {name}'
  )
  trajectories_lib.write(_file(folder), scored, examples)


def is_done(folder: epath.Path) -> bool:
  """Whether `folder` holds what `evaluate` writes."""
  return _file(folder).exists()


def facts(folder: epath.Path) -> dict[str, Any]:
  """Means over the valid trajectories in `folder`, `n` of them.

  The judge's failures, `judge_errors`, are among the `infra_errors`.
  """
  scored = trajectories_lib.read(_file(folder))
  valid = [t for t in scored if t.valid]

  def mean(part: str) -> float | None:
    values = [t.reward_parts[part] for t in valid]
    return float(np.mean(values)) if values else None

  return {
      'n': len(valid),
      'infra_errors': len(scored) - len(valid),
      'judge_errors': sum(
          t.verdict is not None and t.verdict.right is None for t in scored
      ),
      'accuracy': mean('accuracy'),
      'format': mean('format'),
  }


def _file(folder: epath.Path) -> epath.Path:
  return folder / 'trajectories.jsonl'

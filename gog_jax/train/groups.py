"""A step's groups: trajectories of one question, and what they teach."""

from __future__ import annotations

from collections.abc import Sequence
import dataclasses

import numpy as np

from gog_jax.run import Run
from gog_jax.train.advantages import GroupAdvantages
from gog_jax.types import Example
from gog_jax.types import Trajectory


@dataclasses.dataclass(frozen=True)
class Group:
  """A question with its G scored trajectories.

  Attributes:
    example: What was asked.
    trajectories: G of them.
    advantages: float32[G].
    live: Whether it has a gradient, see advantages.py.
    format_only: Whether its members differ in nothing but format.
  """

  example: Example
  trajectories: Sequence[Trajectory]
  advantages: np.ndarray
  live: bool
  format_only: bool


def to_groups(
    examples: Sequence[Example],
    rollouts: Sequence[Sequence[Trajectory]],
    advantages: GroupAdvantages,
) -> list[Group]:
  """P groups, of P x G trajectories."""
  rows = zip(examples, rollouts, *advantages, strict=True)
  return [Group(*row) for row in rows]


def scores_of(
    run: Run, rollouts: Sequence[Sequence[Trajectory]]
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
  """Rewards, validity and accuracies of scored groups, [P, G] each."""

  def table(value):
    return np.array([[value(t) for t in group] for group in rollouts])

  rewards, valid = table(lambda t: t.reward), table(lambda t: t.valid)
  if run.config.rl.shuffle_rewards:
    # Seeded by what was sampled: the same whenever these groups are met.
    sampled = sum(int(t.token_ids.sum()) for group in rollouts for t in group)
    rng = np.random.default_rng(run.seed('shuffle', sampled))
    for row, usable in zip(rewards, valid, strict=True):
      row[usable] = rng.permutation(row[usable])
  # What is left of the accuracy's part, where searches cost.
  accuracies = table(
      lambda t: t.reward_parts['accuracy'] * t.reward_parts.get('budget', 1)
  )
  return rewards, valid, accuracies

"""A step's groups: their scores, and dynamic sampling."""

from __future__ import annotations

from collections.abc import Sequence
import dataclasses

import numpy as np

from gog_jax.config.training import RLConfig
from gog_jax.run import Run
from gog_jax.train.advantages import GroupAdvantages
from gog_jax.types import Example
from gog_jax.types import Trajectory


@dataclasses.dataclass(frozen=True)
class Groups:
  """Queries with a group of scored trajectories each.

  Attributes:
    examples: P queries.
    trajectories: P x G.
    advantages: [P, G].
  """

  examples: Sequence[Example]
  trajectories: Sequence[Sequence[Trajectory]]
  advantages: GroupAdvantages

  def take(self, rows: np.ndarray) -> Groups:
    """Those of these queries, by index."""
    return Groups(
        [self.examples[i] for i in rows],
        [self.trajectories[i] for i in rows],
        GroupAdvantages(*(array[rows] for array in self.advantages)),
    )


@dataclasses.dataclass(frozen=True)
class Drawn:
  """The draws of a step.

  Dynamic sampling draws again for groups that have nothing to learn from, at
  most `rl.max_refills` times: if they do not bring enough, the step is smaller.
  (DAPO, section 3.2.)

  Attributes:
    config: The config's `rl`.
    draws: So far; the caller appends.
  """

  config: RLConfig
  draws: list[Groups] = dataclasses.field(default_factory=list)

  @property
  def n_missing(self) -> int:
    """Queries to draw next."""
    c = self.config
    if len(self.draws) == 1 + c.dynamic_sampling * c.max_refills:
      return 0
    n_live = sum(int(draw.advantages.live.sum()) for draw in self.draws)
    return c.n_prompts - n_live

  @property
  def everything(self) -> Groups:
    return Groups(
        [example for draw in self.draws for example in draw.examples],
        [group for draw in self.draws for group in draw.trajectories],
        GroupAdvantages(
            *map(
                np.concatenate,
                zip(*(draw.advantages for draw in self.draws), strict=True),
            )
        ),
    )

  @property
  def learnt(self) -> Groups:
    """The groups to learn from; the last draw where no group is live."""
    everything = self.everything
    live = np.flatnonzero(everything.advantages.live)
    if not self.config.dynamic_sampling or not len(live):
      return self.draws[-1]
    return everything.take(live)


def scores_of(
    run: Run, groups: Sequence[Sequence[Trajectory]]
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
  """Rewards, validity and accuracies of scored groups, [P, G] each."""

  def table(value):
    return np.array([[value(t) for t in group] for group in groups])

  rewards, valid = table(lambda t: t.reward), table(lambda t: t.valid)
  if run.config.rl.shuffle_rewards:
    # Seeded by what was sampled: the same whenever these groups are met.
    sampled = sum(int(t.token_ids.sum()) for group in groups for t in group)
    rng = np.random.default_rng(run.seed('shuffle', sampled))
    for row, usable in zip(rewards, valid, strict=True):
      row[usable] = rng.permutation(row[usable])
  # What is left of the accuracy's part, where searches cost.
  accuracies = table(
      lambda t: t.reward_parts['accuracy'] * t.reward_parts.get('budget', 1)
  )
  return rewards, valid, accuracies

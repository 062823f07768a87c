"""An update's trajectories, packed."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from gog_jax.models import sharding
from gog_jax.rollout.batching import BatchConfig
from gog_jax.rollout.batching import loss_weights
from gog_jax.rollout.batching import MicroBatches
from gog_jax.run import Run
from gog_jax.train.groups import Group
from gog_jax.types import Trajectory


def to_batches(
    run: Run,
    trajectories: Sequence[Trajectory],
    *,
    micro_rows: int,
    aggregation: str = 'token_mean',
    advantages: np.ndarray | None = None,
    kept: np.ndarray | None = None,
) -> MicroBatches:
  """Packs trajectories into micro-batches whose losses are summed.

  Args:
    run: With the model that is trained.
    trajectories: All that the loss is the mean over.
    micro_rows: Rows of a micro-batch, more where the mesh does not divide them.
    aggregation: See `loss_weights`.
    advantages: One per trajectory; None where all are imitated.
    kept: bool, one per trajectory: which are packed. None packs all.
  """
  if advantages is None:
    advantages = np.zeros(len(trajectories))
  weights = loss_weights(
      [int(t.loss_mask.sum()) for t in trajectories],
      [t.valid for t in trajectories],
      aggregation=aggregation,
      most_targets=run.limits.max_turns * run.limits.max_turn_tokens,
  )
  if kept is not None:
    trajectories = [t for t, is_kept in zip(trajectories, kept) if is_kept]
    advantages, weights = advantages[kept], weights[kept]
  c = run.config.batch
  return MicroBatches(
      trajectories,
      advantages=advantages,
      weights=weights,
      processor=run.processor,
      vision_config=run.model_config.vision,
      config=BatchConfig(
          row_tokens=c.row_tokens,
          row_patches=c.row_patches,
          micro_rows=sharding.next_multiple(micro_rows, run.mesh),
          patch_dtype=run.dtype,
      ),
  )


def batches_of_groups(
    run: Run, groups: Sequence[Group], aggregation: str
) -> MicroBatches:
  """Packs P x G trajectories with their advantages.

  Groups without variance get a gradient from the KL alone. Unless
  `rl.train_dead` is set they are left out of the batch, though not out of any
  denominator: while many questions always fail, that saves much time.
  """
  c = run.config.rl
  live = [group.live or c.train_dead for group in groups]
  if not any(live):
    live = [True] * len(groups)
  return to_batches(
      run,
      [t for group in groups for t in group.trajectories],
      micro_rows=c.micro_rows,
      aggregation=aggregation,
      advantages=np.concatenate([group.advantages for group in groups]),
      kept=np.repeat(live, c.group_size),
  )

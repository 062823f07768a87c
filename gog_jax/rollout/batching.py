"""Trajectories -> Batch: packed rows of fixed shape, images included.

Worked example, a row that holds a trajectory of 4 tokens and one of 3:

    token_ids (of the trajectories)  a b c d | e f g
    loss_mask (of the trajectories)  0 0 1 1 | 0 1 1

    tokens        a b c d e f g 0
    segment_ids   1 1 1 1 2 2 2 0      0 is padding
    targets       b c d 0 f g 0 0      what each position predicts
    loss_mask     0 1 1 0 1 1 0 0      aligned with targets

This is the only place that shifts.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
import dataclasses
import math
from typing import Any

import jax
import numpy as np

from gog_jax.images import ImageProcessor
from gog_jax.models.config import VisionConfig
from gog_jax.models.rope import mrope_positions
from gog_jax.models.vision import pack_images
from gog_jax.models.vision import VisionInputs
from gog_jax.types import Trajectory


@dataclasses.dataclass(frozen=True, kw_only=True)
class BatchConfig:
  """Shapes of a batch.

  Attributes:
    row_tokens: T, tokens of a packed row.
    row_patches: P, image patches of a packed row, before merging.
    micro_rows: Rows of a micro-batch. There are as many micro-batches as the
      trajectories fill, all of one shape, so that it is compiled once.
    patch_dtype: Of image patches, see pack_images.
  """

  row_tokens: int
  row_patches: int
  micro_rows: int
  patch_dtype: Any = np.float32


@jax.tree_util.register_dataclass
@dataclasses.dataclass(frozen=True, kw_only=True)
class Batch:
  """Packed trajectories; every array's first axis is the row.

  Attributes:
    tokens: int32[B, T].
    positions: int32[B, 3, T], M-RoPE positions, restarting per trajectory.
    segment_ids: int32[B, T], 1, 2, ... within a row; 0 is padding.
    targets: int32[B, T], the next token of the same trajectory.
    loss_mask: float32[B, T], 1 where the target was sampled by the policy.
    weights: float32[B, T], what each target's loss is multiplied with before
      the sum over the whole batch; 0 where loss_mask is 0.
    advantages: float32[B, T], the trajectory's, on its targets.
    sampler_logprobs: float32[B, T], of the targets, at sampling.
    image_index: int32[B, T], which of the row's merged image features stands
      at a token; -1 for text.
    vision: The row's images, packed likewise.
  """

  # NumPy on the host, jax.Array on the device.
  tokens: Any
  positions: Any
  segment_ids: Any
  targets: Any
  loss_mask: Any
  weights: Any
  advantages: Any
  sampler_logprobs: Any
  image_index: Any
  vision: VisionInputs


class MicroBatches:
  """An update's batches of `micro_rows` rows, all of one shape.

  The packing is fixed at once. Arrays are made during iteration, anew each
  time: a row's patches take 100 MB at full size, and an update may have
  hundreds of rows.
  """

  def __init__(
      self,
      trajectories: Sequence[Trajectory],
      *,
      advantages: Sequence[float] | np.ndarray,
      weights: Sequence[float] | np.ndarray,
      processor: ImageProcessor,
      vision_config: VisionConfig,
      config: BatchConfig,
  ):
    """Packs trajectories first-fit into rows.

    If no trajectory has images there are no patches, and the ViT is not run.

    Args:
      trajectories: What to pack; each stays whole, in one row.
      advantages: One per trajectory.
      weights: Loss weight of each trajectory's targets (see `loss_weights`).
      processor: Makes the patches that the sampler saw.
      vision_config: Lays out windows.
      config: Shapes.

    Raises:
      ValueError: A trajectory is longer than a row, or has more patches.
    """
    rows = pack(
        [len(t.token_ids) for t in trajectories],
        [sum(math.prod(p.grid) for p in t.placements) for t in trajectories],
        config=config,
    )
    self._rows = [
        [(trajectories[i], advantages[i], weights[i]) for i in row]
        for row in rows
    ]
    if not any(t.placements for t in trajectories):
      config = dataclasses.replace(config, row_patches=0)
    self._config = config
    self._processor = processor
    self._vision_config = vision_config

  def __len__(self) -> int:
    return -(-len(self._rows) // self._config.micro_rows)

  def __iter__(self) -> Iterator[Batch]:
    n = self._config.micro_rows
    for first in range(0, len(self._rows), n):
      rows = self._rows[first : first + n]
      filled = map(self._fill_row, rows + [[]] * (n - len(rows)))
      yield jax.tree.map(lambda *arrays: np.stack(arrays), *filled)

  def _fill_row(
      self, members: Sequence[tuple[Trajectory, float, float]]
  ) -> Batch:
    length = self._config.row_tokens
    ints = lambda *shape: np.zeros(shape, np.int32)
    floats = lambda *shape: np.zeros(shape, np.float32)
    row = Batch(
        tokens=ints(length),
        positions=ints(3, length),
        segment_ids=ints(length),
        targets=ints(length),
        loss_mask=floats(length),
        weights=floats(length),
        advantages=floats(length),
        sampler_logprobs=floats(length),
        image_index=np.full(length, -1, np.int32),
        vision=self._pack_images([trajectory for trajectory, *_ in members]),
    )
    start = n_features = 0
    for segment, (trajectory, advantage, weight) in enumerate(members, start=1):
      end = start + len(trajectory.token_ids)
      here, before = slice(start, end), slice(start, end - 1)
      row.tokens[here] = trajectory.token_ids
      row.positions[:, here], _ = mrope_positions(
          end - start,
          trajectory.placements,
          merge_size=self._processor.merge_size,
      )
      row.segment_ids[here] = segment
      row.targets[before] = trajectory.token_ids[1:]
      row.loss_mask[before] = trajectory.loss_mask[1:]
      row.weights[before] = weight * trajectory.loss_mask[1:]
      row.advantages[before] = advantage * trajectory.loss_mask[1:]
      row.sampler_logprobs[before] = trajectory.sampler_logprobs[1:]
      for placement in trajectory.placements:
        first = start + placement.start
        row.image_index[first : first + placement.n_tokens] = (
            n_features + np.arange(placement.n_tokens)
        )
        n_features += placement.n_tokens
      start = end
    return row

  def _pack_images(self, trajectories: Sequence[Trajectory]) -> VisionInputs:
    """A row's images end to end, in the order of their placements."""
    images = []
    for trajectory in trajectories:
      for placement in trajectory.placements:
        data = trajectory.images[placement.image].data
        patches, grid = self._processor.patches(data)
        if tuple(grid) != tuple(placement.grid):
          raise ValueError(f'image of grid {grid} placed as {placement.grid}')
        images.append((patches, grid))
    packed = pack_images(
        [images],
        n_patches=self._config.row_patches,
        config=self._vision_config,
        dtype=self._config.patch_dtype,
    )
    return jax.tree.map(lambda array: array[0], packed)


def loss_weights(
    n_targets: Sequence[int],
    valid: Sequence[bool],
    *,
    aggregation: str,
    most_targets: int = 1,
) -> np.ndarray:
  """Weight of each trajectory's targets, so that a plain sum is the mean.

  'sequence_mean' averages over a trajectory's targets, then over valid
  trajectories (GRPO); 'token_mean' averages over all targets of the batch
  (DAPO, SFT); 'constant' divides every target by `most_targets`, the most that
  a trajectory can have, and by the number of trajectories (Dr. GRPO). Masked
  trajectories count in no denominator.
  """
  lengths = np.asarray(n_targets, np.float64)
  counted = np.asarray(valid, bool) & (lengths > 0)
  if aggregation == 'sequence_mean':
    weights = 1 / (np.maximum(lengths, 1) * max(counted.sum(), 1))
  elif aggregation == 'token_mean':
    weights = np.full(len(lengths), 1 / max(lengths[counted].sum(), 1))
  elif aggregation == 'constant':
    weights = np.full(
        len(lengths), 1 / (most_targets * max(counted.sum(), 1))
    )
  else:
    raise ValueError(f'unknown aggregation {aggregation!r}')
  return np.where(counted, weights, 0.0).astype(np.float32)


def pack(
    n_tokens: Sequence[int], n_patches: Sequence[int], *, config: BatchConfig
) -> list[list[int]]:
  """First-fit, longest first: rows of indices within both budgets."""
  rows: list[list[int]] = []
  room: list[tuple[int, int]] = []
  for i in sorted(range(len(n_tokens)), key=lambda i: (-n_tokens[i], i)):
    tokens, patches = n_tokens[i], n_patches[i]
    if tokens > config.row_tokens or patches > config.row_patches:
      raise ValueError(
          f'a trajectory of {tokens} tokens and {patches} patches does not fit '
          f'a row of {config.row_tokens} tokens, {config.row_patches} patches'
      )
    for r, (free_tokens, free_patches) in enumerate(room):
      if tokens <= free_tokens and patches <= free_patches:
        rows[r].append(i)
        room[r] = (free_tokens - tokens, free_patches - patches)
        break
    else:
      rows.append([i])
      room.append((config.row_tokens - tokens, config.row_patches - patches))
  return [sorted(row) for row in rows]

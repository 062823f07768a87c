"""Packing and shifting, in integers."""

from __future__ import annotations

import tracemalloc

import jax
import numpy as np
import pytest

from gog_jax.rollout import batching
from gog_jax.rollout.batching import BatchConfig
from gog_jax.rollout.batching import MicroBatches
from gog_jax.rollout.transcript import Transcript
from gog_jax.types import StopReason
from gog_jax.types import TokenChunk
from tests import helpers
from tests import tiny

pytestmark = pytest.mark.quick


def three_turns(seed=0):
  """A prompt, two sampled turns with an observation each between, an answer.

  Prompt 2 tokens, an image of 1 x 2 features, 1 token.
  """
  prompt = tiny.chunk(2, 1, seed=seed, size=(56, 28))
  observation = tiny.chunk(1, 1, seed=seed + 1)
  transcript = Transcript()
  transcript.append(prompt)
  for turn in range(3):
    said = TokenChunk(token_ids=(40 + turn, 50 + turn, tiny.STOP))
    transcript.append(said, target=True, logprobs=[-0.1, -0.2, -0.3])
    if turn < 2:
      transcript.append(observation)
  return transcript.trajectory(str(seed), StopReason.ANSWER)


def batch_of(trajectories, config=tiny.BATCH, advantages=None, weights=None):
  n = len(trajectories)
  (batch,) = MicroBatches(
      trajectories,
      advantages=np.ones(n) if advantages is None else advantages,
      weights=np.ones(n) if weights is None else weights,
      processor=tiny.processor(),
      vision_config=helpers.tiny_config().vision,
      config=config,
  )
  return batch


def test_three_turns_in_integers():
  trajectory = three_turns()
  batch = batch_of(
      [trajectory],
      BatchConfig(row_tokens=20, row_patches=16, micro_rows=1),
      advantages=[2.0],
      weights=[0.5],
  )
  ids = trajectory.token_ids.tolist()
  # p p I I p | s s . | o o | s s . | o o | s s .
  mask = [0, 0, 0, 0, 1, 1, 1, 0, 0, 1, 1, 1, 0, 0, 1, 1, 1, 0, 0, 0]
  assert batch.loss_mask[0].tolist() == mask
  assert batch.tokens[0].tolist() == ids + [0, 0]
  assert batch.targets[0].tolist() == ids[1:] + [0, 0, 0]
  assert batch.segment_ids[0].tolist() == [1] * 18 + [0, 0]
  assert batch.image_index[0].tolist() == [-1, -1, 0, 1] + [-1] * 16
  assert batch.advantages[0].tolist() == [2.0 * m for m in mask]
  assert batch.weights[0].tolist() == [0.5 * m for m in mask]
  # The image spans 1 x 2 features from position 2; text goes on at 2 + 2.
  assert batch.positions[0].tolist() == [
      [0, 1, 2, 2, *range(4, 18), 0, 0],
      [0, 1, 2, 2, *range(4, 18), 0, 0],
      [0, 1, 2, 3, *range(4, 18), 0, 0],
  ]
  assert batch.vision.image_ids[0].tolist() == [1] * 8 + [0] * 8
  np.testing.assert_allclose(
      batch.sampler_logprobs[0][np.array(mask) > 0],
      [-0.1, -0.2, -0.3] * 3,
      rtol=1e-6,
  )


def test_two_in_a_row_are_offset():
  first, second = three_turns(0), three_turns(3)
  batch = batch_of([first, second])
  assert batch.segment_ids[0].tolist() == [1] * 18 + [2] * 18 + [0] * 60
  assert batch.targets[0][17] == 0  # Never the other trajectory's first token.
  assert batch.loss_mask[0][17] == 0
  assert batch.image_index[0][18 + 2 : 18 + 4].tolist() == [2, 3]
  assert batch.positions[0][:, 18].tolist() == [0, 0, 0]
  assert batch.vision.image_ids[0].tolist() == [1] * 8 + [2] * 8 + [0] * 64
  assert batch.tokens.shape[0] == 8  # micro_rows.
  assert not batch.segment_ids[1:].any()


def test_micro_batches_are_made_one_at_a_time():
  shown = [three_turns(seed) for seed in range(24)]
  whole = batch_of(
      shown, BatchConfig(row_tokens=40, row_patches=40, micro_rows=12)
  )
  parts = MicroBatches(
      shown,
      advantages=np.ones(24),
      weights=np.ones(24),
      processor=tiny.processor(),
      vision_config=helpers.tiny_config().vision,
      config=BatchConfig(row_tokens=40, row_patches=40, micro_rows=1),
  )
  assert len(parts) == len(list(parts)) == 12  # Two a row, walked twice.
  jax.tree.map(
      lambda array, *rows: np.testing.assert_array_equal(
          array, np.concatenate(rows)
      ),
      whole,
      *parts,
  )
  tracemalloc.start()
  for part in parts:
    del part
  _, peak = tracemalloc.get_traced_memory()
  tracemalloc.stop()
  assert peak < 5 / 12 * sum(x.nbytes for x in jax.tree.leaves(whole))


def test_pack_keeps_both_budgets():
  config = BatchConfig(row_tokens=10, row_patches=8, micro_rows=1)
  rows = batching.pack([6, 5, 5, 4, 1], [4, 4, 8, 4, 0], config=config)
  assert rows == [[0, 3], [1, 4], [2]]
  with pytest.raises(ValueError, match='11 tokens'):
    batching.pack([11], [0], config=config)
  with pytest.raises(ValueError, match='9 patches'):
    batching.pack([1], [9], config=config)

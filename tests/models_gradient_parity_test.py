"""Gradients of the SFT loss against torch's, parameter by parameter."""

from __future__ import annotations

from flax import nnx
import jax
import numpy as np
import pytest

from gog_jax.models import hf_table
from gog_jax.models import lora
from gog_jax.models.families import FAMILIES
from gog_jax.models.layers import Execution
from gog_jax.rollout.batching import BatchConfig
from gog_jax.rollout.batching import loss_weights
from gog_jax.rollout.batching import MicroBatches
from gog_jax.rollout.transcript import Transcript
from gog_jax.train import losses
from gog_jax.train import state as state_lib
from gog_jax.types import StopReason
from gog_jax.types import TokenChunk
from tests import helpers
from tests import hf_helpers
from tests import tiny

TOLERANCE = 1e-3  # Of each parameter: norm of the difference / norm.


def trajectories():
  """Two with images and one without, part of each sampled."""
  result = []
  for seed, sizes in enumerate([((84, 56), (56, 84)), ((28, 56),), (None,)]):
    transcript = Transcript()
    for turn, size in enumerate(sizes):
      piece = tiny.chunk(4, 3 + seed, seed=10 * seed + turn, size=size)
      transcript.append(piece)
      ids = helpers.rng(100 + seed).integers(20, 128, 5).tolist()
      transcript.append(TokenChunk(token_ids=tuple(ids)))
    transcript.loss_mask = [
        int(i % 7 > 3 and token != helpers.IMAGE_TOKEN)
        for i, token in enumerate(transcript.chunk.token_ids)
    ]
    result.append(transcript.trajectory(str(seed), StopReason.ANSWER))
  return result


def our_gradient(model, shown, weights):
  (batch,) = MicroBatches(
      shown,
      advantages=np.zeros(len(shown)),
      weights=weights,
      processor=tiny.processor(),
      vision_config=model.config.vision,
      config=BatchConfig(row_tokens=64, row_patches=80, micro_rows=2),
  )
  assert batch.segment_ids.max() > 1 and len(batch.tokens) > 1  # Packed.
  graph, params, frozen = lora.split(model, 'full')
  how = state_lib.FrozenModel(graph, frozen, Execution(), 32)

  def loss(params, batch):
    logprobs, _ = state_lib.batch_logprobs(how, params, frozen, batch)
    return (losses.sft_loss(logprobs) * batch.weights).sum()

  value, gradient = jax.jit(jax.value_and_grad(loss))(params, batch)
  return float(value), {
      path: np.asarray(leaf.get_value())
      for path, leaf in nnx.to_flat_state(gradient)
  }


def hf_gradient(model, shown, weights):
  """Theirs in padded rows; by our parameters' names."""
  torch = helpers.require_torch()
  width = max(len(t.token_ids) for t in shown)
  tokens, mask = np.zeros((2, len(shown), width), np.int64)
  weight = np.zeros((len(shown), width), np.float32)
  images = []
  for row, t in enumerate(shown):
    n = len(t.token_ids)
    tokens[row, :n], mask[row, :n] = t.token_ids, 1
    weight[row, :n] = t.loss_mask * weights[row]
    for placement in t.placements:
      images.append(
          tiny.processor().patches(t.images[placement.image].data)
      )
  pixels = np.concatenate([patches for patches, _ in images])
  grids = np.array([grid for _, grid in images])
  inputs = hf_helpers.hf_inputs(tokens, mask, pixels, grids)
  logprobs = model(**inputs).logits[:, :-1].log_softmax(-1)
  chosen = logprobs.gather(-1, torch.tensor(tokens[:, 1:, None]))[..., 0]
  loss = -(chosen * torch.tensor(weight[:, 1:])).sum()
  loss.backward()
  return loss.item(), {
      name: parameter.grad.numpy()
      for name, parameter in model.named_parameters()
  }


@pytest.mark.parametrize('family', FAMILIES)
@pytest.mark.parametrize(
    'tied',
    [True, pytest.param(False, marks=pytest.mark.slow)],
    ids=['tied', 'untied'],
)
def test_every_gradient(family, tied, tmp_path):
  config = helpers.tiny_config(family=family, tied=tied)
  theirs, ours = hf_helpers.pair(tmp_path, config)
  shown = trajectories()
  weights = loss_weights(
      [t.loss_mask[1:].sum() for t in shown],
      [True] * len(shown),
      aggregation='token_mean',
  )
  actual_loss, actual = our_gradient(ours, shown, weights)
  expected_loss, expected = hf_gradient(theirs, shown, weights)
  np.testing.assert_allclose(actual_loss, expected_loss, rtol=1e-5)

  # The table's names are the published ones, theirs in memory the newer.
  expected = {hf_table.published_key(k): v for k, v in expected.items()}
  compared, wrong = set(), {}
  for entry in hf_table.table(config):
    keys = entry.keys
    compared |= set(keys)
    for layer, key in enumerate(keys):
      index, n_parts = entry.part
      want = np.split(expected[key], n_parts)[index]
      if entry.transposed:
        want = want.reshape(len(want), -1).T
      got = actual[entry.path]
      got = got[layer] if entry.n_layers else got
      norm = np.linalg.norm(want)
      assert norm > 0, key
      error = np.linalg.norm(got - want) / norm
      if not error <= TOLERANCE:
        wrong[key, index] = error
  assert not wrong
  assert compared == set(expected)
  assert actual.keys() == {entry.path for entry in hf_table.table(config)}

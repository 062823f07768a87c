"""The sampler against the trainer: same tokens, same numbers."""

from __future__ import annotations

from flax import nnx
import jax
import numpy as np
import pytest

from gog_jax.models import lora
from gog_jax.models import sharding
from gog_jax.models.families import FAMILIES
from gog_jax.models.layers import Execution
from gog_jax.rollout.batching import BatchConfig
from gog_jax.rollout.batching import MicroBatches
from gog_jax.rollout.policy import Conversation
from gog_jax.rollout.sampler import n_compilations
from gog_jax.train import state as state_lib
from gog_jax.train.state import FrozenModel
from tests import tiny

SEEDS = (1, 2, 3)


def trainer_logprobs(vlm, trajectories, config=tiny.BATCH):
  """Per trajectory, the trainer's logprobs of its sampled tokens, in order."""
  (batch,) = MicroBatches(
      trajectories,
      advantages=np.zeros(len(trajectories)),
      weights=np.ones(len(trajectories)),
      processor=tiny.processor(),
      vision_config=vlm.config.vision,
      config=config,
  )
  graph, params, frozen = lora.split(vlm, 'full')
  model = FrozenModel(graph, frozen, Execution(scan=False), 32)
  logprobs, _ = jax.jit(
      lambda p, f, b: state_lib.batch_logprobs(model, p, f, b)
  )(params, frozen, batch)
  return np.asarray(logprobs), batch


@pytest.fixture(scope='module')
def vlm():
  return tiny.model()


@pytest.mark.parametrize('family', FAMILIES)
def test_sampler_and_trainer_agree(family):
  """Over images in later turns, and what deepstack adds to them."""
  vlm = tiny.model(family=family)
  trajectories = tiny.conversations(tiny.policy(vlm), SEEDS)
  logprobs, batch = trainer_logprobs(vlm, trajectories)
  mask = batch.loss_mask > 0
  # Token-in, token-out: the trainer's targets are the sampled ids themselves.
  sampled = np.concatenate(
      [t.token_ids[t.loss_mask > 0] for t in trajectories]
  )
  assert sorted(batch.targets[mask]) == sorted(sampled)
  assert mask.sum() > 60
  np.testing.assert_allclose(
      logprobs[mask], batch.sampler_logprobs[mask], atol=1e-4, rtol=0
  )
  # Not vacuous: the distribution is far from uniform.
  assert batch.sampler_logprobs[mask].std() > 0.5


def test_packed_rows_equal_rows_of_their_own(vlm):
  """Images, positions and masks of a row's members do not mix."""
  trajectories = tiny.conversations(tiny.policy(vlm), SEEDS)
  wide = BatchConfig(row_tokens=288, row_patches=240, micro_rows=1)
  together, packed = trainer_logprobs(vlm, trajectories, wide)
  assert packed.segment_ids.max() == 3
  apart, rows = trainer_logprobs(vlm, trajectories)
  sampled = lambda x, batch: np.sort(x[batch.loss_mask > 0])
  np.testing.assert_allclose(
      sampled(together, packed), sampled(apart, rows), atol=1e-5
  )


def test_stale_positions_would_show(vlm):
  """The agreement above rests on positions, images and the cache."""
  trajectories = tiny.conversations(tiny.policy(vlm), SEEDS)
  logprobs, batch = trainer_logprobs(vlm, trajectories)
  moved = np.arange(batch.tokens.shape[1], dtype=np.int32)
  batch.positions[:] = moved  # Plain 1-D positions, as if without M-RoPE.
  graph, params, frozen = lora.split(vlm, 'full')
  model = FrozenModel(graph, frozen, Execution(scan=False), 32)
  wrong, _ = state_lib.batch_logprobs(model, params, frozen, batch)
  mask = batch.loss_mask > 0
  assert np.abs(np.asarray(wrong) - logprobs)[mask].max() > 1e-2


def test_neighbours_and_slots_change_nothing(vlm):
  together = tiny.conversations(tiny.policy(vlm), SEEDS)
  alone = tiny.conversations(tiny.policy(vlm), SEEDS[1:2])
  again = tiny.conversations(tiny.policy(vlm, n_slots=4), SEEDS[::-1])
  np.testing.assert_array_equal(together[1].token_ids, alone[0].token_ids)
  for a, b in zip(together, again[::-1]):
    np.testing.assert_array_equal(a.token_ids, b.token_ids)
    np.testing.assert_allclose(
        a.sampler_logprobs, b.sampler_logprobs, atol=1e-5
    )


def test_seeds_differ_and_repeat(vlm):
  first, second = tiny.conversations(tiny.policy(vlm), (1, 1))
  np.testing.assert_array_equal(first.token_ids, second.token_ids)
  other = tiny.conversations(tiny.policy(vlm), (4,))[0]
  assert first.token_ids.tolist() != other.token_ids.tolist()


def test_greedy_is_the_argmax(vlm):
  trajectories = tiny.conversations(tiny.policy(vlm, greedy=True), SEEDS)
  logprobs, batch = trainer_logprobs(vlm, trajectories)
  mask = batch.loss_mask > 0
  # The likeliest of 128 tokens cannot be below the mean.
  assert (logprobs[mask] > -np.log(128)).all()
  repeated = tiny.conversations(tiny.policy(vlm, greedy=True), SEEDS)
  np.testing.assert_array_equal(
      trajectories[0].token_ids, repeated[0].token_ids
  )


def test_nothing_compiles_after_warm_up(vlm):
  sampler = tiny.policy(vlm)
  tiny.conversations(sampler, SEEDS)
  compiled = n_compilations()
  tiny.conversations(sampler, (7, 8), n_turns=4)
  assert n_compilations() == compiled


def test_new_parameters_are_used(vlm):
  sampler = tiny.policy(vlm)
  before = tiny.conversations(sampler, SEEDS)
  other = tiny.model(seed=5)
  sampler.update(nnx.state(other), vision_changed=True)
  after = tiny.conversations(sampler, SEEDS)
  want = tiny.conversations(tiny.policy(other), SEEDS)
  for b, a, w in zip(before, after, want):
    np.testing.assert_array_equal(a.token_ids, w.token_ids)
    assert b.token_ids.tolist() != a.token_ids.tolist()


@pytest.mark.parametrize('n_tokens', [97, 96])
def test_overflow_is_refused(vlm, n_tokens):
  with pytest.raises(ValueError, match='no room'):
    tiny.policy(vlm).sample([of_length(n_tokens, slot=0)])


def test_a_turn_ends_with_the_context(vlm):
  """Then it is what it would have been, cut off; neighbours are whole."""
  lengths = (95, 92, 80)
  turns = tiny.policy(vlm).sample([of_length(*x) for x in zip(lengths, SEEDS)])
  assert [len(turn.token_ids) for turn in turns[:2]] == [1, 4]
  assert all(turn.truncated for turn in turns[:2])
  roomy = tiny.policy(vlm, max_context=128)
  for length, seed, turn in zip(lengths, SEEDS, turns, strict=True):
    (whole,) = roomy.sample([of_length(length, seed, slot=0)])
    n = len(turn.token_ids)
    assert turn.token_ids == whole.token_ids[:n]
    np.testing.assert_allclose(turn.logprobs, whole.logprobs[:n], atol=1e-5)
  assert turns[2].token_ids == whole.token_ids
  assert turns[2].truncated == whole.truncated


def of_length(n_tokens, seed=0, *, slot=None):
  slot = SEEDS.index(seed) if slot is None else slot
  conversation = Conversation(request=tiny.request(seed), slot=slot)
  conversation.append(tiny.chunk(n_tokens, 0, seed=seed))
  return conversation


def on_eight_devices(vlm):
  if jax.device_count() != 8:
    pytest.skip('needs the eight devices that conftest.py asks for')
  mesh = sharding.make_mesh(2, 2, 2)
  sampler = tiny.policy(vlm, n_slots=8, mesh=mesh)
  state = nnx.state(vlm)
  sampler.update(
      jax.device_put(state, sharding.param_shardings(state, mesh)),
      vision_changed=True,
  )
  return sampler


@pytest.mark.parametrize(
    'family', [pytest.param('qwen2_5_vl', marks=pytest.mark.slow), 'qwen3_vl']
)
def test_eight_devices_equal_one(family):
  """Alike prompts too; the cache stays split, and nothing is compiled twice."""
  vlm = tiny.model(family=family)
  seeds = (1, 1, 2, 3, 3, 3)
  expected = tiny.conversations(tiny.policy(vlm, n_slots=8), seeds)
  sampler = on_eight_devices(vlm)
  actual = tiny.conversations(sampler, seeds)
  for one, other in zip(actual, expected, strict=True):
    np.testing.assert_array_equal(one.token_ids, other.token_ids)
    np.testing.assert_allclose(
        one.sampler_logprobs, other.sampler_logprobs, atol=1e-4, rtol=0
    )
  for kept in (*sampler._cache.k, *sampler._cache.v):
    assert kept.sharding.shard_shape(kept.shape)[0] == 2  # Of 8 rows.
  warm = n_compilations()
  tiny.conversations(sampler, seeds)
  assert n_compilations() == warm

"""SFT and GRPO updates: what moves them, and on how many devices."""

from __future__ import annotations

import dataclasses
import functools

from flax import nnx
import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from gog_jax.models import sharding
from gog_jax.models.families import FAMILIES
from gog_jax.models.layers import Execution
from gog_jax.rollout.batching import loss_weights
from gog_jax.rollout.batching import MicroBatches
from gog_jax.train import losses
from gog_jax.train import state as state_lib
from gog_jax.train import steps
from tests import helpers
from tests import mini
from tests import tiny

GRPO = dataclasses.replace(
    losses.VARIANTS['grpo'], kl_coef=0.1, max_importance_weight=2.0
)


@pytest.fixture(scope='module')
def trajectories():
  sampler = tiny.policy(tiny.model(lora=True), n_slots=6)
  return tiny.conversations(sampler, range(6))


def make_batch(trajectories, family='qwen2_5_vl'):
  lengths = [int(t.loss_mask.sum()) for t in trajectories]
  n = len(trajectories)
  (batch,) = MicroBatches(
      trajectories,
      advantages=np.linspace(-1, 1, n),
      weights=loss_weights(lengths, [True] * n, aggregation='sequence_mean'),
      processor=tiny.processor(),
      vision_config=helpers.tiny_config(family=family).vision,
      config=tiny.BATCH,
  )
  return batch


def sliced(batch, n):
  """The batch's rows, n at a time."""
  starts = range(n, len(batch.tokens), n)
  arrays, tree = jax.tree.flatten(batch)
  parts = zip(*(np.split(array, starts) for array in arrays), strict=True)
  return [tree.unflatten(part) for part in parts]


def start(mesh, *, lora, dtype=jnp.float32, family='qwen2_5_vl', **how):
  vlm = tiny.model(lora=lora, dtype=dtype, family=family)
  # Its update is the gradient: nothing hides.
  optimizer = optax.inject_hyperparams(optax.sgd)(0.1)
  state, model = state_lib.create(
      vlm,
      trainable='lora' if lora else 'full',
      optimizer=optimizer,
      mesh=mesh,
      seed=0,
      logprob_chunk=32,
      **{'execution': Execution(scan=False), **how},
  )
  return state, model, optimizer


@functools.cache
def compiled_step(kind, mesh, lora):
  """The jitted step; its compiled program serves all tests of one shape."""
  state, model, optimizer = start(mesh, lora=lora)
  if kind == 'sft':
    return steps.make_sft_step(model, optimizer, state)
  return steps.make_grpo_step(model, optimizer, state, GRPO)


def run_step(kind, mesh, batch, *, lora=False, micro_rows=8, n_updates=1):
  """Updates on a batch; returns (new params, metrics) on the host."""
  state, model, _ = start(mesh, lora=lora)
  step = compiled_step(kind, mesh, lora)
  batches = sliced(batch, micro_rows)
  assert len(batches) == 8 // micro_rows
  reference = jax.tree.map(lambda x: x * 1.01, state.params)
  old, metrics = None, {}
  for _ in range(n_updates):
    if kind == 'sft':
      state, metrics = step(state, batches)
    else:
      state, old, metrics = step(state, reference, batches, old)
  return jax.device_get((nnx.to_pure_dict(state.params), metrics))


@pytest.mark.parametrize(
    ('kind', 'lora'),
    [pytest.param('sft', False, marks=pytest.mark.slow), ('grpo', True)],
)
def test_eight_devices_are_one(kind, lora, trajectories):
  assert jax.device_count() == 8
  batch = make_batch(trajectories)
  one, one_metrics = run_step(kind, mini.make_mesh(), batch, lora=lora)
  mesh = sharding.make_mesh(2, 2, 2)
  many, many_metrics = run_step(kind, mesh, batch, lora=lora)
  jax.tree.map(
      lambda a, b: np.testing.assert_allclose(a, b, atol=1e-5), one, many
  )
  for name, value in one_metrics.items():
    np.testing.assert_allclose(
        value, many_metrics[name], atol=1e-5, rtol=1e-5, err_msg=name
    )
  before = jax.device_get(
      nnx.to_pure_dict(start(mini.make_mesh(), lora=lora)[0].params)
  )
  moved = [
      np.abs(a - b).max()
      for a, b in zip(jax.tree.leaves(one), jax.tree.leaves(before))
  ]
  assert max(moved) > 1e-4  # It was a step at all.


@pytest.mark.parametrize(
    ('kind', 'lora', 'n_updates'),
    [
        pytest.param('sft', False, 1, marks=pytest.mark.slow),
        ('grpo', True, 2),
    ],
)
def test_micro_batches_add_up(kind, lora, n_updates, trajectories):
  """To the same step, over one device and many; some hold padding alone."""
  batch = make_batch(trajectories)
  assert not batch.loss_mask[-2:].any()
  run = functools.partial(
      run_step, kind, batch=batch, lora=lora, n_updates=n_updates
  )
  whole, whole_metrics = run(mini.make_mesh())
  for mesh, micro_rows in (
      (mini.make_mesh(), 2),
      (sharding.make_mesh(2, 2, 2), 4),
  ):
    parts, metrics = run(mesh, micro_rows=micro_rows)
    jax.tree.map(
        lambda a, b: np.testing.assert_allclose(a, b, atol=1e-5), whole, parts
    )
    assert metrics.keys() == whole_metrics.keys()
    for name, value in whole_metrics.items():
      np.testing.assert_allclose(
          value, metrics[name], atol=1e-5, rtol=1e-4, err_msg=name
      )


@pytest.mark.slow
@pytest.mark.parametrize('lora', [False, True])
@pytest.mark.parametrize('family', FAMILIES)
def test_as_the_full_profiles_do(family, lora, trajectories):
  """Scanned, recomputed, images' length known, over a mesh: as plainly."""
  batch = make_batch(trajectories, family)
  placements = [p for t in trajectories for p in t.placements]
  longest = max(int(np.prod(placement.grid)) for placement in placements)
  moved = []
  for mesh, how in (
      (mini.make_mesh(), {}),
      (
          sharding.make_mesh(2, 2, 2),
          {'execution': Execution(remat='full'), 'longest_image': longest},
      ),
  ):
    state, model, optimizer = start(mesh, lora=lora, family=family, **how)
    before = jax.device_get(nnx.to_pure_dict(state.params))
    reference = jax.tree.map(lambda x: x * 1.01, state.params)
    step = steps.make_grpo_step(model, optimizer, state, GRPO)
    state, *_ = step(state, reference, [batch])
    after = jax.device_get(nnx.to_pure_dict(state.params))
    moved.append(jax.tree.map(lambda a, b: a - b, after, before))
  for a, b in zip(*map(jax.tree.leaves, moved), strict=True):
    assert np.linalg.norm(a - b) <= 1e-3 * np.linalg.norm(a) + 1e-6


@pytest.mark.slow
def test_in_bfloat16_sums_are_float32(trajectories):
  """One row's gradients at a time are as good as all rows' at once."""
  batch = make_batch(trajectories)
  state, *_ = start(mini.make_mesh(), lora=True)
  reference = jax.tree.map(lambda x: x * 1.01, state.params)
  results = []
  for dtype, n in ((jnp.float32, 8), (jnp.bfloat16, 8), (jnp.bfloat16, 1)):
    state, model, optimizer = start(mini.make_mesh(), lora=True, dtype=dtype)
    frozen = jax.tree.leaves(model.frozen)
    assert {x.dtype for x in frozen} == {model.dtype} == {jnp.dtype(dtype)}
    before = jax.device_get(nnx.to_pure_dict(state.params))
    step = steps.make_grpo_step(model, optimizer, state, GRPO)
    state, _, metrics = step(
        state,
        model.in_use(reference),
        sliced(batch, n),
        used=model.kept(state.params),
    )
    after = jax.device_get(nnx.to_pure_dict(state.params))
    moved = jax.tree.map(lambda a, b: a - b, after, before)
    assert all(x.dtype == np.float32 for x in jax.tree.leaves(after))
    results.append(np.concatenate([x.ravel() for x in jax.tree.leaves(moved)]))
  exact, whole, parts = results
  error = lambda x: np.linalg.norm(x - exact) / np.linalg.norm(exact)
  assert 1e-4 < error(whole) < 0.1
  assert error(parts) < 1.2 * error(whole)


@pytest.mark.parametrize('kind', ['sft', 'grpo'])
def test_prompt_tool_and_image_targets_have_no_gradient(kind, trajectories):
  """The loss's gradient by each target's logprob: zero unless sampled."""
  batch = make_batch(trajectories)

  def loss(logprobs):
    if kind == 'sft':
      token_loss = losses.sft_loss(logprobs)
    else:
      token_loss, _ = losses.grpo_loss(
          logprobs,
          old_logprobs=logprobs,
          sampler_logprobs=batch.sampler_logprobs,
          ref_logprobs=logprobs * 0.9,
          advantages=batch.advantages,
          segment_ids=batch.segment_ids,
          loss_mask=batch.loss_mask,
          variant=GRPO,
      )
    return (token_loss * batch.weights).sum()

  grad = np.asarray(jax.grad(loss)(batch.sampler_logprobs - 0.1))
  image_targets = np.roll(batch.image_index >= 0, -1, axis=1)
  text_targets = (batch.segment_ids > 0) & (batch.loss_mask == 0)
  assert image_targets.sum() > 20
  assert (text_targets & ~image_targets).sum() > 20  # Prompts and replies.
  assert not grad[image_targets].any()
  assert not grad[text_targets].any()
  assert not grad[batch.segment_ids == 0].any()
  assert grad[batch.loss_mask > 0].all()


def test_changed_targets_outside_the_mask_change_nothing(trajectories):
  batch = make_batch(trajectories)
  changed = dataclasses.replace(
      batch,
      targets=np.where(batch.loss_mask > 0, batch.targets, 77),
      sampler_logprobs=np.where(
          batch.loss_mask > 0, batch.sampler_logprobs, -1e4
      ),
  )
  for kind in ('sft', 'grpo'):
    lora = kind == 'grpo'
    a, _ = run_step(kind, mini.make_mesh(), batch, lora=lora)
    b, _ = run_step(kind, mini.make_mesh(), changed, lora=lora)
    jax.tree.map(np.testing.assert_array_equal, a, b)


def test_rows_do_not_matter(trajectories):
  """The same trajectories, packed in another order, give the same step."""
  a, _ = run_step('sft', mini.make_mesh(), make_batch(trajectories))
  order = [3, 0, 5, 1, 4, 2]
  lengths = [int(t.loss_mask.sum()) for t in trajectories]
  advantages = np.linspace(-1, 1, 6)
  weights = loss_weights(lengths, [True] * 6, aggregation='sequence_mean')
  (batch,) = MicroBatches(
      [trajectories[i] for i in order],
      advantages=advantages[order],
      weights=weights[order],
      processor=tiny.processor(),
      vision_config=tiny.model().config.vision,
      config=tiny.BATCH,
  )
  b, _ = run_step('sft', mini.make_mesh(), batch)
  jax.tree.map(lambda x, y: np.testing.assert_allclose(x, y, atol=2e-6), a, b)


def test_without_images_the_vision_tower_is_not_run(trajectories):
  texts = [
      dataclasses.replace(t, images=(), placements=()) for t in trajectories
  ]
  bare = make_batch(texts)
  assert bare.vision.patches.shape == (8, 0, 1176)
  assert (bare.image_index == -1).all()
  padded = dataclasses.replace(
      bare, vision=jax.tree.map(np.zeros_like, make_batch(trajectories).vision)
  )
  a, a_metrics = run_step('sft', mini.make_mesh(), bare)
  b, b_metrics = run_step('sft', mini.make_mesh(), padded)
  jax.tree.map(lambda x, y: np.testing.assert_allclose(x, y, atol=1e-6), a, b)
  np.testing.assert_allclose(a_metrics['loss'], b_metrics['loss'], rtol=1e-6)


def test_on_policy_metrics(trajectories):
  """Trained by the policy that sampled: no gap, no clip, ratio one."""
  batch = make_batch(trajectories)
  _, metrics = run_step('grpo', mini.make_mesh(), batch, lora=True)
  assert metrics['sampler_gap_max'] < 1e-4
  assert metrics['ratio'] == 1
  assert metrics['clip_frac'] == 0
  assert metrics['kl'] > 0  # The reference was moved by one percent.
  np.testing.assert_allclose(metrics['importance_weight'], 1, atol=1e-4)


def test_an_absurd_ratio_outside_the_mask_is_harmless(trajectories):
  """exp overflows there; neither gradient nor metrics may become nan."""
  batch = make_batch(trajectories)
  state, model, _ = start(mini.make_mesh(), lora=True)
  step = compiled_step('grpo', mini.make_mesh(), True)
  # The reference disagrees by far more than float32's exponent.
  reference = jax.tree.map(lambda x: x * 300, state.params)
  changed = dataclasses.replace(
      batch,
      weights=batch.weights * 0,
      loss_mask=batch.loss_mask * 0,
  )
  state, _, metrics = step(state, reference, [changed])
  for x in jax.tree.leaves(jax.device_get(nnx.to_pure_dict(state.params))):
    assert np.isfinite(x).all()
  assert np.isfinite(metrics['kl'])
  assert metrics['grad_norm'] == 0

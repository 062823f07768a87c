"""Positions, windows, ways to run, logprobs: by hand and by naive oracles."""

from __future__ import annotations

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from gog_jax import models
from gog_jax import types
from gog_jax.models import layers
from gog_jax.models import vision
from gog_jax.models.families import FAMILIES
from tests import helpers

CONFIG = helpers.tiny_config()


def placement(start, grid):
  n_tokens = grid[0] * grid[1] * grid[2] // 4
  return types.Placement(start=start, image=0, grid=grid, n_tokens=n_tokens)


def test_positions_by_hand():
  positions, following = models.mrope_positions(
      9, [placement(2, (1, 4, 6))], merge_size=2
  )
  np.testing.assert_array_equal(
      positions,
      [
          [0, 1, 2, 2, 2, 2, 2, 2, 5],
          [0, 1, 2, 2, 2, 3, 3, 3, 5],
          [0, 1, 2, 3, 4, 2, 3, 4, 5],
      ],
  )
  assert positions.dtype == np.int32
  assert following == 6
  # A chunk that ends in an image: the next position is max + 1, not 2 + 8.
  positions, following = models.mrope_positions(
      10, [placement(2, (1, 8, 4))], merge_size=2, start=100
  )
  assert positions.max() == 105 and following == 106


@pytest.mark.parametrize(
    'bad',
    [
        [placement(3, (1, 4, 6))],  # Leaves the chunk.
        [placement(0, (1, 4, 4)), placement(3, (1, 2, 2))],  # Overlap.
        [types.Placement(start=0, image=0, grid=(1, 4, 4), n_tokens=3)],
    ],
)
def test_impossible_placements_raise(bad):
  with pytest.raises(ValueError):
    models.mrope_positions(8, bad, merge_size=2)


def test_patch_layout_by_hand():
  """A 4 x 6 grid; windows of 4 x 4 patches, the right one partial."""
  coords, windows, *_ = vision.patch_layout((1, 4, 6), CONFIG.vision)
  # Six merged patches in two rows of three, each with four patches.
  np.testing.assert_array_equal(
      coords[:12],
      [[0, 0], [0, 1], [1, 0], [1, 1]]
      + [[0, 2], [0, 3], [1, 2], [1, 3]]
      + [[0, 4], [0, 5], [1, 4], [1, 5]],
  )
  np.testing.assert_array_equal(windows, np.repeat([0, 0, 1, 0, 0, 1], 4))
  with pytest.raises(ValueError, match='still image'):
    vision.patch_layout((2, 4, 4), CONFIG.vision)


def test_packing_refuses_what_does_not_fit():
  [turn] = helpers.model_inputs([((1, 4, 6),)], CONFIG)
  with pytest.raises(ValueError, match='more than 20 patches'):
    models.pack_images([turn.images], n_patches=20, config=CONFIG.vision)


def loss_fn(config, *, scan, remat):
  [turn] = helpers.model_inputs([(4, (1, 6, 6), 8)], config)
  tokens = turn.tokens[None]
  inputs = models.pack_images(
      [turn.images], n_patches=40, config=config.vision
  )

  def loss(model):
    how = layers.Execution(scan, remat)
    features = model.vision(inputs, how)
    hidden = model.text.hidden(
        tokens,
        turn.positions[None],
        np.ones_like(tokens),
        features,
        turn.image_index()[None],
        how,
    )
    logprobs, _ = models.token_logprobs(
        hidden[:, :-1], model.text.head(), tokens[:, 1:], chunk=8
    )
    return -logprobs.mean()

  return loss


@pytest.fixture(scope='module', params=FAMILIES)
def reference(request):
  config = helpers.tiny_config(family=request.param)
  model = helpers.tiny_model(config)
  loss = loss_fn(config, scan=False, remat='none')
  return model, jax.jit(jax.value_and_grad(loss))(model)


@pytest.mark.parametrize(
    ('scan', 'remat'),
    [
        (True, 'none'),
        pytest.param(True, 'dots', marks=pytest.mark.slow),
        (True, 'full'),
        pytest.param(False, 'dots', marks=pytest.mark.slow),
        (False, 'full'),
    ],
)
def test_scan_and_remat_change_nothing(reference, scan, remat):
  model, (expected_loss, expected) = reference
  loss = loss_fn(model.config, scan=scan, remat=remat)
  actual_loss, actual = jax.jit(jax.value_and_grad(loss))(model)
  np.testing.assert_allclose(actual_loss, expected_loss, rtol=1e-6)
  assert max(np.abs(leaf).max() for leaf in jax.tree.leaves(expected)) > 1e-2
  jax.tree.map(
      lambda a, e: np.testing.assert_allclose(a, e, rtol=1e-4, atol=1e-5),
      actual,
      expected,
  )


@pytest.mark.parametrize('scan', [True, False])
def test_remat_keeps_less(reference, scan):
  """What the backward pass stores shrinks: none > dots > full."""
  model, _ = reference

  def stored(remat):
    loss = loss_fn(model.config, scan=scan, remat=remat)
    _, backward = jax.eval_shape(lambda m: jax.vjp(loss, m), model)
    return sum(leaf.size for leaf in jax.tree.leaves(backward))

  assert stored('none') > stored('dots') > stored('full')


def test_unknown_remat_is_an_error(reference):
  with pytest.raises(ValueError, match='remat'):
    loss_fn(reference[0].config, scan=True, remat='some')(reference[0])


@pytest.mark.parametrize('shape', [(3, 7), (7, 3), (5, 5)])
def test_gradients_of_matmul(shape):
  rng = np.random.default_rng(0)
  x = rng.standard_normal((2, 4, shape[0]), np.float32)
  kernel = rng.standard_normal(shape, np.float32)
  cotangent = rng.standard_normal((2, 4, shape[1]), np.float32)
  y, backward = jax.vjp(layers.matmul, x, kernel)
  of_x, of_kernel = backward(cotangent)
  np.testing.assert_allclose(y, x @ kernel, rtol=1e-4, atol=1e-5)
  np.testing.assert_allclose(of_x, cotangent @ kernel.T, rtol=1e-4, atol=1e-5)
  np.testing.assert_allclose(
      of_kernel, np.einsum('bti,btj->ij', x, cotangent), rtol=1e-4, atol=1e-5
  )


@pytest.mark.parametrize('chunk', [1, 4, 7, 64])
def test_token_logprobs_equal_the_naive_ones(chunk):
  rng = np.random.default_rng(0)
  hidden = rng.standard_normal((2, 7, 16), np.float32)
  head = rng.standard_normal((16, 50), np.float32)
  targets = rng.integers(0, 50, (2, 7))
  weights = rng.standard_normal((2, 2, 7), np.float32)

  def naive(hidden, head):
    logprobs = jax.nn.log_softmax(hidden @ head)
    entropy = -jnp.sum(jnp.exp(logprobs) * logprobs, axis=-1)
    chosen = jnp.take_along_axis(logprobs, targets[..., None], axis=-1)
    return chosen[..., 0], entropy

  def chunked(hidden, head):
    return models.token_logprobs(hidden, head, targets, chunk=chunk)

  def total(fn):
    return lambda *args: sum(
        jnp.sum(w * x) for w, x in zip(weights, fn(*args), strict=True)
    )

  for actual, expected in zip(
      chunked(hidden, head), naive(hidden, head), strict=True
  ):
    np.testing.assert_allclose(actual, expected, rtol=1e-5, atol=1e-5)
  for actual, expected in zip(
      jax.grad(total(chunked), argnums=(0, 1))(hidden, head),
      jax.grad(total(naive), argnums=(0, 1))(hidden, head),
      strict=True,
  ):
    np.testing.assert_allclose(actual, expected, rtol=1e-4, atol=1e-4)


def test_token_logprobs_never_hold_all_logits():
  def loss(hidden, head):
    targets = jnp.zeros(hidden.shape[:2], int)
    return models.token_logprobs(hidden, head, targets, chunk=16)[0].sum()

  shapes = [
      jax.ShapeDtypeStruct((2, 256, 8), jnp.float32),
      jax.ShapeDtypeStruct((8, 512), jnp.float32),
  ]
  compiled = jax.jit(jax.grad(loss, argnums=(0, 1))).lower(*shapes).compile()
  text = compiled.as_text()
  assert '[2,16,512]' in text or '[32,512]' in text  # One chunk of logits.
  for everything in ('[2,256,512]', '[512,512]', '[16,2,16,512]'):
    assert everything not in text


def test_bfloat16_runs_in_bfloat16():
  model = models.init(CONFIG, jax.random.key(0), dtype=jnp.bfloat16)
  [turn] = helpers.model_inputs([(4, (1, 4, 4), 8)], CONFIG)
  inputs = models.pack_images(
      [turn.images], n_patches=16, config=CONFIG.vision
  )

  @jax.jit
  def run(model):
    features = model.vision(inputs)
    hidden = model.text.hidden(
        turn.tokens[None],
        turn.positions[None],
        np.ones_like(turn.tokens)[None],
        features,
        turn.image_index()[None],
    )
    return features, hidden

  features, hidden = run(model)
  assert features.dtype == hidden.dtype == jnp.bfloat16
  assert model.text.logits(hidden[:, -1]).dtype == jnp.float32
  assert np.isfinite(hidden.astype(np.float32)).all()

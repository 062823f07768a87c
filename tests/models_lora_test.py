"""Adapters: neutral when new, equal when merged, apart when split."""

from __future__ import annotations

from flax import nnx
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from gog_jax import models
from gog_jax.models.families import FAMILIES
from tests import helpers

CONFIG = helpers.tiny_config()
TOKENS = np.random.default_rng(0).integers(20, 128, (2, 9))


def with_lora(*, vision=False):
  model = helpers.tiny_model(CONFIG)
  models.add_lora(model, rank=3, alpha=6, rngs=nnx.Rngs(0), vision=vision)
  return model


def perturbed(adapters, seed, scale=0.2):
  """Adapters whose B is not zero."""
  random = np.random.default_rng(seed)
  noise = lambda leaf: scale * random.standard_normal(leaf.shape, np.float32)
  return jax.tree.map(lambda leaf: leaf + noise(leaf), adapters)


@jax.jit
def logits(model):
  return model(TOKENS, np.ones_like(TOKENS))


@jax.jit
def image_logits(model):
  [turn] = helpers.model_inputs([((1, 4, 6), 3)], CONFIG)
  patches, grid = turn.images[0]
  tokens = turn.tokens[None]
  return model(tokens, np.ones_like(tokens), patches, np.array([grid]))


def test_a_new_adapter_changes_nothing():
  plain = helpers.tiny_model(CONFIG)
  np.testing.assert_array_equal(logits(plain), logits(with_lora()))


def test_every_linear_map_of_the_decoder_blocks_has_one():
  _, adapters, base = models.split(with_lora(), 'lora')
  names = {path[2] for path, _ in nnx.to_flat_state(adapters)}
  assert names == {'query', 'key', 'value', 'out', 'gate', 'up', 'down'}
  assert {path[:2] for path, _ in nnx.to_flat_state(adapters)} == {
      ('text', 'blocks')
  }
  for path, leaf in nnx.to_flat_state(adapters):
    axes = leaf.get_metadata('axes')
    assert len(axes) == leaf.get_value().ndim == 3
    assert axes[2 if path[-1] == 'lora_a' else 1] == 'rank'
  plain = nnx.state(helpers.tiny_model(CONFIG))
  assert jax.tree.structure(base) == jax.tree.structure(plain)
  with pytest.raises(ValueError, match='already'):
    models.add_lora(
        with_lora(), rank=1, alpha=1, rngs=nnx.Rngs(0), vision=False
    )


def saved_and_loaded(model, folder, dtype=jnp.float32):
  """With the share of the adapters' effect that was saved."""
  kept = models.save_pretrained(model, folder, dtype=dtype)
  return models.from_pretrained(folder, dtype=jnp.float32)[0], kept


def test_the_delta_is_a_times_b_times_alpha_over_rank(tmp_path):
  graphdef, fresh, base = models.split(with_lora(), 'lora')
  adapters = perturbed(fresh, 0)
  model = nnx.merge(graphdef, adapters, base)
  before = np.asarray(model.text.blocks.up.kernel[...])
  a = np.asarray(model.text.blocks.up.lora_a[...])
  b = np.asarray(model.text.blocks.up.lora_b[...])
  merged, kept = saved_and_loaded(model, tmp_path)
  np.testing.assert_allclose(
      merged.text.blocks.up.kernel[...],
      before + np.einsum('lir,lro->lio', a, b) * 6 / 3,
      atol=1e-5,
  )
  assert kept == pytest.approx(1, abs=1e-5)
  # The model itself keeps its adapters.
  np.testing.assert_array_equal(model.text.blocks.up.kernel[...], before)
  assert model.text.blocks.up.lora_a is not None


def test_how_much_of_a_small_adapter_bfloat16_leaves(tmp_path):
  """A base in bfloat16: steps of 2^-8 to 2^-7 of a weight; updates of less.

  float32 keeps all; what bfloat16 has left is what a count says it has.
  """
  model = helpers.tiny_model(CONFIG)
  rounded = jax.tree.map(
      lambda x: x.astype(jnp.bfloat16).astype(jnp.float32), nnx.state(model)
  )
  nnx.update(model, rounded)
  models.add_lora(model, rank=3, alpha=6, rngs=nnx.Rngs(0), vision=False)
  fresh = nnx.state(model, nnx.LoRAParam)
  nnx.update(model, perturbed(fresh, 0, 1e-3))
  whole, kept = saved_and_loaded(model, tmp_path / 'whole')
  assert kept == pytest.approx(1, abs=1e-3)
  half, left = saved_and_loaded(model, tmp_path / 'half', jnp.bfloat16)
  assert 0.1 < left < 0.9
  # By hand, of the written weights.
  added = had = 0.0
  for name in ('query', 'key', 'value', 'out', 'gate', 'up', 'down'):
    before, exact, after = (
        np.asarray(getattr(m.text.blocks, name).kernel[...], np.float64)
        for m in (model, whole, half)
    )
    added += ((exact - before) ** 2).sum()
    had += ((exact - before) * (after - before)).sum()
    np.testing.assert_array_equal(
        after, exact.astype(np.float32).astype(jnp.bfloat16)
    )
  assert left == pytest.approx(had / added, abs=1e-3)


def test_first_gradient_of_a_is_zero_and_of_b_is_not():
  graphdef, adapters, base = models.split(with_lora(), 'lora')

  def loss(adapters):
    return jnp.mean(logits(nnx.merge(graphdef, adapters, base)) ** 2)

  for path, leaf in nnx.to_flat_state(jax.jit(jax.grad(loss))(adapters)):
    largest = np.abs(leaf.get_value()).max()
    assert (largest == 0) == (path[-1] == 'lora_a'), path


@pytest.mark.parametrize('family', FAMILIES)
def test_a_policy_learns_beside_its_frozen_reference(family, tmp_path):
  """One base, two adapters; and to merge one changes nothing.

  Adapters are small: larger ones make the model amplify float32's rounding.
  """
  model = helpers.tiny_model(helpers.tiny_config(family=family))
  models.add_lora(model, rank=3, alpha=6, rngs=nnx.Rngs(0), vision=True)
  fresh = nnx.state(model, nnx.LoRAParam)
  nnx.update(model, perturbed(fresh, 1, 0.02))
  graphdef, policy, base = models.split(model, 'lora')
  reference = jax.tree.map(jnp.copy, policy)
  before = np.asarray(image_logits(model))
  moved = nnx.merge(graphdef, perturbed(policy, 2, 0.02), base)
  frozen = nnx.merge(graphdef, reference, base)
  np.testing.assert_array_equal(image_logits(frozen), before)
  unmerged = np.asarray(image_logits(moved))
  assert np.abs(unmerged - before).max() > 0.1
  # Out of the one and into the other.
  _, adapters, _ = models.split(moved, 'lora')
  nnx.update(frozen, jax.tree.map(jnp.copy, adapters))
  np.testing.assert_array_equal(image_logits(frozen), unmerged)
  merged, _ = saved_and_loaded(moved, tmp_path)
  assert not jax.tree.leaves(nnx.state(merged, nnx.LoRAParam))
  gap = np.abs(image_logits(merged) - unmerged).max()
  assert gap <= 1e-5 * np.abs(unmerged).max()
  with pytest.raises(ValueError, match='add_lora'):
    models.split(merged, 'lora')


@pytest.mark.parametrize('family', FAMILIES)
def test_every_linear_map_of_every_block_has_one(family):
  model = helpers.tiny_model(helpers.tiny_config(family=family))
  models.add_lora(model, rank=3, alpha=6, rngs=nnx.Rngs(0), vision=True)
  paths = [path for path, _ in nnx.to_flat_state(nnx.state(model))]
  kernels = {p[:-1] for p in paths if p[1] == 'blocks' and p[-1] == 'kernel'}
  assert kernels == {path[:-1] for path in paths if path[-1] == 'lora_a'}
  assert len(kernels) == 14 - (family == 'qwen3_vl')  # Its tower has no gate.


def test_what_is_trained():
  model = with_lora()
  n_all = len(jax.tree.leaves(nnx.state(model)))
  for trainable in ('lora', 'full', 'full_no_vision'):
    _, trained, frozen = models.split(model, trainable)
    paths = [path for path, _ in nnx.to_flat_state(trained)]
    assert len(paths) + len(jax.tree.leaves(frozen)) == n_all
    assert (len(paths) == n_all) == (trainable == 'full')
    assert any('vision' in path for path in paths) == (trainable == 'full')
  with pytest.raises(ValueError, match='not one of'):
    models.split(model, 'some')
  with pytest.raises(ValueError, match='add_lora'):
    models.split(helpers.tiny_model(CONFIG), 'lora')

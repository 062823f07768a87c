"""Muon against an SVD in NumPy; what is no kernel follows Adam."""

from flax import nnx
import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from configs import common
from gog_jax.config.training import OptimizerConfig
from gog_jax.errors import UserError
from gog_jax.models import layers
from gog_jax.models import sharding
from gog_jax.models.config import TowerConfig
from gog_jax.storage import typed
from gog_jax.train import optimizer as optimizer_lib


def config(**changes):
  c = common.optimizer(learning_rate=0.003, warmup_steps=0)
  c.max_grad_norm = 1e9
  c.update(changes)
  return c


@pytest.fixture(scope='module')
def params():
  rng = np.random.default_rng(0)
  block = layers.Block(
      TowerConfig(
          width=16,
          n_layers=3,
          n_heads=2,
          n_kv_heads=1,
          head_dim=8,
          ffn=40,
          norm_eps=1e-6,
          qkv_bias=True,
      ),
      dtype=jnp.float32,
      draw=lambda shape, std: jnp.asarray(
          rng.normal(size=shape) * std, jnp.float32
      ),
      residual_gain=1.0,
  )
  return nnx.state(block, nnx.Param)


@pytest.fixture(scope='module')
def grads(params):
  rng = np.random.default_rng(1)
  return jax.tree.map(
      lambda x: jnp.asarray(rng.normal(size=x.shape), x.dtype), params
  )


def first_update(params, grads, settings):
  optimizer = optimizer_lib.make_optimizer(settings, n_steps=10)
  updates, _ = optimizer.update(grads, optimizer.init(params), params)
  return updates


def test_muon_orthogonalises_each_layer_of_a_kernel(params, grads):
  updates = first_update(
      params, grads, config(name='muon', muon_learning_rate=0.5)
  )
  for name in ('query', 'gate', 'down'):
    update = np.asarray(updates[name].kernel[...], np.float64)
    for layer, grad in zip(update, np.asarray(grads[name].kernel[...])):
      u, _, v = np.linalg.svd(grad, full_matrices=False)
      n_in, n_out = grad.shape
      scale = 0.5 * max(1.0, n_out / n_in) ** 0.5
      got = -layer / scale
      # Five Newton-Schulz iterations leave singular values near 1, not at it.
      assert 0.6 < np.linalg.svd(got, compute_uv=False).min()
      assert np.linalg.svd(got, compute_uv=False).max() < 1.3
      length = np.linalg.norm(got) * min(n_in, n_out) ** 0.5
      assert (got * (u @ v)).sum() / length > 0.97


def test_what_is_no_kernel_follows_adam_with_nesterov_momentum(params, grads):
  updates = first_update(params, grads, config(name='muon'))
  oracle = optax.nadamw(0.003, b1=0.9, b2=0.95, weight_decay=0.0)
  expected, _ = oracle.update(grads, oracle.init(params), params)
  for read in (
      lambda state: state['query'].bias[...],
      lambda state: state['mlp_norm'].scale[...],
  ):
    np.testing.assert_allclose(read(updates), read(expected), rtol=1e-5)
  assert not np.allclose(
      updates['query'].kernel[...], expected['query'].kernel[...], rtol=0.1
  )


def test_state_of_muon_is_laid_out_on_a_mesh(params):
  mesh = sharding.make_mesh(data=1, fsdp=-1, tensor=1)
  optimizer = optimizer_lib.make_optimizer(config(name='muon'), n_steps=10)
  state = optimizer.init(params)
  placed = jax.device_put(state, sharding.param_shardings(state, mesh))
  assert jax.tree.structure(placed) == jax.tree.structure(state)
  n_devices = len(jax.devices())
  kernels = [x for x in jax.tree.leaves(placed) if x.shape == (3, 16, 40)]
  assert kernels
  for kernel in kernels:
    assert kernel.addressable_shards[0].data.shape == (3, 16 // n_devices, 40)


@pytest.mark.parametrize(
    ('changes', 'message'),
    [({'name': 'sgd'}, 'adamw, muon'), ({'decay': 'step'}, 'cosine')],
)
def test_unknown_words(changes, message):
  with pytest.raises(UserError, match=message):
    typed.read(OptimizerConfig, config(**changes).to_dict())


def test_the_rate_warms_up_from_the_first_update_and_decays_to_zero():
  optimizer = optimizer_lib.make_optimizer(
      config(decay='cosine', warmup_steps=2), n_steps=5
  )
  params = {'x': jnp.ones(1)}
  state = optimizer.init(params)
  sizes = []
  for _ in range(6):
    updates, state = optimizer.update({'x': jnp.ones(1)}, state, params)
    sizes.append(-float(optax.tree.sum(updates)))
  np.testing.assert_allclose(sizes[:3], [0.001, 0.002, 0.003], rtol=1e-3)
  assert np.argmax(sizes) == 2
  assert sizes[5] == 0.0

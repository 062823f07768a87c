"""Eight simulated devices compute what one does."""

from __future__ import annotations

from flax import nnx
import jax
import jax.numpy as jnp
from jax.sharding import NamedSharding, PartitionSpec
import numpy as np
import optax
import pytest

from gog_jax import errors
from gog_jax import models
from gog_jax.models import sharding
from gog_jax.models.layers import Execution
from tests import helpers

CONFIG = helpers.tiny_config(tied=False)


@pytest.fixture(scope='module')
def mesh():
  if jax.device_count() != 8:
    pytest.skip('needs the eight devices that conftest.py asks for')
  return sharding.make_mesh(2, 2, -1)


def batch(config=CONFIG):
  """Four rows, an image in each."""
  tokens, positions, index, images = [], [], [], []
  for row in range(4):
    [turn] = helpers.model_inputs([(3, (1, 4, 6), 5)], config, seed=row)
    tokens.append(turn.tokens)
    positions.append(turn.positions)
    index.append(turn.image_index())
    images.append(turn.images)
  return {
      'tokens': np.stack(tokens),
      'positions': np.stack(positions),
      'index': np.stack(index),
      'vision': models.pack_images(
          images, n_patches=24, config=config.vision
      ),
  }


def loss(model, batch):
  features = model.vision(batch['vision'])
  tokens = batch['tokens']
  hidden = model.text.hidden(
      tokens,
      batch['positions'],
      jnp.ones_like(tokens),
      features,
      batch['index'],
      Execution(remat='full'),
  )
  logprobs, _ = models.token_logprobs(
      hidden[:, :-1], model.text.head(), tokens[:, 1:], chunk=8
  )
  return -logprobs.mean()


def test_mesh_takes_what_is_left(mesh):
  assert dict(mesh.shape) == {'data': 2, 'fsdp': 2, 'tensor': 2}


@pytest.mark.parametrize(
    'sizes',
    [(3, 1, -1), (2, 2, 1), (-1, -1, 2), (0, 1, 8), (0, 1, -1), (-2, -2, 2)],
)
def test_impossible_meshes_are_user_errors(mesh, sizes):
  del mesh  # Skips where there are not eight devices.
  named = 'data={}, fsdp={}, tensor={}: sizes must multiply to the 8 devices'
  with pytest.raises(errors.UserError, match=named.format(*sizes)):
    sharding.make_mesh(*sizes)


def test_every_parameter_knows_its_place(mesh):
  model = helpers.tiny_model(CONFIG)
  models.add_lora(model, rank=2, alpha=2, rngs=nnx.Rngs(0), vision=True)
  shardings = dict(
      nnx.to_flat_state(sharding.param_shardings(nnx.state(model), mesh))
  )
  specs = {path: leaf.get_value().spec for path, leaf in shardings.items()}
  blocks = ('text', 'blocks')
  assert specs[*blocks, 'up', 'kernel'] == PartitionSpec(
      None, 'fsdp', 'tensor'
  )
  assert specs[*blocks, 'down', 'kernel'] == PartitionSpec(
      None, 'tensor', 'fsdp'
  )
  assert specs[*blocks, 'up', 'lora_a'] == PartitionSpec(None, 'fsdp', None)
  assert specs[*blocks, 'key', 'bias'] == PartitionSpec(None, 'tensor')
  assert specs['text', 'embedding'] == PartitionSpec('tensor', 'fsdp')
  assert specs['text', 'norm', 'scale'] == PartitionSpec(None)
  # Each matrix is split, whatever it is called.
  for path, spec in specs.items():
    if path[-1] == 'kernel':
      assert {'fsdp', 'tensor'} & set(spec), path


def test_an_axis_that_does_not_divide_is_replicated(mesh):
  spec = sharding.partition_spec((3, 7, 8), ('layers', 'embed', 'ffn'), mesh)
  assert spec == PartitionSpec(None, None, 'tensor')
  with pytest.raises(KeyError):
    sharding.partition_spec((3,), ('unheard_of',), mesh)
  with pytest.raises(ValueError, match='does not fit'):
    sharding.partition_spec((3, 4), ('embed',), mesh)


def test_optimizer_state_follows_its_parameters(mesh):
  state = nnx.state(helpers.tiny_model(CONFIG))
  optimizer_state = optax.adam(1e-3).init(state)
  placed = jax.device_put(
      optimizer_state, sharding.param_shardings(optimizer_state, mesh)
  )
  expected = sharding.param_shardings(state, mesh)
  jax.tree.map(
      lambda leaf, place: leaf.sharding.spec == place.spec or pytest.fail(),
      placed[0].mu,
      expected,
  )
  assert placed[0].count.sharding.is_fully_replicated


@pytest.mark.parametrize(
    'family', ['qwen2_5_vl', pytest.param('qwen3_vl', marks=pytest.mark.slow)]
)
def test_eight_devices_equal_one(mesh, family, tmp_path):
  config = helpers.tiny_config(family=family, tied=False)
  model = helpers.tiny_model(config)
  step = jax.value_and_grad(loss)
  expected_loss, expected = jax.jit(step)(model, batch(config))

  models.save_pretrained(model, tmp_path)
  placed, _ = models.from_pretrained(tmp_path, dtype=jnp.float32, mesh=mesh)
  kernel = placed.text.blocks.up.kernel[...]
  assert kernel.addressable_shards[0].data.size == kernel.size // 4
  graphdef, state = nnx.split(placed)
  rows = sharding.batch_sharding(mesh)
  where = sharding.param_shardings(state, mesh)

  def sharded_step(state, batch):
    value, gradient = step(nnx.merge(graphdef, state), batch)
    return value, nnx.state(gradient)

  with jax.set_mesh(mesh):
    actual_loss, actual = jax.jit(
        sharded_step,
        in_shardings=(where, rows),
        out_shardings=(NamedSharding(mesh, PartitionSpec()), where),
    )(state, jax.device_put(batch(config), rows))
  np.testing.assert_allclose(actual_loss, expected_loss, rtol=1e-5)
  jax.tree.map(
      lambda a, e: np.testing.assert_allclose(a, e, rtol=1e-4, atol=1e-5),
      actual,
      nnx.state(expected),
  )


@pytest.mark.parametrize('most', [2**30, 100])
@pytest.mark.parametrize(
    ('spec', 'row_bytes'),
    [
        (None, 160),
        (PartitionSpec(), 160),
        (PartitionSpec(None, 'fsdp', 'tensor'), 40),
        (PartitionSpec('fsdp'), 160),
    ],
)
def test_every_number_is_read_once_and_few_at_a_time(
    mesh, monkeypatch, most, spec, row_bytes
):
  monkeypatch.setattr(sharding, '_MOST_AT_ONCE', most)
  whole = np.arange(6 * 4 * 10, dtype=np.float32).reshape(6, 4, 10)
  reads = np.zeros(whole.shape, int)

  def read(index):
    reads[index] += 1
    assert whole[index].nbytes <= max(most, row_bytes)
    return whole[index]

  array = sharding.from_slices(
      jax.ShapeDtypeStruct(whole.shape, whole.dtype),
      None if spec is None else NamedSharding(mesh, spec),
      read,
  )
  np.testing.assert_array_equal(array, whole)
  assert (reads == 1).all()


def test_constraint_splits_rows_only_under_a_mesh(mesh):
  x = jnp.ones((4, 6))
  assert sharding.constrain_rows(x) is x
  constrain = jax.jit(sharding.constrain_rows)
  with jax.set_mesh(mesh):
    assert constrain(x).sharding.spec[0] == sharding.ROW_AXES
    odd = jnp.ones((3, 6))  # Three rows do not divide: left alone.
    np.testing.assert_array_equal(constrain(odd), odd)

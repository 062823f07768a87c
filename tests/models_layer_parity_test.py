"""Each layer against transformers': the first red case is where it went wrong.

The states after n layers are those of a model whose later layers add nothing.
"""

from __future__ import annotations

import functools
from typing import Any

from flax import nnx
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from gog_jax import models
from gog_jax.models.families import FAMILIES
from tests import helpers
from tests import hf_helpers

# Windows are 4 x 4 patches: both images span several, some of them partial.
PARTS = (5, (1, 6, 10), 7, (1, 8, 6), 4)
TOLERANCE = 2e-4
CONFIGS = {
    family: helpers.tiny_config(family=family)
    for family in FAMILIES
}


class Identity(nnx.Module):
  """In the place of a final norm."""

  def __call__(self, x):
    return x


class Grouping(nnx.Module):
  """In the place of a merger: patches side by side."""

  def __call__(self, x):
    return x.reshape(*x.shape[:-2], x.shape[-2] // 4, -1)


@pytest.fixture(scope='module')
def states(tmp_path_factory):
  """Of a family: (expected, actual) states by name of the layer they leave."""

  @functools.cache
  def of(family):
    config = CONFIGS[family]
    theirs, ours = hf_helpers.pair(tmp_path_factory.mktemp('hf'), config)
    [turn] = helpers.model_inputs([PARTS], config)
    expected, features = hf_states(theirs, turn)
    return expected, our_states(ours, turn, features)

  return of


def hf_states(model, turn):
  """What goes into each of their layers is what comes out of the one before."""
  torch = helpers.require_torch()
  vision, text = model.model.visual, model.model.language_model
  seen = {}

  def keep(name, *, output=False):
    def hook(module, args, kwargs, result=None):
      x: Any = result if output else (args or list(kwargs.values()))[0]
      seen[name] = x.detach().numpy().copy().reshape(-1, x.shape[-1])

    return hook

  def before(module, name):
    module.register_forward_pre_hook(keep(name), with_kwargs=True)

  def after(module, name):
    module.register_forward_hook(keep(name, output=True), with_kwargs=True)

  after(vision.patch_embed, 'patch_embed')
  for n, block in enumerate(vision.blocks):
    before(block, f'vision-{n}')
  before(vision.merger, f'vision-{len(vision.blocks)}')
  after(vision.merger, 'merger')
  for n, merger in enumerate(getattr(vision, 'deepstack_merger_list', ())):
    after(merger, f'deepstack-{n}')
  for n, layer in enumerate(text.layers):
    before(layer, f'text-{n}')
  before(text.norm, f'text-{len(text.layers)}')
  after(text.norm, 'norm')
  pixels = np.concatenate([patches for patches, _ in turn.images])
  grids = np.array([grid for _, grid in turn.images])
  tokens = turn.tokens[None]
  with torch.no_grad():
    model(**hf_helpers.hf_inputs(tokens, np.ones_like(tokens), pixels, grids))

  # Theirs sorts patches by window: undone, by finding each again.
  embedded = seen.pop('patch_embed')
  if getattr(vision, 'pos_embed', None) is None:
    found = (embedded[:, None] == seen['vision-0'][None]).all(-1)
    np.testing.assert_array_equal(found.sum(axis=1), 1)
    order = found.argmax(axis=1)
    for name in seen:
      if name.startswith('vision-'):
        seen[name] = seen[name][order]
    merged = order[::4] // 4
    seen['merger'] = seen['merger'][merged]
  deep = [seen[name] for name in seen if name.startswith('deepstack')]
  return seen, np.concatenate([seen['merger'], *deep], axis=-1)


def our_states(model, turn, features):
  """Ours; the decoder is given their features, not to inherit our faults."""
  config, seen = model.config, {}
  width, n_deep = config.text.width, len(config.vision.deepstack_layers)
  inputs = models.pack_images(
      [turn.images], n_patches=len(features) * 4, config=config.vision
  )
  tokens = turn.tokens[None]

  features_of = jax.jit(lambda model, inputs: model.vision(inputs)[0])
  encode = lambda model: features_of(model, inputs)

  @jax.jit
  def decode(model, features):
    return model.text.hidden(
        tokens,
        turn.positions[None],
        jnp.ones_like(tokens),
        features[None],
        turn.image_index()[None],
    )[0]

  merged = np.asarray(encode(model))
  parts = np.split(merged, n_deep + 1, axis=-1)
  seen['merger'] = parts[0]
  seen.update({f'deepstack-{n}': p for n, p in enumerate(parts[1:])})
  seen['norm'] = np.asarray(decode(model, features))

  bare = nnx.clone(model)
  bare.text.norm = Identity()
  bare.vision.merger = Grouping()
  for n in range(config.vision.n_layers + 1):
    grouped = encode(first_layers(bare, 'vision', n))
    grouped = grouped[:, : 4 * config.vision.width]
    seen[f'vision-{n}'] = np.asarray(grouped).reshape(-1, config.vision.width)
  for n in range(config.text.n_layers + 1):
    injected = features.copy()
    injected[:, (n + 1) * width :] = 0  # After the layers that count.
    seen[f'text-{n}'] = np.asarray(
        decode(first_layers(bare, 'text', n), injected)
    )
  return seen


def first_layers(model, tower, n):
  """The model, of whose `tower` the blocks from n on add nothing."""
  model = nnx.clone(model)
  blocks = getattr(model, tower).blocks
  for linear in (blocks.out, blocks.down):
    for parameter in (linear.kernel, linear.bias):
      if parameter is not None:
        parameter.set_value(parameter[...].at[n:].set(0))
  return model


def names(family):
  config = CONFIGS[family]
  n_deep = len(config.vision.deepstack_layers)
  return (
      [f'vision-{n}' for n in range(config.vision.n_layers + 1)]
      + [f'deepstack-{n}' for n in range(n_deep)]
      + ['merger']
      + [f'text-{n}' for n in range(config.text.n_layers + 1)]
      + ['norm']
  )


@pytest.mark.parametrize(
    ('family', 'name'),
    [(family, name) for family in CONFIGS for name in names(family)],
)
def test_states_after(states, family, name):
  """`tower-n` is what n layers make; 0 is the embedding, positions included."""
  expected, actual = states(family)
  assert expected.keys() == actual.keys()
  assert expected[name].std() > 0.1
  np.testing.assert_allclose(
      actual[name], expected[name], rtol=0, atol=TOLERANCE
  )

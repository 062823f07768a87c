"""Our numbers against Hugging Face's, whose every parameter is perturbed."""

from __future__ import annotations

import itertools
import json

import jax.numpy as jnp
import numpy as np
import pytest

from gog_jax import models
from gog_jax import types
from gog_jax.models import hf_config
from gog_jax.models import rope
from gog_jax.models.families import FAMILIES
from tests import helpers
from tests import hf_helpers
from tests.hf_helpers import hf_class
from tests.hf_helpers import hf_logits

# Two turns with a non-square image each. Windows are 4 x 4 patches: both
# images span several, some of them partial.
TURNS = ((5, (1, 6, 10), 7), (3, (1, 8, 6), 4))
TOLERANCE = 2e-4


def conversation(config):
  """The turns of TURNS, end to end, as a processor would return them."""
  turns = helpers.model_inputs(TURNS, config)
  tokens = np.concatenate([turn.tokens for turn in turns])[None]
  images = [image for turn in turns for image in turn.images]
  pixels = np.concatenate([patches for patches, _ in images])
  return tokens, pixels, np.array([grid for _, grid in images])


@pytest.fixture(
    scope='module',
    params=itertools.product(FAMILIES, (True, False)),
    ids=lambda case: f'{case[0]}-{"tied" if case[1] else "untied"}',
)
def pair(request, tmp_path_factory):
  """(theirs, ours, config): the same weights, through a folder."""
  family, tied = request.param
  config = helpers.tiny_config(family=family, tied=tied)
  folder = tmp_path_factory.mktemp('hf') / 'model'
  return *hf_helpers.pair(folder, config), config


# Rows of a batch; each has turns of text lengths and image grids.
CASES = {
    'text': [[(12,)]],
    'text-of-unequal-lengths': [[(12,)], [(8,)]],
    'image': [[(3, (1, 6, 4), 5)]],
    'three-images': [[(2, (1, 6, 10), 1, (1, 4, 2), 3, (1, 2, 40), 4)]],
    'image-in-a-tools-reply': [TURNS],
    'images-in-unequal-rows': [
        [(2, (1, 4, 6), 3)],
        TURNS,
        [(7,)],
        [(1, (1, 4, 4), 2, (1, 2, 6), 1)],
    ],
}


def batch(case, config, *, left):
  """A case as the processor returns it."""
  rows = [
      helpers.model_inputs(turns, config, seed=seed)
      for seed, turns in enumerate(CASES[case])
  ]
  width = max(sum(len(turn.tokens) for turn in row) for row in rows)
  tokens = np.full((len(rows), width), config.pad_token_id)
  mask = np.zeros_like(tokens)
  for i, row in enumerate(rows):
    ids = np.concatenate([turn.tokens for turn in row])
    here = np.s_[width - len(ids) :] if left else np.s_[: len(ids)]
    tokens[i, here], mask[i, here] = ids, 1
  images = [image for row in rows for turn in row for image in turn.images]
  if not images:
    return tokens, mask
  pixels = np.concatenate([patches for patches, _ in images])
  return tokens, mask, pixels, np.array([grid for _, grid in images])


@pytest.mark.parametrize(
    ('case', 'left'),
    [(case, False) for case in CASES]
    + [(case, True) for case in CASES if len(CASES[case]) > 1],
    ids=lambda value: {True: 'left', False: 'right'}.get(value, value),
)
def test_logits(pair, case, left):
  theirs, ours, config = pair
  inputs = batch(case, config, left=left)
  valid = inputs[1].astype(bool)
  expected = hf_logits(theirs, *inputs)[valid]
  assert expected.std() >= 1  # Or the tolerance would mean little.
  actual = np.asarray(ours(*inputs))
  assert np.isfinite(actual).all()
  np.testing.assert_allclose(actual[valid], expected, rtol=0, atol=TOLERANCE)


def test_images_matter(pair):
  """Other pixels, other logits: the agreement above is of something."""
  _, ours, config = pair
  tokens, pixels, grids = conversation(config)
  logits = ours(tokens, None, pixels, grids)
  other = ours(tokens, None, pixels[::-1].copy(), grids)
  assert np.abs(other - logits)[:, -1].max() > 0.1


def test_positions_equal_get_rope_index(pair):
  torch = helpers.require_torch()
  theirs, _, config = pair
  tokens, _, grids = conversation(config)
  expected, deltas = theirs.model.get_rope_index(
      torch.tensor(tokens, dtype=torch.long),
      mm_token_type_ids=torch.tensor(tokens == helpers.IMAGE_TOKEN).int(),
      image_grid_thw=torch.tensor(grids),
  )
  # Turn by turn, the way a conversation grows.
  turns = helpers.model_inputs(TURNS, config)
  actual = np.concatenate([turn.positions for turn in turns], axis=1)
  np.testing.assert_array_equal(actual, expected[:, 0].numpy())
  # At once; and where the next token will stand.
  n_first = len(turns[0].tokens)
  placements = [
      types.Placement(
          start=start + int(np.argmax(turn.tokens == helpers.IMAGE_TOKEN)),
          image=0,
          grid=turn.images[0][1],
          n_tokens=int((turn.tokens == helpers.IMAGE_TOKEN).sum()),
      )
      for turn, start in zip(turns, (0, n_first), strict=True)
  ]
  at_once, following = rope.mrope_positions(
      tokens.size, placements, merge_size=2
  )
  np.testing.assert_array_equal(at_once, actual)
  assert following == tokens.size + int(deltas[0, 0])


def test_saved_folder_loads_in_transformers(pair, tmp_path):
  theirs, ours, config = pair
  models.save_pretrained(ours, tmp_path, dtype=jnp.float32)
  cls = hf_class(config.family)
  reloaded, info = cls.from_pretrained(tmp_path, output_loading_info=True)
  assert not info['missing_keys'] and not info['unexpected_keys']
  assert not info['mismatched_keys']
  tokens, pixels, grids = conversation(config)
  mask = np.ones_like(tokens)
  np.testing.assert_array_equal(
      hf_logits(reloaded.eval(), tokens, mask, pixels, grids),
      hf_logits(theirs, tokens, mask, pixels, grids),
  )


def test_shards_in_the_newer_key_layout(pair, tmp_path):
  safetensors_torch = helpers.require('safetensors.torch')
  theirs, ours, config = pair
  # In memory, transformers' names are those of the newer layout.
  state = {k: v.contiguous() for k, v in theirs.state_dict().items()}
  if config.tied:
    del state['lm_head.weight']
  assert 'model.visual.patch_embed.proj.weight' in state
  names = sorted(state)
  shards = {'a.safetensors': names[::2], 'b.safetensors': names[1::2]}
  for shard, keys in shards.items():
    safetensors_torch.save_file(
        {key: state[key] for key in keys}, tmp_path / shard
    )
  weight_map = {key: shard for shard, keys in shards.items() for key in keys}
  (tmp_path / 'model.safetensors.index.json').write_text(
      json.dumps({'weight_map': weight_map})
  )
  (tmp_path / 'config.json').write_text(json.dumps(hf_config.to_dict(config)))
  loaded, _ = models.from_pretrained(tmp_path, dtype=jnp.float32)
  tokens = np.arange(20, 40)[None]
  np.testing.assert_array_equal(
      loaded(tokens, np.ones_like(tokens)), ours(tokens, np.ones_like(tokens))
  )


def test_published_flat_config_reads_like_the_nested_one():
  config = helpers.tiny_config()
  nested = hf_config.to_dict(config)
  text = dict(nested['text_config'])
  text.pop('model_type')
  rope_parameters = text.pop('rope_parameters')
  vision = dict(nested['vision_config'])
  vision.pop('rope_parameters')
  vision['in_chans'] = vision.pop('in_channels')
  flat = {
      **text,
      **{k: v for k, v in nested.items() if k != 'text_config'},
      'rope_theta': rope_parameters['rope_theta'],
      'rope_scaling': {
          'type': 'mrope',
          'mrope_section': rope_parameters['mrope_section'],
      },
      'vision_config': vision,
  }
  assert hf_config.from_dict(flat) == config

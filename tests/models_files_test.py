"""Model folders: what is kept, and what a user is told to mend."""

from __future__ import annotations

import copy
import json

from flax import nnx
import jax
import jax.numpy as jnp
import numpy as np
import pytest
import safetensors.numpy

from gog_jax import errors
from gog_jax import models
from gog_jax.models import hf_config
from gog_jax.models.families import FAMILIES
from tests import helpers

CONFIG = helpers.tiny_config()


@pytest.fixture
def folder(tmp_path):
  models.save_pretrained(helpers.tiny_model(CONFIG), tmp_path)
  return tmp_path


def load(folder):
  return models.from_pretrained(folder, dtype=jnp.float32)


def edit_config(folder, **changes):
  path = folder / 'config.json'
  path.write_text(json.dumps({**json.loads(path.read_text()), **changes}))


def edit_weights(folder, edit):
  path = folder / 'model.safetensors'
  tensors = safetensors.numpy.load(path.read_bytes())
  edit(tensors)
  path.write_bytes(safetensors.numpy.save(tensors))


@pytest.mark.parametrize('dtype', [jnp.float32, jnp.bfloat16])
def test_saved_and_loaded_parameters_are_the_same(tmp_path, dtype):
  model = helpers.tiny_model(helpers.tiny_config(tied=False))
  models.save_pretrained(model, tmp_path, dtype=dtype)
  loaded, config = models.from_pretrained(tmp_path, dtype=dtype)
  assert config == helpers.tiny_config(tied=False)
  before = dict(nnx.to_flat_state(nnx.state(model)))
  after = dict(nnx.to_flat_state(nnx.state(loaded)))
  assert before.keys() == after.keys()
  for path, leaf in after.items():
    assert leaf.get_value().dtype == dtype
    np.testing.assert_array_equal(
        leaf.get_value(), before[path].get_value().astype(dtype), str(path)
    )
    assert leaf.get_metadata('axes') == before[path].get_metadata('axes')


def test_one_seed_one_model():
  first, same, other = (
      jax.tree.leaves(
          models.init(CONFIG, jax.random.key(seed), dtype=jnp.float32)
      )
      for seed in (0, 0, 1)
  )
  for a, b in zip(first, same, strict=True):
    np.testing.assert_array_equal(a, b)
  assert any((a != b).any() for a, b in zip(first, other, strict=True))


def test_other_files_in_the_folder_stay(folder):
  (folder / 'tokenizer.json').write_text('{}')
  models.save_pretrained(helpers.tiny_model(CONFIG), folder)
  assert (folder / 'tokenizer.json').read_text() == '{}'


@pytest.mark.parametrize('name', ['/no/such', ''])  # '' is not this folder.
def test_missing_folder(name):
  with pytest.raises(
      errors.UserError, match=f"'{name}' does not exist.*config.model.path"
  ):
    load(name)


def test_folder_without_config(tmp_path):
  with pytest.raises(errors.UserError, match='config.json cannot be read'):
    load(tmp_path)


def test_damaged_config(folder):
  (folder / 'config.json').write_text('{"model_type": ')
  with pytest.raises(errors.UserError, match='config.json cannot be read'):
    load(folder)


@pytest.mark.parametrize(
    ('changes', 'message'),
    [
        ({'model_type': 'llama'}, "'llama' is not supported"),
        ({'model_type': None}, 'None is not supported'),
        ({'vision_config': {'depth': 2}}, 'hidden_size must be'),
        ({'image_token_id': None, 'vision_config': 3}, 'config.json'),
    ],
)
def test_config_of_something_else(folder, changes, message):
  edit_config(folder, **changes)
  with pytest.raises(errors.UserError, match=message):
    load(folder)


@pytest.mark.parametrize(
    ('changes', 'message'),
    [
        ({'hidden_act': 'gelu'}, 'gelu'),
        ({'use_sliding_window': True}, 'sliding'),
        ({'num_key_value_heads': 3}, 'do not divide'),
        (
            {'rope_parameters': {'rope_type': 'yarn', 'factor': 4.0}},
            "'yarn' is not supported",
        ),
        (
            {'rope_parameters': {'full_attention': {'rope_type': 'yarn'}}},
            'full_attention',
        ),
        ({'layer_types': ['full_attention', 'sliding_attention']}, 'sliding'),
        (
            {'rope_parameters': {'mrope_section': [1, 1, 1]}},
            'half of head_dim',
        ),
    ],
)
def test_unsupported_text_configs(folder, changes, message):
  text = json.loads((folder / 'config.json').read_text())['text_config']
  edit_config(folder, text_config={**text, **changes})
  with pytest.raises(errors.UserError, match=message):
    load(folder)


YARN = {'type': 'yarn', 'factor': 4.0}


@pytest.mark.parametrize('family', FAMILIES)
@pytest.mark.parametrize(
    ('place', 'field', 'value', 'words'),
    [
        # Beside the rope_parameters that say `default`.
        ('text_config', 'rope_scaling', YARN, "'yarn'"),
        ('', 'rope_scaling', YARN, "'yarn'"),
        ('', 'rope_parameters', {'rope_type': 'yarn'}, "'yarn'"),
        ('text_config', 'rope_scaling', {'rope_type': 'linear', 'factor': 2},
         "'linear'"),
        ('text_config', 'rope_scaling', {'factor': 2.0}, 'factor 2.0'),
        ('text_config', 'rope_scaling', {'mrope_section': [1, 2, 3]},
         r'mrope_section \[1, 2, 3\]'),
        ('text_config', 'rope_theta', 7.0, 'rope_theta'),
        ('', 'rope_theta', 7.0, 'rope_theta'),
        ('vision_config', 'rope_scaling', YARN, "'yarn'"),
        ('text_config', 'rope_scaling',
         {'rope_type': 'default', 'type': 'dynamic'}, "'dynamic'"),
    ],
)  # fmt: skip
def test_two_places_that_disagree(folder, family, place, field, value, words):
  raw = hf_config.to_dict(helpers.tiny_config(family=family))
  (raw[place] if place else raw)[field] = value
  (folder / 'config.json').write_text(json.dumps(raw))
  with pytest.raises(errors.UserError, match=words) as caught:
    models.read_config(folder)
  assert '\n' not in str(caught.value)


@pytest.mark.parametrize('family', FAMILIES)
@pytest.mark.parametrize('mark', [b'', b'\xef\xbb\xbf'])
def test_two_places_that_agree(folder, family, mark):
  config = helpers.tiny_config(family=family)
  raw = hf_config.to_dict(config)
  rope = raw['text_config']['rope_parameters']
  raw['rope_scaling'] = {**rope, 'type': 'mrope'}
  raw['text_config']['rope_scaling'] = {**rope, 'rope_type': 'mrope'}
  raw['rope_theta'] = rope['rope_theta']
  (folder / 'config.json').write_bytes(mark + json.dumps(raw).encode())
  assert models.read_config(folder) == config


@pytest.mark.parametrize('family', FAMILIES)
def test_any_value_of_a_config_is_read_or_refused(folder, family):
  """In one line; what is read makes a model."""
  whole = hf_config.to_dict(helpers.tiny_config(family=family))
  places = [(), ('text_config',), ('vision_config',)]
  places += [(place[0], 'rope_parameters') for place in places[1:]]
  n_read = n_refused = 0
  for place in places:
    for field in _inner(whole, place):
      for value in ('x', None, -1, 0, 1.5, [1], [2, -1, 3], {}, True):
        changed = copy.deepcopy(whole)
        _inner(changed, place)[field] = value
        (folder / 'config.json').write_text(json.dumps(changed))
        try:
          models.abstract(models.read_config(folder), dtype=jnp.float32)
          n_read += 1
        except errors.UserError as error:
          assert '\n' not in str(error)
          n_refused += 1
  assert n_refused > 200 and n_read > 50


def _inner(raw, place):
  for name in place:
    raw = raw[name]
  return raw


def test_missing_weights(folder):
  (folder / 'model.safetensors').unlink()
  with pytest.raises(errors.UserError, match='no weights .*download'):
    load(folder)


def test_missing_and_unknown_tensors_are_named(folder):
  edit_weights(folder, lambda tensors: tensors.pop('model.norm.weight'))
  with pytest.raises(errors.UserError, match='lacks model.norm.weight:'):
    load(folder)

  def rename(tensors):
    tensors['model.normal.weight'] = np.zeros(3, np.float32)

  edit_weights(folder, rename)
  with pytest.raises(
      errors.UserError,
      match='lacks model.norm.weight and has unknown model.normal.weight',
  ):
    load(folder)


def test_misshapen_tensor_is_named(folder):
  key = 'visual.blocks.1.attn.qkv.bias'
  edit_weights(folder, lambda tensors: tensors.update({key: tensors[key][1:]}))
  with pytest.raises(errors.UserError, match=rf'{key} has shape \[95\]'):
    load(folder)


def test_truncated_weights(folder):
  path = folder / 'model.safetensors'
  path.write_bytes(path.read_bytes()[:-100])
  with pytest.raises(errors.UserError, match='model.safetensors is damaged'):
    load(folder)


def test_missing_shard_and_damaged_index(folder):
  (folder / 'model.safetensors').unlink()
  index = folder / 'model.safetensors.index.json'
  index.write_text(json.dumps({'weight_map': {'a': 'one.safetensors'}}))
  with pytest.raises(errors.UserError, match='shard one.safetensors'):
    load(folder)
  index.write_text('[]')
  with pytest.raises(errors.UserError, match='index.json cannot be read'):
    load(folder)


def test_a_tied_folder_may_hold_the_head_too(folder):
  def add_head(tensors):
    tensors['lm_head.weight'] = tensors['model.embed_tokens.weight'].copy()

  edit_weights(folder, add_head)
  model, _ = load(folder)
  np.testing.assert_array_equal(
      model.text.head(), model.text.embedding[...].T
  )


@pytest.mark.parametrize(
    'key',
    [
        'model.rotary_emb.inv_freq', 'model.rotary_emb.original_inv_freq',
        'model.layers.0.self_attn.rotary_emb.inv_freq',
        'model.layers.1.self_attn.rotary_emb.cos_cached',
        'model.language_model.rotary_emb.inv_freq',
        'visual.rotary_pos_emb.inv_freq', 'visual.embeddings.position_ids',
        'inv_freq',
    ],
)  # fmt: skip
def test_buffers_that_transformers_ignores_are_ignored(folder, key):
  edit_weights(folder, lambda t: t.update({key: np.zeros(3, np.float32)}))
  load(folder)


@pytest.mark.parametrize('key', ['visual.blocks.0.attn.bias', 'inv_freq2'])
def test_other_tensors_are_not(folder, key):
  edit_weights(folder, lambda t: t.update({key: np.zeros(3, np.float32)}))
  with pytest.raises(errors.UserError, match=f'has unknown {key}'):
    load(folder)

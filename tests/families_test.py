"""A dense variant of a family is an entry of FAMILIES, and nothing else."""

from __future__ import annotations

import dataclasses
import json

from flax import nnx
import jax
import jax.numpy as jnp
import numpy as np
import pytest
import safetensors.numpy

from gog_jax import models
from gog_jax.app import inspect_folder
from gog_jax.errors import UserError
from gog_jax.models import hf_config
from gog_jax.models.families import FAMILIES
from tests import helpers

NAME = 'qwen3_vl_variant'


@pytest.fixture(name='config')
def config_of_a_variant(monkeypatch):
  """Qwen3-VL with biases in its decoder, and a gated ViT with RMSNorm."""
  base = FAMILIES['qwen3_vl']
  changed = {'layer_norm': False, 'gated': True, 'patch_bias': False}
  variant = dataclasses.replace(
      base,
      box='resized_pixels',
      text=base.text | {'qkv_bias': True},
      vision=base.vision | changed,
      modules=base.modules
      | {'vision.blocks.gate': 'visual.blocks.{layer}.mlp.linear_gate'},
  )
  monkeypatch.setitem(FAMILIES, NAME, variant)
  tiny = helpers.tiny_config(family='qwen3_vl')
  return dataclasses.replace(
      tiny,
      family=NAME,
      text=dataclasses.replace(tiny.text, qkv_bias=True),
      vision=dataclasses.replace(tiny.vision, **changed),
  )


@pytest.fixture(name='folder')
def its_folder(config, tmp_path):
  models.save_pretrained(helpers.tiny_model(config), tmp_path)
  return tmp_path


def logits_of(model, config):
  [turn] = helpers.model_inputs([(3, (1, 6, 4), 5)], config)
  patches, grid = turn.images[0]
  tokens = turn.tokens[None]
  return np.asarray(
      model(tokens, None, patches, np.array([grid])), np.float32
  )


def test_its_folder_is_written_and_read(config, folder):
  loaded, read = models.from_pretrained(folder, dtype=jnp.float32)
  assert read == config
  names = safetensors.numpy.load_file(folder / 'model.safetensors').keys()
  decoder, vit = 'model.language_model.layers.0.', 'model.visual.blocks.0.'
  assert f'{decoder}self_attn.q_proj.bias' in names
  assert f'{vit}mlp.linear_gate.weight' in names
  assert f'{vit}norm1.bias' not in names
  np.testing.assert_array_equal(
      logits_of(loaded, config), logits_of(helpers.tiny_model(config), config)
  )


def test_its_config_json_fits_no_other_family(folder):
  path = folder / 'config.json'
  raw = json.loads(path.read_text())
  path.write_text(json.dumps(raw | {'model_type': 'qwen3_vl'}))
  with pytest.raises(UserError, match='config.json: hidden_act'):
    models.from_pretrained(folder)
  raw['vision_config']['hidden_act'] = 'gelu_pytorch_tanh'
  path.write_text(json.dumps(raw | {'model_type': 'qwen3_vl'}))
  with pytest.raises(UserError, match='lacks .* and has unknown'):
    models.from_pretrained(folder)


def test_its_adapters_are_written_and_read(config, folder, tmp_path):
  model, _ = models.from_pretrained(folder, dtype=jnp.float32)
  models.add_lora(model, rank=2, alpha=4, rngs=nnx.Rngs(0), vision=True)
  adapters = nnx.state(model, nnx.LoRAParam)
  nnx.update(model, jax.tree.map(lambda x: x + 0.01, adapters))
  models.save_adapters(model, tmp_path / 'adapters')
  again, _ = models.from_pretrained(folder, dtype=jnp.float32)
  models.load_adapters(again, tmp_path / 'adapters')
  np.testing.assert_allclose(
      logits_of(again, config), logits_of(model, config), atol=2e-5
  )


def test_inspect_knows_its_boxes(folder):
  found = inspect_folder.inspect(folder)
  assert (True, f'config.json: a {NAME} model') in found.checks
  assert 'model.box=resized_pixels' in dict(found.facts)['boxes']


def test_no_model_code_asks_for_a_family_by_name():
  package = hf_config.PUBLISHED.parent.parent / 'models'
  for path in package.glob('*.py'):
    if path.name != 'families.py':
      source = path.read_text()
      assert not any(f"'{name}'" in source for name in FAMILIES), path

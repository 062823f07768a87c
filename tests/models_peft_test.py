"""Adapter folders: what we write peft reads, and the other way."""

from __future__ import annotations

import json

from flax import nnx
import jax
import numpy as np
import pytest
import safetensors.flax
import safetensors.numpy

from gog_jax import errors
from gog_jax import models
from gog_jax.models.families import FAMILIES
from tests import helpers
from tests import hf_helpers

TOLERANCE = 2e-4


@pytest.fixture(scope='module', params=FAMILIES)
def base(request, tmp_path_factory):
  """Their folder and our config of one base model."""
  config = helpers.tiny_config(family=request.param)
  folder = tmp_path_factory.mktemp('base')
  hf_helpers.pair(folder, config)
  return folder, config


def theirs(base):
  folder, config = base
  return hf_helpers.hf_class(config.family).from_pretrained(folder).eval()


def ours(base):
  return models.from_pretrained(base[0], dtype=np.float32)[0]


def inputs(config):
  [turn] = helpers.model_inputs([(3, (1, 6, 4), 5)], config)
  patches, grid = turn.images[0]
  tokens = turn.tokens[None]
  return tokens, np.ones_like(tokens), patches, np.array([grid])


def shaken(model, seed=0):
  """Adapters whose B is not zero."""
  random = np.random.default_rng(seed)
  nnx.update(
      model,
      jax.tree.map(
          lambda x: x + 0.1 * random.standard_normal(x.shape, np.float32),
          nnx.state(model, nnx.LoRAParam),
      ),
  )


def tensors_of(folder):
  tensors = safetensors.flax.load_file(folder / 'adapter_model.safetensors')
  return jax.tree.map(np.asarray, tensors)


@pytest.mark.filterwarnings('error:.*keys:UserWarning')
def test_peft_loads_what_we_write(base, tmp_path):
  peft = helpers.require('peft')
  config = base[1]
  model = ours(base)
  models.add_lora(model, rank=3, alpha=6, rngs=nnx.Rngs(0), vision=True)
  shaken(model)
  models.save_adapters(model, tmp_path, base='somewhere')
  loaded = peft.PeftModel.from_pretrained(theirs(base), tmp_path).eval()
  assert set(peft.get_peft_model_state_dict(loaded)) == set(
      tensors_of(tmp_path)
  )
  expected = np.asarray(model(*inputs(config)))
  plain = np.asarray(ours(base)(*inputs(config)))
  assert np.abs(expected - plain).max() > 0.1
  np.testing.assert_allclose(
      hf_helpers.hf_logits(loaded, *inputs(config)),
      expected,
      rtol=0,
      atol=TOLERANCE,
  )
  # And we do: qkv, written as one of rank 9, is read back as the same map.
  again = ours(base)
  models.load_adapters(again, tmp_path)
  np.testing.assert_allclose(
      again(*inputs(config)), expected, rtol=0, atol=TOLERANCE
  )


def test_new_adapters_are_drawn_as_peft_draws_them(base):
  """Evenly, as far from zero as peft's, each kernel by its own width."""
  peft = helpers.require('peft')
  model = ours(base)
  models.add_lora(model, rank=64, alpha=64, rngs=nnx.Rngs(0), vision=False)
  blocks = model.text.blocks
  drawn = peft.get_peft_model(
      theirs(base),
      peft.LoraConfig(r=64, target_modules=r'.*layers.*(q_proj|down_proj)'),
  )
  for name, linear in (('q_proj', blocks.query), ('down_proj', blocks.down)):
    (want, *_), (got, *_) = (
        [x.detach().numpy() for key, x in drawn.named_parameters()
         if f'{name}.lora_A' in key],
        np.asarray(linear.lora_a[...]),
    )  # fmt: skip
    assert want.shape == got.T.shape
    np.testing.assert_allclose(got.std(), want.std(), rtol=0.05)
    np.testing.assert_allclose(abs(got).max(), abs(want).max(), rtol=0.02)


@pytest.mark.parametrize(
    'options',
    [
        {'target_modules': ['q_proj', 'v_proj']},
        {'target_modules': r'.*(_proj|qkv|blocks.*(proj|fc1|fc2))$'},
        {'target_modules': ['up_proj'], 'layers_to_transform': [1]},
        {
            'target_modules': ['q_proj', 'down_proj'],
            'rank_pattern': {'q_proj': 5},
            'alpha_pattern': {'q_proj': 7},
            'use_rslora': True,
        },
    ],
    ids=['query-value', 'all', 'one-layer', 'patterns'],
)
@pytest.mark.parametrize('dtype', ['float32', 'bfloat16'])
def test_we_load_what_peft_writes_and_give_it_back(
    base, options, dtype, tmp_path
):
  peft = helpers.require('peft')
  torch = helpers.require_torch()
  safetensors_torch = helpers.require('safetensors.torch')
  config = base[1]
  torch.manual_seed(0)
  tuned = peft.get_peft_model(
      theirs(base), peft.LoraConfig(r=2, lora_alpha=6, **options)
  ).eval()
  with torch.no_grad():
    for name, parameter in tuned.named_parameters():
      if 'lora_' in name:
        parameter.add_(0.1 * torch.randn_like(parameter))
        rounded = parameter.to(getattr(torch, dtype))
        parameter.copy_(rounded)
  state = {
      name: tensor.to(getattr(torch, dtype))
      for name, tensor in peft.get_peft_model_state_dict(tuned).items()
  }
  tuned.save_pretrained(tmp_path / 'theirs')
  safetensors_torch.save_file(
      state, tmp_path / 'theirs' / 'adapter_model.safetensors'
  )
  model = ours(base)
  models.load_adapters(model, tmp_path / 'theirs')
  expected = hf_helpers.hf_logits(tuned, *inputs(config))
  np.testing.assert_allclose(
      model(*inputs(config)), expected, rtol=0, atol=TOLERANCE
  )
  models.save_adapters(model, tmp_path / 'ours')
  before, after = (tensors_of(tmp_path / who) for who in ('theirs', 'ours'))
  assert before.keys() == after.keys()
  for key, tensor in before.items():
    assert after[key].dtype == tensor.dtype == dtype
    np.testing.assert_array_equal(after[key], tensor, key)
  again = peft.PeftModel.from_pretrained(theirs(base), tmp_path / 'ours')
  np.testing.assert_allclose(
      hf_helpers.hf_logits(again.eval(), *inputs(config)), expected, atol=1e-5
  )


def test_only_what_the_folder_has_is_trained(base, tmp_path):
  model = ours(base)
  models.add_lora(model, rank=2, alpha=2, rngs=nnx.Rngs(0), vision=False)
  shaken(model)
  models.save_adapters(model, tmp_path)
  kept = {k: v for k, v in tensors_of(tmp_path).items() if 'q_proj' in k}
  rewrite(tmp_path, kept)
  some = ours(base)
  models.load_adapters(some, tmp_path)
  _, trained, _ = models.split(some, 'lora')
  assert {path[2] for path, _ in nnx.to_flat_state(trained)} == {'query'}
  with pytest.raises(ValueError, match='already'):
    models.load_adapters(some, tmp_path)


def rewrite(folder, tensors):
  (folder / 'adapter_model.safetensors').write_bytes(
      safetensors.numpy.save(tensors)
  )


@pytest.fixture(scope='module')
def small(tmp_path_factory):
  """A folder of ours and its base."""
  config = helpers.tiny_config()
  model = helpers.tiny_model(config)
  models.add_lora(model, rank=2, alpha=2, rngs=nnx.Rngs(0), vision=False)
  folder = tmp_path_factory.mktemp('small')
  models.save_adapters(model, folder)
  text = (folder / 'adapter_config.json').read_text()
  return config, json.loads(text), tensors_of(folder)


KEY = 'base_model.model.model.language_model.layers.1.self_attn.q_proj.lora_'


@pytest.mark.parametrize(
    ('config', 'edit', 'message'),
    [
        ({'use_dora': True}, None, 'use_dora True is not supported'),
        ({'bias': 'all'}, None, "bias must be one of none, not 'all'"),
        ({'modules_to_save': ['lm_head']}, None, 'modules_to_save'),
        ({'peft_type': 'IA3'}, None, 'peft_type'),
        # These begin by changing the base's own weights.
        ({'init_lora_weights': 'pissa'}, None, 'pissa.*merge_and_unload'),
        ({'init_lora_weights': 'olora'}, None, 'olora.*merge_and_unload'),
        ({'use_rslora': 'false'}, None, 'use_rslora must be true or false'),
        ({'r': '8'}, None, "r must be a whole number, not '8'"),
        ({'lora_alpha': None}, None, 'lora_alpha is missing'),
        ({'lora_alpha': np.nan}, None, 'lora_alpha must be finite, not nan'),
        ({'alpha_pattern': {'q_proj': np.inf}}, None, 'q_proj must be finite'),
        ({'rank_pattern': [1]}, None, 'rank_pattern must be'),
        ({'rank_pattern': {'(': 4}}, None, r"pattern '\(': missing \)"),
        ({'alpha_pattern': {'q_proj': 'x'}}, None, "q_proj must be .* not 'x'"),
        ({'rank_pattern': {'layers.0.self_attn.q_proj': 3}}, None, 'different'),
        ({'r': 4}, None, r'has shape \[2, 64\], which .* \(\[4, 64\]'),
        ({}, lambda t: t.pop(f'{KEY}B.weight'), f'lacks {KEY}B.weight'),
        ({}, lambda t: t.update(x=np.zeros(2)), 'has unknown x'),
        (
            {},
            lambda t: t.update({f'{KEY}A.weight': np.zeros((2, 5))}),
            f'{KEY}A.weight has shape .2, 5., which does not fit .* ..2, 64.',
        ),
        ({}, lambda t: t.clear(), 'holds no adapters'),
        ({}, lambda t: t.update(x=np.zeros(())), 'has unknown x'),
        (
            {},
            lambda t: t.update({f'{KEY}A.weight': np.zeros((2, 64), np.int8)}),
            f'{KEY}A.weight has dtype I8',
        ),
    ],
)
def test_what_does_not_fit_is_named(small, config, edit, message, tmp_path):
  vlm_config, good, tensors = small
  tensors = dict(tensors)
  if edit is not None:
    edit(tensors)
  (tmp_path / 'adapter_config.json').write_text(json.dumps({**good, **config}))
  rewrite(tmp_path, tensors)
  model = helpers.tiny_model(vlm_config)
  with pytest.raises(errors.UserError, match=message):
    models.load_adapters(model, tmp_path)
  assert not jax.tree.leaves(nnx.state(model, nnx.LoRAParam))


OLDER = {'model.language_model.': 'model.', 'model.visual.': 'visual.'}


def _older(key):
  """Its name before transformers 4.52."""
  key = key.removeprefix('base_model.model.')
  for newer, older in OLDER.items():
    if key.startswith(newer):
      return f'base_model.model.{older}{key.removeprefix(newer)}'
  raise AssertionError(key)


SPELLINGS = {
    'older': _older,
    'raw': lambda key: key.replace('.weight', '.default.weight'),
    'older and raw': lambda key: _older(key).replace(
        '.weight', '.default.weight'
    ),
    'another name': lambda key: key.replace('.weight', '.mine.weight'),
    'no prefix': lambda key: key.removeprefix('base_model.model.'),
    'older, no prefix': lambda key: _older(key).removeprefix(
        'base_model.model.'
    ),
}


@pytest.mark.parametrize('spelling', SPELLINGS)
def test_names_of_either_layout_are_read(base, spelling, tmp_path):
  model = ours(base)
  models.add_lora(model, rank=2, alpha=6, rngs=nnx.Rngs(0), vision=True)
  shaken(model)
  models.save_adapters(model, tmp_path)
  renamed = {SPELLINGS[spelling](k): v for k, v in tensors_of(tmp_path).items()}
  assert len(renamed) == len(tensors_of(tmp_path)) > 8
  path = tmp_path / 'adapter_config.json'
  config = json.loads(path.read_text())
  for name in ('rank_pattern', 'alpha_pattern'):  # As the file has them.
    config[name] = {
        SPELLINGS[spelling](f'base_model.model.{k}').removeprefix(
            'base_model.model.'
        ): v
        for k, v in config[name].items()
    }
  path.write_text(json.dumps(config))
  rewrite(tmp_path, renamed)
  again = ours(base)
  models.load_adapters(again, tmp_path)
  np.testing.assert_allclose(
      again(*inputs(base[1])), model(*inputs(base[1])), rtol=0, atol=TOLERANCE
  )


def test_two_adapters_in_one_file_are_refused(small, tmp_path):
  config, good, tensors = small
  more = {k.replace('.weight', '.b.weight'): v for k, v in tensors.items()}
  tensors = {**tensors, **more}
  (tmp_path / 'adapter_config.json').write_text(json.dumps(good))
  rewrite(tmp_path, tensors)
  with pytest.raises(errors.UserError, match='are adapters of one module'):
    models.load_adapters(helpers.tiny_model(config), tmp_path)


@pytest.mark.parametrize(
    ('field', 'value'),
    [
        ('use_something_new', True), ('mora_config', {'rank': 2}),
        ('lora_ga_config', {'x': 1}), ('scale_every', 3), ('a', 'b'),
        ('target_parameters', ['x']), ('velora_config', {'r': 1}),
    ],
)  # fmt: skip
def test_fields_that_are_not_known_are_refused(small, tmp_path, field, value):
  config, good, tensors = small
  (tmp_path / 'adapter_config.json').write_text(
      json.dumps({**good, field: value})
  )
  rewrite(tmp_path, tensors)
  with pytest.raises(errors.UserError, match=f'{field} .* is not supported'):
    models.load_adapters(helpers.tiny_model(config), tmp_path)


def test_harmless_fields_are_ignored(small, tmp_path):
  config, good, tensors = small
  peft = helpers.require('peft')
  fields = peft.LoraConfig().to_dict()
  more = {'use_something_new': None, 'x': False, 'layers_pattern': 'layers'}
  path = tmp_path / 'adapter_config.json'
  text = json.dumps({**fields, **good, **more}, default=list)
  path.write_bytes(b'\xef\xbb\xbf' + text.encode())
  rewrite(tmp_path, tensors)
  model = helpers.tiny_model(config)
  models.load_adapters(model, tmp_path)
  assert jax.tree.leaves(nnx.state(model, nnx.LoRAParam))


@pytest.mark.parametrize(
    'name',
    [
        'vit.safetensors', 'non_lora_state_dict.bin', 'mm_projector.bin',
        'non_lora_trainables.bin', 'model.safetensors', 'aligner.pt',
    ],
)  # fmt: skip
def test_parameters_beside_an_adapter_are_said(small, tmp_path, name):
  config, good, tensors = small
  (tmp_path / 'adapter_config.json').write_text(json.dumps(good))
  rewrite(tmp_path, tensors)
  for state in ('optimizer.pt', 'training_args.bin', 'rng_state_0.pth'):
    (tmp_path / state).write_bytes(b'x')
  models.load_adapters(helpers.tiny_model(config), tmp_path)
  (tmp_path / name).write_bytes(b'x')
  with pytest.raises(errors.UserError, match=f'holds {name} beside') as caught:
    models.load_adapters(helpers.tiny_model(config), tmp_path)
  assert '\n' not in str(caught.value)
  models.load_adapters(helpers.tiny_model(config), tmp_path, alone=True)


def test_missing_and_damaged_files(small, tmp_path):
  model = helpers.tiny_model(small[0])
  with pytest.raises(errors.UserError, match='holds no adapter_config.json'):
    models.load_adapters(model, tmp_path)
  (tmp_path / 'adapter_model.safetensors').write_bytes(b'12345')
  (tmp_path / 'adapter_config.json').write_text('{')
  with pytest.raises(errors.UserError, match='config.json cannot be read'):
    models.load_adapters(model, tmp_path)
  (tmp_path / 'adapter_config.json').write_text(json.dumps(small[1]))
  with pytest.raises(errors.UserError, match='model.safetensors is damaged'):
    models.load_adapters(model, tmp_path)
  with pytest.raises(ValueError, match='no adapters'):
    models.save_adapters(model, tmp_path)
  (tmp_path / 'adapter_config.json').write_text('[]')
  with pytest.raises(errors.UserError, match='config.json cannot be read'):
    models.load_adapters(model, tmp_path)
  models.add_lora(model, rank=1, alpha=1, rngs=nnx.Rngs(0), vision=False)
  adapters = nnx.state(model, nnx.LoRAParam)
  nnx.update(model, jax.tree.map(lambda x: x + 1, adapters))
  with pytest.raises(errors.UserError, match='cannot write .*choose another'):
    models.save_adapters(model, tmp_path / 'adapter_config.json')

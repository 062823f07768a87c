"""What configs/inspect.py says of whole, damaged and other folders."""

from __future__ import annotations

import json
import os
import pathlib
import shutil
import subprocess
import sys

import jax.numpy as jnp
import numpy as np
import pytest
import safetensors.numpy

from gog_jax import models
from gog_jax.app import inspect_folder
from gog_jax.errors import UserError
from tests import helpers
from tests import mini
from tests.chat_helpers import TOY
from tests.chat_template_test import TEMPLATE
from tests.chat_template_test import THINKS

ROOT = pathlib.Path(__file__).parents[1]


@pytest.fixture(name='toy')
def copy_of_the_toy(tmp_path):
  folder = tmp_path / 'model'
  shutil.copytree(TOY, folder)
  return folder


def troubles(folder) -> list[str]:
  checks = inspect_folder.inspect(folder).checks
  return [text for works, text in checks if not works]


def facts(folder) -> dict[str, str]:
  return dict(inspect_folder.inspect(folder).facts)


KEY = 'model.layers.0.mlp.down_proj.weight'


def test_the_toy_base_is_whole():
  assert troubles(TOY) == []
  found = facts(TOY)
  assert found['profile'] == 'toy'
  assert 'tied' in found['vocabulary'] and '832' in found['vocabulary']
  assert '104 tensors: BF16 3.30 MB' in found['weights']
  assert 'resized_pixels' in found['boxes']


@pytest.mark.parametrize('tied', [True, False])
@pytest.mark.parametrize('family', ['qwen2_5_vl', 'qwen3_vl'])
def test_either_family(tmp_path, family, tied):
  config = helpers.tiny_config(family=family, tied=tied)
  model = helpers.tiny_model(config)
  models.save_pretrained(model, tmp_path, dtype=jnp.float32)
  lines = inspect_folder.inspect(tmp_path).checks
  assert (True, f'config.json: a {family} model') in lines
  assert any(ok and 'those that config.json' in text for ok, text in lines)
  # What is missing beside the weights is said as well.
  rest = ' '.join(troubles(tmp_path))
  assert 'tokenizer.json cannot be read' in rest
  assert 'neither preprocessor_config.json nor' in rest
  kind = {'qwen2_5_vl': 'resized_pixels', 'qwen3_vl': 'thousandths'}[family]
  assert kind in facts(tmp_path)['boxes']
  assert facts(tmp_path)['profile'].startswith(family)


def test_damage_is_said_part_by_part(toy):
  weights = (toy / 'model.safetensors').read_bytes()
  (toy / 'model.safetensors').write_bytes(weights[:-100])
  assert any('cut off and lacks' in text for text in troubles(toy))
  (toy / 'model.safetensors').write_bytes(
      b'version https://git-lfs.github.com/spec/v1\noid sha256:0\nsize 1\n'
  )
  assert any('git lfs pull' in text for text in troubles(toy))
  (toy / 'model.safetensors').write_bytes(b'')
  assert any('cut off' in text for text in troubles(toy))
  (toy / 'model.safetensors').unlink()
  assert any('holds no weights' in text for text in troubles(toy))
  (toy / 'pytorch_model.bin').write_bytes(b'x')
  assert any('save_pretrained' in text for text in troubles(toy))
  (toy / 'model.safetensors.index.json').write_text(
      json.dumps({'weight_map': {'a': 'a.safetensors'}})
  )
  assert any('lacks the shard a.safetensors' in text for text in troubles(toy))
  (toy / 'config.json').write_text('{"model_type": "llama"}')
  assert any("'llama' is not supported" in text for text in troubles(toy))
  (toy / 'config.json').write_text('{')
  (toy / 'tokenizer.json').write_text('{')
  assert len(troubles(toy)) >= 3
  assert all('\n' not in text for text in troubles(toy))


@pytest.mark.parametrize(
    ('edit', 'message'),
    [
        (lambda t: t.update(foo=np.zeros(2, np.float32)), 'has unknown foo'),
        (lambda t: t.update({KEY: t[KEY].T.copy()}), f'{KEY} has shape'),
        (lambda t: t.update({KEY: t[KEY].astype(np.int8)}), 'dtype I8'),
        (lambda t: t.pop(KEY), f'lacks {KEY}'),
    ],
)
def test_what_loading_refuses_is_said(toy, edit, message):
  # NumPy has no bfloat16, of the toy's file.
  model, _ = models.from_pretrained(toy)
  models.save_pretrained(model, toy, dtype=jnp.float32)
  path = toy / 'model.safetensors'
  tensors = safetensors.numpy.load(path.read_bytes())
  edit(tensors)
  path.write_bytes(safetensors.numpy.save(tensors))
  with pytest.raises(UserError) as raised:
    models.from_pretrained(toy)
  assert message in str(raised.value)
  assert troubles(toy) == [' '.join(str(raised.value).split())]


@pytest.mark.parametrize(
    ('changes', 'message'),
    [
        ({'image_token_id': 3}, '<|image_pad|> is'),
        (
            {'vision_config': {'patch_size': 16, 'window_size': 64}},
            'patch_size 14, not 16',
        ),
        ({'text_config': {'vocab_size': 824}}, 'for 824 rows of'),
    ],
)
def test_files_that_do_not_belong_together(toy, changes, message, tmp_path):
  """A run of that folder refuses it in the same words."""
  path = toy / 'config.json'
  raw = json.loads(path.read_text())
  for field, value in changes.items():
    if isinstance(value, dict):
      value = raw[field] | value
    raw[field] = value
  path.write_text(json.dumps(raw))
  with pytest.raises(UserError) as raised:
    mini.make_run(tmp_path / 'run', 'rl', model__path=str(toy))
  assert message in str(raised.value)
  assert str(raised.value) in troubles(toy)


def test_templates_and_sampling_settings(toy):
  (toy / 'chat_template.jinja').write_text(TEMPLATE)
  (toy / 'generation_config.json').write_text('{"temperature": 0.7}')
  assert troubles(toy) == []
  found = facts(toy)
  assert 'describes tools' in found['chat template']
  assert found['generation'].startswith('temperature 0.7: ignored')
  (toy / 'chat_template.jinja').write_text(THINKS)
  assert 'Unverified' in facts(toy)['thinking']
  (toy / 'chat_template.jinja').write_text('{% if %}')
  assert any('not a chat template' in text for text in troubles(toy))


def test_an_adapter_names_its_base(tmp_path):
  (tmp_path / 'adapter_config.json').write_text(
      json.dumps({'base_model_name_or_path': 'Qwen/X', 'r': 8})
  )
  assert 'Qwen/X' in facts(tmp_path)['adapter']
  (line,) = troubles(tmp_path)
  assert 'merge it into Qwen/X' in line


@pytest.mark.slow
def test_the_command(tmp_path):
  """One line and 2 for no model folder; nothing is written in any case."""
  (tmp_path / 'holiday.txt').write_text('')
  with pytest.raises(UserError, match='not a model folder'):
    inspect_folder.inspect(tmp_path)
  workdir = tmp_path / 'run'
  broken = tmp_path / 'broken'
  broken.mkdir()
  (broken / 'config.json').write_text('{')
  for path, code in ((tmp_path, 2), (broken, 2), ('toy_base', 0)):
    done = subprocess.run(
        [
            sys.executable, '-m', 'gog_jax.main', '--config=configs/inspect.py',
            f'--config.model.path={path}', f'--workdir={workdir}',
        ],
        cwd=ROOT, env=os.environ | {'XLA_FLAGS': ''}, capture_output=True,
        text=True,
    )  # fmt: skip
    assert done.returncode == code, done.stderr
    if code:
      lines = done.stderr.splitlines()
      assert len([line for line in lines if 'so far' not in line]) == 1
    if path == broken:
      assert 'NO  ' in done.stdout
      assert 'of the above will not work' in done.stderr
    assert not workdir.exists()

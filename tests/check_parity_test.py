"""scripts/check_parity.py: agrees on equal weights, sees a broken rotation."""

from __future__ import annotations

import dataclasses
import importlib.util
import json
import pathlib
import shutil

import jax.numpy as jnp
import pytest

from gog_jax import models
from tests import helpers
from tests.chat_helpers import TOY
from tests.images_test import file_of
from tests.images_test import noise

SCRIPT = pathlib.Path(__file__).parents[1] / 'scripts' / 'check_parity.py'


@pytest.fixture(scope='module')
def script():
  spec = importlib.util.spec_from_file_location('check_parity', SCRIPT)
  assert spec and spec.loader
  module = importlib.util.module_from_spec(spec)
  spec.loader.exec_module(module)
  return module


@pytest.mark.parametrize(
    'family', [pytest.param('qwen2_5_vl', marks=pytest.mark.slow), 'qwen3_vl']
)
def test_verdicts(script, tmp_path, family, monkeypatch, capsys):
  helpers.require_torch()
  for name in ('tokenizer.json', 'preprocessor_config.json'):
    shutil.copy(TOY / name, tmp_path)
  config = helpers.tiny_config(family=family)
  text = dataclasses.replace(config.text, vocab_size=832)
  added = json.loads((TOY / 'tokenizer.json').read_text())['added_tokens']
  ids = {token['content']: token['id'] for token in added}
  config = dataclasses.replace(
      config,
      text=text,
      image_token_id=ids['<|image_pad|>'],
      vision_start_token_id=ids['<|vision_start|>'],
      vision_end_token_id=ids['<|vision_end|>'],
  )
  model = helpers.tiny_model(config)
  models.save_pretrained(model, tmp_path, dtype=jnp.float32)
  photo = tmp_path / 'photo.png'
  photo.write_bytes(file_of(noise(90, 60)))
  args = [str(tmp_path), f'--image={photo}']
  assert script.main(args) == 0
  assert 'image processor: equal, grid (1, 4, 6)' in capsys.readouterr().out
  assert script.main([*args, '--max_image_tokens=4']) == 0
  assert 'equal, grid (1, 2, 4)' in capsys.readouterr().out
  assert script.main([*args, '--dtype=bfloat16']) == 0
  assert 'positions in bfloat16' in capsys.readouterr().out
  # The same weights, another rotation on our side.
  load = models.from_pretrained

  def broken(folder, **kwargs):
    theta = dataclasses.replace(config.text, rope_theta=100.0)
    other = dataclasses.replace(config, text=theta)
    return helpers.tiny_model(other), load(folder, **kwargs)[1]

  monkeypatch.setattr(models, 'from_pretrained', broken)
  for dtype in ('float32', 'bfloat16'):
    assert script.main([*args, f'--dtype={dtype}']) == 1
    assert 'THEY DIFFER' in capsys.readouterr().out
  monkeypatch.undo()
  settings = tmp_path / 'preprocessor_config.json'
  other = json.loads(settings.read_text()) | {'patch_size': 7}
  settings.write_text(json.dumps(other))
  assert script.main(args) == 2
  assert 'its model does not take what' in capsys.readouterr().err


def test_what_is_missing_is_one_line(script, tmp_path, capsys):
  assert script.main([str(TOY), f'--image={tmp_path}/no.png']) == 2
  assert 'give --image=FILE' in capsys.readouterr().err

"""configs/check.py: passes where all is well, and sees what is not."""

from __future__ import annotations

import dataclasses
import json

import pytest

from gog_jax import models
from gog_jax.app import commands
from gog_jax.errors import UserError
from gog_jax.rollout.sampler import JaxPolicy
from tests import helpers
from tests import main_test
from tests import mini
from tests.export_test import make_base

SMALL = {
    'sampler__n_slots': 8, 'rl__micro_rows': 8, 'rollout__max_turn_tokens': 12,
}  # fmt: skip


def found(capsys) -> dict[str, tuple[str, str]]:
  """Name -> (verdict, what was said), of what was printed."""
  lines = capsys.readouterr().out.splitlines()
  return {
      name: (verdict, said)
      for verdict, _, rest in (line.partition(' ') for line in lines)
      for name, _, said in [rest.strip().partition(': ')]
  }


def check(folder, workdir, capsys, **more):
  """Exit code, and what was printed."""
  fields = {'model__path': str(folder)} | SMALL | more
  config = mini.make_config('check', 'toy', **fields)
  try:
    commands.do(config, workdir)
    code = 0
  except SystemExit as error:
    code = error.code
  return code, found(capsys)


@pytest.mark.parametrize(
    'trainable', ['lora', pytest.param('full', marks=pytest.mark.slow)]
)
@pytest.mark.parametrize('family', ['qwen2_5_vl', 'qwen3_vl'])
def test_all_is_well(family, trainable, tmp_path, capsys):
  helpers.require_torch()
  make_base(tmp_path / 'base', family)
  dtype = {'lora': 'float32', 'full': 'bfloat16'}[trainable]
  more = {
      'trainable': trainable, 'model__dtype': dtype, 'lora__rank': 2,
      'rl__optimizer__name': 'adamw', 'sft__optimizer__name': 'adamw',
  }  # fmt: skip
  code, said = check(tmp_path / 'base', tmp_path / 'run', capsys, **more)
  assert code == 0, said
  assert {name: verdict for name, (verdict, _) in said.items()} == {
      'sampler': 'ok', 'sampler and trainer': 'ok', 'update': 'ok',
      'memory': 'ok', 'transformers': 'ok',
  }  # fmt: skip
  assert f'positions in {dtype}' in said['transformers'][1]
  assert 'image processor equal, grid (1, 4, 6)' in said['transformers'][1]
  kept = json.loads((tmp_path / 'run' / 'check.json').read_text())
  assert [(one['name'], one['said']) for one in kept['checks']] == [
      (name, text) for name, (_, text) in said.items()
  ]
  assert kept['model']['model_type'] == family
  assert str(tmp_path) not in json.dumps(kept)


def test_what_is_wrong_is_seen(tmp_path, capsys, monkeypatch):
  """Another rotation than theirs; logprobs a token late; nothing learnt."""
  helpers.require_torch()
  base = tmp_path / 'base'
  make_base(base, 'qwen3_vl')
  load, sample = models.from_pretrained, JaxPolicy.sample

  def broken(folder, **kwargs):
    _, config = load(folder, **kwargs)
    theta = dataclasses.replace(config.text, rope_theta=100.0)
    other = dataclasses.replace(config, text=theta)
    return helpers.tiny_model(other), config

  def late(self, conversations):
    return [
        dataclasses.replace(said, logprobs=[0.0, *said.logprobs[:-1]])
        for said in sample(self, conversations)
    ]

  monkeypatch.setattr(models, 'from_pretrained', broken)
  monkeypatch.setattr(JaxPolicy, 'sample', late)
  code, said = check(
      base, tmp_path / 'run', capsys, rl__optimizer__learning_rate=0.0,
      rl__optimizer__muon_learning_rate=0.0,
  )  # fmt: skip
  assert code == 1
  assert {name: verdict for name, (verdict, _) in said.items()} == {
      'sampler': 'ok', 'sampler and trainer': 'FAILED', 'update': 'FAILED',
      'memory': 'ok', 'transformers': 'FAILED',
  }  # fmt: skip
  assert 'DID NOT MOVE' in said['update'][1]

  def no_room(*unused_args, **unused):
    raise RuntimeError('RESOURCE_EXHAUSTED: Out of memory\nand more')

  monkeypatch.undo()
  monkeypatch.setattr(JaxPolicy, 'sample', no_room)
  code, said = check(base, tmp_path / 'run', capsys)
  assert code == 1
  assert said['sampler'] == (
      'FAILED', 'RuntimeError: RESOURCE_EXHAUSTED: Out of memory'
  )  # fmt: skip
  assert said['update'] == ('--', 'not reached')
  assert said['transformers'][0] == 'ok'


def test_what_is_missing_is_one_line(tmp_path):
  with pytest.raises(UserError, match='--config.image=.*no.png cannot be read'):
    commands.do(
        mini.make_config('check', image=f'{tmp_path}/no.png'), tmp_path
    )
  main_test.assert_one_line(
      main_test.run('--config=configs/check.py:qwen3_vl_8b'),
      'pass --config.model.path=FOLDER',
  )

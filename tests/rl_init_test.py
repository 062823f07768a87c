"""What RL starts from: this run's SFT, the base, weights or adapters."""

from __future__ import annotations

import json
import shutil

from flax import nnx
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from gog_jax import models
from gog_jax.app import export
from gog_jax.app import stages
from gog_jax.app import walk
from gog_jax.errors import UserError
from gog_jax.models.folders import TOY_BASE
from gog_jax.rewards import score as rewards
from gog_jax.run import RunOf
from tests import mini
from tests.adapters_test import leaves


def perturbed(model, kind, seed):
  """The model with noise on its parameters of a kind."""
  key = iter(jax.random.split(jax.random.key(seed), 1000))
  nnx.update(model, jax.tree.map(
      lambda x: x + 0.01 * jax.random.normal(next(key), x.shape, x.dtype),
      nnx.state(model, kind),
  ))  # fmt: skip
  return model


@pytest.fixture(scope='module', name='folders')
def start_folders(tmp_path_factory):
  """A model folder and a peft folder, neither of which is the base."""
  folder = tmp_path_factory.mktemp('start')
  toy, _ = models.from_pretrained(TOY_BASE, dtype=jnp.float32)
  models.save_pretrained(perturbed(toy, nnx.Param, 0), folder / 'weights')
  shutil.copy(TOY_BASE / 'config.json', folder / 'weights')
  toy, _ = models.from_pretrained(TOY_BASE, dtype=jnp.float32)
  models.add_lora(toy, rank=3, alpha=6.0, vision=False, rngs=nnx.Rngs(0))
  perturbed(toy, nnx.LoRAParam, 1)
  models.save_adapters(toy, folder / 'adapter', base='toy_base')
  return folder


@pytest.mark.slow
@pytest.mark.parametrize('kind', ['base', 'weights', 'adapter'])
def test_rl_from(kind, folders, prepared, tmp_path, monkeypatch):
  """No SFT is made; what was graded, trained and is kept near is that policy.
  """
  monkeypatch.setattr(rewards, 'score', mini.score_by_ids)
  monkeypatch.setattr('gog_jax.rewards.levels.level_of', lambda *_, **__: 2)
  sampled = []
  make_policy = RunOf.make_policy

  def spied(self, model, **how):
    sampled.append(leaves(nnx.state(model)))
    return make_policy(self, model, **how)

  monkeypatch.setattr(RunOf, 'make_policy', spied)
  shutil.copytree(prepared / 'data', tmp_path / 'run' / 'data')
  init = 'base' if kind == 'base' else str(folders / kind)
  run = mini.make_run(
      tmp_path / 'run', 'rl', rl__init=init, trainable='lora', rl__steps=2,
      sft__optimizer__name='adamw', grade__n_queries=4, lora__rank=2,
      rl__optimizer__warmup_steps=0, eval__policies=('rl',),
  )  # fmt: skip
  walk.bring(run, ['rl'], 'rl')
  made = {path.name for path in (tmp_path / 'run').iterdir()}
  assert not made & {'sft', 'demos'}
  graded, begun = sampled
  mine = run.load_model('rl')
  evaluated = leaves(nnx.state(mine))
  weights = folders / 'weights' if kind == 'weights' else TOY_BASE
  start, _ = models.from_pretrained(weights, dtype=jnp.float32)
  if kind == 'adapter':
    models.load_adapters(start, folders / 'adapter')
  for name, value in leaves(nnx.state(start)).items():
    np.testing.assert_array_equal(graded[name], value, err_msg=name)
    if 'lora' not in name:
      np.testing.assert_array_equal(evaluated[name], value, err_msg=name)
  assert graded.keys() == begun.keys() == evaluated.keys()
  moved = {n for n in graded if (graded[n] != evaluated[n]).any()}
  assert moved and all('lora' in name for name in moved)
  rank = 3 if kind == 'adapter' else 2
  assert {graded[n].shape[-1] for n in moved if 'lora_a' in n} == {rank}
  first, second = mini.metrics_of(run, 'rl')
  assert abs(first['kl']) < 1e-6 < second['kl']
  for stage in ('grade', 'rl'):
    saved = json.loads((run.workdir / stage / 'manifest.json').read_text())
    assert init in (saved['config'].get('rl.init'),
                    saved['config'].get('rl', {}).get('init'))
    assert ('init' in saved['inputs']) == (kind != 'base')
  # Whoever loads the export has those weights, too.
  config = mini.make_config(
      'export', export__folder=str(tmp_path / 'out'), trainable='lora',
      sft__optimizer__name='adamw',
  )  # fmt: skip
  export.export(config, run.workdir)
  loaded, _ = models.from_pretrained(tmp_path / 'out', dtype=jnp.float32)
  tokens = jnp.arange(5, 25)[None]
  mask = jnp.ones_like(tokens)
  np.testing.assert_allclose(
      loaded(tokens, mask), mine(tokens, mask), atol=1e-4, rtol=1e-4
  )
  card = (tmp_path / 'out' / 'README.md').read_text()
  assert f'RL began from: {kind}\n' in card
  # Another folder by that name is another start.
  if kind != 'base':
    path = next((folders / kind).glob('*.json'))
    text = path.read_text()
    path.write_text(text + ' ')
    with pytest.raises(UserError, match='another folder in config.rl.init'):
      stages.manifest_of(run, 'grade').is_complete(run.workdir / 'grade')
    path.write_text(text)


def test_which_stages_it_needs(folders):
  found = stages.stages_of(mini.make_config('rl'))
  assert found['grade'].needs == ('data', 'sft')
  assert found['rl'].needs == ('grade', 'sft')
  found = stages.stages_of(mini.make_config('rl', rl__init=str(folders)))
  assert found['grade'].needs == ('data',)
  assert found['rl'].needs == ('grade',)


def test_what_cannot_be_started_from_is_one_line(folders, tmp_path):
  def refused(init, **more):
    run = mini.make_run(tmp_path, 'rl', rl__init=str(init), **more)
    with pytest.raises(UserError) as caught:
      walk.walk(run)
    return str(caught.value)

  assert 'nowhere is no folder' in refused('nowhere')
  run = mini.make_run(tmp_path, 'rl', rl__init=str(folders / 'adapter'))
  with pytest.raises(UserError, match='--config.trainable=lora'):
    run.load_start(run.config.rl.init)
  path = folders / 'weights' / 'config.json'
  text = path.read_text()
  path.write_text(text.replace('"rms_norm_eps": ', '"rms_norm_eps": 1'))
  run = mini.make_run(tmp_path, 'rl', rl__init=str(folders / 'weights'))
  with pytest.raises(UserError, match='another model than config.model.path'):
    run.load_start(run.config.rl.init)
  path.write_text(text)

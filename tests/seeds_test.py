"""A run over seeds with arms: stopped, started again, reported as one."""

from __future__ import annotations

import importlib
import json

import pytest

from gog_jax import interrupt
from gog_jax.app import stages
from gog_jax.app import walk
from gog_jax.config import from_page
from tests import mini

ARMS = {'rl_fast': {'optimizer': {'learning_rate': 4e-4}}, 'rl_once': {}}
POLICIES = ('direct', 'sft', 'rl', 'rl_fast', 'rl_once')


def make_run(workdir):
  page = importlib.import_module('configs.rl').get_config()
  page.update_from_flattened_dict(
      mini.OVERRIDES
      | {'seeds': (0, 1), 'rl.steps': 2, 'eval.policies': POLICIES}
  )
  page.once = ('rl_once',)
  page.arms = ARMS
  return mini.run_of(from_page(page), workdir)


@pytest.mark.slow
@pytest.mark.timeout(1800)  # Five minutes, or fifteen on a busy machine.
def test_a_run_over_seeds_goes_on_where_it_stopped(
    tmp_path, monkeypatch, capfd
):
  with monkeypatch.context() as patch:
    trained = []
    train = stages.rl.train

    def stop_at_the_third(run, folder):
      if len(trained) == 2:
        raise interrupt.Interrupted(2)
      trained.append(folder.name)
      return train(run, folder)

    patch.setattr(stages.rl, 'train', stop_at_the_third)
    with pytest.raises(interrupt.Interrupted):
      walk.walk(make_run(tmp_path))
    assert trained == ['rl', 'rl_fast']
  capfd.readouterr()
  made = []
  with monkeypatch.context() as patch:
    patch.setattr(
        stages.rl,
        'train',
        lambda run, folder: made.append(folder) or train(run, folder),
    )
    walk.walk(make_run(tmp_path))
  said = capfd.readouterr().err
  assert [(f.parent.name, f.name) for f in made] == [
      ('seed_0', 'rl_once'), ('seed_1', 'rl'), ('seed_1', 'rl_fast'),
  ]  # fmt: skip
  for stage in ('data', 'demos', 'sft', 'grade', 'rl', 'rl_fast'):
    assert f'{stage}: complete in {tmp_path / "seed_0" / stage}' in said
  summary = json.loads((tmp_path / 'report' / 'summary.json').read_text())
  n = {row['policy']: row['n'] for row in summary['rows']}
  assert n == {
      'direct': 32, 'sft': 32, 'rl': 32, 'rl_fast': 32, 'rl_once': 16
  }
  assert set(summary['seeds']) == {'0', '1'}
  page = (tmp_path / 'report' / 'index.html').read_text()
  for curve in ('seed 0: sft', 'seed 0: rl_once', 'seed 1: rl_fast'):
    assert curve in page
  assert 'seed 1: rl_once' not in page

"""RL's validation changes nothing, its best is kept, a stop repeats none."""

from __future__ import annotations

import json
import re
import shutil

from etils import epath
import jax
import jax.numpy as jnp
import numpy as np
import orbax.checkpoint as ocp
import pytest

from gog_jax import interrupt
from gog_jax import models
from gog_jax.errors import RunStopped
from gog_jax.errors import UserError
from gog_jax.evaluation import policies
from gog_jax.report import pages as report
from gog_jax.rewards import score as rewards
from gog_jax.run import RunOf
from gog_jax.storage import checkpoint
from gog_jax.storage import manifest
from gog_jax.storage import metrics
from gog_jax.storage import trajectories as store
from gog_jax.train.validation import Validation
from gog_jax.types import ToolStatus
from tests import export_test
from tests import mini
from tests import report_helpers as helpers


def rows_of(run):
  rows = metrics.read_rows(run.workdir / 'rl' / 'validation.jsonl')
  return [mini.without_clock(row) for row in rows]


def leaves_of(folder):
  """The arrays that Orbax has saved there."""
  with ocp.StandardCheckpointer() as reader:
    return jax.tree.leaves(reader.restore(folder))


@pytest.mark.slow
@pytest.mark.timeout(1200)
def test_rl_is_validated_and_its_best_kept(finished, tmp_path, monkeypatch):
  """With a sampler that lags; in one go, and stopped, killed and gone on."""
  monkeypatch.setattr(rewards, 'score', mini.score_by_ids)
  rollout, measured, stops = RunOf.rollout, [], []

  def disturbed(run, *args, seed, what='', **kwargs):
    groups = rollout(run, *args, seed=seed, what=what, **kwargs)
    if seed[0] == 'validation':
      step = int(re.fullmatch(r'rl step (\d)', what)[1])
      measured.append(step)
      # The second is the best, whatever has been learnt.
      for group in groups:
        group[0].reward_parts['accuracy'] *= 1.0 if step == 2 else 0.5
    if stops and stops[0] == (measured, seed[0]):
      raise [MemoryError(), interrupt.Interrupted(2)][len(stops) - 1]
    return groups

  monkeypatch.setattr(RunOf, 'rollout', disturbed)
  options = {
      'rl__steps': 3,
      'rl__sync_every': 2,
      'rl__optimizer__learning_rate': 3e-3,
  }
  validated = {**options, 'rl__n_validation': 8, 'rl__eval_every': 1}
  runs = {}
  for name, more in (
      ('plain', options),
      ('whole', {**validated, 'rl__checkpoint_every': 2}),
      ('parts', validated),
  ):
    shutil.copytree(finished.workdir, tmp_path / name)
    runs[name] = mini.make_run(tmp_path / name, 'rl', **more)
  plain, whole, parts = runs.values()
  mini.make_stages(plain, 'rl')
  mini.make_stages(whole, 'rl')
  rows, logged = rows_of(whole), mini.metrics_of(whole, 'rl')
  assert [row['step'] for row in rows] == measured == [1, 2, 3]
  assert [row['validation_accuracy'] for row in logged] == [
      row['accuracy'] for row in rows
  ]
  assert mini.metrics_of(plain, 'rl') == [
      {k: v for k, v in row.items() if not k.startswith('validation_')}
      for row in logged
  ]
  assert not (plain.workdir / 'rl' / 'best').exists()

  made = json.loads((whole.workdir / 'rl' / 'manifest.json').read_text())
  assert mini.without_clock(made['facts']['best']) == rows[1]
  best = leaves_of(whole.workdir / 'rl' / 'best')
  state = ocp.StandardCheckpointer().restore(
      whole.workdir / 'rl' / 'checkpoints' / '2' / 'state'
  )
  jax.tree.map(
      np.testing.assert_array_equal, best, jax.tree.leaves(state['params'])
  )
  # As a policy it answers as it did then.
  one = policies.trained_run(whole.config, whole.workdir, 'rl_best')
  groups = one.rollout(
      policies.make(one, 'rl_best'),
      whole.examples('validation', n=8),
      samples=1,
      seed=('again',),
  )
  accuracies = [t.reward_parts['accuracy'] for (t,) in groups]
  assert np.mean(accuracies) == pytest.approx(rows[1]['accuracy'], abs=1e-9)

  # Ctrl-C in the first validation; kill -9 in the third step, after the second.
  measured.clear()
  stops += [([1], 'validation'), ([1, 1, 2], 'rl')]
  for error in (interrupt.Interrupted, MemoryError):
    with pytest.raises(error):
      mini.make_stages(parts, 'rl')
    del stops[0]
  mini.make_stages(parts, 'rl')
  assert measured == [1, 1, 2, 3]  # The second step was made twice.
  assert rows_of(parts) == rows
  assert mini.metrics_of(parts, 'rl') == logged
  again = leaves_of(parts.workdir / 'rl' / 'best')
  jax.tree.map(np.testing.assert_array_equal, again, best)


def validation(run, folder, **more):
  settings = {'n': 8, 'every': 10, 'n_steps': 25} | more
  return Validation(run, epath.Path(folder), **settings)


@pytest.fixture
def run(prepared):
  return mini.make_run(prepared, 'rl')


def play(monkeypatch, right, *, status=ToolStatus.OK):
  """So many of the questions are right, the first time and so on."""
  numbers = iter(right)

  def rollout(run, policy, examples, **unused):
    del run, policy, unused
    n = next(numbers)
    return [
        [
            helpers.trajectory(
                e.id, (helpers.text(status=status),), right=i < n
            )
        ]
        for i, e in enumerate(examples)
    ]

  monkeypatch.setattr(RunOf, 'rollout', rollout)


def test_the_first_of_equals_is_best(run, tmp_path, monkeypatch):
  play(monkeypatch, [3, 5, 5])
  found = validation(run, tmp_path)
  steps = [step for step in range(26) if found.is_due(step)]
  assert steps == [10, 20, 25]
  best = []
  for step in steps:
    found.measure(step, policy=None)
    best.append(found.best(step)['step'])
  assert best == [10, 20, 20]
  # A restart goes on with what is there.
  again = validation(run, tmp_path)
  assert again.at(20)['accuracy'] == 5 / 8 and again.at(20)['calls'] == 1
  assert again.best(25)['step'] == 20 and again.best(10)['step'] == 10
  assert again.at(30) is None


def test_what_cannot_be_asked_is_left_out(run, tmp_path, monkeypatch, capfd):
  play(monkeypatch, [3])
  first = run.examples('validation', n=1)[0].id
  monkeypatch.setattr(
      RunOf, 'refusal', lambda _, e: 'too long' if e.id == first else ''
  )
  row = validation(run, tmp_path).measure(10, policy=None)
  assert (row['n'], row['accuracy']) == (7, 3 / 7)
  assert f'{first} is left out: too long' in capfd.readouterr().err


def test_an_outage_is_no_accuracy(run, tmp_path, monkeypatch):
  play(monkeypatch, [3], status=ToolStatus.INFRA_ERROR)
  with pytest.raises(RunStopped, match='failed all 8 validation questions'):
    validation(run, tmp_path).measure(10, policy=None)
  assert not (tmp_path / 'validation.jsonl').exists()


OWN = {
    'questions__train': ('jsonl:a',),
    'questions__test': ('jsonl:b',),
    'tools__backend': 'index',
    'sft__n_validation': 0,
}


@pytest.mark.parametrize(
    ('more', 'validates'),
    [
        ({}, True),
        ({'rl__n_validation': 0}, False),
        # Nobody has named questions that could be asked.
        (OWN, False),
        (OWN | {'questions__validation': ('train:5%',)}, True),
        # The world's are as few as they may be.
        (OWN | {'rl__n_validation': 500}, False),
        # Of an SFT that is not made.
        (OWN | {'sft__n_validation': 9, 'rl__init': 'base'}, False),
    ],
)
def test_what_rl_is_validated_on(more, validates):
  config = mini.make_config('rl', eval__policies=('rl',), **more)
  assert config.validates_rl == validates


@pytest.mark.parametrize(
    ('more', 'message'),
    [
        ({'rl__n_validation': 0, 'eval__policies': ('direct@rl_best',)},
         'best by validation, which needs config.rl.n_validation'),
        ({'rl__n_validation': 257}, 'more than config.data.n_validation'),
        ({'arms': {'rl_best': {}}}, 'does not end in _best'),
    ],
)  # fmt: skip
def test_refused(more, message):
  with pytest.raises(UserError, match=message):
    mini.make_config('rl', **more)


def test_without_validation_there_is_no_best(finished, tmp_path):
  shutil.copytree(finished.workdir / 'sft', tmp_path / 'rl')
  run = mini.make_run(tmp_path, 'eval')
  with pytest.raises(UserError, match='rl was not validated'):
    policies.trained_run(run.config, tmp_path, 'rl_best')


def test_the_best_is_exported_with_its_own_weights_and_figures(tmp_path):
  workdir = tmp_path / 'run'
  run, _ = export_test.train(workdir, 'rl')
  _, params, _ = models.split(run.load_model('rl'), run.config.trainable)
  best = jax.tree.map(lambda x: 2 * x, params)
  checkpoint.save_pytree(workdir / 'rl' / 'best', best)
  found = helpers.ten()
  for policy in ('rl', 'rl_best'):
    folder = workdir / 'eval' / policy
    examples = list(found.examples.values())
    store.write(folder / 'trajectories.jsonl', found.trajectories, examples)
    born = manifest.birthmark(workdir / 'rl')
    made = {
        'complete': True,
        'config': {'reward': {'accuracy': 'exact_match'}},
        'inputs': {'rl': f'0123 {born}'},
        'benchmark': {'name': 'mine', 'n': 10},
    }
    (folder / 'manifest.json').write_text(json.dumps(made))
  report.make(workdir, n_trajectories=0, seed=0)
  export_test.export(workdir, tmp_path / 'out', 'rl_best')
  written, _ = models.from_pretrained(tmp_path / 'out', dtype=jnp.float32)
  _, params, _ = models.split(written, run.config.trainable)
  jax.tree.map(np.testing.assert_array_equal, params, best)
  export_test.export(workdir, tmp_path / 'last', 'rl')
  cards = [(tmp_path / n / 'README.md').read_text() for n in ('out', 'last')]
  for card, about in zip(cards, ('rl_best', 'rl'), strict=True):
    assert re.findall(r'^(rl\w*) +70\.0 ', card, re.M) == [about]

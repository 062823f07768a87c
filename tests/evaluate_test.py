"""Evaluation item by item: durable and resumed."""

from __future__ import annotations

import dataclasses
import json
import shutil

import numpy as np
import pytest

from gog_jax import interrupt
from gog_jax.app import walk
from gog_jax.errors import UserError
from gog_jax.evaluation import collect
from gog_jax.evaluation import evaluate
from gog_jax.evaluation import policies
from gog_jax.report import pages
from gog_jax.storage import rollouts
from gog_jax.storage import trajectories as store
from gog_jax.types import Example
from gog_jax.types import StopReason
from gog_jax.types import Trajectory
from tests import eval_plays
from tests import mini

NAME = 'gog@script'
N = 16


def make_run(workdir, play='mixed', **more):
  fields = {
      'eval__policies': (NAME,),
      'eval__script': f'tests.eval_plays:{play}',
      'sampler__n_slots': 3,
  }
  return mini.make_run(workdir, 'eval', **fields | more)


@pytest.fixture(name='workdir')
def copied(prepared, tmp_path):
  shutil.copytree(prepared / 'data', tmp_path / 'data')
  shutil.copy(prepared / 'data' / 'manifest.json', tmp_path / 'data')
  return tmp_path


def evaluated(run):
  folder = run.workdir / 'eval' / NAME
  evaluate.evaluate(policies.run_of(run, NAME), folder, name=NAME)
  return folder


def rows(folder):
  """The final files' lines, without what a clock decides."""
  return [
      mini.without_clock(json.loads(line))
      for kind in ('examples', 'trajectories')
      for line in (folder / f'{kind}.jsonl').read_text().splitlines()
  ]


def test_items_stand_in_the_order_of_the_data_and_come_out_as_by_hand(workdir):
  run = make_run(workdir)
  folder = evaluated(run)
  trajectories = store.read(folder / 'trajectories.jsonl', Trajectory)
  examples = store.read(folder / 'examples.jsonl', Example)
  asked = list(run.examples('test', n=N))
  assert examples == asked
  assert [t.example_id for t in trajectories] == [e.id for e in asked]
  requests = [run.request(e, seed=('eval',), what='') for e in asked]
  right, calls = zip(*(eval_plays.by_hand(r, ()) for r in requests))
  assert [t.reward_parts['accuracy'] for t in trajectories] == list(right)
  assert [sum(len(t.results) for t in one.turns) for one in trajectories] == (
      list(calls)
  )
  assert evaluate.facts(folder) == {
      'n': N,
      'infra_errors': 0,
      'judge_errors': 0,
      'accuracy': np.mean(right),
      'format': 1.0,
  }
  progress = json.loads((folder / 'progress.json').read_text())
  assert progress['complete'] and progress['n_done'] == N
  assert progress['calls'] == sum(calls)
  assert progress['turns'] == sum(calls) + N
  assert evaluate.is_done(run, folder)


def stop_after(monkeypatch, n):
  """Lets `n` items be kept, then ends the process's work at once."""
  kept = []
  add = rollouts.Rollouts.add

  def adding(self, index, *args):
    if len(kept) == n:
      raise interrupt.Interrupted(2)
    add(self, index, *args)
    kept.append(index)

  monkeypatch.setattr(rollouts.Rollouts, 'add', adding)
  return kept


def test_what_was_stopped_goes_on_and_asks_nothing_again(
    workdir, tmp_path_factory, monkeypatch
):
  other = tmp_path_factory.mktemp('whole')
  shutil.copytree(workdir / 'data', other / 'data')
  whole = rows(evaluated(make_run(other)))
  run = make_run(workdir)
  kept = []
  for n in (5, 1, 4):
    with monkeypatch.context() as patch:
      own = stop_after(patch, n)
      with pytest.raises(interrupt.Interrupted):
        evaluated(run)
    kept += own
    folder = run.workdir / 'eval' / NAME
    assert not evaluate.is_done(run, folder)
    assert evaluate.progress_of(folder)['n_items'] == N
    # What there is can be read, in order, and reported on.
    trajectories, examples = rollouts.read(folder)
    assert len(trajectories) == len(kept) == len(set(kept))
    assert {t.example_id for t in trajectories} <= {e.id for e in examples}
    summary = pages.make(run.workdir, n_trajectories=2, seed=0)
    assert summary['rows'][0]['n'] == len(kept)
  with monkeypatch.context() as patch:
    kept += stop_after(patch, N)
    evaluated(run)
  assert rows(folder) == whole


def test_a_line_that_was_cut_off_is_made_again(workdir):
  run = make_run(workdir)
  folder = evaluated(run)
  whole = rows(folder)
  for kind in ('examples', 'trajectories'):
    path = folder / f'{kind}.jsonl'
    data = path.read_bytes()
    path.write_bytes(data[: len(data) - 9])
  (folder / 'progress.json').unlink()
  assert len(rollouts.read(folder)[0]) == N - 1
  evaluated(run)
  assert rows(folder) == whole
  path.write_text('{"version":1,"example_id":"x"}\n{"version":1}\n')
  (folder / 'progress.json').unlink()
  with pytest.raises(UserError, match='line 1, is damaged or of another'):
    evaluated(run)


def fail(monkeypatch, ids):
  """The infrastructure fails items of these ids."""
  add = collect._Scorer.add

  def adding(self, index, example, trajectory):
    if example.id in ids:
      trajectory = dataclasses.replace(
          trajectory, stop_reason=StopReason.ERROR, error='down', answer=None
      )
    add(self, index, example, trajectory)

  monkeypatch.setattr(collect._Scorer, 'add', adding)


def test_what_the_infrastructure_failed_is_asked_again_or_counted(
    workdir, monkeypatch
):
  run = make_run(workdir)
  ids = {run.examples('test', n=N)[i].id for i in (2, 7)}
  with monkeypatch.context() as patch:
    fail(patch, ids)
    folder = evaluated(run)
  assert evaluate.facts(folder)['infra_errors'] == 2
  evaluated(make_run(workdir, eval__retry_errors=False))
  assert evaluate.facts(folder)['infra_errors'] == 2
  # What a stage says of its failures is not believed where it is damaged.
  (folder / 'progress.json').write_text('{')
  assert not evaluate.is_done(run, folder)
  with monkeypatch.context() as patch:
    kept = stop_after(patch, 2)
    evaluated(run)
  assert sorted(kept) == [2, 7]
  assert evaluate.facts(folder)['infra_errors'] == 0
  trajectories = store.read(folder / 'trajectories.jsonl', Trajectory)
  assert len(trajectories) == N and all(t.valid for t in trajectories)


def test_all_failed_by_the_infrastructure_is_no_success(workdir, monkeypatch):
  run = make_run(workdir)
  ids = {example.id for example in run.examples('test', n=N)}
  with monkeypatch.context() as patch:
    fail(patch, ids)
    for _ in range(2):
      with pytest.raises(UserError, match=r'all 16 items \(model failed: down'):
        walk.walk(run)
  folder = run.workdir / 'eval' / NAME
  assert not evaluate.is_done(run, folder)
  assert evaluate.progress_of(folder)['n_done'] == N
  with monkeypatch.context() as patch:  # One that works is enough.
    fail(patch, ids - {min(ids)})
    evaluated(run)
  assert evaluate.facts(folder)['n'] == 1
  evaluated(run)
  assert evaluate.facts(folder)['n'] == N


def test_no_two_processes_are_at_one_folder(workdir):
  run = make_run(workdir)
  folder = run.workdir / 'eval' / NAME
  with rollouts.Rollouts(folder):
    with pytest.raises(UserError, match='another process is at'):
      rollouts.Rollouts(folder)
    with rollouts.Rollouts(run.workdir / 'other'):
      pass


def test_a_policy_is_added_and_another_script_noticed(workdir):
  walk.walk(make_run(workdir))
  run = make_run(workdir, eval__policies=(NAME, 'expert'))
  before = rows(workdir / 'eval' / NAME)
  walk.walk(run)
  assert rows(workdir / 'eval' / NAME) == before
  assert evaluate.is_done(run, workdir / 'eval' / 'expert')
  # The same play, in a module that reads otherwise: by its source.
  with pytest.raises(UserError, match='another script than there is now'):
    walk.walk(make_run(workdir, play='silent'))


def test_few_examples_are_held_at_once(workdir, monkeypatch):
  """As many as there are slots, one that waits, and those being written."""
  monkeypatch.setattr(collect, '_MAX_PENDING', 2)
  run = make_run(workdir)
  items = evaluate.items(run)
  examples = items.examples
  begun, kept, most = [], [], []

  class Watched:
    def __len__(self):
      return len(examples)

    def __getitem__(self, index):
      begun.append(index)
      most.append(len(begun) - len(kept))
      return examples[index]

  add = rollouts.Rollouts.add

  def adding(self, index, *args):
    add(self, index, *args)
    kept.append(index)

  monkeypatch.setattr(rollouts.Rollouts, 'add', adding)
  watched = dataclasses.replace(items, examples=Watched())
  monkeypatch.setattr(evaluate, 'items', lambda run: watched)
  evaluated(run)
  assert sorted(begun) == sorted(kept) == list(range(N))
  assert max(most) <= 3 + 1 + 2 * (2 + 1)


def test_a_script_that_says_neither_is_told_so(workdir):
  with pytest.raises(UserError, match='return .thought, calls, answer.'):
    evaluated(make_run(workdir, play='nonsense'))


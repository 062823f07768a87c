"""Grading: levels, what they consist of, and kills at any instant."""

from __future__ import annotations

import pathlib
import random
import shutil
import signal
import subprocess
import time
import types

import pytest

from gog_jax.errors import UserError
from gog_jax.evaluation import collect
from gog_jax.evaluation import grade
from gog_jax.rewards import levels
from gog_jax.rollout.policy import Request
from gog_jax.types import ToolStatus
from tests import mini
from tests import report_helpers as helpers
from tests.main_test import command
from tests.main_test import environment
from tests.main_test import ROOT

N_KILLS = 10


@pytest.mark.quick
@pytest.mark.parametrize(
    ('n_correct', 'n_valid', 'level'),
    [(6, 8, 0), (5, 8, 1), (3, 8, 1), (2, 8, 2), (0, 8, 2), (3, 4, 0),
     (0, 0, None)],
)  # fmt: skip
def test_levels_by_hand(n_correct, n_valid, level):
  found = levels.level_of(n_correct, n_valid, solved=0.75, often_failed=0.3)
  assert found == level


@pytest.mark.quick
def test_what_a_level_consists_of():
  def one(hops, level, n_correct, n_short, n_errors=0, n_else=0):
    return levels.Grade(
        example_id='x',
        n_valid=8 - n_errors,
        n_correct=n_correct,
        n_errors=n_errors,
        n_short=n_short,
        n_unseen=n_short // 2,
        n_else=n_else,
        hops=hops,
        level=level,
    )

  facts = grade.facts([
      one(0, 0, 8, 0),
      one(2, 2, 1, 6, n_else=1),
      one(3, 2, 0, 3, n_errors=2),
      one(None, None, 0, 0, n_errors=8),
  ])
  assert facts['levels'] == {'0': 1, '1': 0, '2': 2}
  assert (facts['ungraded'], facts['errors']) == (1, 10)
  assert facts['composition']['2'] == {
      'hops': {'2': 1, '3': 1},
      'pass_rate': pytest.approx(1 / 14),
      'too_few_searches': pytest.approx(9 / 13),
      'never_seen': pytest.approx(4 / 13),
      'something_else': pytest.approx(1 / 13),
  }
  assert facts['composition']['1'] == {
      'hops': {}, 'pass_rate': None, 'too_few_searches': None,
      'never_seen': None, 'something_else': None,
  }  # fmt: skip


class Played:
  """A run whose rollouts are the groups given, by example."""

  judge = None

  def __init__(self, groups, samples):
    self.config = mini.make_config('grade', grade__samples=samples)
    self.groups = groups
    self.n_rollouts = 0

  def refusal(self, example):
    return '' if example.id in self.groups else 'too long'

  def request(self, example, *, sample, seed, what, again):
    assert (seed, what, again) == (('grade',), '', sample)
    return Request(example=example, sample=sample, seed=0)

  def loop(self, policy, *, on_finished):
    del policy

    def run(requests):
      for position, request in enumerate(requests):
        self.n_rollouts += 1
        group = self.groups[request.example.id]
        on_finished(position, request, group[request.sample])

    return types.SimpleNamespace(run=run)

  def scored(self, examples, trajectories, *, unjudged):
    del examples, unjudged
    return trajectories


def spoilt(name):
  down = helpers.text(status=ToolStatus.INFRA_ERROR)
  return helpers.trajectory(name, (down,), right=False)


@pytest.mark.quick
def test_errors_are_excluded_from_the_grades(tmp_path):
  miss, hit = (helpers.gaze(helpers.MISS),), (helpers.gaze(helpers.HIT),)
  played = Played(
      {
          # Of two that were not spoilt one is right: about half.
          'a': [
              helpers.trajectory('a', hit),
              # Saw it, searched once for two hops.
              helpers.trajectory('a', hit, right=False),
              spoilt('a'),
              spoilt('a'),
          ],
          # More than half were spoilt: nothing is known.
          'b': [helpers.trajectory('b'), *(spoilt('b') for _ in range(3))],
          'c': [
              helpers.trajectory('c', miss, right=False),  # Both.
              helpers.trajectory('c', hit, hit, right=False),  # Neither.
              helpers.trajectory('c', miss, miss, right=False),
              helpers.trajectory('c', right=False),
          ],
      },
      samples=4,
  )
  examples = [
      helpers.example(name, hops=2, search_required=True) for name in 'abc'
  ]
  a, b, c = grade.grade_examples(played, None, examples, tmp_path)
  assert (a.level, a.n_correct, a.n_valid, a.n_errors) == (1, 1, 2, 2)
  assert (a.n_short, a.n_unseen, a.n_else) == (1, 0, 0)
  assert (b.level, b.n_correct, b.n_valid, b.n_errors) == (None, 1, 1, 3)
  assert (c.level, c.n_valid) == (2, 4)
  assert (c.n_short, c.n_unseen, c.n_else) == (2, 3, 1)
  assert grade.facts([a, b, c])['ungraded'] == 1
  assert levels.read_grades(tmp_path) == [a, b, c]


@pytest.mark.quick
def test_what_cannot_be_asked_is_not_graded_and_stops_nobody(tmp_path, capsys):
  played = Played({name: [helpers.trajectory(name)] * 2 for name in 'ac'}, 2)
  examples = [helpers.example(name) for name in 'abc']
  for _ in range(2):  # The second time all is there.
    a, b, c = grade.grade_examples(played, None, examples, tmp_path)
    assert (a.level, b.level, c.level) == (0, None, 0)
    assert (b.n_valid, b.n_errors) == (0, 0)
    assert 'grade: b is left out: too long' in capsys.readouterr().err
  assert played.n_rollouts == 4


@pytest.mark.quick
def test_an_outage_is_not_graded(tmp_path):
  well = {name: [helpers.trajectory(name)] * 2 for name in 'abc'}
  down = {name: [spoilt(name), spoilt(name)] for name in 'bc'}
  played = Played({**well, **down}, samples=2)
  examples = [helpers.example(name) for name in 'abc']
  with pytest.raises(UserError, match='4 of the last 6 .*same command'):
    grade.grade_examples(played, None, examples, tmp_path)
  assert not (tmp_path / 'graded.jsonl').exists()
  played.groups = well
  played.n_rollouts = 0
  grades = grade.grade_examples(played, None, examples, tmp_path)
  assert [g.level for g in grades] == [0, 0, 0]
  assert [g.n_errors for g in grades] == [0, 0, 0]
  assert played.n_rollouts == 4  # What came through before is kept.


@pytest.mark.quick
def test_an_outage_is_noticed_while_it_lasts(tmp_path, monkeypatch):
  monkeypatch.setattr(collect, '_MAX_PENDING', 1)
  names = [f'q{i:03d}' for i in range(200)]
  groups = {
      name: [helpers.trajectory(name) if i < 90 else spoilt(name)]
      for i, name in enumerate(names)
  }
  played = Played(groups, samples=1)
  examples = [helpers.example(name) for name in names]
  with pytest.raises(UserError, match='of the last 64 .*tool failed'):
    grade.grade_examples(played, None, examples, tmp_path)
  assert 90 + 33 <= played.n_rollouts < 150


@pytest.mark.quick
@pytest.mark.parametrize(
    ('damage', 'line'),
    [(lambda text: text.replace('"index"', '"x"', 1), 1),
     (lambda text: text.splitlines()[0] + '\n{"example_id": "a"}\n', 2)],
)  # fmt: skip
def test_damaged_samples_are_not_taken_for_whole(damage, line, tmp_path):
  examples = [helpers.example(name) for name in 'ab']
  played = Played({name: [helpers.trajectory(name)] for name in 'ab'}, 1)
  grade.grade_examples(played, None, examples, tmp_path)
  path = tmp_path / 'samples' / 'trajectories.jsonl'
  path.write_text(damage(path.read_text()))
  with pytest.raises(UserError, match=f'line {line}, is damaged.*delete'):
    grade.grade_examples(played, None, examples, tmp_path)


@pytest.mark.slow
def test_killed_at_random_instants_the_file_is_the_same(tmp_path):
  sizes = {
      'data__n_train': 96,
      'grade__n_queries': 48,
      'grade__samples': 4,
  }
  run = mini.make_run(tmp_path / 'whole', 'grade', **sizes)
  mini.make_stages(run, 'data', 'demos', 'sft')
  killed = tmp_path / 'killed'
  subprocess.run(['cp', '-r', run.workdir, killed], check=True)
  go_on = command(
      '--config=configs/grade.py',
      f'--workdir={killed}',
      *mini.flags(**sizes),
  )
  rng = random.Random(0)
  samples = killed / 'grade' / 'samples' / 'trajectories.jsonl'
  n_kills = 0
  while n_kills < N_KILLS:
    before = n_lines(samples)
    process = subprocess.Popen(
        go_on,
        cwd=ROOT,
        env=environment(),
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
    )
    # Every other kill hits as soon as this start has kept something.
    deadline = time.monotonic() + 240
    if n_kills % 2:
      while n_lines(samples) == before and process.poll() is None:
        assert time.monotonic() < deadline
        time.sleep(0.005)
      time.sleep(rng.random() * 0.4)
    else:
      time.sleep(rng.random() * 15)
    if process.poll() is not None:  # It came through: begin anew.
      assert process.returncode == 0
      shutil.rmtree(killed / 'grade')
      continue
    process.send_signal(signal.SIGKILL)
    process.wait()
    n_kills += 1
  subprocess.run(go_on, cwd=ROOT, env=environment(), check=True)
  subprocess.run(
      command(
          '--config=configs/grade.py',
          f'--workdir={run.workdir}',
          *mini.flags(**sizes),
      ),
      cwd=ROOT,
      env=environment(),
      check=True,
  )
  want = (run.workdir / 'grade' / 'graded.jsonl').read_bytes()
  assert (killed / 'grade' / 'graded.jsonl').read_bytes() == want
  assert want.count(b'\n') == 48


def n_lines(path: pathlib.Path) -> int:
  return path.read_bytes().count(b'\n') if path.exists() else 0

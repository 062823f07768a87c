"""Which queries RL draws, before and after it has graded them anew."""

from __future__ import annotations

import re
import types

import numpy as np
import pytest

from gog_jax.errors import UserError
from gog_jax.rewards.levels import Grade
from gog_jax.train import alarms
from gog_jax.train.curriculum import Curriculum
from gog_jax.train.curriculum import select
from gog_jax.train.groups import Group
from gog_jax.types import ToolStatus
from tests import report_helpers as helpers

pytestmark = pytest.mark.quick

RL = {'level': 2, 'regrade': True, 'recheck_every': 5}
GRADE = types.SimpleNamespace(solved=0.75, often_failed=0.3)
EXAMPLES = [helpers.example(name) for name in 'abcdef']


def make(folder, *, resume=0, refused='', **changes):
  curriculum = Curriculum(
      EXAMPLES,
      refusal=lambda e: 'too long' if e.id in refused else '',
      rl=types.SimpleNamespace(**RL | changes),
      grade=GRADE,
      seed=3,
      folder=folder,
  )
  curriculum.resume(resume)
  return curriculum


def group(name, n_right, n=4):
  return group_of(
      [helpers.trajectory(name, right=i < n_right) for i in range(n)]
  )


def group_of(trajectories):
  example = helpers.example(trajectories[0].example_id)
  advantages = np.zeros(len(trajectories))
  return Group(example, trajectories, advantages, True, False)


def ids(examples):
  return [example.id for example in examples]


def test_every_query_comes_once_an_epoch(tmp_path):
  curriculum = make(tmp_path, regrade=False)
  epochs = [ids(curriculum.draw(6, step=i)) for i in range(3)]
  assert all(sorted(epoch) == list('abcdef') for epoch in epochs)
  assert len({tuple(epoch) for epoch in epochs}) == 3  # Shuffled anew.
  assert curriculum.record(1, [group('a', 4)]) == {'refused': 0}


def test_what_has_become_easier_is_left_out_and_tried_again(tmp_path):
  curriculum = make(tmp_path)
  # Solved, about half, still often failed.
  logged = curriculum.record(
      1, [group('a', 4), group('b', 2), group('c', 1)]
  )
  assert logged == {
      'refused': 0,
      'regraded_easier': pytest.approx(2 / 3),
      'left_out': pytest.approx(2 / 6),
  }
  drawn = ids(curriculum.draw(8, step=2))
  assert not {'a', 'b'} & set(drawn) and set(drawn) == set('cdef')
  assert {'a', 'b'} <= set(ids(curriculum.draw(12, step=6)))
  # Tried again, 'a' has become hard once more.
  curriculum.record(6, [group('a', 0), group('b', 4)])
  drawn = ids(curriculum.draw(10, step=7))
  assert 'a' in drawn and 'b' not in drawn


def test_what_cannot_be_asked_is_left_out_counted_and_said_once(
    tmp_path, capsys
):
  curriculum = make(tmp_path / 'some', refused='bd', regrade=False)
  for step in range(2):  # An epoch each: four are asked, two left out.
    assert sorted(ids(curriculum.draw(4, step=step))) == list('acef')
  # As ever, an epoch ends where the next begins.
  assert 2 <= curriculum.record(2, [group('a', 4)])['refused'] <= 4
  assert curriculum.record(3, [group('a', 4)]) == {'refused': 0}
  said = capsys.readouterr().err
  assert said.count('b is left out: too long') == 1
  with pytest.raises(UserError, match='no query .* can be asked: too long'):
    make(tmp_path / 'none', refused='abcdef').draw(1, step=0)


def test_an_outage_finds_nothing(tmp_path):
  curriculum = make(tmp_path)
  curriculum.record(1, [group('a', 4)])
  failed = helpers.text(status=ToolStatus.INFRA_ERROR)
  spoilt = [helpers.trajectory('a', (failed,), right=False) for _ in range(4)]
  assert not any(t.valid for t in spoilt)
  curriculum.record(2, [group_of(spoilt)])
  assert 'a' not in ids(curriculum.draw(10, step=3))


def test_when_all_is_solved_it_goes_on_all_the_same(tmp_path):
  curriculum = make(tmp_path)
  curriculum.record(1, [group(name, 4) for name in 'abcdef'])
  assert len(curriculum.draw(4, step=2)) == 4


def test_a_restart_knows_what_was_found(tmp_path):
  whole = make(tmp_path / 'whole')
  parts = make(tmp_path / 'parts')
  for step in (1, 2, 3):
    found = [group('abc'[step - 1], 4), group('def'[step - 1], 0)]
    whole.record(step, found)
    parts.record(step, found)
  parts = make(tmp_path / 'parts', resume=2)  # The third step was not saved.
  parts.record(3, [group('c', 4), group('f', 0)])
  assert ids(whole.draw(12, step=4)) == ids(parts.draw(12, step=4))
  lines = [
      (tmp_path / name / 'regrades.jsonl').read_text()
      for name in ('whole', 'parts')
  ]
  assert lines[0] == lines[1]


def test_levels_are_selected():
  grades = [
      Grade(
          example_id=name,
          n_valid=8,
          n_correct=0,
          n_errors=0,
          n_short=0,
          n_unseen=0,
          n_else=0,
          hops=1,
          level=level,
      )
      for name, level in zip('abcde', (0, 1, 2, 2, None))
  ]
  assert select(grades, 2, at_least=2) == {'c', 'd'}
  assert select(grades, -1, at_least=2) == {'a', 'b', 'c', 'd'}
  counts = r'\(Level 0: 1, 1: 1, 2: 2, not graded: 1\)'
  for level, at_least, flags in (
      (1, 2, ['level=2', 'level=-1', 'n_prompts=1']),
      (1, 4, ['level=-1', 'n_prompts=1']),
      (-1, 5, ['n_prompts=4']),
      (2, 5, ['n_prompts=2']),
  ):
    with pytest.raises(UserError, match=f"prompts={at_least} {counts}") as e:
      select(grades, level, at_least=at_least)
    said = re.findall(r'--config\.rl\.([^, ]+)', str(e.value))
    assert said == flags


def rows(**series):
  length = len(next(iter(series.values())))
  return [
      {name: values[i] for name, values in series.items()}
      for i in range(length)
  ]


def alarm_config(**changes):
  from configs import rl

  config = rl.get_config().rl.alarms
  config.update({'kl': 1.0, 'entropy': 0.1, 'patience': 3} | changes)
  return config


def test_alarms_need_patience():
  log = rows(kl=[0, 2, 2, 2, 0], entropy=[0.5, 0.05, 0.05, 0.5, 0.5])

  def raised(n, patience=3):
    return set(alarms.raised(log[:n], alarm_config(patience=patience)))

  assert raised(3) == set()  # Two steps are not three.
  assert raised(4) == {'kl'}
  assert raised(5) == set()
  assert raised(3, patience=2) == {'kl', 'entropy'}
  (line,) = alarms.raised(log[:4], alarm_config()).values()
  assert 'kl is 2, at most 1' in line


def test_what_is_not_a_number_alarms():
  nan = float('nan')
  log = rows(kl=[nan, nan], entropy=[nan, nan])
  assert set(alarms.raised(log, alarm_config(patience=2))) == set(log[0])


def test_every_alarm_has_a_bound_on_the_page():
  from configs import rl

  assert set(alarms.SIGNS) <= set(rl.get_config().rl.alarms)

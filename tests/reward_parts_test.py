"""A user's reward parts: a file outside the package, and what it may return."""

from __future__ import annotations

import dataclasses
import json
import shutil

import pytest

from gog_jax.app import stages
from gog_jax.config.evaluation import RewardConfig
from gog_jax.errors import RunStopped
from gog_jax.errors import UserError
from gog_jax.evaluation import evaluate
from gog_jax.rewards import score as rewards
from gog_jax.rewards.parts import PARTS as PARTS_OF_OURS
from gog_jax.storage import rollouts
from gog_jax.storage import trajectories as store
from gog_jax.storage import typed
from gog_jax.types import Trajectory
from gog_jax.types import Verdict
from tests import mini
from tests import report_helpers

PARTS = '''
def short(example, trajectory):
  return 1 / len(trajectory.turns)

def close(example, trajectory):
  right = trajectory.answer in example.answers
  return {'reward': 0.5 * right, 'turns': len(trajectory.turns)}

def odd(example, trajectory):
  return None if hash_of(example) % 2 else 1.0

def hash_of(example):
  return sum(example.id.encode())

def nan(example, trajectory):
  return float('nan')

def two(example, trajectory):
  return 2

def word(example, trajectory):
  return 'much'

def nameless(example, trajectory):
  return {'score': 1.0}

def crash(example, trajectory):
  raise ZeroDivisionError('mine')

def format(example, trajectory):
  return 1.0
'''


@pytest.fixture
def parts(tmp_path):
  path = tmp_path / 'mine.py'
  path.write_text(PARTS)
  return path


def config_of(accuracy='exact_match', *extra):
  fields = {'accuracy': accuracy, 'format_weight': 0.1, 'extra': extra}
  return typed.read(RewardConfig, fields, 'config.reward')


def scored(config, *, example=None, **more):
  trajectory = report_helpers.trajectory('a', (report_helpers.text(),), **more)
  example = example or report_helpers.example('a')
  return rewards.score(example, trajectory, config=config)


@pytest.mark.quick
def test_extra_parts_are_added_to_the_papers_reward(parts):
  config = config_of(
      'exact_match', f'{parts}:short=0.2', f'{parts}:close=-1', 'token_f1=0.5'
  )
  plain, found = scored(config_of()), scored(config)
  assert plain.reward == 0.9 + 0.1
  assert found.reward == pytest.approx(1 + 0.2 / 2 - 0.5 + 0.5)
  assert found.reward_parts == dict(plain.reward_parts) | {
      'short': 0.5, 'close': 0.5, 'close/turns': 2.0, 'token_f1': 1.0
  }  # fmt: skip
  assert found.valid and not found.masked


@pytest.mark.quick
def test_a_users_part_may_be_the_accuracy(parts):
  found = scored(config_of(f'{parts}:close'))
  assert found.reward_parts['accuracy'] == found.reward_parts['close'] == 0.5
  assert found.reward_parts['exact_match'] == 1
  assert found.reward == pytest.approx(0.9 * 0.5 + 0.1)


@pytest.mark.quick
def test_none_masks_and_is_never_asked_of_what_is_invalid(parts):
  for config in (config_of(f'{parts}:odd'), config_of('exact_match', (
      f'{parts}:odd=1'
  ))):  # fmt: skip
    even = scored(config, example=report_helpers.example('b'))
    unknown = scored(config, example=report_helpers.example('a'))
    assert even.valid
    assert unknown.masked == f'{parts}:odd' and not unknown.valid
  spoilt = dataclasses.replace(
      report_helpers.trajectory('a'), verdict=Verdict(right=None, by='m')
  )
  config = config_of(f'{parts}:crash')
  found = rewards.score(report_helpers.example('a'), spoilt, config=config)
  assert not found.valid and not found.masked


@pytest.mark.quick
@pytest.mark.parametrize(
    ('name', 'said'),
    [
        ('nan', 'nan failed on example a: .*nan'),
        ('word', 'word failed on example a: ValueError'),
        ('nameless', "nameless failed on example a: KeyError: 'reward'"),
        ('crash', 'crash failed on example a: ZeroDivisionError: mine'),
        ('two', 'two returned 2.0 on example a, but an accuracy is from 0 to'),
    ],
)
def test_a_part_that_fails_is_one_line_with_its_example(parts, name, said):
  with pytest.raises(RunStopped, match=said) as raised:
    scored(config_of(f'{parts}:{name}'))
  assert '\n' not in str(raised.value) and str(parts) in str(raised.value)


@pytest.mark.quick
@pytest.mark.parametrize(
    ('accuracy', 'extra', 'said'),
    [
        ('exact_mach', (), "config.reward.accuracy: .* is 'exact_match'"),
        ('exact_match', ('formatt=1',), "reward.extra: .* is 'format'"),
        ('exact_match', ('token_f1',), 'must be PART=WEIGHT'),
        ('exact_match', ('token_f1=nan',), 'must be PART=WEIGHT'),
        ('exact_match', ('{}:none=1',), 'cannot load'),
        ('exact_match', ('{}:format=1',), "recorded as 'format', rename"),
    ],
)
def test_what_is_no_part_is_said_before_anything(parts, accuracy, extra, said):
  extra = [entry.format(parts) for entry in extra]
  with pytest.raises(UserError, match=said):
    rewards.check(config_of(accuracy, *extra))


@pytest.mark.quick
@pytest.mark.parametrize('name', list(PARTS_OF_OURS))
def test_each_of_ours_is_in_the_list_alone(name):
  config = config_of('exact_match', f'{name}=0.5')
  rewards.check(config)
  right = dataclasses.replace(
      report_helpers.trajectory('a'), verdict=Verdict(right=True, by='m')
  )
  found = rewards.score(report_helpers.example('a'), right, config=config)
  assert found.reward == pytest.approx(1.5)  # It is right in every way.
  assert found.reward_parts[name] == 1


@pytest.mark.quick
def test_a_judge_among_the_extras_is_asked():
  assert not config_of().asks_judge
  assert config_of('judge').asks_judge
  assert config_of('exact_match', 'judge=0.5').asks_judge


@pytest.mark.quick
def test_masked_trajectories_are_stored_and_older_records_are_valid(tmp_path):
  one = dataclasses.replace(report_helpers.trajectory('a'), masked='mine.py:f')
  path = tmp_path / 'trajectories.jsonl'
  store.write(path, [one], [report_helpers.example('a')])
  (back,) = store.read(path, Trajectory)
  assert back.masked == 'mine.py:f' and not back.valid
  text = path.read_text()
  assert '"masked":"mine.py:f",' in text
  path.write_text(text.replace('"masked":"mine.py:f",', ''))
  (old,) = store.read(path, Trajectory)
  assert old.valid


def make_run(workdir, parts, **more):
  options = {
      'eval__policies': ('expert',),
      'reward__extra': (f'{parts}:short=0.2', f'{parts}:odd=0'),
  }
  return mini.make_run(workdir, 'eval', **options | more)


def test_an_evaluation_scores_masks_and_counts(parts, tmp_path):
  run = make_run(tmp_path / 'run', parts)
  mini.make_stages(run, 'data', 'eval', 'report')
  folder = tmp_path / 'run' / 'eval' / 'expert'
  trajectories = store.read(folder / 'trajectories.jsonl', Trajectory)
  masked = [t for t in trajectories if t.masked]
  assert 0 < len(masked) < len(trajectories)
  for t in trajectories:
    assert t.reward_parts['short'] == 1 / len(t.turns)
    assert t.valid == (sum(t.example_id.encode()) % 2 == 0)
  assert evaluate.facts(folder)['n'] == len(trajectories) - len(masked)
  report = tmp_path / 'run' / 'report'
  (row,) = json.loads((report / 'summary.json').read_text())['rows']
  assert (row['unjudged'], row['infra_errors']) == (len(masked), 0)
  assert 0 < row['parts']['short'] <= 1
  assert 'Reward parts of expert' in (report / 'index.html').read_text()
  # What the file says now is another reward.
  before = stages.manifest_of(run, 'eval expert').fingerprint()
  parts.write_text(PARTS + '# Another.\n')
  assert stages.manifest_of(run, 'eval expert').fingerprint() != before
  assert set(rewards.identity(config_of())) == {'reward matcher'}


def test_what_a_crash_has_stopped_is_kept_and_scored_later(parts, tmp_path):
  text = PARTS.replace(
      "raise ZeroDivisionError('mine')",
      "import os\n  return 1 / ('MENDED' in os.environ)",
  )
  parts.write_text(text)
  run = make_run(
      tmp_path / 'run', parts, reward__extra=(f'{parts}:crash=1',)
  )
  mini.make_stages(run, 'data')
  with pytest.raises(RunStopped, match='crash failed on example'):
    mini.make_stages(run, 'eval')
  folder = tmp_path / 'run' / 'eval' / 'expert'
  kept, _ = rollouts.read(folder)
  assert kept and all(t.masked for t in kept)
  seconds = {t.example_id: t.seconds for t in kept}
  with pytest.MonkeyPatch.context() as patch:
    patch.setenv('MENDED', '1')
    mini.make_stages(run, 'eval')
  final, _ = rollouts.read(folder)
  assert all(t.valid and t.reward_parts['crash'] == 1 for t in final)
  for t in final:
    assert t.seconds == seconds.get(t.example_id, t.seconds)


@pytest.mark.slow
def test_a_step_of_rl_learns_from_it_and_reports_it(
    finished, parts, tmp_path
):
  shutil.copytree(finished.workdir, tmp_path / 'run')
  run = mini.make_run(
      tmp_path / 'run',
      'rl',
      rl__steps=1,
      reward__extra=(f'{parts}:short=0.2', f'{parts}:odd=0'),
  )
  mini.make_stages(run, 'rl')
  (row,) = mini.metrics_of(run, 'rl')
  assert 0 < row['reward/short'] <= 1
  assert row['masked'] > 0

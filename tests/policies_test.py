"""What an evaluation compares: each policy does what its name says."""

from __future__ import annotations

import ast
import dataclasses
import importlib
import shlex
import shutil

import pytest

from gog_jax.app import stages
from gog_jax.app import walk
from gog_jax.config import from_page
from gog_jax.errors import UserError
from gog_jax.evaluation import policies
from gog_jax.rewards import behaviour
from gog_jax.storage import trajectories as store
from gog_jax.types import Example
from gog_jax.types import Trajectory
from tests import mini

NAMES = ('direct', 'full_search', 'expert', 'sft', 'sft_no_gaze')


@pytest.fixture(scope='module')
def run(finished, tmp_path_factory):
  workdir = tmp_path_factory.mktemp('policies') / 'run'
  shutil.copytree(finished.workdir, workdir)
  run = mini.make_run(workdir, 'eval', eval__policies=NAMES)
  mini.make_stages(run, 'demos_no_gaze', 'sft_no_gaze', 'eval')
  return run


def evaluated(run, name):
  folder = run.workdir / 'eval' / name
  trajectories = store.read(folder / 'trajectories.jsonl', Trajectory)
  examples = store.read(folder / 'examples.jsonl', Example)
  assert len(trajectories) == len(examples) == 16
  return list(zip(examples, trajectories, strict=True))


def calls_of(trajectory):
  return [call for turn in trajectory.turns for call in turn.parsed.calls]


def test_direct_answers_at_once(run):
  for _, trajectory in evaluated(run, 'direct'):
    assert len(trajectory.turns) == 1
    assert not calls_of(trajectory)


def test_full_search_has_made_both_searches(run):
  for example, trajectory in evaluated(run, 'full_search'):
    image, text, *rest = calls_of(trajectory)
    assert image.name == 'image_search'
    assert text.name == 'text_search'
    assert text.arguments == {'query': example.question}
    assert not rest and len(trajectory.turns) == 3
    said = trajectory.sampler_logprobs[trajectory.loss_mask == 1]
    assert (said == 0).sum() > 10 and (said < 0).any()
    assert behaviour.kinds_of_search(trajectory) == {'text', 'image'}


def test_the_expert_is_right_without_search_where_none_is_needed(run):
  for example, trajectory in evaluated(run, 'expert'):
    if not example.search_required and not calls_of(trajectory):
      assert trajectory.reward_parts['accuracy'] == 1


def test_without_gaze_there_is_no_such_tool(run):
  own = policies.run_of(run, 'sft_no_gaze')
  assert set(own.executor.tools) == {'text_search', 'image_search'}
  assert set(run.executor.tools) == {'text_search', 'image_search', 'gaze'}
  path = run.workdir / 'demos_no_gaze' / 'trajectories.jsonl'
  demos = store.read(path, Trajectory)
  assert demos
  for trajectory in demos:
    assert not behaviour.gazes(
        run.examples('train', n=1)[0], trajectory
    )
  for _, trajectory in evaluated(run, 'sft_no_gaze'):
    assert all(turn.results == () or turn.results[0].view is None
               for turn in trajectory.turns)


def test_each_sft_learns_from_its_own_demos(run):
  totals = []
  for stage, demos in (('sft', 'demos'), ('sft_no_gaze', 'demos_no_gaze')):
    shown = store.read(run.workdir / demos / 'trajectories.jsonl', Trajectory)
    totals.append(sum(int(t.loss_mask.sum()) for t in shown))
    epoch = mini.metrics_of(run, stage)[:2]  # 16 demos, 8 a step.
    assert sum(row['n_targets'] for row in epoch) == totals[-1]
  assert totals[0] != totals[1]


def test_an_evaluation_is_not_made_twice(run, monkeypatch):
  monkeypatch.setattr(
      policies, 'make', lambda *_, **__: pytest.fail('it was there already')
  )
  walk.bring(run, [f'eval {name}' for name in NAMES], 'eval')


def test_stages_of_a_page_with_arms():
  found = stages.stages_of(mini.make_config('rl', 'full'))
  assert {'rl_level1', 'rl_all', 'rl_fast', 'rl_slow', 'rl_shuffled'} <= set(
      found
  )
  assert set(found['report'].needs) >= {'rl', 'rl_level1', 'sft', 'sft_no_gaze'}
  assert found['rl_level1'].needs == ('grade', 'sft')
  toy = stages.stages_of(mini.make_config('rl'))
  assert 'rl_level1' not in toy and 'sft_no_gaze' not in toy['report'].needs


@pytest.mark.parametrize(
    ('policy', 'done', 'page'),
    [
        ('rl_slow', ('data', 'demos', 'sft'), 'grade'),
        ('rl_slow', ('data', 'demos', 'sft', 'grade'), 'rl'),
        ('sft_no_gaze', ('data',), 'sft'),
    ],
)
def test_what_is_missing_names_the_page_that_makes_it(
    policy, done, page, tmp_path
):
  config = configured('eval', policy)
  run = mini.run_of(config, tmp_path)
  for name in done:
    stages.manifest_of(run, name).write(tmp_path / name, complete=True)
  with pytest.raises(UserError, match=f'configs/{page}.py') as caught:
    walk.walk(run)
  # That command does make it: its flags say all that differs from the page.
  if page != 'grade':
    made = []
    command = str(caught.value).partition('run this first: ')[2]
    flags = dict(flag.split('=', 1) for flag in shlex.split(command)[3:])
    assert flags.pop('--workdir') == str(tmp_path)
    changes = {}
    for name, value in flags.items():
      if name.startswith('--config.'):
        field = name.removeprefix('--config.')
        if field != 'model.path':
          value = ast.literal_eval(value)
        changes[field.replace('.', '__')] = value
    with pytest.MonkeyPatch.context() as patch:
      patch.setattr(
          stages, 'stages_of', pretended(stages.stages_of, made.append)
      )
      walk.walk(mini.run_of(configured(page, None, **changes), tmp_path))
    assert policy in made


def configured(page, policy, **changes):
  """A page with an arm, as at full size."""
  module = importlib.import_module(f'configs.{page}').get_config()
  module.arms = {'rl_slow': {'steps': 1}}
  module.unasked = False
  if policy is not None:
    module.eval.policies = (policy,)
  module.update_from_flattened_dict(
      {name.replace('__', '.'): value for name, value in changes.items()}
  )
  return from_page(module)


def pretended(stages_of, make):
  """Stages that say their names instead."""

  def found(config):
    return {
        name: dataclasses.replace(
            stage,
            make=lambda run, folder, name=name: make(name) or {},
            about=lambda run: {},
        )
        for name, stage in stages_of(config).items()
    }

  return found


def test_some_arms_belong_to_the_first_seed_alone(tmp_path):
  whole = mini.make_config('rl', 'full')
  first, second = whole.of_seed(0), whole.of_seed(1)
  assert first.seed == 0 and second.seed == 1
  assert first.arms == whole.arms
  assert set(second.arms) == {'rl_level1', 'rl_all'}
  assert first.eval == whole.eval
  assert set(first.eval.policies) - set(second.eval.policies) == {
      'rl_fast', 'rl_slow', 'rl_shuffled'
  }
  # What both have is made from the same settings.
  for name in ('sft', 'grade', 'rl', 'rl_all'):
    fields = [
        stages.manifest_of(mini.run_of(config, tmp_path), name).config
        for config in (first, second)
    ]
    assert [f.pop('seed') for f in fields] == [0, 1]
    assert fields[0] == fields[1]


def test_an_arm_differs_from_the_page_in_its_fields_alone():
  page = importlib.import_module('configs.rl').get_config()
  page.arms = {'rl_x': {'level': 1, 'optimizer': {'learning_rate': 0.5}}}
  config = from_page(page)
  arm = stages.stages_of(config)['rl_x'].config(config)
  assert arm.rl.level == 1 and config.rl.level == 2
  assert arm.rl.optimizer.learning_rate == 0.5
  assert arm.rl.optimizer.b1 == config.rl.optimizer.b1
  assert arm.grade == config.grade

"""Names of policies, and what each needs before anything runs."""

from __future__ import annotations

import pytest

from configs import ask as ask_page
from configs import eval as eval_page
from configs import rl as rl_page
from gog_jax.app import config_check
from gog_jax.app import stages
from gog_jax.errors import UserError
from gog_jax.evaluation import evaluate
from gog_jax.evaluation import paradigms
from gog_jax.evaluation import scripts as plays
from gog_jax.run import Run

pytestmark = pytest.mark.quick


@pytest.mark.parametrize(
    ('name', 'full'),
    [
        ('direct', 'direct@sft'),
        ('full_search', 'full_search@sft'),
        ('sft', 'gog@sft'),
        ('rl', 'gog@rl'),
        ('rl_fast', 'gog@rl_fast'),
        ('sft_no_gaze', 'no_gaze@sft_no_gaze'),
        ('expert', 'gog@expert'),
        ('remote', 'gog@remote'),
        ('base', 'gog@base'),
    ],
)
def test_short_names_stand_for_whole_ones(name, full):
  arms = ('rl_fast',)
  assert paradigms.parse(name, arms) == paradigms.parse(full, arms)
  one = paradigms.parse(name, arms)
  assert f'{one.paradigm}@{one.model}' == full


@pytest.mark.parametrize(
    ('name', 'nearest'),
    [
        ('r1', 'rl'),
        ('gog@stf', 'gog@sft'),
        ('ful_search@remote', 'full_search@remote'),
        ('mmsearch@base', 'mmsearch_r1@base'),
        ('rl_fats', 'rl_fast'),
    ],
)
def test_an_unknown_name_is_told_the_nearest(name, nearest):
  with pytest.raises(UserError, match=f"nearest is '{nearest}'") as caught:
    paradigms.parse(name, ('rl_fast',))
  assert len(str(caught.value).splitlines()) == 1


def test_the_expert_plays_no_paradigm_that_it_does_not_know():
  assert paradigms.parse('no_gaze@expert').tools == (
      'text_search', 'image_search'
  )
  for name in ('direct@expert', 'full_search@expert', 'mmsearch_r1@expert'):
    with pytest.raises(UserError, match='gog and no_gaze alone'):
      paradigms.parse(name)


@pytest.mark.parametrize(
    ('policies', 'benchmark', 'needs'),
    [
        (('direct', 'gog@rl'), 'world', ('data', 'sft', 'rl')),
        (('gog@remote', 'gog@base', 'expert'), 'world', ('data',)),
        (('gog@remote', 'full_search@script'), 'simplevqa', ()),
        (('no_gaze@sft_no_gaze', 'rl_x'), 'mmsearch', ('sft_no_gaze', 'rl_x')),
        (('mmsearch_r1@sft',), 'world_hard', ('data', 'sft')),
    ],
)
def test_what_is_needed_follows_from_the_models(policies, benchmark, needs):
  config = eval_page.get_config()
  config.arms.rl_x = {'steps': 1}
  config.eval.policies = policies
  config.eval.benchmark = benchmark
  assert evaluate.needs(config) == needs
  assert stages.stages_of(config)['eval'].needs == needs


URL = 'http://127.0.0.1:1/v1'


@pytest.mark.parametrize(
    ('changed', 'message'),
    [
        ({'eval.policies': ('gog@remote',)}, '--config.remote.url='),
        (
            {'eval.policies': ('gog@remote',), 'remote.url': URL},
            '--config.remote.model=NAME',
        ),
        (
            {
                'eval.policies': ('gog@remote',),
                'remote.url': URL,
                'remote.model': 'm',
                'remote.price_in': 1.0,
            },
            '--config.remote.max_spend=DOLLARS',
        ),
        ({'eval.policies': ('gog@script',)}, 'config.eval.script is'),
        (
            {'eval.policies': ('gog@script',), 'eval.script': 'no_such:play'},
            "No module named 'no_such'",
        ),
        (
            {'eval.policies': ('gog@script',), 'eval.script': '.mine:play'},
            'relative import',
        ),
        (
            {'eval.policies': ('gog@script',), 'eval.script': 'math:play'},
            "no function 'play'",
        ),
        (
            {'eval.policies': ('expert',), 'eval.benchmark': 'simplevqa'},
            'knows the embedded world alone',
        ),
        (
            {'eval.policies': ('base',), 'eval.benchmark': 'simplevqa'},
            '--config.benchmark.path=',
        ),
        (
            {
                'eval.policies': ('base',),
                'eval.benchmark': 'simplevqa',
                'benchmark.name': 'mmsearch',
            },
            'leave the former empty',
        ),
        ({'remote.concurrency': 0}, '1 or more'),
    ],
)
def test_what_is_missing_is_said_before_anything_runs(changed, message):
  config = eval_page.get_config()
  config_check.check(config)
  config.update_from_flattened_dict(changed)
  with pytest.raises(UserError, match=message):
    config_check.check(config)


def test_a_script_without_a_source_is_refused_in_one_line():
  with pytest.raises(UserError, match='has no source in Python'):
    plays.digest('math:sqrt')


def test_a_remote_policy_is_evaluated_where_its_endpoint_is_said():
  config = rl_page.get_config()
  config.eval.policies = ('gog@remote',)
  with pytest.raises(UserError, match='configs/eval.py'):
    config_check.check(config)


def test_policies_of_the_first_seed_alone_are_known_by_their_model(tmp_path):
  config = rl_page.get_config('full')
  config.eval.policies = ('sft', 'direct@rl_fast', 'rl_fast', 'gog@rl_all')
  second = Run(config, tmp_path).with_seed(1).config
  assert second.eval.policies == ('sft', 'gog@rl_all')


def test_one_asks_by_paradigm_too():
  config = ask_page.get_config()
  config.policy = 'direct@remote'
  assert config.rollout.max_turns == 10  # A general model's, as for 'remote'.

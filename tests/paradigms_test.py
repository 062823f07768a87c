"""Names of policies, and what each needs before anything runs."""

from __future__ import annotations

import pytest

from configs import ask as ask_page
from configs import eval as eval_page
from configs import rl as rl_page
from gog_jax.app import stages
from gog_jax.config import from_page
from gog_jax.config import paradigms
from gog_jax.errors import UserError
from gog_jax.evaluation import evaluate
from gog_jax.evaluation import policies

pytestmark = pytest.mark.quick
URL = 'http://127.0.0.1:1/v1'


@pytest.mark.parametrize(
    ('name', 'full'),
    [
        ('direct', 'direct@sft'),
        ('full_search', 'full_search@sft'),
        ('sft', 'gog@sft'),
        ('rl', 'gog@rl'),
        ('rl_fast', 'gog@rl_fast'),
        ('rl_fast_best', 'gog@rl_fast_best'),
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
  tools = ('text_search', 'image_search', 'gaze')
  assert paradigms.parse('no_gaze@expert').offered(tools) == tools[:2]
  for name in ('direct@expert', 'full_search@expert', 'mmsearch_r1@expert'):
    with pytest.raises(UserError, match='gog and no_gaze alone'):
      paradigms.parse(name)


@pytest.mark.parametrize(
    ('policies', 'benchmark', 'needs'),
    [
        (('direct', 'gog@rl'), 'test', ('data', 'sft', 'rl')),
        (('gog@remote', 'gog@base', 'expert'), 'world', ('data',)),
        (('gog@remote', 'full_search@script'), 'simplevqa', ()),
        (('no_gaze@sft_no_gaze', 'rl_x'), 'mmsearch', ('sft_no_gaze', 'rl_x')),
        (('mmsearch_r1@sft',), 'world_hard', ('data', 'sft')),
        (('direct@rl_best',), 'mmsearch', ('rl',)),
    ],
)
def test_what_is_needed_follows_from_the_models(policies, benchmark, needs):
  page = eval_page.get_config()
  page.arms.rl_x = {'steps': 1}
  page.eval.policies = policies
  page.eval.benchmark = benchmark
  page.benchmark.path = 'x'
  page.eval.script = 'tests.eval_plays:mixed'
  page.remote.update(url=URL, model='m')
  config = from_page(page)
  made = stages.stages_of(config)
  assert made['report'].needs == (*needs, *(f'eval {p}' for p in policies))


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
            'config.remote.max_spend is 0',
        ),
        ({'eval.policies': ('gog@script',)}, 'config.eval.script: there is no'),
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
            "no attribute 'play'",
        ),
        (
            {'eval.policies': ('expert',), 'eval.benchmark': 'simplevqa'},
            'knows the embedded world alone',
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
  page = eval_page.get_config()
  from_page(page)
  page.update_from_flattened_dict(changed)
  with pytest.raises(UserError, match=message):
    from_page(page)


@pytest.mark.parametrize(
    ('name', 'message'),
    [
        ('simplevqa', '--config.benchmark.path='),
        ('wrld', "there is no 'wrld'; the nearest is 'world'"),
    ],
)
def test_a_benchmark_that_is_not_there(name, message):
  page = eval_page.get_config()
  page.eval.update(policies=('base',), benchmark=name)
  with pytest.raises(UserError, match=message):
    evaluate.check(from_page(page))


def test_a_script_without_a_source_is_refused_in_one_line():
  page = eval_page.get_config()
  page.eval.update(policies=('gog@script',), script='math:sqrt')
  with pytest.raises(UserError, match='has no Python source'):
    from_page(page)


def test_policies_of_the_first_seed_alone_are_known_by_their_model(tmp_path):
  page = rl_page.get_config('full')
  page.eval.policies = ('sft', 'direct@rl_fast', 'rl_fast', 'gog@rl_all')
  second = from_page(page).of_seed(1)
  assert second.eval.policies == ('sft', 'gog@rl_all')


def test_one_asks_by_paradigm_too():
  page = ask_page.get_config()
  page.update(question='?', image='x', scope='s', policy='gog@remote')
  page.remote.update(url=URL, model='m')
  own = policies.config_of(from_page(page), 'gog@remote')
  assert own.rollout.max_turns == 10  # A general model's, as for 'remote'.

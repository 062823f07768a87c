"""What an earlier page of a workdir was given holds for the later ones."""

from __future__ import annotations

import importlib

import pytest

from gog_jax import main
from gog_jax.app import commands
from gog_jax.app import walk
from gog_jax.config import from_page
from gog_jax.config import settings
from gog_jax.errors import UserError
from tests import gog_test
from tests import main_test
from tests import mini

pytestmark = pytest.mark.quick

OWN = {
    'questions__train': ('jsonl:a.jsonl',),
    'questions__test': ('jsonl:b.jsonl',),
    'tools__backend': 'index',
    'tools__index': 'i',
}


def page_of(name, profile='qwen3_vl_8b'):
  return importlib.import_module(f'configs.{name}').get_config(profile)


def remembered(workdir, name, *flags, profile='qwen3_vl_8b'):
  found = settings.remembered(workdir, page_of(name, profile), flags)
  return {field.replace('.', '__'): value for field, value in found.items()}


def remember(workdir, name, profile='qwen3_vl_8b', **given):
  config = mini.make_config(name, profile, **given)
  settings.remember(workdir, config)
  return config


def test_later_pages_take_what_earlier_ones_were_given(tmp_path):
  remember(tmp_path, 'sft', **OWN, sft__data='set', seed=0)
  assert settings.read(tmp_path)['profile'] == 'qwen3_vl_8b'
  for page in ('sft', 'grade', 'rl', 'eval', 'ask', 'export'):
    assert remembered(tmp_path, page) == {**OWN, 'sft__data': 'set', 'seed': 0}
  remember(tmp_path, 'rl', **OWN, rl__steps=9)
  assert remembered(tmp_path, 'eval') == {**OWN, 'rl__steps': 9}


def test_given_anew_wins_and_is_remembered(tmp_path):
  remember(tmp_path, 'sft', **OWN, seed=3)
  assert remembered(tmp_path, 'grade', 'seed') == OWN
  remember(tmp_path, 'grade', **OWN, seed=0)  # As the profile has it.
  assert remembered(tmp_path, 'rl')['seed'] == 0


def test_what_is_said_beside_another_field_goes_with_it(tmp_path):
  given = {
      **OWN, 'tools__text': 'retriever',
      'tools__url': 'http://h', 'tools__version': '2',
      'eval__benchmark': 'fvqa_test', 'benchmark__path': 'p',
      'sft__data': 'a', 'sft__data_box': 'thousandths',
  }  # fmt: skip
  remember(tmp_path, 'rl', **given)
  assert remembered(tmp_path, 'eval') == given

  def gone(flag):
    return given.keys() - remembered(tmp_path, 'eval', flag).keys()

  assert gone('tools.backend') == {'tools__backend', 'tools__text'}
  assert gone('tools.url') == {'tools__url', 'tools__version'}
  assert gone('eval.benchmark') == {'eval__benchmark', 'benchmark__path'}
  assert gone('sft.data') == {'sft__data', 'sft__data_box'}
  assert gone('benchmark.n') == set()


def test_a_length_in_steps_replaces_one_in_epochs(tmp_path, capsys):
  remember(tmp_path, 'rl', rl__epochs=2.0, seed=3)
  capsys.readouterr()
  assert remembered(tmp_path, 'rl', 'rl.steps') == {'seed': 3}
  assert capsys.readouterr().err == (
      f'not from {tmp_path}/settings.json: rl.epochs\n'
  )
  remember(tmp_path, 'rl', rl__steps=9)
  assert remembered(tmp_path, 'rl', 'rl.epochs') == {}


@pytest.mark.parametrize('section', ['judge', 'remote'])
def test_another_endpoint_has_nothing_of_the_one_before(tmp_path, section):
  url, model = f'{section}__url', f'{section}__model'
  given = {url: 'http://a', model: 'm', f'{section}__temperature': 0.7}
  remember(tmp_path, 'instruct', **given)
  assert remembered(tmp_path, 'eval') == given
  assert remembered(tmp_path, 'eval', f'{section}.url') == {}
  found = remembered(tmp_path, 'eval', f'{section}.model')
  assert found == {url: 'http://a'}


def test_a_server_of_searches_takes_nothing_from_its_users(tmp_path):
  remember(tmp_path, 'rl', **OWN, tools__url='http://h', tools__cache='c')
  page = importlib.import_module('configs.retrieve').get_config()
  assert settings.remembered(tmp_path, page, ()) == {}


def test_a_page_of_ones_own_gives_too_but_ours_do_not(tmp_path):
  page = page_of('rl')
  page.tools.backend = 'index'
  page.questions.train = ('jsonl:a.jsonl',)
  page.questions.test = ('jsonl:b.jsonl',)
  page.rl.optimizer.learning_rate = 1e-3
  settings.remember(tmp_path, from_page(page))
  assert remembered(tmp_path, 'eval') == {
      'questions__train': ('jsonl:a.jsonl',),
      'questions__test': ('jsonl:b.jsonl',),
      'tools__backend': 'index',
      'rl__optimizer__learning_rate': 1e-3,
  }
  for name in ('instruct', 'sft', 'grade', 'rl'):
    folder = tmp_path / name
    remember(folder, name, 'full')  # Whose arms follow other fields.
    assert settings.read(folder) == {'profile': 'full'}


def started(workdir, page, **given):
  """A page as the command line starts it, flags after what is remembered."""
  given = {k.replace('__', '.'): v for k, v in given.items()}
  given = settings.remembered(workdir, page, given) | given
  page.update_from_flattened_dict(given)
  config = from_page(page, given)
  settings.remember(workdir, config)
  return config


def test_a_flag_holds_over_the_pages_own_value_but_no_other_page(tmp_path):
  def mine(**values):
    page = page_of('rl')
    page.rl.update(values)
    return page

  started(tmp_path, mine(epochs=15.0, level=1), rl__epochs=1.0)
  started(tmp_path, page_of('grade'), seed=3)  # It passes them on.
  again = started(tmp_path, mine(epochs=15.0, level=-1))
  # The page was edited where no flag was given.
  assert (again.rl.epochs, again.rl.level, again.seed) == (1, -1, 3)
  assert started(tmp_path, mine(epochs=15.0), rl__epochs=2.0).rl.epochs == 2
  assert started(tmp_path, mine(epochs=15.0)).rl.epochs == 2
  # Its own values hold for pages that have none, and are no flags there.
  assert started(tmp_path, page_of('rl')).rl.level == -1
  assert started(tmp_path, mine(level=1)).rl.level == 1


def test_the_recipe_goes_on_with_the_flags_it_was_started_with(tmp_path):
  given = gog_test.GIVEN | {
      'rl__epochs': 1.0, 'judge__concurrency': 3, 'tools__image': 'retriever',
      'tools__url': 'http://h',
  }  # fmt: skip
  first = mini.make_config('gog', 'qwen2_5_vl_7b', **given)
  for page in commands.recipe(first, tmp_path):
    settings.remember(tmp_path, page)
  again = page_of('gog', 'qwen2_5_vl_7b')
  found = settings.remembered(tmp_path, again, ())
  # What the page says anyway is not taken.
  flags = {field.replace('__', '.') for field in given}
  assert {*found} == {*flags, 'sft.data'}
  again.update_from_flattened_dict(found)
  assert from_page(again, found).rl == first.rl
  assert remembered(tmp_path, 'eval')['judge__concurrency'] == 3


def test_what_was_refused_is_forgotten(tmp_path):
  remember(tmp_path, 'sft', seed=3)
  before = settings.read(tmp_path)
  for made in (False, True):
    with pytest.raises(UserError), settings.taken_back(
        tmp_path, unless=lambda made=made: made
    ):
      remember(tmp_path, 'rl', seed=3, rl__level=1)
      raise UserError('too few queries')
    assert (settings.read(tmp_path) == before) != made


def test_a_refused_stage_leaves_no_settings_and_seeds_leave_theirs(tmp_path):
  refused = mini.make_run(tmp_path / 'a', 'rl', unasked=False)
  with pytest.raises(UserError):
    walk.make(refused, 'rl')  # Nothing is graded.
  assert settings.read(tmp_path / 'a') == {}
  run = mini.make_run(
      tmp_path / 'b', 'grade', seeds=(4, 5), unasked=False,
      remote__url='https://me:pass@host/v1',
  )  # fmt: skip
  with pytest.raises(UserError, match=r' --config\.remote\.url=\.\.\. '):
    walk.walk(run)  # Which names the command that makes SFT.
  assert settings.read(tmp_path / 'b') == {}


def test_the_workdir_of_several_seeds_remembers(tmp_path, monkeypatch):
  monkeypatch.setattr(walk, 'bring', lambda run, *_: None)
  run = mini.make_run(tmp_path, 'grade', seeds=(4, 5), grade__samples=3)
  walk.walk(run)
  found = remembered(tmp_path, 'eval', profile='toy')
  assert (found['seeds'], found['grade__samples']) == ((4, 5), 3)


@pytest.mark.parametrize(
    ('page', 'given'),
    [
        ('rl', {'rl__epochs': 1.0, 'rl__steps': 5}),
        ('sft', {'sft__data': 'set', 'sft__steps': 100}),
        ('gog', {**gog_test.GIVEN, 'sft__steps': 100}),
    ],
)
def test_steps_that_count_for_nothing_are_refused(page, given):
  (steps,) = [name for name in given if name.endswith('__steps')]
  section = steps.removesuffix('__steps')
  profile = 'qwen3_vl_8b_thinking'
  with pytest.raises(UserError, match=rf'pass --config\.{section}\.epochs=0'):
    mini.make_config(page, profile, **given)
  mini.make_config(page, profile, **given | {f'{section}__epochs': 0.0})


def test_a_page_keeps_what_it_sets_itself(tmp_path):
  remember(tmp_path, 'sft', sampler__n_slots=8, rollout__max_turns=3)
  assert remembered(tmp_path, 'ask') == {'rollout__max_turns': 3}
  assert remembered(tmp_path, 'eval')['sampler__n_slots'] == 8


def test_the_builders_own_section_waits_for_the_builder(tmp_path):
  given = {'instruct__teacher': 'model', 'instruct__n': 7}
  remember(tmp_path, 'instruct', **OWN, **given)
  remember(tmp_path, 'sft', **OWN)
  assert remembered(tmp_path, 'rl') == OWN
  assert remembered(tmp_path, 'instruct') == {**OWN, **given}
  remember(tmp_path, 'instruct', **OWN, instruct__teacher='model')
  assert remembered(tmp_path, 'instruct') == {
      **OWN, 'instruct__teacher': 'model',
  }  # fmt: skip


@pytest.mark.parametrize('page', ['eval', 'ask', 'export', 'inspect', 'check'])
def test_what_one_command_alone_is_given_is_not_kept(tmp_path, page):
  needed = {
      'ask': {'image': 'x.png', 'question': '?', 'policy': 'model'},
      'export': {'export__folder': 'a'},
  }
  config = remember(tmp_path, page, **OWN, **needed.get(page, {}))
  assert config.given['tools.index'] == 'i'
  assert settings.read(tmp_path) == {}


@pytest.mark.parametrize(
    'url', ['https://me:pass@host/v1', 'https://host/v1?key=pass']
)
def test_what_may_be_a_secret_is_not_written(tmp_path, capsys, url):
  remember(tmp_path, 'sft', tools__url=url, judge__url='http://host/v1')
  assert remembered(tmp_path, 'rl') == {'judge__url': 'http://host/v1'}
  assert 'pass' not in (tmp_path / 'settings.json').read_text()
  assert 'tools.url: not kept' in capsys.readouterr().err


def test_each_seeds_folder_is_of_its_own_seed(tmp_path):
  config = mini.make_config('rl', 'full', rl__steps=9)
  settings.remember(tmp_path, config.of_seed(1))
  found = remembered(tmp_path, 'eval', profile='full')
  assert found == {'rl__steps': 9, 'seed': 1, 'seeds': ()}


def test_a_field_that_is_gone_is_named(tmp_path):
  (tmp_path / 'settings.json').write_text('{"rl.stepz": 1, "instruct.m": 2}')
  with pytest.raises(UserError, match=r'has rl\.stepz, .* put rl\.steps in'):
    remembered(tmp_path, 'rl')
  with pytest.raises(UserError, match=r'rl\.stepz'):
    remembered(tmp_path, 'instruct')


def test_the_command_line_takes_and_says_it(tmp_path):
  remember(tmp_path, 'sft', **OWN, model__path='m', rl__steps=9)
  # What is wrong is so beside what the file alone holds.
  done = main_test.said(
      '--config', 'configs/eval.py', '--workdir', tmp_path,
      '--config.rl.steps=2', '--config.tools.backend=world',
  )  # fmt: skip
  said, error = done.stderr.strip().splitlines()
  assert said == (
      f"from {tmp_path}/settings.json: profile='qwen3_vl_8b', model.path='m', "
      "questions.test=('jsonl:b.jsonl',), questions.train=('jsonl:a.jsonl',), "
      "tools.index='i'"
  )
  assert 'knows nothing about your questions' in error
  assert done.returncode == 2


@pytest.mark.parametrize('bare', [('--workdir',), ('--workdir', '--dry_run')])
def test_a_workdir_without_a_name_is_refused(bare):
  with pytest.raises(UserError, match='--workdir is empty'):
    main.parse_flags(['gog', '--config=configs/eval.py', *bare])

"""What an earlier page of a workdir was given holds for the later ones."""

from __future__ import annotations

import importlib

import pytest

from gog_jax.config import from_page
from gog_jax.config import settings
from gog_jax.errors import UserError
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
      f'from {tmp_path}/settings.json: profile qwen3_vl_8b, model.path, '
      'questions.test, questions.train, tools.index'
  )
  assert 'knows nothing about your questions' in error
  assert done.returncode == 2

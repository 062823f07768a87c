"""The paper's recipe as a page."""

from __future__ import annotations

import contextlib
import json
import pathlib
import re
import subprocess

import pytest

from configs import gog as page
from gog_jax.app import commands
from gog_jax.errors import UserError
from tests import endpoints
from tests import journey_helpers as helpers
from tests import journey_test
from tests import judge_helpers
from tests import main_test
from tests import mini

GIVEN = {
    'model__path': 'FOLDER',
    'questions__train': ('verl:a.parquet', 'infoseek:b.jsonl'),
    'tools__index': 'index',
    'remote__url': 'http://127.0.0.1:1/v1',
    'judge__url': 'http://127.0.0.1:1/v1',
}


def test_all_that_is_missing_is_asked_for_in_one_line():
  flags = {name: f'--config.{name.replace("__", ".")}=' for name in GIVEN}
  for left_out in ((), ('model__path', 'judge__url'), tuple(GIVEN)):
    fields = {k: v for k, v in GIVEN.items() if k not in left_out}
    if not left_out:
      mini.make_config('gog', page.PROFILES[0], **fields)
      continue
    with pytest.raises(UserError) as refused:
      mini.make_config('gog', page.PROFILES[0], **fields)
    asked = {name for name in GIVEN if flags[name] in str(refused.value)}
    assert asked == {*left_out} and '\n' not in str(refused.value)


@pytest.mark.parametrize('profile', page.PROFILES)
def test_it_walks_the_other_pages(profile, tmp_path):
  config = mini.make_config('gog', profile, **GIVEN)
  instruct, rl, table = commands.recipe(config, tmp_path)
  assert [one.stage for one in (instruct, rl, table)] == [
      'instruct', 'rl', 'table'
  ]  # fmt: skip
  assert rl.sft.data == str(tmp_path / 'instruct' / 'set') and rl.unasked
  assert (rl.sft.epochs, rl.rl.epochs, rl.rl.loss.kl_coef) == (3, 15, 0.001)
  assert rl.questions.shares == {'test': 0.05}
  # A set of one's own needs no teacher.
  fields = GIVEN | {'remote__url': '', 'sft__data': 'set'}
  own = mini.make_config('gog', profile, **fields)
  assert [one.stage for one in commands.recipe(own, tmp_path)] == [
      'rl', 'table'
  ]  # fmt: skip


def test_what_does_not_fit_is_named_as_a_flag(tmp_path):
  with pytest.raises(UserError, match=r'needs --config.seed=N, a --workdir '):
    mini.make_config('gog', page.PROFILES[0], **GIVEN, seeds=(0, 1))
  config = mini.make_config(
      'gog', page.PROFILES[0], **GIVEN, tools__backend='world'
  )
  with pytest.raises(UserError, match='^config.tools.backend: the embedded'):
    commands.recipe(config, tmp_path)
  # As the page says.
  best = mini.make_config(
      'gog',
      page.PROFILES[0],
      **GIVEN,
      rl__n_validation=256,
      questions__validation=('train:5%',),
      eval__policies=('sft', 'rl', 'rl_best'),
  )
  assert commands.recipe(best, tmp_path)[1].validates_rl


def test_every_value_says_where_it_is_from():
  lines = pathlib.Path(page.__file__).read_text().splitlines()
  values = [i for i, x in enumerate(lines) if re.match(r' {6,}[a-z_]+=', x)]
  assert len(values) > 40
  for i in values:
    if not lines[i].endswith('('):
      near = lines[i] + lines[i - 1] * lines[i - 1].strip().startswith('#')
      assert re.search('[Pp]aper|[Oo]urs', near), lines[i]


@pytest.mark.slow
@pytest.mark.timeout(1800)
def test_the_recipe_walks_from_raw_files_to_the_table(tmp_path):
  """One command; given again, it reuses all and asks nobody."""
  helpers.write_files(tmp_path)
  main_test.said(
      '--config=configs/index.py',
      f'--config.docs={tmp_path}/corpus.jsonl',
      f'--config.images={tmp_path}/photos',
      f'--config.index={tmp_path}/index',
  ).check_returncode()
  workdir = tmp_path / 'run'
  fields = journey_test.SIZES | {
      'model.path': helpers.write_model(tmp_path / 'model', 'qwen2_5_vl'),
      'tools.index': tmp_path / 'index',
      'questions.train': (
          f'verl:{tmp_path}/train.parquet',
          f'infoseek:{tmp_path}/infoseek/train.jsonl',
      ),
      'instruct.n': 12,
      'instruct.no_search': 0.0,  # What it knows at once is too easy.
      'rl.epochs': 1.0,
      'grade.n_queries': 4,
      'eval.n_examples': 2,
      'eval.policies': ('sft', 'rl'),
  }
  del fields['rl.steps']
  with contextlib.ExitStack() as stack:
    teacher = stack.enter_context(endpoints.serve(helpers.teach))
    judge = stack.enter_context(endpoints.serve(judge_helpers.right_if()))
    fields |= {'remote.url': teacher.url, 'judge.url': judge.url}

    def main() -> str:
      done = subprocess.run(
          main_test.command(
              '--config=configs/gog.py:qwen2_5_vl_7b',
              *(f'--config.{name}={value}' for name, value in fields.items()),
              f'--workdir={workdir}',
          ),
          cwd=main_test.ROOT,
          env=main_test.environment(),
          capture_output=True,
          text=True,
      )
      assert done.returncode == 0, done.stderr[-3000:]
      return done.stdout + done.stderr

    assert 'GoG-RL, Qwen2.5-VL-7B-Instruct' in main()
    made = {
        name: json.loads((workdir / name / 'manifest.json').read_text())
        for name in ('sft', 'grade', 'rl', 'eval/sft', 'eval/rl')
    }
    asked = len(teacher.heard)
    said = main()
  assert len(teacher.heard) == asked
  for name, manifest in made.items():
    assert manifest['complete']
    what = name.replace('/', ' ')
    assert f'{what}: complete in {workdir / name}, reused' in said
  assert made['sft']['facts']['steps'] == 2  # 12 samples, 8 at a time.
  # Every query is Level 2 of a model that answers nothing; 2 at a time.
  n = made['grade']['facts']['levels']['2']
  assert made['rl']['facts']['steps'] == -(-n // 2) > 0
  assert not (workdir / 'data').exists()

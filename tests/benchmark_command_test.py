"""`configs/benchmark.py` says what a folder holds, or why it cannot be used."""

from __future__ import annotations

import importlib

import pytest

from gog_jax.app import commands
from gog_jax.config import from_page
from gog_jax.errors import UserError
from tests import benchmark_fixtures as fixtures


def do(tmp_path, **fields):
  config = importlib.import_module('configs.benchmark').get_config()
  config.benchmark.update(fields)
  commands.do(from_page(config), tmp_path / 'run')


def test_what_a_folder_holds_is_said(tmp_path, capsys):
  rows = [fixtures.verl_row(i) for i in range(9)]
  for i in range(4, 9):
    rows[i]['images'] = []
  rows[1]['prompt'][0]['content'] = 'What\n is \x1b[31mthis' + '?' * 300
  fixtures.write(tmp_path / 'fvqa_test.parquet', rows, fixtures.VERL)
  do(tmp_path, name='fvqa_test', path=str(tmp_path))
  said, place = capsys.readouterr()
  lines = said.splitlines()
  assert place == f'benchmark: hashes kept in {tmp_path / "run/benchmarks"}\n'
  assert lines[0] == 'FVQA-test: 4 questions, the paper has 1800'
  assert lines[1] == "label: not the paper's: 4 items, the paper has 1800"
  assert len(lines[2].removeprefix('contents: ')) == 64
  assert lines[3:5] == ['left out: 5', '  5 no image']
  assert '    and 2 more' in lines
  assert said.count('8 x 6 pixels') == 3  # Samples.
  assert '\x1b' not in said
  assert '  answers: Answer 2 | form 2' in lines or 'fvqa_test_2' not in said
  assert (tmp_path / 'run/benchmarks').is_dir()
  do(tmp_path, name='fvqa_test', path=str(tmp_path))
  assert capsys.readouterr().out == said


def test_what_cannot_be_used_is_one_line(tmp_path):
  with pytest.raises(UserError, match='known: fvqa_test, infoseek'):
    do(tmp_path)
  with pytest.raises(UserError, match='holds no parquet file'):
    do(tmp_path, name='mmsearch', path=str(tmp_path))

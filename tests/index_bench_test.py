"""scripts/bench_index.py: right photographs among pictures made of the same."""

from __future__ import annotations

import importlib.util
import sys

import pytest

from tests.index_helpers import ROOT

# Least shares of right first answers, by kind of query.
LEAST = {
    'whole': 0.98,
    'crop of a composite': 0.90,
    'rotated': 0.95,
    'shifted': 0.95,
}


@pytest.fixture(name='bench', scope='module')
def load_bench():
  scripts = ROOT / 'scripts'
  sys.path.insert(0, str(scripts))  # It imports its neighbour.
  try:
    spec = importlib.util.spec_from_file_location(
        'bench_index', scripts / 'bench_index.py'
    )
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    yield module
  finally:
    sys.path.remove(str(scripts))


def test_small(bench, tmp_path):
  rates = bench.accuracy(
      tmp_path,
      n_distractors=300,
      n_queries=8,
      seed=101,
      max_side=400,
      kinds=LEAST,
  )
  # One of ten may go wrong, of a composite's crops two.
  for kind, least in LEAST.items():
    assert rates[kind] >= least - 0.1, rates


@pytest.mark.slow
def test_full(bench, tmp_path):
  rates = bench.accuracy(tmp_path, n_distractors=2000, n_queries=300, seed=102)
  for kind, least in LEAST.items():
    assert rates[kind] >= least, rates
  # Four photos at once: the asked one is no better an answer than others.
  assert rates['whole composite'] < 0.4, rates


@pytest.mark.slow
def test_scale(bench, tmp_path, capsys):
  bench.scale(tmp_path, n_images=200, n_passages=2000, seed=1)
  said = capsys.readouterr().out
  assert '2000 passages' in said and 'image queries: p50' in said

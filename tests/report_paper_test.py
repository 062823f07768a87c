"""The paper's numbers: whether they fit, and who of ours stands beside whom."""

from __future__ import annotations

import numpy as np
import pytest
import scipy.stats

from gog_jax.report import paper

pytestmark = pytest.mark.quick

MAIN = [row for row in paper.ROWS if row.scores]
HALF = 0.005 + 1e-9  # Of the last digit that is printed.


def test_averages_fit_their_columns_but_for_one_row():
  off = {
      (row.paradigm, row.family): row.average - np.mean(row.scores)
      for row in MAIN
      if abs(row.average - np.mean(row.scores)) > HALF
  }
  assert off == {('full_search', 'qwen3_vl'): pytest.approx(0.6633, abs=1e-4)}
  assert len(MAIN) == 12 and all(len(row.scores) == 6 for row in MAIN)


def test_every_score_is_a_count_of_the_recovered_n_but_one():
  off = [
      (row.paradigm, row.family, name, row.scores[i])
      for row in MAIN
      for i, name in enumerate(paper.NAMES)
      if abs(100 * row.right(name) / paper.N[name] - row.scores[i]) > HALF
  ]
  assert off == [('full_search', 'qwen3_vl', 'mmsearch', 63.84)]


def test_the_footnotes_number_fits_both():
  row = paper.find('full_search', 'qwen3_vl')
  assert row.footnote == 'mmsearch'
  assert [r for r in paper.ROWS if r.footnote] == [row]
  scores = [67.84 if s == 63.84 else s for s in row.scores]
  assert abs(np.mean(scores) - row.average) < HALF
  assert round(100 * 116 / 171, 2) == 67.84


@pytest.mark.parametrize('column', range(6))
def test_no_other_n_nearby_fits(column):
  """The recovered n is the smallest that all but the misprint fit."""
  scores = {row.scores[column] for row in MAIN} - {63.84}

  def fits(n):
    return all(abs(100 * round(s / 100 * n) / n - s) < HALF for s in scores)

  _, _, n = paper.COLUMNS[column]
  assert [m for m in range(1, n + 1) if fits(m)] == [n]


def test_an_interval_is_of_the_recovered_count():
  row = paper.find('rl', 'qwen3_vl')
  assert row.right('mmsearch') == 112
  want = scipy.stats.binomtest(112, 171).proportion_ci(0.95, 'exact')
  np.testing.assert_allclose(row.interval('mmsearch'), [want.low, want.high])
  assert want.high - want.low > 0.14  # Seven points to either side.


@pytest.mark.parametrize(
    ('policy', 'model', 'paradigm'),
    [
        ('direct@base', '', 'direct'),
        ('direct@remote', '', 'direct'),
        ('direct', '', None),  # The SFT policy, which has to answer at once.
        ('direct@sft', '', None),
        ('full_search@base', '', 'full_search'),
        ('full_search', '', None),
        ('gog@base', 'Qwen/Qwen3-VL-8B-Thinking', 'prompted'),
        ('gog@remote', 'gpt-4o', 'prompted'),
        ('gog@base', 'Edwinzz/GoG-RL-Qwen2.5-7B', 'rl'),
        ('gog@base', 'Edwinzz/GoG-SFT-Qwen3-8B-Thinking', 'sft'),
        ('direct@base', 'Edwinzz/GoG-RL-Qwen2.5-7B', None),
        ('mmsearch_r1@base', 'lmms-lab/MMSearch-R1-7B', 'mmsearch_r1'),
        ('mmsearch_r1@base', 'Qwen/Qwen2.5-VL-7B-Instruct', None),
        ('gog@sft', '', 'sft'),
        ('sft', '', 'sft'),
        ('gog@rl', '', 'rl'),
        ('rl', '', 'rl'),
        ('rl_level1', '', 'rl_level1'),
        ('rl_best', '', 'rl'),
        ('rl_fast', '', None),
        ('sft_no_gaze', '', 'sft_no_gaze'),
        ('no_gaze@sft_no_gaze', '', 'sft_no_gaze'),
        ('no_gaze@base', '', None),
        ('gog@expert', '', None),
        ('expert', '', None),
        ('gog@script', '', None),
        ('remote', 'qwen2.5-vl-7b', 'prompted'),
    ],
)
def test_who_stands_beside_whom(policy, model, paradigm):
  assert paper.paradigm_of(policy, model) == paradigm


@pytest.mark.parametrize(
    ('hints', 'family'),
    [
        (('Qwen/Qwen2.5-VL-7B-Instruct', ''), 'qwen2_5_vl'),
        (('/models/mine', 'qwen3_vl_thinking'), 'qwen3_vl'),
        (('Edwinzz/GoG-RL-Qwen2.5-7B', 'qwen3_vl'), 'qwen2_5_vl'),
        (('gpt-4o-2024-08-06',), 'gpt_4o'),
        (('toy_base', 'gog_toy'), None),
        (('Qwen/Qwen2-VL-7B',), None),
    ],
)
def test_families(hints, family):
  assert paper.family_of(*hints) == family

"""Intervals: SciPy's on the same samples, and how often they hold the truth."""

from __future__ import annotations

import functools
import itertools

import numpy as np
import pytest
import scipy.stats

from gog_jax.report import intervals

NAMES = [str(i) for i in range(400)]
NOMINAL, LEAST = 0.95, 0.93


def ones(n):
  return NAMES[:n]


@pytest.mark.parametrize('method', ['percentile', 'BCa'])
@pytest.mark.parametrize('kind', ['right or wrong', 'f1', 'difference'])
def test_bootstrap_agrees_with_scipy(method, kind):
  rng = np.random.default_rng(5)
  values = {
      'right or wrong': rng.integers(0, 2, 120).astype(float),
      'f1': rng.beta(0.6, 0.9, 120),
      'difference': rng.choice([-1.0, 0.0, 1.0], 120, p=[0.1, 0.6, 0.3]),
  }[kind]
  low, high = intervals.bootstrap(values.tolist(), ones(120), seed=1)
  want = scipy.stats.bootstrap(
      (values,), np.mean, method=method, n_resamples=10_000, rng=7
  ).confidence_interval
  one = 1 / 120 + 1e-9  # What one answer more or less is worth.
  assert low == pytest.approx(want.low, abs=one)
  assert high == pytest.approx(want.high, abs=one)
  again = intervals.bootstrap(values.tolist(), ones(120), seed=1)
  assert [low, high] == again


def test_two_more_questions_are_two_more_questions():
  values = np.random.default_rng(2).choice([-1.0, 0.0, 1.0], 40)
  found = intervals.of_difference(values.tolist(), ones(40), seed=1)
  want = scipy.stats.bootstrap(
      (np.concatenate([values, [-1, 1]]),),
      np.mean,
      method='percentile',
      n_resamples=10_000,
      rng=7,
  ).confidence_interval
  np.testing.assert_allclose(found, [want.low, want.high], atol=1 / 42 + 1e-9)


@pytest.mark.parametrize(('right', 'n'), [(0, 10), (7, 10), (10, 10), (3, 171)])
def test_a_share_of_questions_has_the_exact_interval(right, n):
  values = [1.0] * right + [0.0] * (n - right)
  found = intervals.of_share(values, ones(n), seed=0)
  # Its definition: the shares at which so many or more are as unlikely.
  beta = scipy.stats.beta
  low = beta.ppf(0.025, right, n - right + 1) if right else 0.0
  high = beta.ppf(0.975, right + 1, n - right) if right < n else 1.0
  np.testing.assert_allclose(found, [low, high])
  assert intervals.of_share([], [], seed=0) is None


def test_bootstrap_resamples_questions_not_samples():
  # Four samples of a question that always agree are worth one.
  values = [0.0, 1.0, 1.0, 0.0, 1.0] * 4
  names = [str(i % 5) for i in range(20)]
  found = intervals.bootstrap(values, names, seed=0)
  assert found == intervals.bootstrap(values[:5], names[:5], seed=0)
  low, high = found
  free_low, free_high = intervals.bootstrap(values, ones(20), seed=0)
  assert free_high - free_low < 0.8 * (high - low)


def covers(found, truth):
  low, high = np.moveaxis(np.array(found), -1, 0)
  return (low <= truth + 1e-9) & (truth - 1e-9 <= high)


@pytest.mark.parametrize('n', [10, 30, 171])
def test_shares_are_covered_whatever_they_are(n):
  """Not simulated: every outcome, weighed by how likely it is."""
  right = np.arange(n + 1)
  exact = [
      intervals.of_share([1.0] * k + [0.0] * (n - k), ones(n), seed=0)
      for k in right
  ]
  # This is what the plain bootstrap is in the limit.
  percentile = scipy.stats.binom.ppf([[0.025], [0.975]], n, right / n).T / n

  def least(found):
    return min(
        scipy.stats.binom.pmf(right, n, p)[covers(found, p)].sum()
        for p in np.linspace(0.005, 0.995, 199)
    )

  assert least(exact) >= NOMINAL
  assert least(percentile) < 0.6


@pytest.mark.parametrize('n', [10, 30, 100])
def test_paired_differences_are_covered(n):
  """Every outcome of small n, drawn ones of a larger: cached by outcome."""
  rng = np.random.default_rng(n)

  @functools.cache
  def interval(better, worse):
    values = [1.0] * better + [-1.0] * worse + [0.0] * (n - better - worse)
    return intervals.of_difference(values, ones(n), seed=0)

  for p, q in [
      (0.02, 0.02), (0.1, 0.02), (0.3, 0.1), (0.4, 0.4), (0.8, 0.05), (0.2, 0.0)
  ]:  # fmt: skip
    if n == 10:
      outcomes = [
          (a, b) for a, b in itertools.product(range(n + 1), repeat=2)
          if a + b <= n
      ]  # fmt: skip
      weights = scipy.stats.multinomial.pmf(
          [(a, b, n - a - b) for a, b in outcomes], n, [p, q, 1 - p - q]
      )
    else:
      drawn = rng.multinomial(n, [p, q, 1 - p - q], size=2000)[:, :2]
      kinds, counts = np.unique(drawn, axis=0, return_counts=True)
      # Rare outcomes count as not covered.
      order = np.argsort(-counts)[:60]
      outcomes, weights = kinds[order].tolist(), counts[order] / 2000
    found = [interval(*outcome) for outcome in outcomes]
    covered = weights[covers(found, p - q)].sum() / weights.sum()
    assert covered >= LEAST, (n, p, q)


@pytest.mark.parametrize(
    ('n_questions', 'p', 'plain_holds'),
    [(10, 0.05, False), (10, 0.5, True), (10, 0.9, False), (40, 0.05, False)],
)
def test_several_samples_of_a_question_are_covered(n_questions, p, plain_holds):
  """Questions differ in how hard they are; each is sampled three times."""
  rng = np.random.default_rng(0)
  names = [str(i) for i in range(n_questions)] * 3
  n, covered, plain = 150, 0, 0
  for _ in range(n):
    hard = rng.beta(p, 1 - p, n_questions)  # An ICC of one half.
    values = (rng.random((3, n_questions)) < hard).ravel().astype(float)
    covered += covers(intervals.of_share(values.tolist(), names, seed=0), p)
    plain += covers(intervals.bootstrap(values.tolist(), names, seed=0), p)
  assert covered / n >= LEAST
  assert plain_holds == (plain / n >= LEAST)


def test_an_interval_over_seeds_is_students():
  values = [3.8, 1.2, 1.0]
  want = scipy.stats.ttest_1samp(values, 0).confidence_interval(0.95)
  found = intervals.across_seeds(values)
  np.testing.assert_allclose(found, [want.low, want.high])
  assert found[0] < 0  # Three that agree in their sign show little.
  assert intervals.across_seeds(values[:1]) is None

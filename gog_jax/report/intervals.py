"""95 % intervals that cover as promised, for few questions and for many.

Chosen by simulation (tests/report_intervals_test.py):

  * Shares of questions, each asked once and right or wrong: Clopper and
    Pearson's exact interval. It covers the truth in 95 % of cases or more,
    whatever n and the share; the percentile bootstrap does so in 65 % at n = 10
    and a share of 0.9, and in none once all ten are right ([1, 1]); BCa is
    undefined there, and Wilson's falls to 86 % for shares near 0 and 1.
  * All else (several samples of a question, token F1, paired differences): the
    percentile bootstrap over questions, to which one is added at either end of
    the scale. Among hundreds they make no difference; among ten they keep the
    interval from ruling out what happened not to be seen.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import scipy.stats

_RESAMPLES = 10_000
_RESAMPLES_AT_ONCE = 500


def of_share(
    values: Sequence[float], groups: Sequence[str], *, seed: int
) -> list[float] | None:
  """The interval of the mean of values from 0 to 1.

  Args:
    values: One per trajectory.
    groups: Which example each belongs to.
    seed: Makes it reproducible, where it is drawn.

  Returns:
    [low, high]; None without values.
  """
  if not values:
    return None
  if len(set(groups)) == len(values) and set(values) <= {0, 1}:
    return exact(round(sum(values)), len(values))
  return bootstrap(values, groups, seed=seed, ends=(0.0, 1.0))


def of_difference(
    values: Sequence[float], groups: Sequence[str], *, seed: int
) -> list[float] | None:
  """The interval of the mean of paired differences; as `of_share`."""
  return bootstrap(values, groups, seed=seed, ends=(-1.0, 1.0))


def exact(right: int, n: int) -> list[float]:
  """Clopper and Pearson's, of `right` out of `n` independent questions."""
  found = scipy.stats.binomtest(right, n).proportion_ci(0.95, method='exact')
  return [float(found.low), float(found.high)]


def bootstrap(
    values: Sequence[float],
    groups: Sequence[str],
    *,
    seed: int,
    ends: Sequence[float] = (),
) -> list[float] | None:
  """The percentile interval of the mean, resampling whole groups.

  Trajectories of one example are not independent, so examples are drawn. With
  one trajectory each this is the ordinary bootstrap.

  Args:
    values: One per trajectory.
    groups: Which example each belongs to.
    seed: Makes the interval reproducible.
    ends: Values of as many more examples, of the average size.

  Returns:
    [low, high]; None without values.
  """
  if not values:
    return None
  _, index = np.unique(np.array(groups), return_inverse=True)
  totals = np.bincount(index, weights=np.array(values, np.float64))
  counts = np.bincount(index)
  size = counts.mean()
  totals = np.concatenate([totals, size * np.array(ends, np.float64)])
  counts = np.concatenate([counts, np.full(len(ends), size)])
  # Many groups are alike; only how often each kind is drawn matters.
  kinds, multiples = np.unique(
      np.stack([totals, counts], axis=1), axis=0, return_counts=True
  )
  rng = np.random.default_rng(seed)
  means = []
  for _ in range(_RESAMPLES // _RESAMPLES_AT_ONCE):
    drawn = rng.multinomial(
        len(totals), multiples / len(totals), size=_RESAMPLES_AT_ONCE
    )
    total, count = (drawn @ kinds).T
    means.append(total / count)
  low, high = np.percentile(np.concatenate(means), [2.5, 97.5])
  return [float(low), float(high)]


def across_seeds(differences: Sequence[float]) -> list[float] | None:
  """The interval of the mean over training seeds, by Student's t.

  Resampled questions say nothing about how another seed would have gone: this
  does, with one degree of freedom fewer than there are seeds.

  Args:
    differences: One per seed.

  Returns:
    [low, high]; None for fewer than two.
  """
  if len(differences) < 2:
    return None
  values = np.array(differences, np.float64)
  error = values.std(ddof=1) / np.sqrt(len(values))
  reach = scipy.stats.t.ppf(0.975, len(values) - 1) * error
  return [float(values.mean() - reach), float(values.mean() + reach)]

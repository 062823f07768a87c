"""Behaviour is measured once: training and the report say the same."""

from __future__ import annotations

import numpy as np
import pytest

from gog_jax.report import measures
from gog_jax.rewards import behaviour
from gog_jax.train import rl_metrics
from gog_jax.train.advantages import group_advantages
from tests import report_helpers as helpers

pytestmark = pytest.mark.quick


def test_training_and_the_report_measure_alike_under_the_same_names():
  ten = helpers.ten()
  pairs = [(ten.examples[t.example_id], t) for t in ten.trajectories]
  measured = behaviour.measure(pairs)
  assert measured['one_kind'] == 0.5 and measured['searches'] == 1.4
  record = measures.describe(ten, seed=0)
  assert record['behaviour'] == measured
  examples, groups = zip(*((e, [t]) for e, t in pairs), strict=True)
  ones = np.ones((10, 1))
  row = rl_metrics.describe(
      examples, groups, group_advantages(ones, ones > 0, ones, eps=1e-4)
  )
  assert row.items() >= measured.items()
  for other in ('single', 'calls_per_query', 'no_searches'):
    assert other not in row and other not in record

"""Behaviour is measured once: training and the report say the same."""

from __future__ import annotations

import numpy as np
import pytest

from gog_jax.report import measures
from gog_jax.rewards import behaviour
from gog_jax.train import rl_metrics
from gog_jax.train.advantages import group_advantages
from gog_jax.train.groups import to_groups
from gog_jax.types import ToolStatus
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
  advantages = group_advantages(ones, ones > 0, ones, eps=1e-4)
  row = rl_metrics.describe(to_groups(examples, groups, advantages))
  assert row.items() >= measured.items()
  for other in ('single', 'calls_per_query', 'no_searches'):
    assert other not in row and other not in record


def test_what_a_step_logs_by_hand():
  down = helpers.text(status=ToolStatus.INFRA_ERROR)
  examples = [helpers.example('a'), helpers.example('b')]
  groups = [
      [
          helpers.trajectory('a'),  # Searches nothing; right.
          helpers.trajectory('a', (helpers.gaze(helpers.MISS),), right=False),
          helpers.trajectory(
              'a',
              (helpers.gaze(helpers.MISS),),
              (helpers.gaze(helpers.HIT),),
              (helpers.text(),),
          ),
      ],
      [
          helpers.trajectory('b', (down,)),  # Spoilt: of no mean.
          helpers.trajectory('b', (helpers.glance(),), well_formed=False),
          helpers.trajectory('b', (helpers.text(),), right=False),
      ],
  ]
  advantages = group_advantages(
      np.array([[t.reward for t in group] for group in groups]),
      np.array([[t.valid for t in group] for group in groups]),
      np.array([[t.reward_parts['accuracy'] for t in g] for g in groups]),
      eps=1e-4,
  )
  found = rl_metrics.describe(
      to_groups(examples, groups, advantages)
  )
  assert found['accuracy'] == 3 / 5 and found['format'] == 4 / 5
  assert found['reward'] == pytest.approx((1 + 0.1 + 1 + 0.9 + 0.1) / 5)
  assert found['searches'] == (0 + 1 + 3 + 1 + 1) / 5
  assert found['turns'] == (1 + 2 + 4 + 2 + 2) / 5
  assert (found['no_search'], found['one_kind'], found['hybrid']) == (
      1 / 5, 3 / 5, 1 / 5
  )
  assert found['recovery'] == 1 / 2
  assert found['sampled_tokens'] == 2 and found['tokens'] == 4
  assert found['live_groups'] == 1
  assert found['masked'] == pytest.approx(1 / 6)
  assert found['masked_by_calls'] == {'0': 0, '1': 1 / 4, '3': 0}
  assert (found['infra_errors'], found['model_errors']) == (1, 0)

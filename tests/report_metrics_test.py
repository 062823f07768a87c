"""The report's numbers, counted by hand."""

from __future__ import annotations

import pytest

from gog_jax.report import metrics as report_metrics
from gog_jax.report import summary as report
from gog_jax.report.metrics import Evaluated
from gog_jax.rewards import behaviour
from gog_jax.types import ToolStatus
from tests import report_helpers as helpers

pytestmark = pytest.mark.quick


def by_hop(accuracy, *, no_search, hybrid, n):
  return {
    'accuracy': pytest.approx(accuracy),
    'no_search': no_search,
    'hybrid': hybrid,
    'n': n,
  }


def test_the_row_is_what_a_hand_counts():
  row = report_metrics.row(helpers.ten(), seed=0)
  low, high = row.pop('ci95')
  assert 0.3 <= low <= 0.5 and 0.9 <= high <= 1.0
  assert row == {
    'policy': 'rl',
    'accuracy': pytest.approx(0.7),
    'n': 10,
    'format_rate': pytest.approx(0.9),
    'no_search': pytest.approx(0.3),  # a b c
    'single': pytest.approx(0.5),  # d e f i j; a glance is an image search.
    'hybrid': pytest.approx(0.2),  # g h
    'calls_per_query': pytest.approx(1.4),  # 1 2 1 3 4 2 1
    'gaze_hit': pytest.approx(4 / 9),
    'recovery': pytest.approx(0.6),
    'infra_errors': 0,
    'by_hop': {
      '0': by_hop(2 / 3, no_search=1, hybrid=0, n=3),
      '1': by_hop(2 / 3, no_search=0, hybrid=0, n=3),
      '2': by_hop(3 / 4, no_search=0, hybrid=0.5, n=4),
    },
  }


def test_infra_errors_are_counted_apart_and_enter_nothing():
  ten = helpers.ten()
  down = helpers.result(ToolStatus.INFRA_ERROR, error='down')
  struck = [
    helpers.trajectory(
      'a', ((helpers.gaze(helpers.MISS)[0], down),), right=False
    ),
    helpers.trajectory(
      'd', (helpers.gaze(helpers.MISS), (helpers.text()[0], down)), right=False
    ),
  ]
  with_struck = Evaluated(
    policy='rl',
    examples=ten.examples,
    trajectories=[*ten.trajectories, *struck],
  )
  row = report_metrics.row(with_struck, seed=0)
  assert row.pop('infra_errors') == 2
  without = report_metrics.row(ten, seed=0)
  assert without.pop('infra_errors') == 0
  assert row == without


def test_a_call_that_was_the_policys_mistake_is_no_search():
  refused = helpers.result(ToolStatus.MODEL_ERROR, error='bad box')
  one = Evaluated(
    policy='sft',
    examples={'a': helpers.example('a')},
    trajectories=[
      helpers.trajectory(
        'a', ((helpers.gaze(helpers.MISS)[0], refused),), (helpers.text(),)
      )
    ],
  )
  row = report_metrics.row(one, seed=0)
  assert (row['single'], row['hybrid']) == (1, 0)
  assert row['calls_per_query'] == 1
  assert row['gaze_hit'] is None and row['recovery'] is None


def test_undefined_is_none_not_zero():
  no_gold = Evaluated(
    policy='sft',
    examples={'a': helpers.example('a', gold=(), hops=None)},
    trajectories=[helpers.trajectory('a', (helpers.gaze(helpers.HIT),))],
  )
  row = report_metrics.row(no_gold, seed=0)
  assert row['gaze_hit'] is None and row['recovery'] is None
  assert row['by_hop'] == {
    'unknown': by_hop(1, no_search=0, hybrid=0, n=1)
  }
  down = helpers.result(ToolStatus.INFRA_ERROR)
  none_valid = Evaluated(
    policy='sft',
    examples={'a': helpers.example('a')},
    trajectories=[helpers.trajectory('a', ((helpers.text()[0], down),))],
  )
  row = report_metrics.row(none_valid, seed=0)
  assert row['accuracy'] is None and row['ci95'] is None and row['n'] == 0
  assert '-' in report.table({'rows': [row]})


def test_a_gaze_hits_from_an_overlap_of_one_half_on_the_image_with_the_gold():
  example = helpers.example('a', gold=((0, 0, 10, 10), (50, 50, 60, 60)))
  hits = [
    gaze.hit
    for gaze in behaviour.gazes(
      example,
      helpers.trajectory(
        'a',
        (helpers.gaze((0, 0, 10, 5)),),  # Exactly one half.
        (helpers.gaze((0, 0, 10, 4.9)),),
        (helpers.gaze((50, 50, 60, 60)),),  # The second region.
        (helpers.gaze((0, 0, 10, 10), root=1),),  # Another image.
      ),
    )
  ]
  assert hits == [True, False, True, False]


def test_differences_are_paired_and_counted_by_hand():
  ten = helpers.ten()
  # Wrong on all but a and e; its first gazes miss on e, f and h as well.
  miss, hit = (helpers.gaze(helpers.MISS),), (helpers.gaze(helpers.HIT),)
  other = Evaluated(
    policy='sft',
    examples=ten.examples,
    trajectories=[
      helpers.trajectory('h', miss, right=False),
      helpers.trajectory('a'),
      *(
        helpers.trajectory(name, hit, right=False)
        for name in ('b', 'c', 'd', 'g', 'i')
      ),
      helpers.trajectory('e', miss, hit),
      helpers.trajectory('f', miss, right=False),
    ],
  )
  found = report_metrics.difference(ten, other, seed=0)
  assert (found['policy'], found['against']) == ('rl', 'sft')
  # Nine pairs (not j): 6 right against 2.
  accuracy = found['accuracy']
  assert accuracy['n'] == 9
  assert accuracy['difference'] == pytest.approx(4 / 9)
  low, high = accuracy['ci95']
  assert low < 4 / 9 < high and low >= 0
  # e: both; f: neither; h: rl alone.
  recovery = found['recovery']
  assert recovery['n'] == 3
  assert recovery['difference'] == pytest.approx(1 / 3)
  # Both gazed on d (all hit, all hit), e (1/2, 1/2), f (0, 0), g (1/2, all),
  # h (1/2, 0) and i (0, all).
  hits = found['gaze_hit']
  assert hits['n'] == 6
  assert hits['difference'] == pytest.approx((-0.5 + 0.5 - 1) / 6)
  back = report_metrics.difference(other, ten, seed=0)
  assert back['accuracy']['difference'] == pytest.approx(-4 / 9)
  shown = report.differences({'differences': [found]})
  assert shown.startswith('rl - sft: accuracy +44.4 [') and '(n 9)' in shown


def test_seeds_are_paired_in_their_order():
  examples = {'a': helpers.example('a')}

  def policy(name, *right):
    return Evaluated(
      policy=name,
      examples=examples,
      trajectories=[helpers.trajectory('a', right=r) for r in right],
    )

  found = report_metrics.difference(
    policy('rl', True, True, False), policy('sft', False, True), seed=0
  )
  low, high = found['accuracy'].pop('ci95')
  assert found['accuracy'] == {'difference': 0.5, 'n': 2}
  assert low < -0.5 and high > 0.9  # One question says next to nothing.
  assert found['recovery'] is None
  nothing = report_metrics.difference(policy('rl'), policy('sft'), seed=0)
  assert nothing['accuracy'] is None

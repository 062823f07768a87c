"""The report's numbers, counted by hand."""

from __future__ import annotations

import pytest

from gog_jax.report import measures
from gog_jax.report import text
from gog_jax.report.results import Evaluated
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
  row = measures.describe(helpers.ten(), seed=0)
  assert (row['policy'], row['n']) == ('rl', 10)
  assert (row['infra_errors'], row['unjudged']) == (0, 0)
  accuracy = row['answers']['accuracy']
  assert accuracy['mean'] == pytest.approx(0.7) and accuracy['n'] == 10
  low, high = accuracy['ci95']
  assert 0.3 <= low <= 0.5 and 0.9 <= high <= 1.0
  assert row['format'] == pytest.approx(0.9)
  assert row['behaviour'] == pytest.approx({
    'no_search': 0.3,  # a b c
    'one_kind': 0.5,  # d e f i j; a glance is an image search.
    'hybrid': 0.2,  # g h
    'searches': 1.4,  # 1 2 1 3 4 2 1
    'gazes': 0.6,
    'gazes_per_query': 0.9,
    'gaze_hit': 4 / 9,
    'recovery': 0.6,
    'reflection': 4 / 5,  # All but f's; h's second gaze was the same turn's.
    'redundant_crops': 0.0,
    'redundant_searches': 1 / 5,  # h's second.
    'turns': 2.3,
  })
  assert row['by_hop'] == {
    '0': by_hop(2 / 3, no_search=1, hybrid=0, n=3),
    '1': by_hop(2 / 3, no_search=0, hybrid=0, n=3),
    '2': by_hop(3 / 4, no_search=0, hybrid=0.5, n=4),
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
  row = measures.describe(with_struck, seed=0)
  assert row.pop('infra_errors') == 2
  without = measures.describe(ten, seed=0)
  assert without.pop('infra_errors') == 0
  for over_all in ('calls', 'stop_reasons'):
    assert row.pop(over_all) != without.pop(over_all)
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
  row = measures.describe(one, seed=0)
  shares = row['behaviour']
  assert (shares['one_kind'], shares['hybrid']) == (1, 0)
  assert shares['searches'] == 1
  assert shares['gaze_hit'] is None and shares['recovery'] is None


def test_undefined_is_none_not_zero():
  no_gold = Evaluated(
    policy='sft',
    examples={'a': helpers.example('a', gold=(), hops=None)},
    trajectories=[helpers.trajectory('a', (helpers.gaze(helpers.HIT),))],
  )
  row = measures.describe(no_gold, seed=0)
  shares = row['behaviour']
  assert shares['gaze_hit'] is None and shares['recovery'] is None
  assert row['by_hop'] == {
    'unknown': by_hop(1, no_search=0, hybrid=0, n=1)
  }
  down = helpers.result(ToolStatus.INFRA_ERROR)
  none_valid = Evaluated(
    policy='sft',
    examples={'a': helpers.example('a')},
    trajectories=[helpers.trajectory('a', ((helpers.text()[0], down),))],
  )
  row = measures.describe(none_valid, seed=0)
  assert row['answers']['accuracy'] is None and row['n'] == 0
  assert '-' in text.table({'rows': [row]})


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
  found = measures.difference(ten, other, seed=0)
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
  back = measures.difference(other, ten, seed=0)
  assert back['accuracy']['difference'] == pytest.approx(-4 / 9)
  shown = text.differences({'differences': [found]})
  assert shown.startswith('rl - sft: accuracy +44.4 [') and '(n 9)' in shown


def test_seeds_are_paired_in_their_order():
  examples = {'a': helpers.example('a')}

  def policy(name, *right):
    return Evaluated(
      policy=name,
      examples=examples,
      trajectories=[helpers.trajectory('a', right=r) for r in right],
    )

  found = measures.difference(
    policy('rl', True, True, False), policy('sft', False, True), seed=0
  )
  low, high = found['accuracy'].pop('ci95')
  assert found['accuracy'] == {'difference': 0.5, 'n': 2}
  assert low < -0.5 and high > 0.9  # One question says next to nothing.
  assert found['recovery'] is None
  nothing = measures.difference(policy('rl'), policy('sft'), seed=0)
  assert nothing['accuracy'] is None

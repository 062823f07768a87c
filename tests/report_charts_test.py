"""The report's curves."""

from __future__ import annotations

import numpy as np
import pytest

from gog_jax.report import charts as report_charts

pytestmark = pytest.mark.quick


@pytest.mark.parametrize(
    ('low', 'high', 'want'),
    [
        (0, 1, [0, 0.5, 1]),
        (0.03, 0.97, [0, 0.5, 1]),
        (0.2, 0.95, [0.2, 0.4, 0.6, 0.8, 1]),
        (-3, 17, [-5, 0, 5, 10, 15, 20]),
        (5, 5, [4.5, 5, 5.5]),
        (0, 0, [-1, -0.5, 0, 0.5, 1]),
        (1e-5, 3e-5, [1e-5, 1.5e-5, 2e-5, 2.5e-5, 3e-5]),
        (2e-15, 4e-15, [2e-15, 2.5e-15, 3e-15, 3.5e-15, 4e-15]),
        (1, 3000, [0, 1000, 2000, 3000]),
    ],
)
def test_ticks_are_round_and_span_the_values(low, high, want):
  np.testing.assert_allclose(
      report_charts.ticks(low, high, about=4), want, rtol=1e-9, atol=1e-20
  )


def test_charts_put_values_where_they_belong():
  rows = [{'step': step, 'loss': step / 10} for step in range(11)]
  (chart,) = report_charts.charts(rows)
  points = [
      tuple(map(float, pair.split(',')))
      for pair in chart['paths']['raw'][1:].split('L')
  ]
  assert len(points) == 11
  x, y = np.array(points).T
  tick_x = {label: position for position, label in chart['x_ticks']}
  tick_y = {label: position for position, label in chart['y_ticks']}
  assert x[0] == tick_x['0'] and x[-1] == tick_x['10']
  assert y[0] == tick_y['0'] and y[-1] == tick_y['1']
  assert y[0] > y[-1]  # Up is more.
  np.testing.assert_allclose(np.diff(x), np.diff(x)[0], atol=0.11)


def test_charts_skip_what_cannot_be_drawn():
  rows = [
      {'step': 1, 'loss': float('nan'), 'name': 'x', 'flag': True, 'once': 1},
      {'step': 2, 'loss': 1.0, 'name': 'y', 'flag': True},
      {'step': 3, 'loss': 2.0, 'name': 'z', 'flag': True},
  ]
  assert [chart['name'] for chart in report_charts.charts(rows)] == ['loss']
  assert report_charts.charts([]) == []


def test_a_long_run_is_thinned_and_smoothed():
  rows = [{'step': i, 'kl': float(i % 2)} for i in range(5000)]
  (chart,) = report_charts.charts(rows)
  assert chart['paths']['raw'].count('L') < 300
  heights = [
      float(pair.split(',')[1])
      for pair in chart['paths']['mean'][1:].split('L')
  ]
  assert max(heights) - min(heights) < 2  # The mean of 0 and 1 is flat.


def test_budget_charts_share_their_axes():
  def curve(*points):
    names = ('budget', 'accuracy', 'within')
    return [dict(zip(names, point, strict=True)) for point in points]

  details = [
      {
          'policy': 'rl',
          'budget': {
              'searches': curve((0, 0.25, 0.5), (1, 0.25, 0.5), (2, 0.75, 1)),
              'tokens': [],
              'dollars': [],
          },
      },
      {
          'policy': 'direct',
          'budget': {
              'searches': curve((0, 0.5, 1)), 'tokens': [], 'dollars': []
          },
      },
  ]  # fmt: skip
  found = report_charts.budget_charts(details)
  assert list(found) == ['searches']  # Nothing to draw of the others.
  rl, direct = found['searches']
  assert (rl['name'], rl['last']) == ('rl', '0.75')
  for axis in ('x_ticks', 'y_ticks'):
    assert rl[axis] == direct[axis]
  heights = [
      float(pair.split(',')[1])
      for pair in direct['paths']['raw'][1:].split('L')
  ]
  # Flat at one half, as far as the other one goes.
  bottom, *_, top = (y for y, _ in rl['y_ticks'])
  assert heights == [pytest.approx((bottom + top) / 2, abs=0.1)] * 2
  assert report_charts.budget_charts(details[1:]) == {}  # Nobody spends.

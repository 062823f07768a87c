"""Line charts as numbers: where every line, tick and label of an SVG goes."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
import functools
import math
from typing import Any

import numpy as np

from gog_jax.report.results import place
from gog_jax.storage import metrics

_WIDTH, _HEIGHT = 300, 168
_LEFT, _RIGHT, _TOP, _BOTTOM = 46, 288, 10, 146  # Where the axes end.
_MAX_POINTS = 250  # Longer series are averaged down to as many points.
_SMOOTH_FROM = 24  # From as many points on, the running mean is drawn too.
# What readers look for first, in this order.
_FIRST = (
    'reward', 'accuracy', 'validation_accuracy', 'format', 'searches', 'loss',
    'kl', 'entropy', 'grad_norm', 'sampler_gap',
)


def charts(rows: Sequence[Mapping[str, Any]]) -> list[dict[str, Any]]:
  """One chart per metric that has at least two finite values.

  Args:
    rows: {'step': int, name: float, ...}, in order of step.

  Returns:
    In the order in which they matter: name, last (value), paths (SVG path
    data: 'raw' and, for long series, 'mean'), x_ticks and y_ticks (position
    and label).
  """
  series: dict[str, list[tuple[float, float]]] = {}
  for row in rows:
    for name, value in metrics.scalars(row).items():
      if math.isfinite(value):
        series.setdefault(name, []).append((row['step'], value))
  return [
      _chart(name, np.array(series[name], np.float64))
      for name in sorted(series, key=lambda name: place(name, _FIRST))
      if series[name][0][0] < series[name][-1][0]
  ]


def budget_charts(
    rows: Sequence[Mapping[str, Any]],
) -> dict[str, list[dict[str, Any]]]:
  """Accuracy against each kind of budget, a chart for each policy.

  All x axes reach to the largest budget; all y axes go from 0 to 1.

  Args:
    rows: One per policy, see `measures.describe`.
  """
  drawn: dict[str, list[dict[str, Any]]] = {}
  for unit in ('searches', 'tokens', 'dollars'):
    curves = {one['policy']: one['budget'][unit] for one in rows}
    most = max((c[-1]['budget'] for c in curves.values() if c), default=0)
    for policy, curve in curves.items():
      if curve and most:
        points = [(0.0, 0.0)] * (curve[0]['budget'] > 0) + [
            (point['budget'], point['accuracy']) for point in curve
        ]
        points += [(most, curve[-1]['accuracy'])]
        drawn.setdefault(unit, []).append(
            _chart(policy, np.array(points, np.float64), y_range=(0.0, 1.0))
        )
  return drawn


def ticks(low: float, high: float, *, about: int) -> list[float]:
  """Round numbers that span [low, high]: steps of 1, 2 or 5 times 10 ** k."""
  if high <= low:
    pad = abs(low) * 0.1 or 1.0
    low, high = low - pad, high + pad
  rough = (high - low) / about
  power = 10.0 ** math.floor(math.log10(rough))
  step = next(s * power for s in (1, 2, 5, 10) if s * power >= rough * 0.999)
  first, last = math.floor(low / step + 1e-9), math.ceil(high / step - 1e-9)
  return [float(f'{i * step:.12g}') for i in range(first, last + 1)]


def _chart(
    name: str,
    points: np.ndarray,
    *,
    y_range: tuple[float, float] | None = None,
) -> dict[str, Any]:
  """`points`: float64[N, 2], step and value; they set y_range by default."""
  last = points[-1, 1]
  points = _thinned(points)
  low, high = y_range or (points[:, 1].min(), points[:, 1].max())
  y_ticks = ticks(low, high, about=4)
  x_low, x_high = points[0, 0], points[-1, 0]
  x_of = functools.partial(np.interp, xp=(x_low, x_high), fp=(_LEFT, _RIGHT))
  y_of = functools.partial(
      np.interp, xp=(y_ticks[0], y_ticks[-1]), fp=(_BOTTOM, _TOP)
  )

  def path(values: np.ndarray) -> str:
    corners = zip(x_of(points[:, 0]), y_of(values), strict=True)
    return 'M' + 'L'.join(f'{x:.1f},{y:.1f}' for x, y in corners)

  paths = {'raw': path(points[:, 1])}
  if len(points) >= _SMOOTH_FROM:
    paths['mean'] = path(_running_mean(points[:, 1], len(points) // 12))
  return {
      'name': name,
      'width': _WIDTH,
      'height': _HEIGHT,
      'left': _LEFT,
      'right': _RIGHT,
      'top': _TOP,
      'bottom': _BOTTOM,
      'last': short(last),
      'paths': paths,
      'x_ticks': [
          (round(x_of(tick), 1), short(tick))
          for tick in ticks(x_low, x_high, about=4)
          if x_low <= tick <= x_high
      ],
      'y_ticks': [(round(y_of(tick), 1), short(tick)) for tick in y_ticks],
  }


def short(value: float) -> str:
  """At most about six characters: 0.125, 1200, 3.2e-05."""
  if value and not 1e-3 <= abs(value) < 1e5:
    return f'{value:.2g}'
  return f'{value:.4g}'


def _thinned(points: np.ndarray) -> np.ndarray:
  """Means of equal runs of points, at most _MAX_POINTS of them."""
  if len(points) <= _MAX_POINTS:
    return points
  return np.array(
      [chunk.mean(axis=0) for chunk in np.array_split(points, _MAX_POINTS)]
  )


def _running_mean(values: np.ndarray, reach: int) -> np.ndarray:
  """Centred means over 2 * reach + 1 values.

  Near the ends they reach less far, equally on both sides, so that a steep
  beginning stays in place.
  """
  totals = np.concatenate([[0.0], np.cumsum(values)])
  index = np.arange(len(values))
  reaches = np.minimum(reach, np.minimum(index, index[::-1]))
  low, high = index - reaches, index + reaches + 1
  return (totals[high] - totals[low]) / (high - low)

"""The report as one web page that needs nothing but itself.

Images are embedded, charts are SVG, there are no scripts and no addresses. How
untrusted text is kept from doing harm is said in report_card.py.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from gog_jax import boxes
from gog_jax.report import behaviour as report_behaviour
from gog_jax.report import benchmark as report_benchmark
from gog_jax.report import card as report_card
from gog_jax.report import charts as report_charts
from gog_jax.report import metrics as report_metrics
from gog_jax.report.metrics import Evaluated
from gog_jax.types import Trajectory


def render(
    summary: Mapping[str, Any],
    *,
    title: str,
    metrics: Mapping[str, Sequence[Mapping[str, Any]]],
    evaluated: Sequence[Evaluated],
    shown: Sequence[tuple[Evaluated, Trajectory]],
) -> str:
  """The page.

  Args:
    summary: As in summary.json.
    title: The run's name.
    metrics: The lines of each training stage's metrics file.
    evaluated: Every policy, for what the others answered.
    shown: The trajectories to show.
  """
  return report_card.render(
      'report.html.j2',
      title=title,
      rows=summary['rows'],
      differences=summary['differences'],
      details=summary['details'],
      budgets=report_charts.budget_charts(summary['details']),
      hops=report_metrics.hops(summary['rows']),
      about=map(report_benchmark.line, summary.get('benchmark', ())),
      curves={
          stage: charts
          for stage, rows in metrics.items()
          if (charts := report_charts.charts(rows))
      },
      alarms={stage: _alarms(rows) for stage, rows in metrics.items()},
      chart_width=report_charts.WIDTH,
      chart_height=report_charts.HEIGHT,
      cards=[_card(one, t, evaluated) for one, t in shown],
      hit_iou=boxes.HIT_IOU,
      same_iou=report_behaviour.SAME_REGION_IOU,
  )


def _alarms(rows: Sequence[Mapping[str, Any]]) -> dict[str, str]:
  """Metric to the steps at which it alarmed: '3-5, 9'."""
  steps: dict[str, list[tuple[int, int]]] = {}
  for row in rows:
    for metric in row.get('alarms', ()):
      spans = steps.setdefault(metric, [])
      if spans and spans[-1][1] == row['step'] - 1:
        spans[-1] = (spans[-1][0], row['step'])
      else:
        spans.append((row['step'], row['step']))
  return {
      metric: ', '.join(
          str(first) if first == last else f'{first}-{last}'
          for first, last in spans
      )
      for metric, spans in steps.items()
  }


def _card(
    one: Evaluated, trajectory: Trajectory, evaluated: Sequence[Evaluated]
) -> dict[str, Any]:
  """A trajectory, with what the other policies answered."""
  others = [
      (other.policy, t)
      for other in evaluated
      if other is not one
      for t in other.trajectories
      if t.example_id == trajectory.example_id
  ]
  example = one.examples[trajectory.example_id]
  return report_card.card(one.policy, example, trajectory, others=others)

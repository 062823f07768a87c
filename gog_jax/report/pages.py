"""A run, judged from its files alone: a summary and a web page.

Reads the files that results.py lists and writes report/summary.json and
report/index.html: a run can be judged after its machine is gone. The page is
self-contained: images are embedded, charts are SVG, and there are no scripts
and no addresses. cards.py says how untrusted text is kept from doing harm.
"""

from __future__ import annotations

import collections
from collections.abc import Iterator, Mapping, Sequence
import dataclasses
import itertools
import random
from typing import Any

from etils import epath

from gog_jax import boxes
from gog_jax.config import paradigms
from gog_jax.report import cards
from gog_jax.report import charts
from gog_jax.report import intervals
from gog_jax.report import measures
from gog_jax.report import results
from gog_jax.report import text
from gog_jax.report.results import Evaluated
from gog_jax.rewards import behaviour
from gog_jax.storage import files
from gog_jax.storage import metrics
from gog_jax.types import Trajectory


def make(
    workdir: epath.PathLike,
    *,
    n_trajectories: int,
    seed: int,
    benchmark: str = paradigms.TEST,
    seeds: Mapping[int, epath.PathLike] | None = None,
) -> dict[str, Any]:
  """Writes the report of a run, or of several that differ in their seed.

  Args:
    workdir: Where the report goes, local or gs://; and the run, if it is one.
    n_trajectories: The most trajectories that the page shows.
    seed: The seed of the bootstrap and of the choice of trajectories.
    benchmark: Which evaluation is reported.
    seeds: Seed to the folder of its run.

  Returns:
    What summary.json holds: {'rows': [one per policy], 'differences': [of RL
    against each other policy, of its arms against the SFT], 'benchmark': [what
    manifests say of the items]}, with fields as in `measures.describe` and
    `measures.difference`. Of several runs it is over all their trajectories,
    questions being resampled; 'seeds' is each seed's own, and differences that
    every seed has hold 'ci95_seeds', see `intervals.across_seeds`.

  Raises:
    UserError: An evaluation is missing, damaged or unscored; names the command
      that makes it.
  """
  workdir = epath.Path(workdir)
  folders = {'': workdir}
  if seeds:
    folders = {f'seed {n}: ': epath.Path(path) for n, path in seeds.items()}
  eval_folder = paradigms.folder_name('eval', benchmark)
  runs = [
      results.evaluations(folder / eval_folder) for folder in folders.values()
  ]
  evaluated = _pooled(runs)
  summary = _summary(evaluated, seed=seed)
  if seeds:
    own = [_summary(found, seed=seed) for found in runs]
    _add_intervals_over_seeds(summary['differences'], own)
    summary['seeds'] = dict(zip(map(str, seeds), own, strict=True))
  curves = {
      name + stage: rows
      for name, folder in folders.items()
      for stage, rows in results.curves(folder).items()
  }
  page = cards.render(
      'report.html.j2',
      package='gog_jax.report',
      title=workdir.name,
      rows=summary['rows'],
      differences=summary['differences'],
      budgets=charts.budget_charts(summary['rows']),
      hops=measures.hops(summary['rows']),
      about=map(text.about, summary['benchmark']),
      curves={
          stage: drawn
          for stage, rows in curves.items()
          if (drawn := charts.charts(rows))
      },
      alarms={stage: _alarms(rows) for stage, rows in curves.items()},
      cards=[
          _card(one, trajectory, evaluated)
          for one, trajectory in _choose(evaluated, n_trajectories, seed=seed)
      ],
      hit_iou=boxes.HIT_IOU,
      same_iou=behaviour.SAME_REGION_IOU,
  )
  folder = workdir / paradigms.folder_name('report', benchmark)
  files.write_json(folder / 'summary.json', summary, allow_nan=False)
  files.write_atomic(folder / 'index.html', page)
  return summary


def _pooled(runs: Sequence[Sequence[Evaluated]]) -> list[Evaluated]:
  """Each policy's trajectories of all runs, one run after another."""
  pooled: dict[str, Evaluated] = {}
  for one in itertools.chain(*runs):
    if before := pooled.get(one.policy):
      one = dataclasses.replace(
          before,
          examples={**before.examples, **one.examples},
          trajectories=[*before.trajectories, *one.trajectories],
      )
    pooled[one.policy] = one
  return list(pooled.values())


def _add_intervals_over_seeds(
    differences: Sequence[dict[str, Any]], own: Sequence[Mapping[str, Any]]
) -> None:
  """Adds 'ci95_seeds' to those that every seed's own summary has."""
  for row in differences:
    key = (row['policy'], row['against'])
    same = [
        other
        for summary in own
        for other in summary['differences']
        if (other['policy'], other['against']) == key
    ]
    for name in text.DIFFERENCES:
      found = [other[name]['difference'] for other in same if other[name]]
      if row[name] and len(found) == len(own):
        row[name]['ci95_seeds'] = intervals.across_seeds(found)


def _card(
    one: Evaluated, trajectory: Trajectory, evaluated: Sequence[Evaluated]
) -> dict[str, Any]:
  """A trajectory, with what the other policies answered."""
  return cards.card(
      one.policy,
      one.examples[trajectory.example_id],
      trajectory,
      others=[
          (other.policy, t)
          for other in evaluated
          if other is not one
          for t in other.trajectories
          if t.example_id == trajectory.example_id
      ],
  )


def show_scalars(
    config: Any, folder: epath.Path, summary: Mapping[str, Any]
) -> None:
  """Writes every policy's numbers as event files and, if asked for, to W&B.

  Like the report they are made anew each time: at step 0 of
  FOLDER/events/POLICY, and as the summary of a run at W&B.

  Raises:
    UserError: W&B did not start.
  """
  found = {row['policy']: dict(_flat(row)) for row in summary['rows']}
  if '://' not in str(folder):
    for policy, values in found.items():
      events = folder / 'events' / policy
      if events.exists():
        events.rmtree()
      writer = metrics.EventFiles(events, resume_step=-1)
      writer.write({'step': 0, **values})
      writer.close()
  if config.log.wandb:
    run = metrics.WandbRun(config, folder)
    run.summarise({
        f'{policy}/{name}': value
        for policy, values in found.items()
        for name, value in values.items()
    })
    run.close()


def _flat(
    values: Mapping[str, Any], prefix: str = ''
) -> Iterator[tuple[str, float]]:
  """Numbers at any depth, as 'cost/price/total'; no lists, no text."""
  for name, value in values.items():
    if isinstance(value, Mapping):
      yield from _flat(value, f'{prefix}{name}/')
    elif isinstance(value, (int, float)):
      yield prefix + name, value


def _summary(evaluated: Sequence[Evaluated], *, seed: int) -> dict[str, Any]:
  """Rows, and differences of RL from all and of its arms from SFT."""

  def compared(one: str, other: str) -> bool:
    if one == 'rl':
      return other != 'rl'
    return one.startswith('rl_') and other == 'sft'

  items = [one.items for one in evaluated if one.items.get('digest')]
  return {
      'rows': [measures.describe(one, seed=seed) for one in evaluated],
      'differences': [
          measures.difference(one, other, seed=seed)
          for one in evaluated
          for other in evaluated
          if compared(one.policy, other.policy)
      ],
      'benchmark': [one for i, one in enumerate(items) if one not in items[:i]],
  }


def _alarms(rows: Sequence[Mapping[str, Any]]) -> dict[str, str]:
  """Metric to the steps at which it alarmed: '3-5, 9'."""
  steps: dict[str, list[list[int]]] = {}
  for row in rows:
    for metric in row.get('alarms', ()):
      spans = steps.setdefault(metric, [])
      if spans and spans[-1][-1] == row['step'] - 1:
        spans[-1] = [spans[-1][0], row['step']]
      else:
        spans.append([row['step']])
  return {
      metric: ', '.join('-'.join(map(str, span)) for span in spans)
      for metric, spans in steps.items()
  }


def _choose(
    evaluated: Sequence[Evaluated], n: int, *, seed: int
) -> list[tuple[Evaluated, Trajectory]]:
  """`n` trajectories, the last policy's first, every kind of outcome in turn.

  Policies share them equally: one that has stopped gazing must not hide how
  the others do. Kinds differ in hops, in being right, and in how their gazes
  went. If a policy has too few, those before it get more.
  """
  chosen = []
  for policies_left, one in zip(
      range(len(evaluated), 0, -1), reversed(evaluated), strict=True
  ):
    upto = len(chosen) + -(-(n - len(chosen)) // policies_left)
    trajectories = list(one.trajectories)
    random.Random(seed).shuffle(trajectories)
    ranked, of_kind = [], collections.Counter()
    for trajectory in trajectories:
      example = one.examples[trajectory.example_id]
      hits = [g.hit for g in behaviour.gazes(example, trajectory)]
      kind = str((
          not trajectory.valid,  # Infrastructure failures come last.
          not hits,
          str(example.hops),
          measures.accuracy(trajectory) < 1,
          hits[:1],
          any(hits),
      ))
      ranked.append((of_kind[kind], kind, trajectory))
      of_kind[kind] += 1
    ranked.sort(key=lambda found: found[:2])
    chosen += [(one, t) for *_, t in ranked[: upto - len(chosen)]]
  return chosen

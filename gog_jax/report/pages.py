"""A run, judged from its files alone: a summary and a web page.

Reads what reading.py says and writes report/summary.json and report/index.html.
Nothing else of the run needs to be left, so that it can be judged after the
machine is gone. The page needs nothing but itself: images are embedded, charts
are SVG, there are no scripts and no addresses. How untrusted text is kept from
doing harm is said in cards.py.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
import random
from typing import Any

from etils import epath

from gog_jax import boxes
from gog_jax.config import paradigms
from gog_jax.report import cards
from gog_jax.report import charts
from gog_jax.report import intervals
from gog_jax.report import measures
from gog_jax.report import reading
from gog_jax.report import text
from gog_jax.report.reading import Evaluated
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
) -> dict[str, Any]:
  """Writes the report of a run.

  Args:
    workdir: The run's folder, local or gs://.
    n_trajectories: How many trajectories the page shows, if there are as many.
    seed: Of the bootstrap and of the choice of trajectories.
    benchmark: Whose evaluation.

  Returns:
    What summary.json holds: {'rows': [one per policy], 'differences': [of RL
    against each other policy, of its arms against the SFT], 'benchmark': [what
    manifests say of the items]}, with fields as in `measures.describe` and
    `measures.difference`.

  Raises:
    UserError: An evaluation is missing, damaged or unscored; names the command
      that makes it.
  """
  workdir = epath.Path(workdir)
  evaluated = _evaluations(workdir, benchmark)
  summary = _summary(evaluated, seed=seed)
  _write(
      workdir,
      benchmark,
      summary,
      evaluated=evaluated,
      curves=reading.curves(workdir),
      shown=_choose(evaluated, n_trajectories, seed=seed),
  )
  return summary


def make_overall(
    workdir: epath.PathLike,
    seeds: Mapping[int, epath.Path],
    *,
    seed: int,
    benchmark: str = paradigms.TEST,
) -> dict[str, Any]:
  """Writes the report over runs that differ in their seed.

  Its page has all of a run's but trajectories.

  Args:
    workdir: Where the report goes.
    seeds: Seed to that run's folder; the runs' own reports stand there.
    seed: Of the bootstrap.
    benchmark: Whose evaluation.

  Returns:
    As `make`, over the trajectories of all seeds, questions being resampled;
    and 'seeds': seed to its own summary. Differences that every seed has also
    hold 'ci95_seeds', see `intervals.across_seeds`.

  Raises:
    UserError: As `make`.
  """
  workdir = epath.Path(workdir)
  by_seed = {n: _evaluations(path, benchmark) for n, path in seeds.items()}
  pooled: dict[str, list[Evaluated]] = {}
  for evaluated in by_seed.values():
    for one in evaluated:
      pooled.setdefault(one.policy, []).append(one)
  together = [
      Evaluated(
          policy=policy,
          examples={k: e for one in ones for k, e in one.examples.items()},
          trajectories=[t for one in ones for t in one.trajectories],
          manifest=ones[0].manifest,
      )
      for policy, ones in pooled.items()
  ]
  summary = _summary(together, seed=seed)
  own = {str(n): _summary(found, seed=seed) for n, found in by_seed.items()}
  for row in summary['differences']:
    for name in text.DIFFERENCES:
      values = [
          other[name]['difference']
          for one in own.values()
          for other in one['differences']
          if (other['policy'], other['against'])
          == (row['policy'], row['against'])
          and other[name] is not None
      ]
      if row[name] is not None and len(values) == len(seeds):
        row[name]['ci95_seeds'] = intervals.across_seeds(values)
  summary['seeds'] = own
  _write(
      workdir,
      benchmark,
      summary,
      evaluated=together,
      curves={
          f'seed {number}: {stage}': rows
          for number, path in seeds.items()
          for stage, rows in reading.curves(path).items()
      },
      shown=(),
  )
  return summary


def show_scalars(
    config: Any, folder: epath.Path, summary: Mapping[str, Any]
) -> None:
  """Writes every policy's numbers as event files and, if asked for, to W&B.

  A report is made anew from whatever is there, and so are these: at step 0 of
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
  """Numbers at any depth, 'cost/price/total'; neither lists nor names."""
  for name, value in values.items():
    if isinstance(value, Mapping):
      yield from _flat(value, f'{prefix}{name}/')
    elif isinstance(value, (int, float)):
      yield prefix + name, value


def _evaluations(workdir: epath.Path, benchmark: str) -> list[Evaluated]:
  return reading.evaluations(
      workdir / paradigms.folder_name('eval', benchmark)
  )


def _summary(evaluated: Sequence[Evaluated], *, seed: int) -> dict[str, Any]:
  """Rows, and differences of RL to all and of its arms to the SFT."""

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
      'benchmark': [
          one for i, one in enumerate(items) if one not in items[:i]
      ],
  }


def _write(
    workdir: epath.Path,
    benchmark: str,
    summary: Mapping[str, Any],
    *,
    evaluated: Sequence[Evaluated],
    curves: Mapping[str, Sequence[Mapping[str, Any]]],
    shown: Sequence[tuple[Evaluated, Trajectory]],
) -> None:
  """Writes the summary and its page, with these trajectories."""
  page = cards.render(
      'report.html.j2',
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
      chart_width=charts.WIDTH,
      chart_height=charts.HEIGHT,
      cards=[
          cards.card(
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
          for one, trajectory in shown
      ],
      hit_iou=boxes.HIT_IOU,
      same_iou=behaviour.SAME_REGION_IOU,
  )
  folder = workdir / paradigms.folder_name('report', benchmark)
  files.write_json(folder / 'summary.json', summary, allow_nan=False)
  files.write_atomic(folder / 'index.html', page)


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

  Policies share them equally: one that has stopped to gaze must not hide how
  the others do. Kinds differ in hops, in being right, and in how their gazes
  went. If a policy has too few, those before it fill up.
  """
  chosen = []
  for policies_left, one in zip(
      range(len(evaluated), 0, -1), reversed(evaluated), strict=True
  ):
    upto = len(chosen) + -(-(n - len(chosen)) // policies_left)
    trajectories = list(one.trajectories)
    random.Random(seed).shuffle(trajectories)
    kinds: dict[Any, list[Trajectory]] = {}
    for trajectory in trajectories:
      example = one.examples[trajectory.example_id]
      hits = [g.hit for g in behaviour.gazes(example, trajectory)]
      kind = (
          not trajectory.valid,  # Failures of the infrastructure come last.
          not hits,
          str(example.hops),
          measures.accuracy(trajectory) < 1,
          hits[:1],
          any(hits),
      )
      kinds.setdefault(str(kind), []).append(trajectory)
    queues = [kinds[kind][::-1] for kind in sorted(kinds)]
    while queues and len(chosen) < upto:
      for queue in queues[: upto - len(chosen)]:
        chosen.append((one, queue.pop()))
      queues = [queue for queue in queues if queue]
  return chosen

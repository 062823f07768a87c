"""A run, judged from its files alone: a table, a summary and a web page.

Reads, in a run's workdir,

    eval/POLICY/trajectories.jsonl, examples.jsonl   required, per policy
    STAGE/metrics.jsonl, validation.jsonl            curves, where they exist

and writes report/summary.json and report/index.html. Nothing else of the run
needs to be left, so that it can be judged after the machine is gone.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
import io
import json
import random
import sys
from typing import Any

from etils import epath
import rich.box
import rich.console
import rich.table
import rich.text

from gog_jax.errors import UserError
from gog_jax.report import behaviour as report_behaviour
from gog_jax.report import benchmark as report_benchmark
from gog_jax.report import html as report_html
from gog_jax.report import intervals as report_intervals
from gog_jax.report import metrics as report_metrics
from gog_jax.report import training as report_training
from gog_jax.report.metrics import Evaluated
from gog_jax.rewards import behaviour
from gog_jax.storage import files
from gog_jax.storage import rollouts
from gog_jax.types import Trajectory

# The order in which the policies tell the story.
_POLICIES = (
    'direct', 'full_search', 'expert', 'sft_no_gaze', 'sft', 'rl'
)
_PARTS = ('accuracy', 'format')
DIFFERENCES = ('accuracy', 'gaze_hit', 'recovery')
# More than the table needs: a number must not be cut off to fit a window.
_WIDTH = 160


def folder_name(stage: str, benchmark: str) -> str:
  """'eval' or 'report', but for another than the world 'eval_simplevqa'."""
  return stage if benchmark == 'world' else f'{stage}_{benchmark}'


def make(
    workdir: epath.PathLike,
    *,
    n_trajectories: int,
    seed: int,
    benchmark: str = 'world',
) -> dict[str, Any]:
  """Writes the report of a run.

  Args:
    workdir: The run's folder, local or gs://.
    n_trajectories: How many trajectories the page shows, if there are as many.
    seed: Of the bootstrap and of the choice of trajectories.
    benchmark: Whose evaluation.

  Returns:
    What summary.json holds: {'rows': [one per policy], 'details': [likewise],
    'differences': [of RL against each other policy, of its arms against the
    SFT]}, their fields as in `report_metrics.row`, `report_behaviour.describe`
    and `report_metrics.difference`; 'benchmark': what `report_benchmark.read`
    found.

  Raises:
    UserError: An evaluation is missing, damaged or unscored; names the command
      that makes it.
  """
  workdir = epath.Path(workdir)
  evaluated = _read_evaluations(workdir, benchmark)
  summary = _summary(evaluated, seed=seed)
  summary['benchmark'] = report_benchmark.read(
      workdir / folder_name('eval', benchmark),
      [one.policy for one in evaluated],
  )
  page = report_html.render(
      summary,
      title=workdir.name,
      metrics=report_training.curves(workdir),
      evaluated=evaluated,
      shown=_choose(evaluated, n_trajectories, seed=seed),
  )
  _write(workdir / folder_name('report', benchmark), summary, page)
  return summary


def make_overall(
    workdir: epath.PathLike,
    seeds: Mapping[int, epath.Path],
    *,
    seed: int,
    benchmark: str = 'world',
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
    hold 'ci95_seeds', see `report_intervals.across_seeds`.

  Raises:
    UserError: As `make`.
  """
  workdir = epath.Path(workdir)
  found = {
      number: _read_evaluations(path, benchmark)
      for number, path in seeds.items()
  }
  pooled: dict[str, Evaluated] = {}
  for evaluated in found.values():
    for one in evaluated:
      before = pooled.get(one.policy)
      pooled[one.policy] = Evaluated(
          policy=one.policy,
          examples={**(before.examples if before else {}), **one.examples},
          trajectories=[
              *(before.trajectories if before else []),
              *one.trajectories,
          ],
      )
  evaluated = list(pooled.values())
  summary: dict[str, Any] = _summary(evaluated, seed=seed) | {
      'seeds': {
          str(number): _summary(own, seed=seed)
          for number, own in found.items()
      }
  }
  for row in summary['differences']:
    _add_seeds(row, summary['seeds'])
  page = report_html.render(
      summary,
      title=workdir.name,
      metrics={
          f'seed {number}: {stage}': rows
          for number, path in seeds.items()
          for stage, rows in report_training.curves(path).items()
      },
      evaluated=evaluated,
      shown=(),
  )
  _write(workdir / folder_name('report', benchmark), summary, page)
  return summary


def _add_seeds(
    row: dict[str, Any], seeds: Mapping[str, dict[str, Any]]
) -> None:
  """Adds to a difference how it varies with the seed."""
  for name in DIFFERENCES:
    values = [
        own[name]['difference']
        for summary in seeds.values()
        for own in summary['differences']
        if (own['policy'], own['against']) == (row['policy'], row['against'])
        and own[name] is not None
    ]
    if row[name] is not None and len(values) == len(seeds):
      row[name]['ci95_seeds'] = report_intervals.across_seeds(values)


def _write(folder: epath.Path, summary: dict[str, Any], page: str) -> None:
  files.write_atomic(
      folder / 'summary.json',
      json.dumps(summary, indent=2, allow_nan=False) + '\n',
  )
  files.write_atomic(folder / 'index.html', page)


def _summary(evaluated: Sequence[Evaluated], *, seed: int) -> dict[str, Any]:
  """Rows, details, and differences of RL to all and of its arms to the SFT."""

  def compared(one: str, other: str) -> bool:
    if one == 'rl':
      return other != 'rl'
    return one.startswith('rl_') and other == 'sft'

  pairs = [
      (one, other)
      for one in evaluated
      for other in evaluated
      if compared(one.policy, other.policy)
  ]
  return {
      'rows': [report_metrics.row(one, seed=seed) for one in evaluated],
      'details': [
          report_behaviour.describe(one, seed=seed) for one in evaluated
      ],
      'differences': [
          report_metrics.difference(one, other, seed=seed)
          for one, other in pairs
      ],
  }


def differences(summary: dict[str, Any]) -> str:
  """A line for each difference, in points with its 95 % interval.

  Over several seeds a second interval follows, of the mean over them.
  """
  lines = []
  for row in summary['differences']:
    parts = []
    for name in DIFFERENCES:
      if (found := row[name]) is not None:
        parts.append(
            f'{name.replace("_", " ")} {100 * found["difference"]:+.1f} '
            f'{_interval(found["ci95"])} (n {found["n"]})'
        )
        if found.get('ci95_seeds'):
          parts[-1] += f' seeds {_interval(found["ci95_seeds"])}'
    lines.append(f'{row["policy"]} - {row["against"]}: ' + ', '.join(parts))
  return '\n'.join(lines)


def table(summary: dict[str, Any]) -> str:
  """The summary for a terminal of 80 columns; without colours where it is none.

  Every number but `n`, `calls` and `infra errors` is in per cent; '-' is
  undefined.
  """
  on_terminal = sys.stdout.isatty()
  rows = summary['rows']
  hops = report_metrics.hops(rows)
  by_hops = {
      'by hops\n' + '/'.join(hops): lambda row: '/'.join(
          _per_cent(row['by_hop'].get(hop, {}).get('accuracy'), digits=0)
          for hop in hops
      )
  }
  columns = {
      'policy': lambda row: row['policy'],
      'accuracy [95 %]': lambda row: (
          f'{_per_cent(row["accuracy"])} {_interval(row["ci95"])}'
      ),
      'n': lambda row: str(row['n']),
      **(by_hops if hops else {}),
      'format': lambda row: _per_cent(row['format_rate']),
      'kinds of\nsearch\n0/1/2': lambda row: '/'.join(
          _per_cent(row[name], digits=0)
          for name in ('no_search', 'single', 'hybrid')
      ),
      'calls': lambda row: _number(row['calls_per_query'], digits=2),
      'gaze\nhit': lambda row: _per_cent(row['gaze_hit']),
      'reco-\nvery': lambda row: _per_cent(row['recovery']),
  }
  if any(row['infra_errors'] for row in rows):
    columns['infra\nerrors'] = lambda row: str(row['infra_errors'])
  grid = rich.table.Table(
      box=rich.box.SIMPLE_HEAD, show_edge=False, padding=(0, 1, 0, 0)
  )
  for heading in columns:
    grid.add_column(
        rich.text.Text(heading),
        justify='left' if heading == 'policy' else 'right',
        style='bold' if heading == 'policy' else '',
        vertical='bottom',
        no_wrap=True,
    )
  for row in rows:
    grid.add_row(*(rich.text.Text(cell(row)) for cell in columns.values()))
  out = io.StringIO()
  rich.console.Console(
      file=out,
      force_terminal=on_terminal,
      color_system='auto' if on_terminal else None,
      width=_WIDTH,
  ).print(grid)
  text = out.getvalue().replace('─', '-')  # Any terminal can print that.
  about = map(report_benchmark.line, summary.get('benchmark', ()))
  return '\n'.join([*(line.rstrip() for line in text.splitlines()), *about])


def _number(value: float | None, *, digits: int) -> str:
  return '-' if value is None else f'{value:.{digits}f}'


def _per_cent(share: float | None, *, digits: int = 1) -> str:
  return _number(None if share is None else 100 * share, digits=digits)


def _interval(low_high: Sequence[float] | None) -> str:
  if low_high is None:
    return '[-]'
  return '[' + ', '.join(_per_cent(edge, digits=0) for edge in low_high) + ']'


def _read_evaluations(
    workdir: epath.Path, benchmark: str
) -> list[Evaluated]:
  remedy = (
      'make it with python -m gog_jax.main --config=configs/eval.py '
      f'--workdir={workdir}'
  )
  if benchmark != 'world':
    remedy += f' --config.eval.benchmark={benchmark}'
  folder = workdir / folder_name('eval', benchmark)
  found = []
  names = [path.name for path in folder.iterdir()] if folder.exists() else []
  for name in sorted(names, key=_story_order):
    path = folder / name / 'trajectories.jsonl'
    if not path.exists():
      continue
    listed = folder / name / 'examples.jsonl'
    if not listed.exists():
      raise UserError(f'{listed} does not exist; {remedy}')
    trajectories, asked = rollouts.read(folder / name)
    examples = {example.id: example for example in asked}
    for trajectory in trajectories:
      if trajectory.example_id not in examples:
        raise UserError(f'{listed} lacks {trajectory.example_id}; {remedy}')
      if not all(part in trajectory.reward_parts for part in _PARTS):
        raise UserError(
            f'{path} is not scored ({trajectory.example_id}); {remedy}'
        )
    if trajectories:
      found.append(
          Evaluated(policy=name, examples=examples, trajectories=trajectories)
      )
  if not found:
    raise UserError(f'{folder} holds no evaluation; {remedy}')
  return found


def _story_order(policy: str) -> tuple[int, str]:
  known = policy in _POLICIES
  return (_POLICIES.index(policy) if known else len(_POLICIES), policy)


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
          trajectory.reward_parts['accuracy'] < 1,
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

"""The paper's table beside ours, from the files of one or several runs.

Reads the evaluations in each run's workdir, see reading.py, and writes
table.json and table.md. What is under way is read as far as it is. Benchmarks
that the paper does not have stand in a section of their own, and so does the
embedded world (eval/, eval_world_hard/), which is in nobody's table.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
import dataclasses
import functools
import itertools
import json
from typing import Any

from etils import epath
import numpy as np

from gog_jax.errors import UserError
from gog_jax.evaluation import paradigms
from gog_jax.report import measures
from gog_jax.report import paper
from gog_jax.report import reading
from gog_jax.report import text
from gog_jax.report.measures import Evaluated
from gog_jax.storage import files
from gog_jax.storage import metrics


@dataclasses.dataclass(frozen=True, kw_only=True)
class Evaluation:
  """One policy on one benchmark.

  Attributes:
    benchmark: One of paper.NAMES, a split of the embedded world, or another.
    run: Its workdir, where several are read, or else empty.
    evaluated: What it did; without images.
  """

  benchmark: str
  run: str
  evaluated: Evaluated

  @functools.cached_property
  def model(self) -> str:
    """The path or the name of what was asked; empty where no model was."""
    config = self.evaluated.manifest.get('config') or {}
    who = self.evaluated.policy.rpartition('@')[2]
    if who in ('script', 'expert'):
      return ''  # It asks none.
    if who == 'remote':
      return (config.get('remote') or {}).get('model') or ''
    return (config.get('model') or {}).get('path') or ''

  @property
  def scored_by(self) -> tuple[str, str]:
    """The accuracy's name, and which judge's word it is, if it is a judge's."""
    reward = (self.evaluated.manifest.get('config') or {}).get('reward') or {}
    judge = (self.evaluated.manifest.get('inputs') or {}).get('judge') or ''
    return reward.get('accuracy', ''), judge

  @property
  def row(self) -> tuple[str, str, str]:
    """What its line is known by: policy, model and run."""
    return self.evaluated.policy, self.model, self.run


def make(
    workdirs: Sequence[epath.PathLike], folder: epath.PathLike, *, seed: int
) -> str:
  """Writes the table into `folder`; returns it in markdown.

  Args:
    workdirs: Of the runs.
    folder: Where table.json and table.md go.
    seed: Of the bootstrap.

  Raises:
    UserError: A workdir does not exist, or a file in it is damaged.
  """
  several = len(workdirs) > 1
  found = [
      one
      for path in workdirs
      for one in read(epath.Path(path), run=str(path) if several else '')
  ]
  if not found:
    metrics.say(
        f'table: the paper\'s alone: nothing is evaluated in '
        f'{", ".join(map(str, workdirs))}'
    )
  table = build(found, seed=seed)
  shown = text.markdown(table)
  folder = epath.Path(folder)
  files.write_atomic(
      folder / 'table.json',
      json.dumps(table, indent=2, allow_nan=False) + '\n',
  )
  files.write_atomic(folder / 'table.md', shown)
  return shown


def read(workdir: epath.Path, *, run: str) -> list[Evaluation]:
  """Every evaluation of a run, the paper's benchmarks in their order."""
  if not workdir.is_dir():
    raise UserError(
        f'{workdir} does not exist; name the workdirs of runs that evaluated '
        'something with --config.table.workdirs="(\'runs/toy\',)"'
    )
  found = []
  for folder in sorted(workdir.iterdir()):
    stage, _, name = folder.name.partition('_')
    if stage == 'eval' and folder.is_dir():
      found += [
          Evaluation(benchmark=name or 'world', run=run, evaluated=evaluated)
          for evaluated in reading.evaluations(
              folder, images=False, required=False
          )
      ]
  order = {name: place for place, name in enumerate(paper.NAMES)}
  return sorted(
      found,
      key=lambda one: (order.get(one.benchmark, len(order)), *one.row),
  )


def build(evaluations: Sequence[Evaluation], *, seed: int) -> dict[str, Any]:
  """What table.json holds; accuracies are fractions of 1.

  benchmarks: the paper's, with its n. rows: ours, each with its cells by
  benchmark, its average where all six are there, and `paper`, the index of the
  paper's row of the same paradigm and family of backbones. paper: its rows.
  others: cells of benchmarks that the paper does not have. world: cells of the
  embedded world. differences: between policies on the very same items, but not
  of the world. notes: why a number is not to be compared, or is missing.
  """
  ours: dict[tuple[str, str, str], dict[str, Evaluation]] = {}
  world = []
  for one in evaluations:
    if paradigms.is_world(one.benchmark):
      world.append(one)
    else:
      ours.setdefault(one.row, {})[one.benchmark] = one
  names = {name for cells in ours.values() for name in cells}
  others = sorted(names - {*paper.NAMES})
  same = {
      name: [cells[name] for cells in ours.values() if name in cells]
      for name in (*paper.NAMES, *others)
  }
  differences, notes = _differences(same, seed=seed)

  def beside(some: Sequence[Evaluation]) -> list[dict[str, Any]]:
    return [
        {
            'benchmark': one.benchmark,
            'title': one.benchmark,
            **_name(one),
            **_cell(one, seed=seed),
        }
        for one in some
    ]

  return {
      'benchmarks': [
          {'name': name, 'title': title, 'paper_n': n}
          for name, title, n in paper.COLUMNS
      ],
      'rows': [
          _row(cells, seed=seed)
          for cells in ours.values()
          if cells.keys() & {*paper.NAMES}
      ],
      'paper': [_paper_row(row) for row in paper.ROWS],
      'others': beside([one for name in others for one in same[name]]),
      'world': beside(world),
      'differences': differences,
      'notes': notes,
  }


def _name(one: Evaluation) -> dict[str, str]:
  return dict(zip(('policy', 'model', 'run'), one.row, strict=True))


def _row(cells: Mapping[str, Evaluation], *, seed: int) -> dict[str, Any]:
  one = next(iter(cells.values()))
  config = one.evaluated.manifest.get('config') or {}
  # A remote model may be any, whatever words it is asked in.
  local = one.evaluated.policy.rpartition('@')[2] != 'remote'
  dialect = (config.get('model') or {}).get('dialect', '') if local else ''
  family = paper.family_of(one.model, dialect)
  found = paper.find(
      paper.paradigm_of(one.evaluated.policy, one.model), family
  )
  counted = {
      name: _cell(cells[name], seed=seed)
      for name in paper.NAMES
      if name in cells
  }
  return {
      **_name(one),
      'cells': counted,
      'average': _average(counted),
      'paper': None if found is None else paper.ROWS.index(found),
  }


def _cell(one: Evaluation, *, seed: int) -> dict[str, Any]:
  """A policy on a benchmark: counts, measures with intervals, and caveats."""
  details = measures.describe(one.evaluated, seed=seed)
  scored_by, judge = one.scored_by
  return {
      'n': details['n'],
      **details['answers'],
      'infra_errors': details['infra_errors'],
      'unjudged': details['unjudged'],
      'searches': details['behaviour']['searches'],
      'price': details['cost']['price']['per_query'],
      'scored_by': scored_by,
      'judged_by': judge,
      'digest': one.evaluated.items.get('digest', ''),
      'caveats': _caveats(one, details, scored_by),
  }


def _caveats(
    one: Evaluation, details: Mapping[str, Any], scored_by: str
) -> list[str]:
  """Why a number may not simply stand beside the paper's."""
  found = []
  if one.evaluated.items.get('label'):
    found.append(one.evaluated.items['label'])
  wanted = paper.N.get(one.benchmark)
  held = details['n'] + details['infra_errors'] + details['unjudged']
  if not one.evaluated.manifest.get('complete'):
    found.append('not complete yet')
  elif wanted and held != wanted and not one.evaluated.items.get('label'):
    found.append(f"not the paper's: it has {wanted} items")
  if wanted and scored_by and scored_by != 'judge':
    found.append(
        f"scored by {scored_by.replace('_', ' ')}, the paper's by an LLM judge"
    )
  if out := details['infra_errors'] + details['unjudged']:
    if out > 0.05 * held:
      found.append('more than 5 % of the items failed and are left out')
  return found


def _average(cells: Mapping[str, Mapping[str, Any]]) -> dict[str, Any] | None:
  """Over the six benchmarks, each weighing the same; None if any is missing.

  The interval recovers each mean's variance, downwards and upwards, from its
  own interval (MOVER: Zou and Donner, 2008), so that six means of 1 have one
  that is no point.
  """
  all_six = [cells[name] for name in paper.NAMES if name in cells]
  found = [cell['accuracy'] for cell in all_six]
  if len(found) < len(paper.NAMES) or None in found:
    return None
  means = np.array([one['mean'] for one in found])
  lows, highs = np.array([one['ci95'] for one in found]).T
  mean = float(means.mean())
  down = float(np.linalg.norm(means - lows)) / len(found)
  up = float(np.linalg.norm(highs - means)) / len(found)
  caveats = [caveat for cell in all_six for caveat in cell['caveats']]
  if len({(cell['scored_by'], cell['judged_by']) for cell in all_six}) > 1:
    caveats.append('an average of accuracies scored in different ways')
  return {
      'mean': mean,
      'ci95': [max(mean - down, 0.0), min(mean + up, 1.0)],
      'caveats': list(dict.fromkeys(caveats)),
  }


def _paper_row(row: paper.PaperRow) -> dict[str, Any]:
  """As printed, with our intervals from the recovered counts."""
  cells = {
      name: {
          'mean': row.scores[i] / 100,
          'ci95': row.interval(name),
          'n': paper.N[name],
          'footnote': paper.FOOTNOTE if row.footnote == name else '',
      }
      for i, name in enumerate(paper.NAMES[: len(row.scores)])
  }
  return {
      'paradigm': paper.PARADIGMS[row.paradigm],
      'backbone': paper.BACKBONES[row.family],
      'average': row.average / 100,
      'cells': cells,
  }


def _differences(
    same: Mapping[str, Sequence[Evaluation]], *, seed: int
) -> tuple[list[dict[str, Any]], list[str]]:
  """Each policy less each before it, on the same items; and what is not.

  Args:
    same: Evaluations by benchmark.
    seed: Of the bootstrap.
  """
  found, notes = [], []
  for name, here in same.items():
    for second, first in itertools.combinations(here, 2):
      labels = ' and '.join(text.label(_name(one)) for one in (first, second))
      digests = [one.evaluated.items.get('digest') for one in (first, second)]
      if digests[0] != digests[1]:
        notes.append(
            f'{name}: {labels} were asked different items and are not compared'
        )
      elif first.scored_by != second.scored_by:
        notes.append(
            f'{name}: {labels} were scored in different ways, or by different '
            'judges, and are not compared'
        )
      else:
        row = measures.difference(first.evaluated, second.evaluated, seed=seed)
        found.append({
            'benchmark': name,
            'first': _name(first),
            'second': _name(second),
            'accuracy': row['accuracy'],
        })
  return found, notes

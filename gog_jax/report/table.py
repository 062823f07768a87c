"""The paper's table beside ours, from the files of one or several runs.

Reads the evaluations in each run's workdir, see results.py, and writes
table.json and table.md. Evaluations under way are read as far as they are.
Benchmarks that the paper does not have stand in a section of their own, and so
does the embedded world (eval/, eval_world_hard/), which nobody else reports.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
import itertools
from typing import Any

from etils import epath
import numpy as np

from gog_jax.config import paradigms
from gog_jax.errors import UserError
from gog_jax.report import measures
from gog_jax.report import paper
from gog_jax.report import results
from gog_jax.report import text
from gog_jax.report.results import Evaluated
from gog_jax.storage import files
from gog_jax.storage import metrics


def make(
    workdirs: Sequence[epath.PathLike], folder: epath.PathLike, *, seed: int
) -> str:
  """Writes the table into `folder`; returns it in markdown.

  Args:
    workdirs: The runs' folders.
    folder: Where table.json and table.md go.
    seed: The seed of the bootstrap.

  Raises:
    UserError: A workdir does not exist, or a file in it is damaged.
  """
  several = len(workdirs) > 1
  found = []
  for path in workdirs:
    found += read(epath.Path(path), run=str(path) if several else '')
  if not found:
    metrics.say(
        f'table: the paper\'s alone: nothing is evaluated in '
        f'{", ".join(map(str, workdirs))}'
    )
  table = build(found, seed=seed)
  shown = text.paper_table(table)
  folder = epath.Path(folder)
  files.write_json(folder / 'table.json', table, allow_nan=False)
  files.write_atomic(folder / 'table.md', shown)
  return shown


def read(workdir: epath.Path, *, run: str) -> list[Evaluated]:
  """Every evaluation of a run, the paper's benchmarks in their order."""
  if not workdir.is_dir():
    raise UserError(
        f'{workdir} does not exist; name the workdirs of runs that evaluated '
        'something with --config.table.workdirs="(\'runs/mine\',)"'
    )
  found = []
  for folder in workdir.iterdir():
    if folder.name.partition('_')[0] == 'eval' and folder.is_dir():
      found += results.evaluations(
          folder, images=False, required=False, run=run
      )
  return sorted(
      found,
      key=lambda one: (results.place(one.benchmark, paper.NAMES), _key(one)),
  )


def build(evaluations: Sequence[Evaluated], *, seed: int) -> dict[str, Any]:
  """What table.json holds; accuracies are fractions of 1.

  rows: ours, each with its cells by benchmark, its average where all six are
  there, and `paper`, the index of the paper's row of the same paradigm and
  family of backbones. paper: its rows. others: cells of benchmarks that the
  paper does not have. world: cells of the embedded world. differences: between
  policies on the very same items, but not of the world. notes: why a number is
  not to be compared, or is missing.
  """
  rows: dict[tuple[str, ...], dict[str, Any]] = {}
  others, world = [], []
  for one in evaluations:
    cell = _cell(one, seed=seed)
    if paradigms.split_of(one.benchmark):
      world.append(cell)
    elif one.benchmark not in paper.NAMES:
      others.append(cell)
    else:
      row = rows.setdefault(_key(one), _row(one))
      row['cells'][one.benchmark] = cell
  for row in rows.values():
    row['average'] = _average(list(row['cells'].values()))
  differences, notes = _differences(evaluations, seed=seed)
  return {
      'rows': list(rows.values()),
      'paper': [_paper_row(row) for row in paper.ROWS],
      'others': others,
      'world': world,
      'differences': differences,
      'notes': notes,
  }


def _name(one: Evaluated) -> dict[str, str]:
  return {'policy': one.policy, 'model': one.model, 'run': one.run}


def _key(one: Evaluated) -> tuple[str, ...]:
  """What identifies its line."""
  return tuple(_name(one).values())


def _row(one: Evaluated) -> dict[str, Any]:
  """A policy's line, without cells yet, and the paper's line beside it."""
  found = paper.find(
      paper.paradigm_of(one.policy, one.model),
      paper.family_of(one.model, one.dialect),
  )
  return {
      **_name(one),
      'cells': {},
      'paper': None if found is None else paper.ROWS.index(found),
  }


def _cell(one: Evaluated, *, seed: int) -> dict[str, Any]:
  """A policy on a benchmark: counts, measures with intervals, and caveats."""
  row = measures.describe(one, seed=seed)
  scored_by, judged_by = one.scored_by
  label = one.items.get('label')
  left_out = row['infra_errors'] + row['unjudged']
  held = row['n'] + left_out
  # Why the number is not directly comparable with the paper's.
  caveats = [label] if label else []
  wanted = paper.N.get(one.benchmark)
  if not one.manifest.get('complete'):
    caveats.append('not complete yet')
  elif wanted and held != wanted and not label:
    caveats.append(f"not the paper's: it has {wanted} items")
  if wanted and scored_by and scored_by != 'judge':
    caveats.append(
        f"scored by {scored_by.replace('_', ' ')}, the paper's by an LLM judge"
    )
  if left_out > 0.05 * held:
    caveats.append('more than 5 % of the items failed and are left out')
  return {
      **_name(one),
      'benchmark': one.benchmark,
      'n': row['n'],
      **row['answers'],
      'infra_errors': row['infra_errors'],
      'unjudged': row['unjudged'],
      'searches': row['behaviour']['searches'],
      'price': row['cost']['price']['per_query'],
      'scored_by': scored_by,
      'judged_by': judged_by,
      'digest': one.items.get('digest', ''),
      'caveats': caveats,
  }


def _average(cells: Sequence[Mapping[str, Any]]) -> dict[str, Any] | None:
  """The mean of the six benchmarks' accuracies; None if any is missing.

  The interval recovers each mean's variance, downwards and upwards, from its
  own interval (MOVER: Zou and Donner, 2008), so that six means of 1 have one
  that is no point.
  """
  found = [cell['accuracy'] for cell in cells]
  if len(found) < len(paper.NAMES) or None in found:
    return None
  means = np.array([one['mean'] for one in found])
  lows, highs = np.array([one['ci95'] for one in found]).T
  mean = float(means.mean())
  down = float(np.linalg.norm(means - lows)) / len(found)
  up = float(np.linalg.norm(highs - means)) / len(found)
  caveats = [caveat for cell in cells for caveat in cell['caveats']]
  if len({(cell['scored_by'], cell['judged_by']) for cell in cells}) > 1:
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
          'accuracy': {'mean': row.scores[i] / 100, 'ci95': row.interval(name)},
          'n': paper.N[name],
          'caveats': [paper.FOOTNOTE] * (row.footnote == name),
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
    evaluations: Sequence[Evaluated], *, seed: int
) -> tuple[list[dict[str, Any]], list[str]]:
  """Paired differences between policies, with reasons for pairs left out.

  Of each pair the earlier policy is subtracted from the later.
  """
  found, notes = [], []
  for second, first in itertools.combinations(evaluations, 2):
    name = first.benchmark
    if second.benchmark != name or paradigms.split_of(name):
      continue
    why = ''
    if first.items.get('digest') != second.items.get('digest'):
      why = 'asked different items'
    elif first.scored_by != second.scored_by:
      why = 'scored in different ways, or by different judges,'
    if why:
      labels = ' and '.join(text.label(_name(one)) for one in (first, second))
      notes.append(f'{name}: {labels} were {why} and are not compared')
      continue
    row = measures.difference(first, second, seed=seed)
    found.append({
        'benchmark': name,
        'first': _name(first),
        'second': _name(second),
        'accuracy': row['accuracy'],
    })
  return found, notes

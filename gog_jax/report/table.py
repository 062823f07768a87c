"""The paper's table beside ours, from the files of one or several runs.

Reads the evaluations in each run's workdir, see reading.py, and writes
table.json and table.md. What is under way is read as far as it is. Benchmarks
that the paper does not have stand in a section of their own, and so does the
embedded world (eval/, eval_world_hard/), which is in nobody's table.
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
from gog_jax.report import reading
from gog_jax.report import text
from gog_jax.report.reading import Evaluated
from gog_jax.storage import files
from gog_jax.storage import metrics


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
  files.write_json(folder / 'table.json', table, allow_nan=False)
  files.write_atomic(folder / 'table.md', shown)
  return shown


def read(workdir: epath.Path, *, run: str) -> list[Evaluated]:
  """Every evaluation of a run, the paper's benchmarks in their order."""
  if not workdir.is_dir():
    raise UserError(
        f'{workdir} does not exist; name the workdirs of runs that evaluated '
        'something with --config.table.workdirs="(\'runs/toy\',)"'
    )
  order = {name: place for place, name in enumerate(paper.NAMES)}
  return sorted(
      (
          one
          for folder in sorted(workdir.iterdir())
          if folder.name.partition('_')[0] == 'eval' and folder.is_dir()
          for one in reading.evaluations(
              folder, images=False, required=False, run=run
          )
      ),
      key=lambda one: (order.get(one.benchmark, len(order)), *_key(one)),
  )


def build(evaluations: Sequence[Evaluated], *, seed: int) -> dict[str, Any]:
  """What table.json holds; accuracies are fractions of 1.

  benchmarks: the paper's, with its n. rows: ours, each with its cells by
  benchmark, its average where all six are there, and `paper`, the index of the
  paper's row of the same paradigm and family of backbones. paper: its rows.
  others: cells of benchmarks that the paper does not have. world: cells of the
  embedded world. differences: between policies on the very same items, but not
  of the world. notes: why a number is not to be compared, or is missing.
  """
  ours: dict[tuple[str, str, str], dict[str, Evaluated]] = {}
  world = []
  for one in evaluations:
    if paradigms.split_of(one.benchmark):
      world.append(one)
    else:
      ours.setdefault(_key(one), {})[one.benchmark] = one
  names = {name for cells in ours.values() for name in cells}
  others = sorted(names - {*paper.NAMES})
  same = {
      name: [cells[name] for cells in ours.values() if name in cells]
      for name in (*paper.NAMES, *others)
  }
  differences, notes = _differences(same, seed=seed)

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
      'others': [
          _name(one) | _cell(one, seed=seed)
          for name in others
          for one in same[name]
      ],
      'world': [_name(one) | _cell(one, seed=seed) for one in world],
      'differences': differences,
      'notes': notes,
  }


def _key(one: Evaluated) -> tuple[str, str, str]:
  """What its line is known by."""
  return one.policy, one.model, one.run


def _name(one: Evaluated) -> dict[str, str]:
  return {'policy': one.policy, 'model': one.model, 'run': one.run}


def _row(cells: Mapping[str, Evaluated], *, seed: int) -> dict[str, Any]:
  one = next(iter(cells.values()))
  found = paper.find(
      paper.paradigm_of(one.policy, one.model),
      paper.family_of(one.model, one.dialect),
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


def _cell(one: Evaluated, *, seed: int) -> dict[str, Any]:
  """A policy on a benchmark: counts, measures with intervals, and caveats."""
  row = measures.describe(one, seed=seed)
  scored_by, judged_by = one.scored_by
  label = one.items.get('label')
  left_out = row['infra_errors'] + row['unjudged']
  held = row['n'] + left_out
  # Why the number may not simply stand beside the paper's.
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
    same: Mapping[str, Sequence[Evaluated]], *, seed: int
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
      digests = [one.items.get('digest') for one in (first, second)]
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
        row = measures.difference(first, second, seed=seed)
        found.append({
            'benchmark': name,
            'first': _name(first),
            'second': _name(second),
            'accuracy': row['accuracy'],
        })
  return found, notes

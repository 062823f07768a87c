"""Which queries RL trains on: a graded level, and what became of it since."""

from __future__ import annotations

import collections
from collections.abc import Callable, Sequence
import math
from typing import Any

from etils import epath
import grain
import numpy as np

from gog_jax.config.training import GradeConfig
from gog_jax.config.training import RLConfig
from gog_jax.errors import UserError
from gog_jax.rewards import levels
from gog_jax.run import Run
from gog_jax.storage import metrics as metrics_lib
from gog_jax.train.groups import Group
from gog_jax.train.pipeline import endless_batches
from gog_jax.types import Example

ALL_LEVELS = -1


class Curriculum:
  """Draws queries of the level, in epochs that are shuffled anew.

  With `rl.regrade`, the pass rates of RL's own rollouts grade anew: a query
  that has become easier than `rl.level` is left out for `rl.recheck_every`
  steps. What was found is kept in `folder/regrades.jsonl`, a line a step, so
  that a restart goes on with the same draws.

  Queries that no conversation can begin with are passed over, and said once.

  Attributes:
    queries: The iterator below, for checkpoints.
  """

  def __init__(
      self,
      examples: Sequence[Example],
      *,
      rl: RLConfig,
      grade: GradeConfig,
      seed: int,
      folder: epath.Path,
      refusal: Callable[[Example], str] = lambda example: '',
  ):
    """Initialises with the config's `rl` and, for thresholds, its `grade`.

    `refusal` says why an example cannot be asked, '' where it can.
    """
    self._rl, self._grade = rl, grade
    self._refusal = refusal
    self._refusals: dict[str, str] = {}  # Of those drawn so far, by id.
    self._n_refused = 0  # Draws since the last record.
    self._n = len(examples)
    self._folder = folder
    self.queries: grain.DatasetIterator = endless_batches(
        examples, batch_size=1, seed=seed
    )
    self._easier: dict[str, int] = {}  # Id to the step that found it easier.

  def resume(self, step: int) -> None:
    """Forgets what was found after `step`."""
    self._writer = metrics_lib.MetricsWriter(
        self._folder / 'regrades.jsonl', resume_step=step
    )
    self._easier = {}
    for row in self._writer.rows:
      self._learn(row['step'], row['levels'])

  def draw(self, n: int, *, step: int) -> list[Example]:
    """The next `n` queries; fewer than a whole epoch are passed over.

    Raises:
      UserError: No query of the level can be asked.
    """
    drawn: list[Example] = []
    passed_over = 0
    while len(drawn) < n:
      (example,) = next(self.queries)
      found = self._easier.get(example.id)
      if (
          found is not None
          and step - found < self._rl.recheck_every
          and passed_over < self._n
      ):
        passed_over += 1
        continue
      if why := self._refused(example):
        self._n_refused += 1
        if len(self._refusals) == self._n and all(self._refusals.values()):
          raise UserError(f'no query of the level can be asked: {why}')
        continue
      drawn.append(example)
    return drawn

  def _refused(self, example: Example) -> str:
    if example.id not in self._refusals:
      self._refusals[example.id] = why = self._refusal(example)
      if why:
        metrics_lib.say(f'rl: {example.id} is left out: {why}')
    return self._refusals[example.id]

  def record(
      self, step: int, groups: Sequence[Group]
  ) -> dict[str, Any]:
    """Grades anew by a step's rollouts; returns what to log."""
    logged: dict[str, Any] = {'refused': self._n_refused}
    self._n_refused = 0
    if not self._rl.regrade:
      return logged
    found = {}
    for group in groups:
      found[group.example.id] = levels.level_of(
          *levels.count_correct(group.trajectories),
          solved=self._grade.solved,
          often_failed=self._grade.often_failed,
      )
    self._writer.write(step, {'levels': found})
    self._learn(step, found)
    return logged | {
        'regraded_easier': float(
            np.mean([level in self._below() for level in found.values()])
        ),
        'left_out': len(self._easier) / self._n,
    }

  def _below(self) -> range:
    return range(max(self._rl.level, 0))

  def _learn(self, step: int, found: dict[str, int | None]) -> None:
    for example_id, level in found.items():
      if level in self._below():
        self._easier[example_id] = step
      elif level is not None:  # Where no sample counts, nothing was found.
        self._easier.pop(example_id, None)


def n_steps_of(c: RLConfig, n: int) -> int:
  """Steps on `n` queries of the level: those of `epochs`, if it is set."""
  return math.ceil(c.epochs * n / c.n_prompts) if c.epochs else c.steps


def make_curriculum(run: Run, folder: epath.Path) -> Curriculum:
  """The graded examples of the level that RL trains on.

  Raises:
    UserError: There are too few.
  """
  c = run.config
  return Curriculum(
      run.graded_examples(ids_of(run)),
      rl=c.rl,
      grade=c.grade,
      seed=run.seed('rl'),
      folder=folder,
      refusal=run.refusal,
  )


def ids_of(run: Run) -> set[str]:
  """Ids of the graded queries of the level that RL trains on.

  Raises:
    UserError: There are too few.
  """
  c = run.config.rl
  grades = levels.read_grades(run.workdir / 'grade')
  return select(grades, c.level, at_least=c.n_prompts)


def select(
    grades: Sequence[levels.Grade], level: int, *, at_least: int
) -> set[str]:
  """Ids of the queries of one level, or of all.

  Raises:
    UserError: There are fewer than `at_least`.
  """
  ids = {
      g.example_id
      for g in grades
      if g.level is not None and level in (g.level, ALL_LEVELS)
  }
  if len(ids) < at_least:
    raise UserError(_too_few(grades, level, len(ids), at_least))
  return ids


def _too_few(
    grades: Sequence[levels.Grade], level: int, n: int, at_least: int
) -> str:
  """How many queries each level has, and the flags that would do."""
  of = collections.Counter(grade.level for grade in grades)
  flags = [f'level={one}' for one in (2, 1, 0) if of[one] >= at_least]
  if level != ALL_LEVELS and len(grades) - of[None] >= at_least:
    flags.append(f'level={ALL_LEVELS}')
  flags += [f'n_prompts={n}'] if n else []
  what = 'graded' if level == ALL_LEVELS else f'of Level {level}'
  return (
      f'{n} of {len(grades)} queries are {what}, fewer than one step\'s '
      f'config.rl.n_prompts={at_least} (Level 0: {of[0]}, 1: {of[1]}, 2: '
      f'{of[2]}, not graded: {of[None]}): pass '
      + ''.join(f'--config.rl.{flag}, or ' for flag in flags)
      + 'a higher --config.grade.n_queries and grade anew (delete the folder '
      'grade first)'
  )

"""Grading: how often does the frozen SFT policy answer each query?

K samples a query -> pass rate -> Level 0 (solved), 1 (about half), 2 (often
failed). Committed in chunks, each an atomic file: killed at any instant, the
next start goes on at the first missing chunk and ends with the same file.
"""

from __future__ import annotations

from collections.abc import Sequence
import dataclasses
from typing import Any

from etils import epath

from gog_jax import files
from gog_jax import metrics
from gog_jax.errors import UserError
from gog_jax.rollout.policy import Policy
from gog_jax.run import Run
from gog_jax.types import Example
from gog_jax.types import Trajectory


@dataclasses.dataclass(frozen=True, kw_only=True)
class Grade:
  """One query's record.

  Attributes:
    example_id: Which query.
    n_valid: Samples that no infra_error spoilt.
    n_correct: Of these, answered correctly.
    n_errors: Samples excluded; they are never counted as failures.
    level: 0, 1 or 2; None if no sample was valid.
  """

  example_id: str
  n_valid: int
  n_correct: int
  n_errors: int
  level: int | None


def level_of(
    n_correct: int, n_valid: int, *, solved: float, often_failed: float
) -> int | None:
  """0 from pass rate `solved`, 2 below `often_failed`, 1 between."""
  if not n_valid:
    return None
  pass_rate = n_correct / n_valid
  if pass_rate >= solved:
    return 0
  return 2 if pass_rate < often_failed else 1


def grade_examples(
    run: Run,
    policy: Policy,
    examples: Sequence[Example],
    folder: epath.Path,
) -> list[Grade]:
  """Grades every example, reusing the chunks that `folder` already holds."""
  c = run.config.grade
  grades: list[Grade] = []
  with metrics.Progress('grade', total=len(examples)) as progress:
    for first in range(0, len(examples), c.chunk):
      path = folder / 'chunks' / f'{first // c.chunk:06d}.jsonl'
      chunk = examples[first : first + c.chunk]
      if not path.exists():
        groups = run.rollout(policy, chunk, samples=c.samples, seed=('grade',))
        files.write_jsonl(
            path,
            (
                dataclasses.asdict(_grade(run, example, group))
                for example, group in zip(chunk, groups, strict=True)
            ),
        )
      grades.extend(Grade(**row) for row in files.read_jsonl(path))
      progress.advance(len(chunk))
  files.write_jsonl(
      folder / 'graded.jsonl', (dataclasses.asdict(g) for g in grades)
  )
  return grades


def read_grades(folder: epath.PathLike) -> list[Grade]:
  """The finished file of `grade_examples`."""
  path = epath.Path(folder) / 'graded.jsonl'
  return [Grade(**row) for row in files.read_jsonl(path)]


def select_level(
    grades: Sequence[Grade], level: int, *, at_least: int
) -> set[str]:
  """Ids of the queries of one level.

  Raises:
    UserError: There are fewer than `at_least`.
  """
  ids = {grade.example_id for grade in grades if grade.level == level}
  if len(ids) < at_least:
    raise UserError(
        f'only {len(ids)} of {len(grades)} queries are Level {level}, fewer '
        f'than one step\'s {at_least}: raise --config.grade.n_queries or '
        'change --config.rl.level'
    )
  return ids


def facts(grades: Sequence[Grade]) -> dict[str, Any]:
  """How many queries each level holds."""
  levels = [grade.level for grade in grades]
  return {
      'levels': {str(level): levels.count(level) for level in (0, 1, 2)},
      'ungraded': levels.count(None),
      'errors': sum(grade.n_errors for grade in grades),
  }


def _grade(
    run: Run, example: Example, group: Sequence[Trajectory]
) -> Grade:
  c = run.config.grade
  valid = [t for t in group if t.valid]
  n_correct = sum(t.reward_parts['accuracy'] == 1.0 for t in valid)
  return Grade(
      example_id=example.id,
      n_valid=len(valid),
      n_correct=n_correct,
      n_errors=len(group) - len(valid),
      level=level_of(
          n_correct, len(valid), solved=c.solved, often_failed=c.often_failed
      ),
  )

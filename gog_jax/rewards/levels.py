"""Levels: how often a frozen policy answers a question right.

evaluation/grade.py makes them, train/curriculum.py draws by them.
"""

from __future__ import annotations

from collections.abc import Sequence
import dataclasses

from etils import epath

from gog_jax.storage import files
from gog_jax.types import Trajectory


@dataclasses.dataclass(frozen=True, kw_only=True)
class Grade:
  """One query's record.

  Attributes:
    example_id: Which query.
    n_valid: Samples that no infra_error spoilt.
    n_correct: The correct ones among these.
    n_errors: Samples that an infra_error spoilt: never counted as failures.
    n_short: Wrong answers after fewer searches than the question has hops:
      they lacked a step, not sight.
    n_unseen: Wrong answers without a gaze at the region asked about, where one
      has to be looked at.
    n_else: All other wrong answers.
    hops: Searches the question needs, if known.
    level: 0, 1 or 2; None if too few samples were valid.
  """

  example_id: str
  n_valid: int
  n_correct: int
  n_errors: int
  n_short: int
  n_unseen: int
  n_else: int
  hops: int | None
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


def count_correct(group: Sequence[Trajectory]) -> tuple[int, int]:
  """The numbers of correct and of valid trajectories in a group."""
  valid = [t for t in group if t.valid]
  return sum(t.reward_parts['accuracy'] == 1.0 for t in valid), len(valid)


def read_grades(folder: epath.PathLike) -> list[Grade]:
  """The grades that the stage `grade` left in its folder."""
  path = epath.Path(folder) / 'graded.jsonl'
  return list(files.read_jsonl(path, Grade))

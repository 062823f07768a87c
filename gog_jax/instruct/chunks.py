"""The committed work of a build: a few questions at a time, whole or absent.

    chunks/000000.direct.jsonl               which of them are too easy
    chunks/000000.direct.trajectories.jsonl  the direct answers of those
    chunks/000000.jsonl                      what became of each question
    chunks/000000.trajectories.jsonl         the trajectories that passed
    chunks/images/                           of all of them

Trajectories are written before the file that names them. Nothing in them hangs
on a clock, on how often something failed, or on where the build was stopped.
"""

from __future__ import annotations

from collections.abc import Sequence
import dataclasses
import datetime
import functools
from typing import Any

from etils import epath

from gog_jax.errors import UserError
from gog_jax.instruct import checks as checks_lib
from gog_jax.instruct.checks import Failure
from gog_jax.instruct.teachers import Rolled
from gog_jax.instruct.teachers import Teacher
from gog_jax.questions import sources
from gog_jax.storage import files
from gog_jax.storage import trajectories as trajectories_lib
from gog_jax.types import Example
from gog_jax.types import Trajectory


@dataclasses.dataclass(frozen=True, kw_only=True)
class Row:
  """What became of a question.

  Attributes:
    example_id: Which.
    query: Digest of all that was asked.
    n_direct: Direct answers that were valid.
    n_right: Of these, the right ones.
    easy: All were asked for, valid and right: too easy.
    kind: 'search' or 'no_search' of the trajectory that passed; else None.
    place: That trajectory's line in the chunk's file.
    failures: Of every try that did not pass, in order: reason and detail.
    date: The day on which it was searched, UTC.
    n_spoilt: Conversations that the infrastructure spoilt; they were begun
      anew, and do not count as failures unless the last one was spoilt, too.
    n_conversations: All that were begun.
    usage: What an endpoint says they took, see `Trajectory.usage`.
  """

  example_id: str
  query: str
  n_direct: int
  n_right: int
  easy: bool
  kind: str | None
  place: int | None
  failures: tuple[Failure, ...]
  date: str
  n_spoilt: int
  n_conversations: int
  usage: dict[str, float]


class Chunks:
  """The chunks in a folder, made as they are asked for."""

  def __init__(self, folder: epath.Path, teacher: Teacher):
    self._folder = folder / 'chunks'
    self._teacher = teacher
    self._config = teacher.run.config.instruct

  def rows(self, number: int, examples: Sequence[Example]) -> list[Row]:
    """A chunk's rows, one per example; it is made unless it is there.

    Raises:
      UserError: It is there, but damaged or about other questions; or the
        infrastructure failed for too many, and nothing is committed.
    """
    path = self._path(number)
    if not path.exists():
      self._make(number, examples)
    return _read(path, Row, examples)

  def trajectory(self, number: int, place: int) -> Trajectory:
    """The trajectory that a row names."""
    return _trajectories(self._path(number, '.trajectories'))[place]

  def _make(self, number: int, examples: Sequence[Example]) -> None:
    path = self._path(number, '.direct')
    if not path.exists():
      self._ask_directly(number, examples)
    asked = _read(path, Direct, examples)
    answers = trajectories_lib.read(self._path(number, '.direct.trajectories'))
    tries = _Tries(self._teacher, examples)
    tries.take(answers)
    hard = [i for i, row in enumerate(asked) if not row.easy and not row.spoilt]
    for attempt in range(self._config.samples):
      tries.make([i for i in hard if i not in tries.passed], attempt)
    today = datetime.datetime.now(datetime.UTC).date().isoformat()
    rows, kept = [], []
    for i, (example, row) in enumerate(zip(examples, asked, strict=True)):
      passed = tries.passed.get(i)
      failures = tries.failures[i]
      if row.spoilt:
        failures = [Failure(reason=row.spoilt, detail=row.detail), *failures]
      rows.append(
          Row(
              example_id=example.id,
              query=row.query,
              n_direct=row.n_direct,
              n_right=row.n_right,
              easy=row.easy,
              kind=None if passed is None else checks_lib.kind_of(passed),
              place=None if passed is None else len(kept),
              failures=tuple(failures),
              date=today,
              n_spoilt=row.n_spoilt + tries.n_spoilt[i],
              n_conversations=row.n_conversations + tries.n_conversations[i],
              usage=_sum([row.usage, tries.usage[i]]),
          )
      )
      kept += [] if passed is None else [passed]
    self._check_outage([
        row.failures[-1] if row.failures and row.kind is None else None
        for row in rows
    ])
    trajectories_lib.write(self._path(number, '.trajectories'), kept)
    files.write_jsonl(self._path(number), map(dataclasses.asdict, rows))

  def _ask_directly(self, number: int, examples: Sequence[Example]) -> None:
    n = self._config.n_direct
    # [n][examples] -> [examples][n].
    rounds = [self._teacher.answers(examples, k) for k in range(n)]
    groups = list(zip(*rounds, strict=True)) or [()] * len(examples)
    rows = [
        _direct(example, group)
        for example, group in zip(examples, groups, strict=True)
    ]
    self._check_outage([
        Failure(reason=row.spoilt, detail=row.detail) if row.spoilt else None
        for row in rows
    ])
    easy = [i for i, row in enumerate(rows) if row.easy]
    samples = self._teacher.as_sample(
        [examples[i] for i in easy], [groups[i][0].trajectory for i in easy]
    )
    trajectories_lib.write(
        self._path(number, '.direct.trajectories'),
        map(without_clock, samples),
    )
    files.write_jsonl(
        self._path(number, '.direct'), map(dataclasses.asdict, rows)
    )

  def _check_outage(self, failures: Sequence[Failure | None]) -> None:
    """Refuses to commit what an endpoint or a backend that is down has left."""
    spoilt = [
        failure
        for failure in failures
        if failure is not None and failure.reason in checks_lib.SPOILT
    ]
    if len(spoilt) > self._config.most_errors * len(failures):
      raise UserError(
          f'{len(spoilt)} of {len(failures)} questions failed for the '
          f'infrastructure\'s part ({spoilt[0].reason}: {spoilt[0].detail}): '
          'none of these is committed. Mend it, then run the same command: it '
          'goes on here'
      )

  def _path(self, number: int, what: str = '') -> epath.Path:
    return self._folder / f'{number:06d}{what}.jsonl'


@dataclasses.dataclass(frozen=True, kw_only=True)
class Direct:
  """What the uncertainty filter found; `spoilt` is a reason, or empty.

  The other fields are as in `Row`.
  """

  example_id: str
  query: str
  n_direct: int
  n_right: int
  easy: bool
  spoilt: str
  detail: str
  n_spoilt: int
  n_conversations: int
  usage: dict[str, float]


class _Tries:
  """What was tried of a chunk's questions, by their indices."""

  def __init__(self, teacher: Teacher, examples: Sequence[Example]):
    n = len(examples)
    self.passed: dict[int, Trajectory] = {}
    self.failures: list[list[Failure]] = [[] for _ in range(n)]
    self.n_spoilt = [0] * n
    self.n_conversations = [0] * n
    self.usage: list[dict[str, float]] = [{} for _ in range(n)]
    self._teacher = teacher
    self._examples = examples
    self._checks = checks_lib.checks_of(teacher.run)

  def take(self, trajectories: Sequence[Trajectory]) -> None:
    """Checks trajectories that are there already."""
    places = {example.id: i for i, example in enumerate(self._examples)}
    for trajectory in trajectories:
      self._check(places[trajectory.example_id], trajectory)

  def make(self, indices: Sequence[int], attempt: int) -> None:
    """Has the teacher try these questions once."""
    if not indices:
      return
    rolled = self._teacher.tries([self._examples[i] for i in indices], attempt)
    for i, one in zip(indices, rolled, strict=True):
      self.n_spoilt[i] += one.n_spoilt
      self.n_conversations[i] += one.n_spoilt + one.trajectory.valid
      self.usage[i] = _sum([self.usage[i], one.usage])
      self._check(i, without_clock(one.trajectory))

  def _check(self, index: int, trajectory: Trajectory) -> None:
    failed = checks_lib.spoilt(trajectory) or checks_lib.failure(
        self._examples[index], trajectory, self._checks
    )
    if failed is None:
      self.passed[index] = trajectory
    else:
      self.failures[index].append(failed)


def without_clock(trajectory: Trajectory) -> Trajectory:
  """What the same conversation would be at any other time.

  Seconds, prices and the endpoint's own counts go; a set that was built twice
  is the same.
  """
  turns = tuple(
      dataclasses.replace(
          turn,
          results=tuple(
              dataclasses.replace(result, latency_s=0.0, price=0.0)
              for result in turn.results
          ),
      )
      for turn in trajectory.turns
  )
  return dataclasses.replace(trajectory, turns=turns, seconds={}, usage={})


def _direct(example: Example, group: Sequence[Rolled]) -> Direct:
  valid = [one.trajectory for one in group if one.trajectory.valid]
  n_right = sum(t.reward_parts['accuracy'] == 1.0 for t in valid)
  all_right = bool(group) and n_right == len(valid)
  # Where one was spoilt and no other is wrong, nobody knows.
  lost = next(
      (
          spoilt
          for one in group
          if (spoilt := checks_lib.spoilt(one.trajectory)) is not None
      ),
      None,
  )
  undecided = lost if all_right else None
  return Direct(
      example_id=example.id,
      query=sources.digest(example),
      n_direct=len(valid),
      n_right=n_right,
      easy=all_right and lost is None,
      spoilt='' if undecided is None else undecided.reason,
      detail='' if undecided is None else undecided.detail,
      n_spoilt=sum(one.n_spoilt for one in group),
      n_conversations=sum(one.n_spoilt for one in group) + len(valid),
      usage=_sum([one.usage for one in group]),
  )


def _sum(usages: Sequence[dict[str, float]]) -> dict[str, float]:
  total: dict[str, float] = {}
  for usage in usages:
    for name, value in usage.items():
      total[name] = total.get(name, 0) + value
  return total


def _read(path: epath.Path, kind: Any, examples: Sequence[Example]) -> list:
  """A committed file's rows; refuses those of other questions."""
  try:
    rows = [kind(**row) for row in files.read_jsonl(path)]
    asked = [row.query for row in rows]
  except TypeError:  # Other fields: of another version.
    rows, asked = [], None
  if asked != [sources.digest(example) for example in examples]:
    raise UserError(
        f'{path} is not about the {len(examples)} questions that stand there '
        'now: the sources have changed, or it is damaged; restore them, or '
        f'delete {path.parent} to have all of them asked again'
    )
  if kind is not Row:
    return rows
  return [
      dataclasses.replace(
          row, failures=tuple(Failure(**failure) for failure in row.failures)
      )
      for row in rows
  ]


@functools.lru_cache(maxsize=2)
def _trajectories(path: epath.Path) -> list[Trajectory]:
  return trajectories_lib.read(path)

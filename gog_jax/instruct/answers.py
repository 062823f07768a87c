"""What the teacher answered, and what becomes of each question.

    instruct/direct/   direct answers, `n_direct` of each question
    instruct/tries/    `1 + samples` tries of each question: the first is the
                       direct answer where that was too easy, the others are
                       conversations with tools

Both are folders of items, see evaluation/collect.py: the teacher is not asked
again what it has answered. Outcomes are a function of what is noted there, so a
build that was stopped ends with the same set.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
import dataclasses
import datetime
import functools
from typing import Any

from etils import epath

from gog_jax.errors import UserError
from gog_jax.evaluation.collect import check_outage
from gog_jax.evaluation.collect import Collector
from gog_jax.evaluation.collect import is_outage
from gog_jax.instruct import checks as checks_lib
from gog_jax.instruct.checks import Failure
from gog_jax.instruct.teachers import Teacher
from gog_jax.questions import sources
from gog_jax.rollout.policy import Request
from gog_jax.types import Example
from gog_jax.types import Trajectory

Items = Mapping[int, Mapping[str, Any]]


@dataclasses.dataclass(frozen=True, kw_only=True)
class Outcome:
  """What became of a question.

  Attributes:
    index: Of the question.
    example_id: Its id.
    n_direct: Direct answers that were valid.
    n_right: Of these, the right ones.
    easy: All were asked for, valid and right: too easy.
    failures: Of the tries before the one that passed, in order.
    item: Number of the try that passed; else None.
    kind: 'search' or 'no_search' of that try.
    date: The day on which it was made, UTC.
    infra_error: What spoilt the last try; empty where nothing did.
  """

  index: int
  example_id: str
  n_direct: int
  n_right: int
  easy: bool
  failures: tuple[Failure, ...]
  item: int | None = None
  kind: str | None = None
  date: str = ''
  infra_error: str = ''


def outcome_of(
    index: int, direct: Items, tries: Items, config: Any
) -> Outcome | None:
  """The outcome of a question; None while there is more to ask.

  Args:
    index: Of the question.
    direct: What is noted of direct answers.
    tries: What is noted of tries.
    config: `config.instruct`.
  """
  answers = _noted(direct, index, config.n_direct)
  if len(answers) < config.n_direct:
    return None
  valid = [answer for answer in answers if answer['valid']]
  slots = _slots(answers, config)
  notes = [a for a in answers if not a['valid']][:1] if not slots else []
  passed = {}
  for slot in slots:
    item = index * (1 + config.samples) + slot
    if item not in tries:
      return None
    notes.append(tries[item])
    if tries[item]['failure'] is None:
      passed = dict(
          item=item, kind=tries[item]['kind'], date=tries[item]['date']
      )
      break
  failures = [Failure(**one['failure']) for one in notes if one['failure']]
  error = ''
  if not notes[-1]['valid']:
    error = f'{failures[-1].reason}: {failures[-1].detail}'
  return Outcome(
      index=index,
      example_id=notes[-1]['id'],
      n_direct=len(valid),
      n_right=sum(answer['accuracy'] == 1.0 for answer in valid),
      easy=0 in slots,
      failures=tuple(failures),
      infra_error=error,
      **passed,
  )


def _noted(items: Items, index: int, n: int) -> list[Mapping[str, Any]]:
  """What is noted of those of a question's `n` items that are finished."""
  return [items[i] for i in range(index * n, (index + 1) * n) if i in items]


def _slots(answers: Sequence[Mapping[str, Any]], config: Any) -> Sequence[int]:
  """Which tries a question takes, by its direct answers.

  None are taken of a question of which a direct answer was spoilt and no other
  is wrong: nobody knows whether it is too easy.
  """
  wrong = any(a['valid'] and a['accuracy'] != 1.0 for a in answers)
  if wrong or not answers:
    return range(1, 1 + config.samples)
  return [0] if all(answer['valid'] for answer in answers) else []


class Answers:
  """The open folders of a build; continues where an earlier process stopped."""

  def __init__(
      self, folder: epath.Path, teacher: Teacher, questions: Sequence[Example]
  ):
    """Opens the folders.

    Raises:
      UserError: As `Collector`.
    """
    self._folder = folder
    self._teacher = teacher
    self._questions = questions
    self._config = c = teacher.run.config.instruct
    self._frame = checks_lib.frame_of(teacher.run)
    opened = functools.partial(
        Collector, notes=self._notes, retries=c.retries
    )
    self._direct = opened(
        teacher.direct_run,
        folder / 'direct',
        self._direct_request,
        samples=max(c.n_direct, 1),
    )
    self._tries = opened(
        teacher.run,
        folder / 'tries',
        self._try_request,
        samples=1 + c.samples,
    )

  def __enter__(self) -> Answers:
    return self

  def __exit__(self, *error) -> None:
    self._direct.__exit__(*error)
    self._tries.__exit__(*error)

  def _direct_request(self, item: int) -> Request:
    index, number = divmod(item, self._config.n_direct)
    return self._teacher.direct_run.request(
        self._questions[index], seed=('instruct', 'direct', number), what=''
    )

  def _try_request(self, item: int) -> Request:
    index, slot = divmod(item, 1 + self._config.samples)
    seed = ('instruct', 'try', slot - 1) if slot else ('instruct', 'direct')
    return self._teacher.run.request(
        self._questions[index], seed=seed, what=''
    )

  def _notes(
      self, example: Example, trajectory: Trajectory
  ) -> dict[str, Any]:
    failed = checks_lib.failure(
        example, trajectory, self._config, self._frame
    )
    return {
        'id': example.id,
        'question': sources.digest(example),
        'failure': failed and dataclasses.asdict(failed),
        'kind': checks_lib.kind_of(trajectory),
        'date': datetime.datetime.now(datetime.UTC).date().isoformat(),
    }

  @property
  def n_retried(self) -> int:
    """Conversations that the infrastructure spoilt and were begun anew."""
    return self._direct.n_retried + self._tries.n_retried

  def outcomes(self, indices: Sequence[int]) -> list[Outcome]:
    """What became of questions; the teacher is asked what is open.

    Raises:
      UserError: The folder is about other questions; or it is an outage. What
        was answered is kept.
    """
    for index in indices:
      self._check_question(index)
    most = self._config.most_errors
    found = self._decided(indices)
    errors = [one.infra_error for one in found]
    if len(found) < len(indices) or is_outage(errors, most):
      self._ask(indices)
      found = self._decided(indices)
      check_outage([one.infra_error for one in found], most)
    return found

  def trajectory(self, item: int) -> Trajectory:
    """A try that passed, without what a clock decides."""
    (trajectory,) = self._tries.rollouts.read([item])
    return without_clock(trajectory)

  def _decided(self, indices: Sequence[int]) -> list[Outcome]:
    return [one for index in indices if (one := self._outcome(index))]

  def _outcome(self, index: int) -> Outcome | None:
    return outcome_of(
        index, self._direct.items, self._tries.items, self._config
    )

  def _check_question(self, index: int) -> None:
    """Refuses answers to what is no longer asked."""
    c = self._config
    notes = [
        *_noted(self._direct.items, index, c.n_direct),
        *_noted(self._tries.items, index, 1 + c.samples),
    ]
    if not notes:
      return
    example = self._questions[index]
    if any(note['question'] != sources.digest(example) for note in notes):
      raise UserError(
          f'{self._folder} is not about question {example.id} as it is now: '
          f'the sources have changed; restore them, or delete {self._folder} '
          'to have all of them asked again'
      )

  def _ask(self, indices: Sequence[int]) -> None:
    c, teacher = self._config, self._teacher
    self._direct.collect(
        [i * c.n_direct + k for i in indices for k in range(c.n_direct)],
        lambda: teacher.direct,
    )
    for slot in range(1 + c.samples):
      waiting = [i for i in indices if self._takes(i, slot)]
      items = [i * (1 + c.samples) + slot for i in waiting]
      if slot == 0:
        self._repeat(waiting, items)
      else:
        self._tries.collect(items, lambda: teacher.policy)

  def _takes(self, index: int, slot: int) -> bool:
    """Whether a question of which no try has passed takes this one."""
    answers = _noted(self._direct.items, index, self._config.n_direct)
    found = self._outcome(index)
    passed = found is not None and found.item is not None
    return not passed and slot in _slots(answers, self._config)

  def _repeat(self, indices: Sequence[int], items: Sequence[int]) -> None:
    """Makes direct answers those of a policy that has tools.

    A remote model was told that it has none. What it said is said again, token
    by token, in a conversation that offers them.
    """
    direct = [index * self._config.n_direct for index in indices]
    answers = list(self._direct.rollouts.read(direct))
    if self._teacher.is_remote:
      policy = self._teacher.repeating(answers)
      self._tries.collect(items, lambda: policy)
    else:
      examples = [self._questions[index] for index in indices]
      self._tries.keep(items, examples, answers)


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

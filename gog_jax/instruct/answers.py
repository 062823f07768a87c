"""The teacher's answers, and the outcome of each question.

    instruct/direct/   direct answers, `n_direct` of each question
    instruct/tries/    `1 + samples` tries of each question: the first is the
                       direct answer where that was too easy, the others are
                       conversations with tools

Both are folders of items, see evaluation/collect.py: the teacher never answers
twice. Outcomes depend on what is noted there alone, so a build that was stopped
ends with the same set.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
import contextlib
import dataclasses
import datetime
import functools
from typing import Any

from etils import epath

from gog_jax.config.evaluation import InstructConfig
from gog_jax.conversations.record import Record
from gog_jax.errors import UserError
from gog_jax.evaluation.collect import check_outage
from gog_jax.evaluation.collect import Collector
from gog_jax.evaluation.collect import is_outage
from gog_jax.instruct import checks as checks_lib
from gog_jax.instruct.checks import Failure
from gog_jax.instruct.teachers import Teacher
from gog_jax.questions import checked
from gog_jax.rollout.policy import Request
from gog_jax.types import Example
from gog_jax.types import Trajectory

Items = Mapping[int, Mapping[str, Any]]


@dataclasses.dataclass(frozen=True, kw_only=True)
class Outcome:
  """The outcome of a question.

  Attributes:
    index: Of the question.
    example_id: Its id.
    n_direct: The number of valid direct answers.
    n_right: How many of these are right.
    easy: Whether all direct answers are valid and right.
    failures: Of the tries before the one that passed, in order.
    item: The number of the try that passed, if any.
    kind: Whether that try is 'search' or 'no_search'.
    date: The day it was made, UTC.
    infra_error: What spoilt the last try; empty if it is valid.
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
  """The outcome of a question; None while the teacher has more to answer.

  Args:
    index: Of the question.
    direct: The notes of direct answers, by item.
    tries: The notes of tries, by item.
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
  """The notes of a question's finished items, of `n`."""
  return [items[i] for i in range(index * n, (index + 1) * n) if i in items]


def _slots(answers: Sequence[Mapping[str, Any]], config: Any) -> Sequence[int]:
  """The tries to make for a question, given its direct answers.

  There are none if a direct answer was spoilt and no other is wrong: the
  question may be too easy.
  """
  wrong = any(a['valid'] and a['accuracy'] != 1.0 for a in answers)
  if wrong or not answers:
    return range(1, 1 + config.samples)
  return [0] if all(answer['valid'] for answer in answers) else []


@contextlib.contextmanager
def opened(
    folder: epath.Path, teacher: Teacher, questions: Sequence[Example]
) -> Iterator[Answers]:
  """Opens a build's folders; continues where an earlier process stopped.

  Raises:
    UserError: As `Collector`.
  """
  c = teacher.run.config.instruct
  region = checks_lib.region_of(teacher.run)

  def direct_request(item: int) -> Request:
    index, number = divmod(item, c.n_direct)
    return teacher.direct_run.request(
        questions[index], seed=('instruct', 'direct', number)
    )

  def try_request(item: int) -> Request:
    index, slot = divmod(item, 1 + c.samples)
    seed = ('instruct', 'try', slot - 1) if slot else ('instruct', 'direct')
    return teacher.run.request(questions[index], seed=seed)

  def notes(example: Example, trajectory: Trajectory) -> dict[str, Any]:
    failed = checks_lib.failure(example, trajectory, c, region)
    return {
        'id': example.id,
        'question': checked.digest(example),
        'failure': failed and dataclasses.asdict(failed),
        'kind': checks_lib.kind_of(trajectory),
        'date': datetime.datetime.now(datetime.UTC).date().isoformat(),
    }

  collector = functools.partial(Collector, notes=notes, retries=c.retries)
  with (
      collector(
          teacher.direct_run,
          folder / 'direct',
          direct_request,
          samples=max(c.n_direct, 1),
      ) as direct,
      collector(
          teacher.run, folder / 'tries', try_request, samples=1 + c.samples
      ) as tries,
  ):
    yield Answers(folder, teacher, questions, direct, tries)


@dataclasses.dataclass(frozen=True, eq=False)
class Answers:
  """The open folders of a build, see `opened`."""

  folder: epath.Path
  teacher: Teacher
  questions: Sequence[Example]
  direct: Collector
  tries: Collector

  @property
  def _config(self) -> InstructConfig:
    return self.teacher.run.config.instruct

  @property
  def n_retried(self) -> int:
    """How often a conversation failed because of a tool and was begun again."""
    return self.direct.n_retried + self.tries.n_retried

  def outcomes(self, indices: Sequence[int]) -> list[Outcome]:
    """The outcomes of questions; asks the teacher what is missing.

    Raises:
      UserError: The folder holds answers to other questions, or it is an
        outage; answers are kept.
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

  def record(self, one: Outcome, facts: Mapping[str, Any]) -> Record:
    """The try that passed, without what depends on the clock."""
    assert one.item is not None
    (trajectory,) = self.tries.rollouts.read([one.item])
    return Record(
        example=self.questions[one.index],
        trajectory=without_clock(trajectory),
        facts=facts,
    )

  def _decided(self, indices: Sequence[int]) -> list[Outcome]:
    return [one for index in indices if (one := self._outcome(index))]

  def _outcome(self, index: int) -> Outcome | None:
    return outcome_of(
        index, self.direct.items, self.tries.items, self._config
    )

  def _check_question(self, index: int) -> None:
    """Refuses answers to a question that has changed since."""
    c = self._config
    notes = [
        *_noted(self.direct.items, index, c.n_direct),
        *_noted(self.tries.items, index, 1 + c.samples),
    ]
    if not notes:
      return
    example = self.questions[index]
    if any(note['question'] != checked.digest(example) for note in notes):
      raise UserError(
          f'{self.folder} is not about question {example.id} as it is now: '
          f'the sources have changed; restore them, or delete {self.folder} '
          'to have all of them asked again'
      )

  def _ask(self, indices: Sequence[int]) -> None:
    c, teacher = self._config, self.teacher
    self.direct.collect(
        [i * c.n_direct + k for i in indices for k in range(c.n_direct)],
        lambda: teacher.direct,
    )
    for slot in range(1 + c.samples):
      waiting = [i for i in indices if self._takes(i, slot)]
      items = [i * (1 + c.samples) + slot for i in waiting]
      if slot == 0:
        self._repeat(waiting, items)
      else:
        self.tries.collect(items, lambda: teacher.policy)

  def _takes(self, index: int, slot: int) -> bool:
    """Whether to make this try: none has passed, and it is one to make."""
    answers = _noted(self.direct.items, index, self._config.n_direct)
    found = self._outcome(index)
    passed = found is not None and found.item is not None
    return not passed and slot in _slots(answers, self._config)

  def _repeat(self, indices: Sequence[int], items: Sequence[int]) -> None:
    """Turns direct answers into tries of a policy that has tools.

    A remote model was offered none: its answers are repeated, token by token,
    in conversations that offer them.
    """
    direct = [index * self._config.n_direct for index in indices]
    answers = list(self.direct.rollouts.read(direct))
    if self.teacher.is_remote:
      policy = self.teacher.repeating(answers)
      self.tries.collect(items, lambda: policy)
    else:
      examples = [self.questions[index] for index in indices]
      self.tries.keep(zip(items, examples, answers, strict=True))


def without_clock(trajectory: Trajectory) -> Trajectory:
  """A trajectory without times, prices and the endpoint's counts.

  Two builds of the same answers then make the same set.
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

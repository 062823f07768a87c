"""Rolls a policy out on numbered items, each durable as it finishes.

Evaluation, grading and the GoG-Instruct builder all collect this way. An item
depends on its own seed alone, so what is rolled out after a kill comes out as
it would have before. The files are those of storage/rollouts.py.
"""

from __future__ import annotations

import collections
from collections.abc import Callable, Iterable, Mapping, Sequence
from concurrent import futures
import dataclasses
from typing import Any

from etils import epath

from gog_jax.errors import RunStopped
from gog_jax.errors import UserError
from gog_jax.interrupt import Interrupted
from gog_jax.rewards import behaviour
from gog_jax.rollout.policy import Policy
from gog_jax.rollout.policy import Request
from gog_jax.run import Run
from gog_jax.storage import metrics
from gog_jax.storage.rollouts import Rollouts
from gog_jax.types import Example
from gog_jax.types import StopReason
from gog_jax.types import ToolStatus
from gog_jax.types import Trajectory

# Finished items that may wait to be scored: a judge takes its time.
_MAX_PENDING = 256
# An outage is told by this many of the latest items.
_RECENT = 64
MEANS = ('accuracy', 'format')
USAGE = ('prompt_tokens', 'completion_tokens')


def item_of(trajectory: Trajectory) -> dict[str, Any]:
  """What is noted of an item beside its record, so that sums are quick."""
  usage = trajectory.usage
  return {
      'valid': trajectory.valid,
      'unjudged': trajectory.unjudged,
      **{part: trajectory.reward_parts[part] for part in MEANS},
      'turns': len(trajectory.turns),
      'calls': len(trajectory.calls),
      'searches': behaviour.n_searches(trajectory),
      **{part: usage.get(part, 0) for part in USAGE},
      'price': trajectory.price,
      'seconds': sum(trajectory.seconds.values()),
  }


def infra_error(trajectory: Trajectory) -> tuple[str, str]:
  """What failed, and its message, for a trajectory that is not valid."""
  if trajectory.stop_reason == StopReason.ERROR:
    return 'model failed', trajectory.error
  for _, result in trajectory.calls:
    if result.status == ToolStatus.INFRA_ERROR:
      return 'tool failed', result.error
  if trajectory.masked:
    return 'reward unknown', trajectory.masked
  verdict = trajectory.verdict
  return 'judge failed', '' if verdict is None else verdict.error


def is_outage(errors: Sequence[str], max_errors: float) -> bool:
  """Whether more than a share `max_errors` of conversations failed.

  Args:
    errors: One a conversation, empty where it is valid.
    max_errors: From 0 to 1.
  """
  return sum(map(bool, errors)) > max_errors * len(errors)


def check_outage(errors: Sequence[str], max_errors: float) -> None:
  """Stops before an outage spoils everything.

  Raises:
    UserError: `is_outage`.
  """
  if is_outage(errors, max_errors):
    found = [error for error in errors if error]
    raise UserError(
        f'{len(found)} of the last {len(errors)} conversations failed because '
        f'of the infrastructure ({found[-1]}): once that is mended, the same '
        'command goes on here'
    )


@dataclasses.dataclass(eq=False)
class Collector:
  """A folder of items, open while they are rolled out.

  It continues where an earlier process stopped.

  Attributes:
    run: The policy's own, with its tools and dialect.
    folder: Where the items go.
    request: Makes the request of an item, given its number.
    samples: Items of one example, see `Rollouts`.
    notes: What else to note of a scored item.
    keep_records: False keeps only what is noted.
    retries: How often an item that the infrastructure spoilt is begun anew,
      with the very same seed, before it is left as it is.
    max_errors: The share of spoilt items that is still no outage.
    on_kept: Called after each item that is kept, with all `items`.
    rollouts: The open folder.
    items: What is noted of each finished item, by its number.
    n_retried: Items that were rolled out anew since it was opened.
  """

  run: Run
  folder: epath.Path
  request: Callable[[int], Request]
  _: dataclasses.KW_ONLY
  samples: int = 1
  notes: Callable[[Example, Trajectory], Mapping[str, Any]] = (
      lambda example, trajectory: {}
  )
  keep_records: bool = True
  retries: int = 0
  max_errors: float = 1.0
  on_kept: Callable[[Mapping[int, Any]], None] = lambda items: None

  def __post_init__(self):
    self.rollouts = Rollouts(self.folder, samples=self.samples)
    self.items = self.rollouts.items
    self.n_retried = 0
    # As if this process had kept what earlier ones did: a few that fail again
    # and again after a kill are no outage.
    n_valid = sum(item['valid'] for item in self.items.values())
    self._recent = collections.deque([''] * n_valid, maxlen=_RECENT)

  def __enter__(self) -> Collector:
    return self

  def __exit__(self, *error) -> None:
    self.rollouts.__exit__(*error)

  def collect(
      self,
      wanted: Sequence[int],
      make_policy: Callable[[], Policy],
      *,
      what: str = '',
      retry_errors: bool = True,
  ) -> None:
    """Rolls out those of the wanted items that are not finished.

    Args:
      wanted: Numbers of items.
      make_policy: Called if there is anything to do.
      what: Stands beside the progress bar; none is shown without.
      retry_errors: Whether to roll out again what was spoilt in an earlier
        process.

    Raises:
      UserError: As `rollout.loop.Loop`; or it is an outage. All that
        finished before is kept.
    """
    for attempt in range(1 + self.retries):
      self._judge_again(wanted)
      again = attempt or retry_errors
      todo = [
          i
          for i in wanted
          if i not in self.items or (again and self._is_spoilt(i))
      ]
      if not todo:
        break
      self.n_retried += sum(i in self.items for i in todo)
      self._roll_out(todo, make_policy(), what)
    check_outage(self._recent, self.max_errors)

  def keep(self, scored: Iterable[tuple[int, Example, Trajectory]]) -> None:
    """Keeps scored items, by their numbers."""
    for index, example, trajectory in scored:
      item = {**item_of(trajectory), **self.notes(example, trajectory)}
      if self.keep_records:
        self.rollouts.add(index, item, example, trajectory)
      else:
        self.rollouts.add(index, item)
      self.on_kept(self.items)
      self._recent.append(
          '' if trajectory.valid else ': '.join(infra_error(trajectory))
      )
    if len(self._recent) == _RECENT:
      check_outage(self._recent, self.max_errors)

  def _is_spoilt(self, index: int) -> bool:
    """Whether it has to be rolled out again, not just judged."""
    item = self.items[index]
    return not item['valid'] and not (item['unjudged'] and self.keep_records)

  def _judge_again(self, wanted: Iterable[int]) -> None:
    """Scores what was rolled out when its reward was unknown."""
    waiting = [i for i in wanted if self.items.get(i, {}).get('unjudged')]
    if not waiting or not self.keep_records:
      return
    with _Scorer(self) as scorer:
      for index, trajectory in zip(
          waiting, self.rollouts.read(waiting), strict=True
      ):
        trajectory = dataclasses.replace(trajectory, verdict=None)
        scorer.add(index, self.request(index).example, trajectory)

  def _roll_out(self, todo: Sequence[int], policy: Policy, what: str) -> None:
    with (
        metrics.Progress(what, total=len(todo)) as progress,
        _Scorer(self) as scorer,
    ):

      def finished(
          position: int, request: Request, trajectory: Trajectory
      ) -> None:
        scorer.add(todo[position], request.example, trajectory)
        progress.advance()

      self.run.loop(policy, on_finished=finished).run(map(self.request, todo))


class _Scorer:
  """Scores and keeps what has finished while the rollout goes on.

  What a judge has not judged when it stops the run is kept without a verdict.
  """

  def __init__(self, collector: Collector):
    self._collector = collector
    self._pending: list[tuple[int, Example, Trajectory]] = []
    self._worker = futures.ThreadPoolExecutor(1)
    self._at_work = self._worker.submit(self._score, [])
    self._stopped = False

  def __enter__(self) -> _Scorer:
    return self

  def __exit__(self, *unused_error) -> None:
    """Keeps all that has finished, whatever has ended the rollout."""
    with self._worker:
      try:
        self._at_work.result()
      finally:
        self._score(self._pending)

  def add(self, index: int, example: Example, trajectory: Trajectory) -> None:
    """Takes a finished item.

    Raises:
      UserError: An earlier one could not be judged or written.
    """
    self._pending.append((index, example, trajectory))
    if self._at_work.done() or len(self._pending) > _MAX_PENDING:
      self._at_work.result()
      batch, self._pending = self._pending, []
      self._at_work = self._worker.submit(self._score, batch)

  def _score(self, batch: Sequence[tuple[int, Example, Trajectory]]) -> None:
    if not batch:
      return
    run = self._collector.run
    indices, examples, trajectories = zip(*batch, strict=True)
    try:
      scored = run.scored(examples, trajectories, unjudged=self._stopped)
    except (RunStopped, Interrupted):
      if not self._stopped:
        self._stopped = True
        self._score(batch)
      raise
    self._collector.keep(zip(indices, examples, scored, strict=True))

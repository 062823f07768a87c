"""Rolls a policy out once per example; the report reads what this writes.

    FOLDER/trajectories.jsonl, ...   see rollout/shards.py
    FOLDER/progress.json             how far it is, and what it shows so far;
                                     of several hosts progress.0-of-2.json, ..

Every item is durable as it finishes. Each depends on its own seed alone, so
that what is asked after a kill, or by another host, has the same outcome.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from concurrent import futures
import contextlib
import dataclasses
import json
import time
from typing import Any

from etils import epath
import filelock

from gog_jax.errors import RunStopped
from gog_jax.interrupt import Interrupted
from gog_jax.rewards import behaviour
from gog_jax.rollout.loop import rollout_each
from gog_jax.rollout.policy import Policy
from gog_jax.rollout.policy import Request
from gog_jax.run import Run
from gog_jax.storage import files
from gog_jax.storage import metrics
from gog_jax.storage import rollouts as shards
from gog_jax.types import Example
from gog_jax.types import Trajectory

# Finished items that may wait to be scored: a judge takes its time.
_MOST_PENDING = 256
_PROGRESS_S = 2.0
_MEANS = ('accuracy', 'format')
_USAGE = ('prompt_tokens', 'completion_tokens')


def evaluate(
    run: Run,
    make_policy: Callable[[], Policy],
    examples: Sequence[Example],
    folder: epath.Path,
    *,
    name: str,
    host: int = 0,
    hosts: int = 1,
    retry_errors: bool = True,
) -> None:
  """Rolls a policy out on what is not finished yet of a host's share.

  The last of the hosts puts the folder's files together.

  Args:
    run: With the policy's tools and words.
    make_policy: Called if there is anything to do.
    examples: All of them, of all hosts; read as they are asked for.
    folder: Where the items go.
    name: The policy's.
    host: Which of `hosts` this is: it has every so manieth example.
    hosts: How many share the examples.
    retry_errors: Whether items that failed by the infrastructure's fault when
      this was last run are asked again.

  Raises:
    UserError: As `shards.Shard` and `rollout.loop.rollout`; all that finished
      before is kept.
  """
  if is_done(folder) and not (retry_errors and hosts == 1 and errors(folder)):
    return
  share = _share(host, hosts)
  with shards.Shard(folder, host=host, hosts=hosts) as shard:
    mine = range(host, len(examples), hosts)
    progress = _Progress(folder / f'progress{share}.json', shard, n=len(mine))
    try:
      _judge_again(run, examples, mine, shard, progress)
      todo = [
          index
          for index in mine
          if index not in shard.items
          or (retry_errors and _is_spoilt(shard.items[index]))
      ]
      if todo:
        policy = make_policy()
        _roll_out(run, policy, examples, todo, shard, progress, name=name)
    finally:
      progress.write()
    shard.sync()
    if hosts == 1:
      shards.merge(folder)
    progress.write(complete=True)
  if hosts > 1:
    _merge(folder, hosts)


def is_done(folder: epath.Path) -> bool:
  """Whether every item is there, of every host."""
  return bool(progress_of(folder).get('complete'))


def errors(folder: epath.Path) -> int:
  """How many items failed by the infrastructure's fault."""
  return progress_of(folder).get('infra_errors', 0)


def progress_of(folder: epath.Path, share: str = '') -> dict[str, Any]:
  """What progress.json, or a host's, says; empty where there is none."""
  path = folder / f'progress{share}.json'
  try:
    return json.loads(path.read_text()) if path.exists() else {}
  except ValueError:
    return {}  # Nothing hangs on it but what is asked again.


def facts(folder: epath.Path) -> dict[str, Any]:
  """Means over the valid items in `folder`, `n` of them.

  The judge's failures, `judge_errors`, are among the `infra_errors`.
  """
  found = summary(line.item for line in shards.all_lines(folder).values())
  kept = ('n', 'infra_errors', 'judge_errors', *_MEANS)
  return {key: found[key] for key in kept}


def summary(items: Iterable[Mapping[str, Any]]) -> dict[str, Any]:
  """Counts and sums over items, means over the valid ones."""
  listed = list(items)
  valid = [item for item in listed if item['valid']]

  def mean(part: str) -> float | None:
    values = [item[part] for item in valid]
    return sum(values) / len(values) if values else None

  def total(part: str) -> float:
    return sum(item[part] for item in listed)

  return {
      'n_done': len(listed),
      'n': len(valid),
      'infra_errors': len(listed) - len(valid),
      'judge_errors': total('unjudged'),
      **{part: mean(part) for part in _MEANS},
      **{part: total(part) for part in ('turns', 'calls', 'searches')},
      **{part: total(part) for part in (*_USAGE, 'price', 'seconds')},
  }


def item_of(trajectory: Trajectory) -> dict[str, Any]:
  """What is kept of an item beside its record, for quick sums."""
  results = [r for turn in trajectory.turns for r in turn.results]
  usage, verdict = trajectory.usage, trajectory.verdict
  return {
      'valid': trajectory.valid,
      'unjudged': verdict is not None and verdict.right is None,
      **{part: trajectory.reward_parts[part] for part in _MEANS},
      'turns': len(trajectory.turns),
      'calls': len(results),
      'searches': behaviour.n_searches(trajectory),
      **{part: usage.get(part, 0) for part in _USAGE},
      'price': usage.get('price', 0) + sum(r.price for r in results),
      'seconds': sum(trajectory.seconds.values()),
  }


@contextlib.contextmanager
def turn(folder: epath.Path, hosts: int) -> Iterator[None]:
  """What hosts must not do at the same time; in a bucket they may."""
  if hosts == 1 or '://' in str(folder):
    yield
    return
  folder.mkdir(parents=True, exist_ok=True)
  with filelock.FileLock(folder / '.lock.all'):
    yield


def _share(host: int, hosts: int) -> str:
  return '' if hosts == 1 else f'.{host}-of-{hosts}'


def _merge(folder: epath.Path, hosts: int) -> None:
  """Puts the hosts' files together if all are there."""
  shares = [_share(host, hosts) for host in range(hosts)]
  with turn(folder, hosts):
    done = [progress_of(folder, share).get('complete') for share in shares]
    if is_done(folder) or not all(done):
      return
    shards.merge(folder)
    items = [line.item for line in shards.all_lines(folder).values()]
    found = {'complete': True, 'n_items': len(items), **summary(items)}
    _write(folder / 'progress.json', found)
    for share in shares:
      (folder / f'progress{share}.json').unlink(missing_ok=True)


def _write(path: epath.Path, found: Mapping[str, Any]) -> None:
  files.write_atomic(path, json.dumps(found, indent=2) + '\n')


def _roll_out(
    run: Run,
    policy: Policy,
    examples: Sequence[Example],
    todo: Sequence[int],
    shard: shards.Shard,
    progress: _Progress,
    *,
    name: str,
) -> None:
  what = f'eval {name}'

  def requests() -> Iterator[Request]:
    for index in todo:
      yield run.request(examples[index], seed=('eval',), what=what)

  with (
      metrics.Progress(what, total=len(todo)) as bar,
      _Scorer(run, shard, progress) as scorer,
  ):

    def finished(
        position: int, request: Request, trajectory: Trajectory
    ) -> None:
      scorer.add(todo[position], request.example, trajectory)
      bar.advance()

    rollout_each(
        policy,
        run.executor,
        run.chat,
        requests(),
        finished,
        limits=run.limits,
    )


def _is_spoilt(item: Mapping[str, Any]) -> bool:
  """Whether it has to be rolled out again; not for want of a verdict."""
  return not item['valid'] and not item['unjudged']


def _judge_again(
    run: Run,
    examples: Sequence[Example],
    mine: Sequence[int],
    shard: shards.Shard,
    progress: _Progress,
) -> None:
  """Judges what was rolled out when the judge had no word to give."""
  if run.judge is None:
    return
  waiting = [i for i in mine if shard.items.get(i, {}).get('unjudged')]
  if not waiting:  # Spares reading the whole file.
    return
  with _Scorer(run, shard, progress) as scorer:
    for index, trajectory in zip(waiting, shard.read(waiting), strict=True):
      trajectory = dataclasses.replace(trajectory, verdict=None)
      scorer.add(index, examples[index], trajectory)


class _Scorer:
  """Scores what has finished and keeps it, while the rollout goes on.

  What a judge has no word on when it stops the run is kept without one.
  """

  def __init__(self, run: Run, shard: shards.Shard, progress: _Progress):
    self._run, self._shard, self._progress = run, shard, progress
    self._pending: list[tuple[int, Example, Trajectory]] = []
    self._worker = futures.ThreadPoolExecutor(1)
    self._at_work: futures.Future[None] | None = None
    self._judging = True

  def __enter__(self) -> _Scorer:
    return self

  def __exit__(self, *unused_error) -> None:
    """Keeps all that has finished, whatever has ended the rollout."""
    try:
      self._wait()
      if self._pending:
        self._start()
        self._wait()
    finally:
      self._worker.shutdown()

  def add(self, index: int, example: Example, trajectory: Trajectory) -> None:
    """Takes a finished item.

    Raises:
      UserError: An earlier one could not be judged or written.
    """
    self._pending.append((index, example, trajectory))
    at_work = self._at_work is not None and not self._at_work.done()
    if not at_work or len(self._pending) > _MOST_PENDING:
      self._wait()
      self._start()

  def _start(self) -> None:
    batch, self._pending = self._pending, []
    self._at_work = self._worker.submit(self._keep, batch)

  def _wait(self) -> None:
    if self._at_work is not None:
      at_work, self._at_work = self._at_work, None
      at_work.result()

  def _keep(self, batch: Sequence[tuple[int, Example, Trajectory]]) -> None:
    examples = [example for _, example, _ in batch]
    trajectories = [trajectory for _, _, trajectory in batch]
    stopped: BaseException | None = None
    try:
      if self._judging:
        scored = self._run.scored(examples, trajectories)
      else:
        scored = self._run.unjudged(examples, trajectories)
    except (RunStopped, Interrupted) as error:
      stopped, self._judging = error, False
      scored = self._run.unjudged(examples, trajectories)
    for (index, example, _), trajectory in zip(batch, scored, strict=True):
      self._shard.add(index, example, trajectory, item_of(trajectory))
      self._progress.advance()
    if stopped is not None:
      raise stopped


class _Progress:
  """Says in a file how far a host's share is."""

  def __init__(self, path: epath.Path, shard: shards.Shard, *, n: int):
    self._path, self._shard, self._n = path, shard, n
    self._started = self._written = time.monotonic()
    self._n_now = 0
    self.write()

  def advance(self) -> None:
    self._n_now += 1
    if time.monotonic() - self._written > _PROGRESS_S:
      self.write()

  def write(self, *, complete: bool = False) -> None:
    self._written = time.monotonic()
    found = {
        'complete': complete,
        'n_items': self._n,
        **summary(self._shard.items.values()),
    }
    if self._n_now:
      seconds = self._written - self._started
      found['seconds_per_item'] = seconds / self._n_now
    _write(self._path, found)

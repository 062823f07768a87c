"""Rolls a policy out once per example; the report reads what this writes.

    FOLDER/trajectories.jsonl, ...   see storage/rollouts.py
    FOLDER/progress.json             how far it is, and the results so far
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
import json
import time
from typing import Any

from etils import epath

from gog_jax.evaluation.collect import Collector
from gog_jax.evaluation.collect import MEANS
from gog_jax.evaluation.collect import USAGE
from gog_jax.rollout.policy import Policy
from gog_jax.run import Run
from gog_jax.storage import files
from gog_jax.storage import rollouts
from gog_jax.types import Example

_PROGRESS_S = 2.0


def evaluate(
    run: Run,
    make_policy: Callable[[], Policy],
    examples: Sequence[Example],
    folder: epath.Path,
    *,
    name: str,
    retry_errors: bool = True,
) -> None:
  """Rolls a policy out on the examples that are not finished yet.

  Args:
    run: With the policy's tools and dialect.
    make_policy: Called if there is anything to do.
    examples: Read as they are asked for.
    folder: Where the items go.
    name: The policy's.
    retry_errors: Whether items that the infrastructure spoilt when this was
      last run are rolled out again.

  Raises:
    UserError: As `Collector.collect`; all that finished before is kept.
  """
  if is_done(folder) and not (retry_errors and errors(folder)):
    return
  what = f'eval {name}'
  request = lambda i: run.request(examples[i], seed=('eval',), what=what)
  with Collector(run, folder, request) as collector:
    progress = _Progress(folder, collector.items, n=len(examples))
    collector.on_kept = progress.advance
    try:
      collector.collect(
          range(len(examples)),
          make_policy,
          what=what,
          retry_errors=retry_errors,
      )
    finally:
      progress.write()
    collector.rollouts.settle()
    progress.write(complete=True)


def is_done(folder: epath.Path) -> bool:
  """Whether every item is there."""
  return bool(progress_of(folder).get('complete'))


def errors(folder: epath.Path) -> int:
  """How many items the infrastructure spoilt."""
  return progress_of(folder).get('infra_errors', 0)


def progress_of(folder: epath.Path) -> dict[str, Any]:
  """What progress.json says; empty where there is none."""
  path = folder / 'progress.json'
  try:
    return json.loads(path.read_text()) if path.exists() else {}
  except ValueError:
    return {}  # It is written anew; the items are in other files.


def facts(folder: epath.Path) -> dict[str, Any]:
  """Means over the valid items in `folder`, `n` of them.

  The judge's failures, `judge_errors`, are among the `infra_errors`.
  """
  found = summary(rollouts.items(folder).values())
  kept = ('n', 'infra_errors', 'judge_errors', *MEANS)
  return {key: found[key] for key in kept}


def summary(items: Iterable[Mapping[str, Any]]) -> dict[str, Any]:
  """Counts and sums over items, means over the valid ones."""
  listed = list(items)
  valid = [item for item in listed if item['valid']]

  def mean(part: str) -> float | None:
    values = [item[part] for item in valid]
    return sum(values) / len(values) if values else None

  sums = ('turns', 'calls', 'searches', *USAGE, 'price', 'seconds')
  return {
      'n_done': len(listed),
      'n': len(valid),
      'infra_errors': len(listed) - len(valid),
      'judge_errors': sum(item['unjudged'] for item in listed),
      **{part: mean(part) for part in MEANS},
      **{part: sum(item[part] for item in listed) for part in sums},
  }


class _Progress:
  """Says in a file how far an evaluation is."""

  def __init__(
      self,
      folder: epath.Path,
      items: Mapping[int, Mapping[str, Any]],
      *,
      n: int,
  ):
    self._path, self._items, self._n = folder / 'progress.json', items, n
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
        **summary(self._items.values()),
    }
    if self._n_now:
      seconds = self._written - self._started
      found['seconds_per_item'] = seconds / self._n_now
    files.write_atomic(self._path, json.dumps(found, indent=2) + '\n')

"""The evaluations of a run: which policies, on what, and how far they are.

Each policy has a folder with a manifest of its own, so that another can be
added at any time, and so that one that was trained anew is noticed.

    FOLDER/trajectories.jsonl, ...   see storage/rollouts.py
    FOLDER/progress.json             how far it is, and the results so far
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
import dataclasses
import functools
import json
import time
from typing import Any

from etils import epath

from gog_jax import seams
from gog_jax.config import paradigms
from gog_jax.config import picked
from gog_jax.config.evaluation import BenchmarkConfig
from gog_jax.errors import UserError
from gog_jax.evaluation import policies
from gog_jax.evaluation.collect import Collector
from gog_jax.evaluation.collect import MEANS
from gog_jax.evaluation.collect import USAGE
from gog_jax.questions import benchmarks
from gog_jax.rewards import score as rewards
from gog_jax.rollout.policy import Policy
from gog_jax.run import model_digest
from gog_jax.run import Run
from gog_jax.storage import files
from gog_jax.storage import rollouts
from gog_jax.storage.manifest import Manifest
from gog_jax.types import Example

# What a policy's conversations depend on, beside who it is.
TOOLS = (
    'tools.offered', 'tools.backend', 'tools.top_k', 'tools.hit_characters',
)
ROLLOUT = ('seed', 'model', *TOOLS, 'rollout', 'batch.row_patches')
TRAINED = ('trainable', 'lora')
# What may change while evaluations are under way: none hangs on it.
NO_IDENTITY = (
    'policies', 'script', 'retry_errors',
    # Which moves with every start of a server, and may hold a key.
    'url',
    'key_variable', 'timeout_s', 'max_attempts', 'concurrency', 'price_in',
    'price_out', 'max_spend', 'ledger',
)  # fmt: skip
_PROGRESS_S = 2.0


def items(run: Run) -> benchmarks.Benchmark:
  """What `config.eval.benchmark` names; the same for all its policies.

  Raises:
    UserError: It is not there, or not what it was.
  """
  c = run.config
  name, n = c.eval.benchmark, c.eval.n_examples
  if c.world_split:
    name = 'world' if name == paradigms.TEST else name
    section = dataclasses.replace(c.benchmark, name=name)
    return benchmarks.open(section, workdir=run.workdir, n_world=n)
  if name == paradigms.TEST:
    title, held = ', '.join(c.questions.test), run.questions('test')
    return benchmarks.Benchmark(
        name=title,
        title=title,
        examples=held.part(0, min(n, len(held))),
        drops=held.drops,
        digest=held.digest,
        label='not in the paper',
    )
  return _load(run.workdir, dataclasses.replace(c.benchmark, name=name))


@functools.lru_cache(maxsize=1)  # It reads every image.
def _load(
    workdir: epath.Path, section: BenchmarkConfig
) -> benchmarks.Benchmark:
  return benchmarks.open(section, workdir=workdir)


def check(config: Any) -> None:
  """Refuses a benchmark that does not exist, or lacks its files.

  Raises:
    UserError: Says which flag to pass.
  """
  name = config.eval.benchmark
  if name == paradigms.TEST:
    return
  if benchmarks.find(name).read and not config.benchmark.path:
    raise UserError(
        f'config.eval.benchmark={name} needs its files: pass '
        '--config.benchmark.path=, a folder, a file or an id on the hub'
    )


def needs(config: Any) -> tuple[str, ...]:
  """The stages whose output evaluations read."""
  names = config.eval.policies
  trained = [paradigms.parse(name, config.arms).stage for name in names]
  world = config.world_split
  if config.eval.benchmark == paradigms.TEST:
    world = 'world' in config.questions.test
  data = ['data'] if world else []
  return tuple(dict.fromkeys([*data, *filter(None, trained)]))


def folder_of(run: Run) -> epath.Path:
  """Where evaluations go; those of other benchmarks stand apart."""
  benchmark = run.config.eval.benchmark
  return run.workdir / paradigms.folder_name('eval', benchmark)


def manifest_of(
    run: Run, name: str, identity: Callable[[str], str]
) -> Manifest:
  """The identity of one policy's evaluation.

  Args:
    run: The whole run.
    name: The policy's.
    identity: Of a stage that the evaluation is built on.
  """
  policy = paradigms.parse(name, run.config.arms)
  own = policies.config_of(run.config, name)
  sections = [*ROLLOUT, 'reward', 'eval']
  inputs = rewards.identity(own.reward) | {
      'model_folder': model_digest(own),
      'searched': run.toolbox.version,
  }
  if run.judge is not None:
    inputs['judge'] = run.judge.identity
  if policy.stage or policy.model == paradigms.BASE:
    sections += TRAINED
  if policy.stage:
    inputs[policy.stage] = identity(policy.stage)
  if policy.model == paradigms.REMOTE:
    sections.append('remote')
  if policy.model == paradigms.SCRIPT:
    inputs['script'] = seams.digest(
        run.config.eval.script, {}, field='config.eval.script'
    )
  if run.config.world_split:
    inputs['data'] = identity('data')
  else:
    inputs['benchmark'] = items(run).digest
    if scope := run.config.benchmark.scope:
      inputs['scope'] = scope
  return Manifest(
      stage=f'eval {name}',
      config=picked(own, sections, without=NO_IDENTITY),
      inputs=inputs,
  )


def is_complete(run: Run, name: str, identity: Callable[[str], str]) -> bool:
  """Whether a policy's evaluation is done, and nothing is to be tried again.

  Raises:
    UserError: It was made with other settings; names them.
  """
  folder = folder_of(run) / name
  if not manifest_of(run, name, identity).is_complete(folder):
    return False
  return not (run.config.eval.retry_errors and errors(folder))


def are_complete(run: Run, identity: Callable[[str], str]) -> bool:
  """Whether all of them are; raises as `is_complete`."""
  return all(
      is_complete(run, name, identity) for name in run.config.eval.policies
  )


def make(run: Run, name: str, identity: Callable[[str], str]) -> None:
  """Evaluates one policy.

  Raises:
    UserError: As `evaluate`.
  """
  own = policies.run_of(run, name)
  folder = folder_of(run) / name
  manifest = manifest_of(run, name, identity)
  found = items(run)
  # A report may be made while it is under way.
  manifest.write(folder, complete=False, benchmark=dict(found.facts))
  evaluate(
      own,
      lambda: policies.make(own, name),
      found.examples,
      folder,
      name=name,
      retry_errors=run.config.eval.retry_errors,
  )
  manifest.write(
      folder,
      complete=True,
      facts=facts(folder),
      benchmark=dict(found.facts),
      **({} if run.judge is None else {'judge': run.judge.about}),
  )


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
    files.write_json(self._path, found)

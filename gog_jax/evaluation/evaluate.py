"""The evaluations of a run: which policies, on what, and how far they are.

Each policy is a stage of its own, so that another can be added at any time, and
so that one that was trained anew is noticed.

    FOLDER/trajectories.jsonl, ...   see storage/rollouts.py
    FOLDER/progress.json             how far it is, and the results so far
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
import dataclasses
import functools
import json
import time
from typing import Any

from etils import epath

from gog_jax import seams
from gog_jax.config import Config
from gog_jax.config import paradigms
from gog_jax.config.evaluation import BenchmarkConfig
from gog_jax.config.tools import YOURS
from gog_jax.errors import UserError
from gog_jax.evaluation import policies
from gog_jax.evaluation.collect import Collector
from gog_jax.evaluation.collect import infra_error
from gog_jax.evaluation.collect import MEANS
from gog_jax.evaluation.collect import USAGE
from gog_jax.questions import benchmarks
from gog_jax.rewards import levels
from gog_jax.rewards.behaviour import mean
from gog_jax.rollout.policy import Policy
from gog_jax.run import Run
from gog_jax.storage import files
from gog_jax.storage import metrics

_PROGRESS_S = 2.0

Items = Mapping[int, Mapping[str, Any]]


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
    return benchmarks.of_questions(
        title, benchmarks.users(title), held, min(n, len(held))
    )
  return _load(run.workdir, dataclasses.replace(c.benchmark, name=name))


@functools.lru_cache(maxsize=1)  # It reads every image.
def _load(
    workdir: epath.Path, section: BenchmarkConfig
) -> benchmarks.Benchmark:
  return benchmarks.open(section, workdir=workdir)


def check(config: Config) -> None:
  """Refuses a benchmark that does not exist, lacks its files or a search.

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
  if config.foreign and config.evaluates and config.tools.searches_world:
    raise UserError(
        f'config.tools.backend: the embedded world knows nothing about {name}: '
        f'{YOURS}'
    )


def needs(config: Config, name: str) -> tuple[str, ...]:
  """The stages whose output a policy's evaluation reads."""
  stage = paradigms.parse(name, config.arms).stage
  world = config.world_split
  if config.eval.benchmark == paradigms.TEST:
    world = config.questions.has_world('test')
  return (*(['data'] if world else []), *([stage] if stage else []))


def inputs(run: Run, name: str) -> dict[str, str]:
  """Fingerprints of what else it reads."""
  c, found = run.config, {}
  if paradigms.parse(name, c.arms).model == paradigms.SCRIPT:
    found['script'] = seams.digest(
        c.eval.script, {}, field='config.eval.script'
    )
  if not c.world_split:
    found['benchmark'] = items(run).digest
    if c.benchmark.scope:
      found['scope'] = c.benchmark.scope
  return found


def trained_on(run: Run) -> dict[str, int]:
  """How many graded questions are evaluated: what is may be chosen later."""
  path = run.workdir / 'grade' / 'graded.jsonl'
  c = run.config.questions
  if c.only_world('train') or c.leaks == 'keep' or not path.exists():
    return {}
  leaks = {*run.questions('train').leaks}
  n = sum(one.example_id in leaks for one in levels.read_grades(path.parent))
  if n:
    metrics.say(f'eval: {n} of the questions evaluated were there to train on')
  return {'trained_on': n}


def folder_of(run: Run, name: str) -> epath.Path:
  """Where a policy's goes; those of other benchmarks stand apart."""
  benchmark = run.config.eval.benchmark
  return run.workdir / paradigms.folder_name('eval', benchmark) / name


def evaluate(
    run: Run,
    folder: epath.Path,
    *,
    name: str,
    make_policy: Callable[[], Policy] | None = None,
) -> dict[str, Any]:
  """Rolls a policy out on the items that are not finished yet.

  With `eval.retry_errors`, also on those that the infrastructure spoilt when
  this was last run.

  Args:
    run: The policy's own, see `policies.run_of`.
    folder: Where the items go.
    name: The policy's.
    make_policy: In place of what makes the policy of that name.

  Returns:
    The `facts` of all items.

  Raises:
    UserError: As `Collector.collect`, or the infrastructure failed every item;
      all that finished before is kept.
  """
  if is_done(run, folder):
    return facts(folder)
  examples = items(run).examples
  what = f'eval {name}'
  request = lambda i: run.request(examples[i], seed=('eval',), what=what)
  progress = _Progress(folder, n_items=len(examples))
  with Collector(run, folder, request, on_kept=progress.update) as collector:
    progress.write(collector.items)
    try:
      collector.collect(
          range(len(examples)),
          make_policy or functools.partial(policies.make, run, name),
          what=what,
          retry_errors=run.config.eval.retry_errors,
      )
    finally:
      progress.write(collector.items)
    _require_valid(collector, what)
    collector.rollouts.settle()
    progress.write(collector.items, complete=True)
  return facts(folder)


def _require_valid(collector: Collector, what: str) -> None:
  items = collector.items
  if items and not any(item['valid'] for item in items.values()):
    (one,) = collector.rollouts.read([min(items)])
    reason = ': '.join(infra_error(one))
    raise UserError(
        f'{what}: the infrastructure failed all {len(items)} items ({reason}), '
        'so there is no accuracy; once that is mended, the same command asks '
        'them again (with --config.eval.retry_errors=True)'
    )


def is_done(run: Run, folder: epath.Path) -> bool:
  """Whether every item is there, and none is to be tried again."""
  found = progress_of(folder)
  retry_errors = run.config.eval.retry_errors and found.get('infra_errors')
  return bool(found.get('complete')) and not retry_errors


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
  found = progress_of(folder)
  kept = ('n', 'infra_errors', 'judge_errors', *MEANS)
  return {key: found[key] for key in kept}


def summary(items: Iterable[Mapping[str, Any]]) -> dict[str, Any]:
  """Counts and sums over items, means over the valid ones."""
  listed = list(items)
  valid = [item for item in listed if item['valid']]
  sums = ('turns', 'calls', 'searches', *USAGE, 'price', 'seconds')
  return {
      'n_done': len(listed),
      'n': len(valid),
      'infra_errors': len(listed) - len(valid),
      'judge_errors': sum(item['unjudged'] for item in listed),
      **{part: mean([item[part] for item in valid]) for part in MEANS},
      **{part: sum(item[part] for item in listed) for part in sums},
  }


class _Progress:
  """Says in a file how far an evaluation is."""

  def __init__(self, folder: epath.Path, *, n_items: int):
    self._path, self._n_items = folder / 'progress.json', n_items
    self._started = self._written = time.monotonic()
    self._n_now = 0

  def update(self, items: Items) -> None:
    """Takes note of one more item; the file follows now and then."""
    self._n_now += 1
    if time.monotonic() - self._written > _PROGRESS_S:
      self.write(items)

  def write(self, items: Items, *, complete: bool = False) -> None:
    self._written = time.monotonic()
    found = {
        'complete': complete,
        'n_items': self._n_items,
        **summary(items.values()),
    }
    if self._n_now:
      seconds = self._written - self._started
      found['seconds_per_item'] = seconds / self._n_now
    files.write_json(self._path, found)

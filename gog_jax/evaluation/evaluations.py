"""The evaluations of a run: which policies, on what, and whether they are done.

Each policy has a folder and in it a manifest of its own, so that another can be
added at any time, and so that who was trained anew is noticed.
"""

from __future__ import annotations

from collections.abc import Callable
import functools
from typing import Any

from etils import epath

from gog_jax.app.config_fields import fields_of
from gog_jax.evaluation import evaluate
from gog_jax.evaluation import paradigms
from gog_jax.evaluation import policies
from gog_jax.evaluation import scripts as plays
from gog_jax.questions import benchmarks
from gog_jax.rewards import score as rewards
from gog_jax.run import Run
from gog_jax.storage.manifest import Manifest

# What a policy's conversations depend on, beside who it is.
TOOLS = ('tools.backend', 'tools.top_k', 'tools.hit_characters')
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


def items(run: Run) -> benchmarks.Benchmark:
  """What `config.eval.benchmark` names; the same for all its policies.

  Raises:
    UserError: It is not there, or not what it was.
  """
  name = run.config.eval.benchmark
  if paradigms.is_world(name):
    n = run.config.eval.n_examples
    return benchmarks.open(name, workdir=run.workdir, n_world=n)
  fields = run.config.benchmark.to_dict() | {'name': name}
  return _load(run.workdir, tuple(sorted(fields.items())))


@functools.lru_cache(maxsize=1)  # It reads every image.
def _load(
    workdir: epath.Path, fields: tuple[tuple[str, Any], ...]
) -> benchmarks.Benchmark:
  return benchmarks.open(**dict(fields), workdir=workdir)


def needs(config: Any) -> tuple[str, ...]:
  """The stages whose output evaluations read."""
  names = config.eval.policies
  trained = [policies.named(config, name).stage for name in names]
  data = ['data'] if paradigms.is_world(config.eval.benchmark) else []
  return tuple(dict.fromkeys([*data, *filter(None, trained)]))


def folder_of(run: Run) -> epath.Path:
  """Where evaluations go; those of other benchmarks stand apart."""
  return run.workdir / paradigms.folder_name('eval', run.config.eval.benchmark)


def manifest_of(
    run: Run, name: str, identity: Callable[[str], str]
) -> Manifest:
  """The identity of one policy's evaluation.

  Args:
    run: The whole run.
    name: The policy's.
    identity: Of a stage that the evaluation is built on.
  """
  policy = policies.named(run.config, name)
  own = policies.run_of(run, name)
  sections = [*ROLLOUT, 'reward', 'eval']
  inputs = rewards.identity(own.config.reward) | {
      'model_folder': own.model_digest,
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
    inputs['script'] = plays.digest(run.config.eval.script)
  if paradigms.is_world(run.config.eval.benchmark):
    inputs['data'] = identity('data')
  else:
    inputs['benchmark'] = items(run).digest
  return Manifest(
      stage=f'eval {name}',
      config=fields_of(own.config, sections, without=NO_IDENTITY),
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
  return not (run.config.eval.retry_errors and evaluate.errors(folder))


def are_complete(run: Run, identity: Callable[[str], str]) -> bool:
  """Whether all of them are; raises as `is_complete`."""
  return all(
      is_complete(run, name, identity) for name in run.config.eval.policies
  )


def make(run: Run, name: str, identity: Callable[[str], str]) -> None:
  """Evaluates one policy.

  Raises:
    UserError: As `evaluate.evaluate`.
  """
  own = policies.run_of(run, name)
  folder = folder_of(run) / name
  manifest = manifest_of(run, name, identity)
  manifest.write(folder, complete=False)
  found = items(run)
  evaluate.evaluate(
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
      facts=evaluate.facts(folder),
      benchmark=dict(found.facts),
      **({} if run.judge is None else {'judge': run.judge.about}),
  )

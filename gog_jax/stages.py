"""The walk: which stage follows which, and when one is complete.

A stage owns the folder of its name in the workdir. It is complete when its
manifest says so, and is then not run again; a manifest made from other
settings stops the run and names the fields. In the toy profile a stage runs
those it builds on first; other profiles name the command instead, since nobody
wants hours of work unasked.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
import dataclasses
from typing import Any

from etils import epath
from flax import nnx

from gog_jax import evaluate
from gog_jax import grade
from gog_jax import metrics
from gog_jax import report
from gog_jax.boxes import KINDS
from gog_jax.errors import UserError
from gog_jax.manifest import Manifest
from gog_jax.models.layers import REMAT_POLICIES
from gog_jax.models.lora import TRAINABLE
from gog_jax.models.vlm import VLM
from gog_jax.rewards import ACCURACIES
from gog_jax.rollout.batching import AGGREGATIONS
from gog_jax.run import Run
from gog_jax.train import pretrain
from gog_jax.train import rl
from gog_jax.train import sft
from gog_jax.train.optimizer import DECAYS
from gog_jax.train.optimizer import OPTIMIZERS


@dataclasses.dataclass(frozen=True)
class Stage:
  """One step of the walk.

  Attributes:
    sections: Config fields that its output depends on.
    needs: Stages whose output it reads.
    make: (run, folder) -> facts for the manifest.
  """

  sections: tuple[str, ...]
  needs: tuple[str, ...]
  make: Callable[[Run, epath.Path], Mapping[str, Any]]


def _grade(run: Run, folder: epath.Path) -> Mapping[str, Any]:
  policy = run.make_policy(_trained(run, 'sft'), greedy=False)
  return grade.facts(
      grade.grade_examples(run, policy, run.graded_examples(), folder)
  )


def _eval(run: Run, folder: epath.Path) -> Mapping[str, Any]:
  examples = run.examples('test', n=run.config.eval.n_examples)
  return {
      name: evaluate.evaluate(
          run,
          run.make_policy(_trained(run, name), greedy=True),
          examples,
          folder / name,
          name=name,
      )
      for name in run.config.eval.policies
  }


def _report(run: Run, folder: epath.Path) -> Mapping[str, Any]:
  del folder  # report reads and writes the workdir.
  summary = report.make(
      run.workdir,
      n_trajectories=run.config.report.n_trajectories,
      seed=run.seed('report'),
  )
  print(report.table(summary))
  return {'page': str(run.workdir / 'report' / 'index.html')}


def _trained(run: Run, stage: str) -> VLM:
  model = run.load_model()
  nnx.update(model, run.trained_params(model, stage))
  return model


_ROLLOUT = ('seed', 'model', 'tools', 'rollout', 'batch.row_patches')
_TRAINED = ('trainable', 'lora')

STAGES: dict[str, Stage] = {
    'data': Stage(('data',), (), lambda run, folder: run.make_data(folder)),
    'demos': Stage(
        (*_ROLLOUT, 'sft.n_demos', 'reward'), ('data',), sft.make_demos
    ),
    'sft': Stage(
        ('seed', 'model', *_TRAINED, 'batch', 'sft'), ('demos',), sft.train
    ),
    'grade': Stage((*_ROLLOUT, *_TRAINED, 'reward', 'grade'), ('sft',), _grade),
    'rl': Stage(
        (*_ROLLOUT, *_TRAINED, 'batch', 'reward', 'rl'), ('grade',), rl.train
    ),
    'eval': Stage((*_ROLLOUT, 'reward', 'eval'), ('rl',), _eval),
    'report': Stage(('seed', 'report'), ('eval',), _report),
    'pretrain': Stage(
        ('seed', 'model', 'batch', 'rollout', 'pretrain'), (), pretrain.train
    ),
}

# What `config.stage` names, and the stage that this command ends with.
TARGETS = {
    'pretrain': 'pretrain',
    'sft': 'sft',
    'grade': 'grade',
    'rl': 'report',
    'eval': 'report',
}

# What a command makes itself, at any size, where that is not one stage alone.
_OWN = {
    'sft': ('data', 'demos', 'sft'),
    'eval': ('eval', 'report'),
    'rl': ('rl', 'eval', 'report'),
}


# Fields that take one of a few words.
_CHOICES = {
    'trainable': TRAINABLE,
    'model.dtype': ('float32', 'bfloat16'),
    'model.remat': REMAT_POLICIES,
    'model.box': KINDS,
    'reward.accuracy': tuple(ACCURACIES),
    'rl.aggregation': AGGREGATIONS,
} | {
    f'{stage}.optimizer.{field}': known
    for stage in ('sft', 'rl', 'pretrain')
    for field, known in (('name', OPTIMIZERS), ('decay', DECAYS))
}


# Fields that count something that has to be there.
_POSITIVE = (
    'sft.n_demos',
    'sft.steps',
    'sft.batch_size',
    'sft.checkpoint_every',
    'grade.n_queries',
    'grade.samples',
    'grade.chunk',
    'rl.steps',
    'rl.n_prompts',
    'rl.group_size',
    'rl.updates_per_batch',
    'rl.checkpoint_every',
    'rl.trajectories_every',
    'eval.n_examples',
    'sampler.n_slots',
    'sampler.chunk',
    'rollout.max_turns',
    'lora.rank',
    'pretrain.batch_size',
    'pretrain.row_multiple',
    'pretrain.n_exchanges',
    'pretrain.n_probes',
    'pretrain.checkpoint_every',
)
# Fields that hold a share.
_SHARES = (
    'grade.solved',
    'grade.often_failed',
    'pretrain.reading',
    'pretrain.copying',
)


def check(config) -> None:
  """Refuses values that a late stage would stumble over.

  Raises:
    UserError: A field holds a word that nothing knows (lists those known), or
      a number that is too small or no share, or fields contradict each other.
  """

  def applies(field: str) -> bool:
    return not field.startswith('pretrain.') or config.stage == 'pretrain'

  for field, known in _CHOICES.items():
    if not applies(field):
      continue
    value = config_field(config, field)
    if value not in known:
      raise UserError(
          f'config.{field} is {value!r}, not one of {", ".join(known)}'
      )
  for field in _POSITIVE:
    if applies(field) and config_field(config, field) < 1:
      raise UserError(f'config.{field} must be 1 or more')
  for field in _SHARES:
    if applies(field) and not 0 <= config_field(config, field) <= 1:
      raise UserError(f'config.{field} is a share, from 0 to 1')
  if applies('pretrain.steps') and config.pretrain.steps:
    if not 0 <= config.pretrain.reading_steps < config.pretrain.steps:
      raise UserError(
          'config.pretrain.reading_steps must be fewer than pretrain.steps '
          f'({config.pretrain.steps}), or no picture is ever shown'
      )
  for stage in ('sft', 'rl'):
    name = config[stage].optimizer.name
    if name == 'muon' and config.trainable == 'lora':
      raise UserError(
          f'config.{stage}.optimizer.name=muon trains kernels, and with '
          'config.trainable=lora none is trained: choose one or the other'
      )


def walk(run: Run) -> None:
  """Runs what `config.stage` names and, first, whatever it needs.

  Raises:
    UserError: An unknown stage, a stage made with other settings, or, outside
      the toy profile, a stage that another command must make first.
  """
  target = run.config.stage
  if target not in TARGETS:
    raise UserError(
        f'unknown stage {target!r}; there are {", ".join(TARGETS)}'
    )
  check(run.config)
  run.check()
  for name in _in_order(TARGETS[target]):
    manifest = manifest_of(run, name)
    folder = run.workdir / name
    # A report is quick to make, from whatever is there.
    if name != 'report' and manifest.is_complete(folder):
      metrics.say(f'{name}: complete in {folder}, reused')
      continue
    if run.config.profile != 'toy' and not _is_own(name, target):
      raise UserError(
          f'{target} needs {name}, which is not complete in {run.workdir}: '
          f'run python -m gog_jax.main --config=configs/{_page_of(name)}.py:'
          f'{run.config.profile} --workdir={run.workdir} first'
      )
    manifest.write(folder, complete=False)
    facts = STAGES[name].make(run, folder)
    manifest.write(folder, complete=True, facts=facts)
    metrics.say(f'{name}: done ' + _shown(facts))


def manifest_of(run: Run, name: str) -> Manifest:
  """The stage's identity: its config fields and its inputs' fingerprints."""
  stage = STAGES[name]
  fields = {
      field: config_field(run.config, field) for field in stage.sections
  }
  return Manifest(
      stage=name,
      config=fields,
      inputs={
          needed: manifest_of(run, needed).fingerprint()
          for needed in stage.needs
      }
      | ({'model_folder': run.model_digest} if 'model' in fields else {}),
  )


def _in_order(target: str) -> list[str]:
  order = []
  for needed in STAGES[target].needs:
    order += [name for name in _in_order(needed) if name not in order]
  return order + [target]


def _is_own(name: str, target: str) -> bool:
  """Whether the command for `target` makes this stage itself, at any size."""
  return name in _OWN.get(target, (target,))


def _page_of(name: str) -> str:
  """The config page whose command makes this stage at any size."""
  return next((page for page, own in _OWN.items() if name in own), name)


def config_field(config, field: str):
  for part in field.split('.'):
    config = config[part]
  return config.to_dict() if hasattr(config, 'to_dict') else config


def _shown(facts: Mapping[str, Any]) -> str:
  parts = []
  for name, value in facts.items():
    if isinstance(value, Mapping):
      parts.append(f'{name} ({_shown(value)})')
    elif isinstance(value, float):
      parts.append(f'{name} {value:.3f}')
    else:
      parts.append(f'{name} {value}')
  return ', '.join(parts)

"""The stages: what each makes, from what, and how its output is identified."""

from __future__ import annotations

from collections.abc import Mapping
import dataclasses
import functools
import hashlib
import re
from typing import Any

from etils import epath

from gog_jax.app import plans
from gog_jax.app.stage import Stage
from gog_jax.config import Config
from gog_jax.config import paradigms
from gog_jax.config.pages import PretrainPage
from gog_jax.conversations import sft_data
from gog_jax.evaluation import evaluate
from gog_jax.evaluation import grade
from gog_jax.evaluation import policies
from gog_jax.models import start as start_lib
from gog_jax.questions import checked
from gog_jax.report import pages as report
from gog_jax.report import text as report_text
from gog_jax.run import Run
from gog_jax.run import RunOf
from gog_jax.storage import files
from gog_jax.storage.manifest import birthmark
from gog_jax.storage.manifest import Manifest
from gog_jax.storage.manifest import read
from gog_jax.tools.base import describe
from gog_jax.toy import dataset
from gog_jax.toy import demos
from gog_jax.toy import expert
from gog_jax.toy import pretrain
from gog_jax.toy.backend import WorldBackend
from gog_jax.train import curriculum
from gog_jax.train import rl
from gog_jax.train import sft

EVAL = 'eval '  # Begins the names of evaluations; a policy's follows.

# Config fields that conversations depend on; then, that weights depend on.
_TOOLS = (
    'tools.offered', 'tools.text', 'tools.image', 'tools.top_k',
    'tools.hit_characters',
)
_ROLLOUT = ('seed', 'model', *_TOOLS, 'rollout', 'batch.row_patches')
_TRAINED = ('trainable', 'lora')
_SFT = ('seed', 'model', *_TRAINED, 'batch', 'sft')
_RL = (*_ROLLOUT, *_TRAINED, 'batch', 'reward', 'rl')
_DEMOS = (
    *_ROLLOUT, 'reward', 'sft.n_candidates', 'sft.n_demos', 'sft.no_search',
    'sft.recovered',
)  # fmt: skip
# How a policy acts, in fields and inputs: evaluated, it may act otherwise.
_ACTS = ('tools', 'rollout', 'batch', 'reward', 'searched', 'judge')
_EVALUATE = ('eval', 'instruct')  # Pages that use what others trained.
# Of the tools, what prompts say: of no matter once SFT on a file is complete.
_TOLD = 'told'
# Fields that may change while a stage is under way: they leave its output as
# it is.
_NO_IDENTITY = (
    'checkpoint_every', 'trajectories_every', 'trajectories_kept', 'alarms',
    # Of SFT, what stands among a stage's inputs or only matters with them.
    'data', 'data_box', 'data_workers', 'epochs',
    'policies', 'script', 'retry_errors',
    # Of a remote model: its address moves with every start of a server.
    'url', 'key_variable', 'timeout_s', 'max_attempts', 'concurrency',
    'price_in', 'price_out', 'max_spend', 'ledger',
)  # fmt: skip


def _demos(policy: str) -> Stage:
  """The expert's demos with the tools of a policy."""
  return Stage(
      _DEMOS,
      ('data',),
      demos.make_demos,
      pages=('sft',),
      config=lambda config: policies.config_of(config, policy),
      inputs=lambda run: {'maker': expert.version()},
  )


def _validated(config: Config) -> tuple[str, ...]:
  """What SFT hangs on, beside its data, where it asks questions."""
  return (*_TOOLS, 'rollout') if config.sft.n_validation else ()


def _sft(config: Config, policy: str, needs: str) -> Stage:
  """SFT of a policy, with its tools, on the demos of a stage."""
  return Stage(
      (*_SFT, *_validated(config)),
      (needs,),
      functools.partial(sft.train, demos=needs),
      pages=('sft',),
      config=lambda config: policies.config_of(config, policy),
      inputs=lambda run: _asked(
          run, 'validation', asks=run.config.sft.n_validation
      ),
      plan=functools.partial(plans.sft, demos=needs),
      trains=True,
  )


def _sft_on_data(config: Config) -> Stage:
  """SFT on a user's own data; the world is only for its validation."""
  validates = config.sft.n_validation
  world = validates and config.questions.has_world('validation')
  validated = (*_validated(config), 'reward.accuracy') if validates else ()
  return Stage(
      (*_SFT, 'sft.epochs', 'sft.data_box', *validated),
      ('data',) if world else (),
      functools.partial(sft.train, demos=''),
      pages=('sft',),
      config=_by_accuracy,
      about=lambda run: {'data': run.config.sft.data},
      inputs=lambda run: {
          'sft_data': sft_data.digest(run.config.sft.data),
          'leaks': run.config.questions.leaks,
          _TOLD: _told(run),
          **_asked(run, 'validation', asks=validates),
      },
      plan=functools.partial(plans.sft, demos=''),
      trains=True,
  )


def _by_accuracy(config: Config) -> Config:
  """Without the parts of the reward that do not decide what is right."""
  reward = dataclasses.replace(config.reward, extra=())
  return dataclasses.replace(config, reward=reward)


def _told(run: Run) -> str:
  """A digest of what prompts say of the tools."""
  tools = [describe(tool) for tool in run.executor.tools.values()]
  return hashlib.sha256(files.dumps(tools).encode()).hexdigest()[:16]


def _asked(run: Run, split: str, *, asks: Any = True) -> dict[str, str]:
  """The digest of a split's questions, if any; the world's are a stage's."""
  c = run.config
  if not asks or c.questions.only_world(split):
    return {}
  # Not what is evaluated, which may be chosen later.
  origin = run.questions(split).origin
  return {'questions': origin, 'leaks': c.questions.leaks}


def _left_out(run: Run) -> dict[str, Any]:
  """How many questions of one's own were left out, by reason."""
  if run.config.questions.only_world('train'):
    return {}
  return {'left_out': run.questions('train').left_out}


def _grade(run: Run, folder: epath.Path) -> Mapping[str, Any]:
  policy = run.make_policy(run.load_start(run.config.rl.init), greedy=False)
  return grade.facts(
      grade.grade_examples(run, policy, run.graded_examples(), folder)
  )


def _started(config: Config) -> tuple[str, ...]:
  """The stage that RL, and so grading, starts from, if it is one."""
  return ('sft',) if config.rl.init == 'sft' else ()


def _init(run: Run) -> dict[str, str]:
  """The digest of the folder that RL starts from, if it is one."""
  folder = start_lib.folder_of(run.config.rl.init)
  return {} if folder is None else {'init': files.model_digest(folder)}


def _train_rl(run: Run, folder: epath.Path) -> Mapping[str, Any]:
  """RL, for as many steps as its epochs make, if it has any."""
  c = run.config
  if not c.questions.only_world('train'):
    asked = run.questions('train').ids[: c.grade.n_queries]
    if c.validates_rl:
      asked += run.questions('validation').ids[: c.rl.n_validation]
    checked.check_same(asked, folder / 'asked.json')
  if c.rl.epochs:
    n_steps = curriculum.n_steps_of(c.rl, len(curriculum.ids_of(run)))
    sized = dataclasses.replace(c.rl, steps=n_steps)
    run = run.with_config(dataclasses.replace(c, rl=sized))
  return rl.train(run, folder)


def _rl(config: Config, name: str) -> Stage:
  """RL with the page's settings, or with those of an arm."""

  def own(config: Config) -> Config:
    rl = config.arms.get(name, config.rl)
    return dataclasses.replace(config, rl=rl)

  epochs = ('rl.epochs',) if own(config).rl.epochs else ()
  return Stage(
      (*_RL, *epochs),
      ('grade', *_started(own(config))),
      _train_rl,
      pages=('rl',),
      config=own,
      inputs=lambda run: {
          **_init(run.with_config(own(run.config))),
          **_asked(run, 'validation', asks=run.config.validates_rl),
      },
      about=lambda run: {'questions': list(run.config.questions.train)},
      plan=plans.rl,
      trains=True,
  )


def _eval(config: Config, name: str) -> Stage:
  """A policy's evaluation."""
  policy = paradigms.parse(name, config.arms)
  by_rl = policy.stage not in (None, paradigms.SFT, paradigms.SFT_NO_GAZE)
  loaded = policy.stage or policy.model == paradigms.BASE
  return Stage(
      (
          *_ROLLOUT,
          'reward',
          'eval',
          *(_TRAINED if loaded else ()),
          *(['remote'] if policy.model == paradigms.REMOTE else []),
      ),
      evaluate.needs(config, name),
      functools.partial(evaluate.evaluate, name=name),
      pages=('eval', 'rl'),
      config=lambda config: policies.config_of(config, name),
      inputs=lambda run: evaluate.inputs(run, name),
      # A report may be made while it is under way.
      about=lambda run: {
          'benchmark': dict(evaluate.items(run).facts),
          **(evaluate.trained_on(run) if by_rl else {}),
      },
      plan=functools.partial(plans.evaluation, name=name),
      # What its tools or judge failed on is tried again.
      again=lambda run, folder: not evaluate.is_done(run, folder),
  )


def _report(run: Run, folder: epath.Path) -> Mapping[str, Any]:
  n = run.config.report.n_trajectories
  report.show_scalars(run.config, folder, report_on(run, n_trajectories=n))
  return {'page': str(folder / 'index.html')}


def report_on(run: Run, **options: Any) -> dict[str, Any]:
  """Makes the report of a run, see `report.pages.make`, and prints it."""
  summary = report.make(
      run.workdir,
      seed=run.seed('report'),
      benchmark=run.config.eval.benchmark,
      **options,
  )
  print(report_text.table(summary))
  print(report_text.differences(summary))
  return summary


def _start_from(run: RunOf[PretrainPage]) -> dict[str, str]:
  """The base that pretraining goes on from, as it is now."""
  path = run.config.pretrain.start_from
  return {'start_from': files.model_digest(path)} if path else {}


def stages_of(config: Config) -> dict[str, Stage]:
  """Every stage of a run, with its config's arms and evaluations, by name."""
  evaluations = {
      f'{EVAL}{name}': _eval(config, name) for name in config.eval.policies
  }
  # All is trained before anything is evaluated.
  order = [name for one in evaluations.values() for name in one.needs]
  order = tuple(dict.fromkeys([*order, *evaluations]))
  world = ('data',) if config.questions.has_world('train') else ()
  return {
      'data': Stage(
          ('data',),
          (),
          lambda run, folder: dataset.prepare(folder, run.config.data),
          pages=('sft', 'instruct'),
          inputs=lambda run: {'maker': WorldBackend.version},
      ),
      'demos': _demos('sft'),
      'demos_no_gaze': _demos(paradigms.SFT_NO_GAZE),
      'sft': (
          _sft_on_data(config)
          if config.sft.data
          else _sft(config, 'sft', 'demos')
      ),
      'sft_no_gaze': _sft(config, paradigms.SFT_NO_GAZE, 'demos_no_gaze'),
      'grade': Stage(
          (*_ROLLOUT, *_TRAINED, 'reward.accuracy', 'grade', 'rl.init'),
          (*world, *_started(config)),
          _grade,
          pages=('grade',),
          config=_by_accuracy,
          inputs=lambda run: {**_asked(run, 'train'), **_init(run)},
          about=_left_out,
          plan=plans.grade,
      ),
      **{name: _rl(config, name) for name in ('rl', *config.arms)},
      **evaluations,
      'report': Stage(('seed', 'report'), order, _report, pages=('eval', 'rl')),
      'pretrain': Stage(
          ('seed', 'model', 'batch', 'rollout', 'pretrain'),
          (),
          pretrain.train,
          pages=('pretrain',),
          inputs=_start_from,
      ),
  }


def folder_of(run: Run, name: str) -> epath.Path:
  """Where a stage's output goes; that of other benchmarks stands apart."""
  if name.startswith(EVAL):
    return evaluate.folder_of(run, name.removeprefix(EVAL))
  if name == 'report':
    name = paradigms.folder_name(name, run.config.eval.benchmark)
  return run.workdir / name


def manifest_of(run: Run, name: str) -> Manifest:
  """The stage's identity: its config fields and its inputs' fingerprints.

  One that is complete keeps what this run may choose otherwise.
  """
  stage = stages_of(run.config)[name]
  own = stage.config(run.config)
  manifest = Manifest(
      stage=name,
      config=own.picked(stage.sections, without=_NO_IDENTITY),
      inputs={
          **run.inputs(own, stage.sections),
          **stage.inputs(run),
          **{needed: identity(run, needed) for needed in stage.needs},
      },
  )
  saved = read(folder_of(run, name))
  if not saved.get('complete') or name.startswith(EVAL):
    return manifest
  free = [_TOLD]
  if run.config.stage in _EVALUATE and _is_settled(run, name):
    free += _ACTS
  return manifest.but_as(saved, lambda key: re.split('[. ]', key)[0] in free)


def _is_settled(run: Run, name: str) -> bool:
  """Whether nothing will be trained on a stage, itself complete, any more."""
  held = stages_of(run.config)
  trained = [one for one in held['report'].needs if held[one].trains]
  built = [one for one in trained if name in held[one].needs]
  return held[name].trains or all(
      read(folder_of(run, one)).get('complete') for one in built
  )


def identity(run: Run, name: str) -> str:
  """What a stage that needs this one has to be made from."""
  fingerprint = manifest_of(run, name).fingerprint()
  if not stages_of(run.config)[name].trains:
    return fingerprint
  return f'{fingerprint} {birthmark(folder_of(run, name))}'

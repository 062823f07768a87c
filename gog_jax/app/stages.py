"""Which stage follows which, and when one is complete.

A stage owns the folder of its name in the workdir. It is complete when its
manifest says so, and is then not run again; a manifest made from other
settings stops the run and names the fields. With `config.unasked`, as in the
toy profile, a stage runs those it builds on first; else the command is named.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
import dataclasses
import functools
from typing import Any

from etils import epath

from gog_jax.config import Config
from gog_jax.config import paradigms
from gog_jax.config import picked
from gog_jax.conversations import sft_data
from gog_jax.errors import UserError
from gog_jax.evaluation import evaluate
from gog_jax.evaluation import grade
from gog_jax.evaluation import policies
from gog_jax.evaluation.evaluate import ROLLOUT
from gog_jax.evaluation.evaluate import TRAINED
from gog_jax.judge.judge import describe
from gog_jax.report import pages as report
from gog_jax.report import text as report_text
from gog_jax.rewards import score as rewards
from gog_jax.run import build
from gog_jax.run import model_digest
from gog_jax.run import Run
from gog_jax.storage import files
from gog_jax.storage import metrics
from gog_jax.storage.manifest import birthmark
from gog_jax.storage.manifest import Manifest
from gog_jax.tools.counts import trouble
from gog_jax.toy import dataset
from gog_jax.toy import demos
from gog_jax.toy import expert
from gog_jax.toy import pretrain
from gog_jax.toy.backend import WorldBackend
from gog_jax.train import rl
from gog_jax.train import sft

NO_GAZE = paradigms.SFT_NO_GAZE


@dataclasses.dataclass(frozen=True)
class Stage:
  """What makes one folder of the workdir.

  Attributes:
    sections: Config fields that its output depends on.
    needs: Stages whose output it reads.
    make: (run, folder) -> facts for the manifest.
    config: The run's config -> the stage's own.
    version: Of the code that makes it, where its output hangs on that.
    trains: Whether it makes parameters: not reproducible from its settings,
      so later stages record this exact run.
    apart: Whether each part of its output says itself what it was built on.
  """

  sections: tuple[str, ...]
  needs: tuple[str, ...]
  make: Callable[[Run, epath.Path], Mapping[str, Any]]
  config: Callable[[Config], Config] = lambda config: config
  version: str = ''
  trains: bool = False
  apart: bool = False


def _data(run: Run, folder: epath.Path) -> Mapping[str, Any]:
  return dataset.prepare(folder, run.config.data)


def _grade(run: Run, folder: epath.Path) -> Mapping[str, Any]:
  policy = run.make_policy(policies.trained(run, 'sft'), greedy=False)
  return grade.facts(
      grade.grade_examples(run, policy, run.graded_examples(), folder)
  )


def _eval(run: Run, folder: epath.Path) -> Mapping[str, Any]:
  """Evaluates each policy that is not evaluated yet."""
  names = run.config.eval.policies
  of_stage = functools.partial(identity, run)
  for name in names:
    if not evaluate.is_complete(run, name, of_stage):
      evaluate.make(run, name, of_stage)
  return {name: evaluate.facts(folder / name) for name in names}


def _report(run: Run, folder: epath.Path) -> Mapping[str, Any]:
  summary = report.make(
      run.workdir,
      n_trajectories=run.config.report.n_trajectories,
      seed=run.seed('report'),
      benchmark=run.config.eval.benchmark,
  )
  report.show_scalars(run.config, folder, summary)
  _print_summary(summary)
  return {'page': str(folder / 'index.html')}


def _print_summary(summary: dict[str, Any]) -> None:
  print(report_text.table(summary))
  print(report_text.differences(summary))


# What may change while a stage is under way.
_NO_IDENTITY = (
    'checkpoint_every',
    'trajectories_every',
    'alarms',
    # Of SFT, what stands among a stage's inputs or only matters with them.
    'data',
    'data_workers',
    'epochs',
    *evaluate.NO_IDENTITY,
)

_DEMOS = (
    *ROLLOUT,
    'reward',
    'sft.n_candidates',
    'sft.n_demos',
    'sft.no_search',
    'sft.recovered',
)
_TOOLS = evaluate.TOOLS
# Whose questions a stage asks itself.
_ASKED = {'sft': 'validation', NO_GAZE: 'validation', 'grade': 'train'}
_SFT = ('seed', 'model', *TRAINED, 'batch', 'sft', *_TOOLS, 'rollout')
_RL = (*ROLLOUT, *TRAINED, 'batch', 'reward', 'rl')


def _demos(policy: str) -> Stage:
  """The expert's demos with the tools of a policy."""
  return Stage(
      _DEMOS,
      ('data',),
      demos.make_demos,
      config=lambda config: policies.config_of(config, policy),
      version=expert.version(),
  )


def _sft(policy: str, needs: str) -> Stage:
  """SFT of a policy, with its tools, on the demos of a stage."""
  return Stage(
      _SFT,
      (needs,),
      lambda run, folder: sft.train(run, folder, demos=needs),
      config=lambda config: policies.config_of(config, policy),
      trains=True,
  )


def _sft_on_data(config: Config) -> Stage:
  """SFT on a user's own data; the world is only for its validation."""
  validates, validation = config.sft.n_validation, config.questions.validation
  return Stage(
      (*_SFT, 'sft.epochs', *(('reward',) if validates else ())),
      ('data',) if validates and 'world' in validation else (),
      lambda run, folder: sft.train(run, folder, demos=''),
      trains=True,
  )


def _arm(name: str) -> Stage:
  """An RL run with settings of its own."""
  return Stage(
      _RL,
      ('grade',),
      rl.train,
      config=lambda config: dataclasses.replace(config, rl=config.arms[name]),
      trains=True,
  )


def stages_of(config: Config) -> dict[str, Stage]:
  """Every stage of a run, with the arms that its config adds, by name."""
  return {
      'data': Stage(('data',), (), _data, version=WorldBackend.version),
      'demos': _demos('sft'),
      'demos_no_gaze': _demos(NO_GAZE),
      'sft': _sft_on_data(config) if config.sft.data else _sft('sft', 'demos'),
      NO_GAZE: _sft(NO_GAZE, 'demos_no_gaze'),
      'grade': Stage(
          (*ROLLOUT, *TRAINED, 'reward', 'grade'),
          ('data', 'sft') if 'world' in config.questions.train else ('sft',),
          _grade,
      ),
      'rl': Stage(_RL, ('grade',), rl.train, trains=True),
      **{name: _arm(name) for name in config.arms},
      'eval': Stage(
          (*ROLLOUT, *TRAINED, 'reward', 'eval'),
          evaluate.needs(config),
          _eval,
          apart=True,
      ),
      'report': Stage(('seed', 'report'), ('eval',), _report),
      'pretrain': Stage(
          ('seed', 'model', 'batch', 'rollout', 'pretrain'),
          (),
          pretrain.train,
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


def walk(run: Run) -> None:
  """Runs what `config.stage` names and, first, whatever it needs.

  Raises:
    UserError: A stage made with other settings, or, without `config.unasked`,
      a stage that another command must make first.
  """
  files.check_writable(run.workdir)
  if run.config.seeds:
    _walk_seeds(run)
  else:
    bring(run, order_for(run.config), run.config.stage)


def _walk_seeds(run: Run) -> None:
  """One walk for each seed, in a folder of its own, then what all show."""
  folders = {}
  for seed in run.config.seeds:
    folders[seed] = folder = run.workdir / f'seed_{seed}'
    metrics.say(f'seed {seed}: {folder}')
    one = build(
        run.config.of_seed(seed), folder, services=run.services, mesh=run.mesh
    )
    bring(one, order_for(one.config), one.config.stage)
  if TARGETS[run.config.stage] == 'report':
    summary = report.make(
        run.workdir,
        n_trajectories=0,
        seed=run.seed('report'),
        benchmark=run.config.eval.benchmark,
        seeds=folders,
    )
    print(f'seeds {", ".join(map(str, folders))}')
    _print_summary(summary)


def bring(run: Run, names: Sequence[str], target: str) -> None:
  """Makes what is not complete of these stages, and of those they need.

  Raises:
    UserError: As `walk`.
  """
  for name in _in_order(stages_of(run.config), names):
    # A report is quick to make, from whatever is there.
    if name != 'report' and _is_complete(run, name):
      metrics.say(f'{name}: complete in {folder_of(run, name)}, reused')
      continue
    owners = _owners(run.config, name)
    if not run.config.unasked and target not in owners:
      raise UserError(
          f'{target} needs {name}, which is not complete in {run.workdir}: '
          f'run {_command(run, owners[0], name)} first'
      )
    facts = metrics.shown(make(run, name))
    metrics.say(f'{name}: done in {folder_of(run, name)}: {facts}')


def _is_complete(run: Run, name: str) -> bool:
  if not manifest_of(run, name).is_complete(folder_of(run, name)):
    return False
  of_stage = functools.partial(identity, run)
  return name != 'eval' or evaluate.are_complete(run, of_stage)


def make(run: Run, name: str) -> Mapping[str, Any]:
  """Runs one stage, on top of those it needs; returns its facts."""
  stage = stages_of(run.config)[name]
  manifest, folder = manifest_of(run, name), folder_of(run, name)
  manifest.write(folder, complete=False)
  run.toolbox.counts.take()
  if run.judge is not None:
    run.judge.counts.take()
  with manifest.taken_back(folder):
    facts = stage.make(run.with_config(stage.config(run.config)), folder)
  # What RL has counted step by step is in its own metrics.
  tools = run.toolbox.counts.take()
  about = {} if run.judge is None else {'judge': run.judge.facts()}
  if name == 'eval' and facts:
    about['benchmark'] = dict(evaluate.items(run).facts)
  manifest.write(folder, complete=True, facts=facts, tools=tools, **about)
  judged = describe(about.get('judge', {}))
  for line in (trouble(tools.get('all', {})), judged and f'judge: {judged}'):
    if line:
      metrics.say(f'{name}: {line}')
  return facts


def folder_of(run: Run, name: str) -> epath.Path:
  """Where a stage's output goes; those of other benchmarks stand apart."""
  if name in ('eval', 'report'):
    name = paradigms.folder_name(name, run.config.eval.benchmark)
  return run.workdir / name


def manifest_of(run: Run, name: str) -> Manifest:
  """The stage's identity: its config fields and its inputs' fingerprints."""
  stage = stages_of(run.config)[name]
  own = stage.config(run.config)
  fields = picked(own, stage.sections, without=_NO_IDENTITY)
  needs = () if stage.apart else stage.needs
  inputs = {needed: identity(run, needed) for needed in needs}
  if 'model' in fields:
    same = own.model == run.config.model
    inputs['model_folder'] = run.model_digest if same else model_digest(own)
  if set(_TOOLS) & set(fields):
    inputs['searched'] = run.toolbox.version
  if 'reward' in fields:
    inputs |= rewards.identity(own.reward)
    if run.judge:
      inputs['judge'] = run.judge.identity
  split = _ASKED.get(name, '')
  if split == 'validation' and not own.sft.n_validation:
    split = ''
  if split and not own.questions.only_world(split):
    inputs['questions'] = run.questions(split).digest
  if stage.version:
    inputs['maker'] = stage.version
  if 'sft.epochs' in fields and own.sft.data:
    inputs['sft_data'] = sft_data.digest(own.sft.data)
  # The base that pretraining goes on from, as it is now.
  if start_from := fields.get('pretrain', {}).get('start_from'):
    inputs['start_from'] = files.model_digest(start_from)
  return Manifest(stage=name, config=fields, inputs=inputs)


def identity(run: Run, name: str) -> str:
  """What a stage that needs this one has to be made from."""
  fingerprint = manifest_of(run, name).fingerprint()
  if not stages_of(run.config)[name].trains:
    return fingerprint
  return f'{fingerprint} {birthmark(folder_of(run, name))}'


def order_for(config: Config) -> list[str]:
  """The stages of a command: what it names, after all that this needs."""
  named = [TARGETS[config.stage]]
  if config.stage == 'sft' and NO_GAZE in evaluate.needs(config):
    named.append(NO_GAZE)
  return _in_order(stages_of(config), named)


def _in_order(stages: Mapping[str, Stage], names: Sequence[str]) -> list[str]:
  """Each stage once, after those that it needs."""
  order = []
  for name in names:
    whole = (*_in_order(stages, stages[name].needs), name)
    order += [one for one in whole if one not in order]
  return order


def _command(run: Run, page: str, stage: str) -> str:
  """What to type for a page to make a stage as this run needs it."""
  c = run.config
  flags = [f'--config=configs/{page}.py:{c.profile}']
  if c.model.path:
    flags.append(f'--config.model.path={c.model.path}')
  if c.sft.data:
    flags.append(f'--config.sft.data={c.sft.data}')
  flags.append(f'--config.seed={c.seed}')
  if stage in (*c.arms, 'demos_no_gaze', NO_GAZE):
    # Made only for an evaluation that names them.
    flags.append(f'--config.eval.policies="{c.eval.policies}"')
  flags.append(f'--workdir={run.workdir}')
  return ' '.join(['python -m gog_jax.main', *flags])


def _owners(config: Config, name: str) -> list[str]:
  """The commands that make a stage themselves at any size, the usual first."""
  made = {
      'pretrain': ('pretrain',),
      'sft': ('data', 'demos', 'sft', 'demos_no_gaze', NO_GAZE),
      'grade': ('grade',),
      'rl': ('rl', *config.arms, 'eval', 'report'),
      'eval': ('eval', 'report'),
      'instruct': ('data',),
  }
  return [target for target, stages in made.items() if name in stages]

"""The walk: which stage follows which, and when one is complete.

A stage owns the folder of its name in the workdir. It is complete when its
manifest says so, and is then not run again; a manifest made from other
settings stops the run and names the fields. In the toy profile a stage runs
those it builds on first; other profiles name the command instead.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
import dataclasses
import functools
from typing import Any

from etils import epath

from gog_jax.app import remedies
from gog_jax.app.config_check import check
from gog_jax.app.config_check import check_family
from gog_jax.app.config_fields import fields_of
from gog_jax.errors import UserError
from gog_jax.evaluation import evaluate
from gog_jax.evaluation import grade
from gog_jax.evaluation import paradigms
from gog_jax.evaluation import policies
from gog_jax.evaluation.evaluate import ROLLOUT
from gog_jax.evaluation.evaluate import TRAINED
from gog_jax.judge.counts import describe
from gog_jax.report import pages as report
from gog_jax.report import text as report_text
from gog_jax.rewards import score as rewards
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
from gog_jax.train import sft_data


@dataclasses.dataclass(frozen=True)
class Stage:
  """One step of the walk.

  Attributes:
    sections: Config fields that its output depends on.
    needs: Stages whose output it reads.
    make: (run, folder) -> facts for the manifest.
    maker: Version of what makes it, where that is not the config's to say.
    trains: Whether it makes parameters. The same settings need not make the
      same ones again, so what is built on them is bound to these very ones.
    apart: Whether each part of its output says itself what it was built on.
  """

  sections: tuple[str, ...]
  needs: tuple[str, ...]
  make: Callable[[Run, epath.Path], Mapping[str, Any]]
  maker: str = ''
  trains: bool = False
  apart: bool = False


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


# What may change while a stage is under way: nothing it makes hangs on it.
_NO_IDENTITY = (
    'checkpoint_every', 'trajectories_every', 'alarms',
    # Of SFT, what stands among a stage's inputs or only matters with them.
    'data',
    'data_workers',
    'epochs',
    *evaluate.NO_IDENTITY,
)  # fmt: skip

_DEMOS = (
    *ROLLOUT,
    'reward',
    'sft.n_candidates',
    'sft.n_demos',
    'sft.no_search',
    'sft.recovered',
)
_TOOLS = evaluate.TOOLS
_SFT = ('seed', 'model', *TRAINED, 'batch', 'sft', *_TOOLS, 'rollout')
_RL = (*ROLLOUT, *TRAINED, 'batch', 'reward', 'rl')


def _sft(policy: str, demos: str) -> Stage:
  """SFT of a policy, with its tools, on the demos of a stage."""
  return Stage(
      _SFT,
      (demos,),
      lambda run, folder: sft.train(
          policies.run_of(run, policy), folder, demos=demos
      ),
      trains=True,
  )


def _sft_on_data(config: Any) -> Stage:
  """SFT on a file of the user's own; the world is only for its validation."""
  return Stage(
      (*_SFT, 'sft.epochs'),
      ('data',) if config.sft.n_validation else (),
      lambda run, folder: sft.train(
          run, folder, demos='', data=run.config.sft.data
      ),
      trains=True,
  )


def stages_of(config: Any) -> dict[str, Stage]:
  """Every stage of a run, with the arms that its config adds, by name."""
  arms = {
      name: Stage(
          (*_RL, f'arms.{name}'),
          ('grade',),
          # Bound now: the loop's variable moves on.
          lambda run, folder, name=name: rl.train(
              run.with_rl(run.config.arms[name]), folder
          ),
          trains=True,
      )
      for name in config.arms
  }
  return {
      'data': Stage(
          ('data',),
          (),
          lambda run, folder: dataset.prepare(
              folder, **run.config.data.to_dict()
          ),
          maker=WorldBackend.version,
      ),
      'demos': Stage(
          _DEMOS, ('data',), demos.make_demos, maker=expert.version()
      ),
      'demos_no_gaze': Stage(
          _DEMOS,
          ('data',),
          lambda run, folder: demos.make_demos(run.without_gaze(), folder),
          maker=expert.version(),
      ),
      'sft': _sft_on_data(config) if config.sft.data else _sft('sft', 'demos'),
      policies.NO_GAZE: _sft(policies.NO_GAZE, 'demos_no_gaze'),
      'grade': Stage(
          (*ROLLOUT, *TRAINED, 'reward', 'grade'),
          ('data', 'sft') if config.sft.data else ('sft',),
          _grade,
      ),
      'rl': Stage(_RL, ('grade',), rl.train, trains=True),
      **arms,
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
    UserError: A stage made with other settings, or, outside the toy profile, a
      stage that another command must make first.
  """
  prepare(run)
  if run.config.seeds:
    _walk_seeds(run)
  else:
    _walk(run, run.config.stage)


def prepare(run: Run) -> None:
  """Refuses what would stop the run late.

  Raises:
    UserError: Says what, and what to do.
  """
  check(run.config)
  run.check()
  if run.config.stage != 'pretrain':  # It makes a model of its own.
    check_family(run.config.profile, run.model_config.family)


def _walk_seeds(run: Run) -> None:
  """One walk for each seed, in a folder of its own, then what all show."""
  folders = {}
  for seed in run.config.seeds:
    own = run.with_seed(seed)
    folders[seed] = own.workdir
    metrics.say(f'seed {seed}: {own.workdir}')
    _walk(own, run.config.stage)
  if TARGETS[run.config.stage] == 'report':
    summary = report.make_overall(
        run.workdir,
        folders,
        seed=run.seed('report'),
        benchmark=run.config.eval.benchmark,
    )
    print(f'seeds {", ".join(map(str, folders))}')
    _print_summary(summary)


def _walk(run: Run, target: str) -> None:
  bring(run, _order_for(run.config, target), target)


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
    owners = remedies.owners(run.config, name)
    if not run.config.unasked and target not in owners:
      raise UserError(
          f'{target} needs {name}, which is not complete in {run.workdir}: '
          f'run {remedies.command(run, owners[0], name)} first'
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
  manifest, folder = manifest_of(run, name), folder_of(run, name)
  manifest.write(folder, complete=False)
  run.toolbox.counts.take()
  if run.judge is not None:
    run.judge.counts.take()
  with manifest.taken_back(folder):
    facts = stages_of(run.config)[name].make(run, folder)
  # What RL has counted step by step is in its own metrics.
  tools = run.toolbox.counts.take()
  about = {} if run.judge is None else {'judge': run.judge.facts()}
  if name == 'eval' and facts:
    about['benchmark'] = dict(evaluate.items(run).facts)
  manifest.write(folder, complete=True, facts=facts, tools=tools, **about)
  if line := trouble(tools.get('all', {})):
    metrics.say(f'{name}: {line}')
  if line := describe(about.get('judge', {})):
    metrics.say(f'{name}: judge: {line}')
  return facts


def folder_of(run: Run, name: str) -> epath.Path:
  """Where a stage's output goes; those of other benchmarks stand apart."""
  if name in ('eval', 'report'):
    name = paradigms.folder_name(name, run.config.eval.benchmark)
  return run.workdir / name


def manifest_of(run: Run, name: str) -> Manifest:
  """The stage's identity: its config fields and its inputs' fingerprints."""
  stage = stages_of(run.config)[name]
  fields = fields_of(run.config, stage.sections, without=_NO_IDENTITY)
  needs = () if stage.apart else stage.needs
  scored = 'reward' in fields
  own_data = run.config.sft.data if 'sft.epochs' in fields else ''
  return Manifest(
      stage=name,
      config=fields,
      inputs={needed: identity(run, needed) for needed in needs}
      | ({'model_folder': run.model_digest} if 'model' in fields else {})
      | ({'searched': run.toolbox.version} if set(_TOOLS) & set(fields) else {})
      | ({'judge': run.judge.identity} if scored and run.judge else {})
      | (rewards.identity(run.config.reward) if scored else {})
      | ({'maker': stage.maker} if stage.maker else {})
      | ({'sft_data': sft_data.digest(own_data)} if own_data else {})
      | _start_from(fields),
  )


def _start_from(fields: Mapping[str, Any]) -> dict[str, str]:
  """The base that pretraining goes on from, as it is now."""
  folder = fields.get('pretrain', {}).get('start_from')
  return {'start_from': files.model_digest(folder)} if folder else {}


def identity(run: Run, name: str) -> str:
  """What a stage that needs this one has to be made from."""
  own = manifest_of(run, name).fingerprint()
  if not stages_of(run.config)[name].trains:
    return own
  return f'{own} {birthmark(folder_of(run, name))}'


def _order_for(config: Any, target: str) -> list[str]:
  """The stages of a command: what it names, after all that this needs."""
  named = [TARGETS[target]]
  if target == 'sft' and policies.NO_GAZE in evaluate.needs(config):
    named.append(policies.NO_GAZE)
  return _in_order(stages_of(config), named)


def _in_order(stages: Mapping[str, Stage], names: Sequence[str]) -> list[str]:
  """Each stage once, after those that it needs."""
  order = []
  for name in names:
    whole = (*_in_order(stages, stages[name].needs), name)
    order += [one for one in whole if one not in order]
  return order



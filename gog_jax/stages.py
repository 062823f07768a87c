"""The walk: which stage follows which, and when one is complete.

A stage owns the folder of its name in the workdir. It is complete when its
manifest says so, and is then not run again; a manifest made from other
settings stops the run and names the fields. In the toy profile a stage runs
those it builds on first; other profiles name the command instead, since nobody
wants hours of work unasked.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
import dataclasses
from typing import Any

from etils import epath

from gog_jax import evaluate
from gog_jax import files
from gog_jax import grade
from gog_jax import metrics
from gog_jax import policies
from gog_jax import report
from gog_jax.config_check import check
from gog_jax.config_check import check_family
from gog_jax.config_check import config_field
from gog_jax.errors import UserError
from gog_jax.judge.counts import describe
from gog_jax.manifest import birthmark
from gog_jax.manifest import Manifest
from gog_jax.run import Run
from gog_jax.tools.counts import trouble
from gog_jax.train import demos
from gog_jax.train import pretrain
from gog_jax.train import rl
from gog_jax.train import sft
from gog_jax.train import sft_data
from gog_jax.world import expert
from gog_jax.world.backend import WorldBackend


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
  """

  sections: tuple[str, ...]
  needs: tuple[str, ...]
  make: Callable[[Run, epath.Path], Mapping[str, Any]]
  maker: str = ''
  trains: bool = False


def _grade(run: Run, folder: epath.Path) -> Mapping[str, Any]:
  policy = run.make_policy(policies.trained(run, 'sft'), greedy=False)
  return grade.facts(
      grade.grade_examples(run, policy, run.graded_examples(), folder)
  )


def _eval(run: Run, folder: epath.Path) -> Mapping[str, Any]:
  """Evaluates each policy that is not evaluated yet."""
  c = run.config.eval
  examples = run.examples(c.split, n=c.n_examples)
  facts = {}
  for name in c.policies:
    own = policies.run_of(run, name)
    if not evaluate.is_done(folder / name):
      evaluate.evaluate(
          own, policies.make(own, name), examples, folder / name, name=name
      )
    facts[name] = evaluate.facts(folder / name)
  return facts


def _report(run: Run, folder: epath.Path) -> Mapping[str, Any]:
  summary = report.make(
      run.workdir,
      n_trajectories=run.config.report.n_trajectories,
      seed=run.seed('report'),
      split=run.config.eval.split,
  )
  _print_summary(summary)
  return {'page': str(folder / 'index.html')}


def _print_summary(summary: dict[str, Any]) -> None:
  print(report.table(summary))
  print(report.differences(summary))


# What may change while a stage is under way: nothing it makes hangs on it.
_NO_IDENTITY = ('checkpoint_every', 'trajectories_every', 'alarms')
# Of SFT, what stands among a stage's inputs or only matters with them.
_NO_IDENTITY += ('data', 'data_workers', 'epochs')
# Of the tools, what answers depend on, beside the backend's own version.
_TOOLS = ('tools.backend', 'tools.top_k', 'tools.hit_characters')
_ROLLOUT = ('seed', 'model', *_TOOLS, 'rollout', 'batch.row_patches')
_TRAINED = ('trainable', 'lora')

_DEMOS = (
    *_ROLLOUT,
    'reward',
    'sft.n_candidates',
    'sft.n_demos',
    'sft.no_search',
    'sft.recovered',
)
_SFT = ('seed', 'model', *_TRAINED, 'batch', 'sft', *_TOOLS, 'rollout')
_RL = (*_ROLLOUT, *_TRAINED, 'batch', 'reward', 'rl')


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
  trained = [policies.stage_of(name) for name in config.eval.policies]
  return {
      'data': Stage(
          ('data',),
          (),
          lambda run, folder: run.make_data(folder),
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
          (*_ROLLOUT, *_TRAINED, 'reward', 'grade'),
          ('data', 'sft') if config.sft.data else ('sft',),
          _grade,
      ),
      'rl': Stage(_RL, ('grade',), rl.train, trains=True),
      **arms,
      'eval': Stage(
          (*_ROLLOUT, *_TRAINED, 'reward', 'eval'),
          tuple(dict.fromkeys(('data', *filter(None, trained)))),
          _eval,
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
        split=run.config.eval.split,
    )
    print(f'seeds {", ".join(map(str, folders))}')
    _print_summary(summary)


def _walk(run: Run, target: str) -> None:
  for name in _order_for(run.config, target):
    manifest = manifest_of(run, name)
    folder = folder_of(run, name)
    # A report is quick to make, from whatever is there.
    if name != 'report' and manifest.is_complete(folder):
      metrics.say(f'{name}: complete in {folder}, reused')
      continue
    owners = _owners(run.config, name)
    if not run.config.unasked and target not in owners:
      raise UserError(
          f'{target} needs {name}, which is not complete in {run.workdir}: '
          f'run {_command(run, owners[0], name)} first'
      )
    metrics.say(f'{name}: done ' + _shown(make(run, name)))


def make(run: Run, name: str) -> Mapping[str, Any]:
  """Runs one stage, on top of those it needs; returns its facts."""
  manifest, folder = manifest_of(run, name), folder_of(run, name)
  manifest.write(folder, complete=False)
  run.toolbox.counts.take()
  if run.judge is not None:
    run.judge.counts.take()
  facts = stages_of(run.config)[name].make(run, folder)
  # What RL has counted step by step is in its own metrics.
  tools = run.toolbox.counts.take()
  judge = {} if run.judge is None else {'judge': run.judge.facts()}
  manifest.write(folder, complete=True, facts=facts, tools=tools, **judge)
  if line := trouble(tools.get('all', {})):
    metrics.say(f'{name}: {line}')
  if judge and (line := describe(judge['judge'])):
    metrics.say(f'{name}: judge: {line}')
  return facts


def folder_of(run: Run, name: str) -> epath.Path:
  """Where a stage's output goes; evaluations of other splits stand apart."""
  if name in ('eval', 'report'):
    name = report.folder_name(name, run.config.eval.split)
  return run.workdir / name


def manifest_of(run: Run, name: str) -> Manifest:
  """The stage's identity: its config fields and its inputs' fingerprints."""
  stage = stages_of(run.config)[name]
  fields = {
      field: _without(config_field(run.config, field), _NO_IDENTITY)
      for field in stage.sections
  }
  judged = 'reward' in fields
  return Manifest(
      stage=name,
      config=fields,
      inputs={needed: _identity(run, needed) for needed in stage.needs}
      | ({'model_folder': run.model_digest} if 'model' in fields else {})
      | ({'searched': run.toolbox.version} if set(_TOOLS) & set(fields) else {})
      | ({'judge': run.judge.identity} if judged and run.judge else {})
      | ({'maker': stage.maker} if stage.maker else {})
      | _start_from(fields)
      | (
          {'sft_data': sft_data.digest(run.config.sft.data)}
          if 'sft.epochs' in fields
          else {}
      ),
  )


def _start_from(fields: Mapping[str, Any]) -> dict[str, str]:
  """The base that pretraining goes on from, as it is now."""
  folder = fields.get('pretrain', {}).get('start_from')
  return {'start_from': files.model_digest(folder)} if folder else {}


def _identity(run: Run, name: str) -> str:
  """What a stage that needs this one has to be made from."""
  own = manifest_of(run, name).fingerprint()
  if not stages_of(run.config)[name].trains:
    return own
  return f'{own} {birthmark(folder_of(run, name))}'


def _without(value: Any, names: Sequence[str]) -> Any:
  if not isinstance(value, Mapping):
    return value
  return {k: _without(v, names) for k, v in value.items() if k not in names}


def _order_for(config: Any, target: str) -> list[str]:
  """The stages of a command: what it names, after all that this needs."""
  named = [TARGETS[target]]
  if target == 'sft' and policies.NO_GAZE in config.eval.policies:
    named.append(policies.NO_GAZE)
  return _in_order(stages_of(config), named)


def _in_order(
    stages: Mapping[str, Stage], names: Sequence[str]
) -> list[str]:
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
  if stage in (*c.arms, 'demos_no_gaze', policies.NO_GAZE):
    # Made for those who ask for it; and what evaluates has to ask for the same.
    flags.append(f'--config.eval.policies="{tuple(c.eval.policies)}"')
  flags.append(f'--workdir={run.workdir}')
  return ' '.join(['python -m gog_jax.main', *flags])


def _owners(config: Any, name: str) -> list[str]:
  """The commands that make a stage themselves at any size, the usual first."""
  made = {
      'pretrain': ('pretrain',),
      'sft': ('data', 'demos', 'sft', 'demos_no_gaze', policies.NO_GAZE),
      'grade': ('grade',),
      'rl': ('rl', *config.arms, 'eval', 'report'),
      'eval': ('eval', 'report'),
  }
  return [target for target, stages in made.items() if name in stages]


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

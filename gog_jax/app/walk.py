"""Walks through the stages that a command needs.

A stage owns the folder of its name in the workdir. It is complete when its
manifest says so, and is then not run again; a manifest made from other
settings stops the run and names the fields. With `config.unasked`, as in the
toy profile, a stage runs those it builds on first; else the command is named.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
import dataclasses
import shlex
from typing import Any

from gog_jax.app import help
from gog_jax.app import stages
from gog_jax.config import Config
from gog_jax.config import paradigms
from gog_jax.config import settings
from gog_jax.errors import UserError
from gog_jax.evaluation import evaluate
from gog_jax.evaluation import policies
from gog_jax.judge.judge import describe
from gog_jax.models import start as start_lib
from gog_jax.run import build
from gog_jax.run import Run
from gog_jax.storage import files
from gog_jax.storage import heartbeat
from gog_jax.storage import metrics
from gog_jax.tools.counts import trouble

# What `config.stage` names, and the stage that this command ends with.
TARGETS = {
    'pretrain': 'pretrain',
    'sft': 'sft',
    'grade': 'grade',
    'rl': 'report',
    'eval': 'report',
}


def check(config: Config) -> None:
  """Refuses, before any work, what only the stages' own packages know.

  Raises:
    UserError: A benchmark does not exist or lacks its files, a policy's config
      does not fit, or nobody knows what SFT should imitate.
  """
  evaluate.check(config)
  start_lib.folder_of(config.rl.init)  # It has to be there.
  for name in config.eval.policies:
    policies.config_of(config, name)  # Making it is a check.
  own = not config.questions.only_world('train')
  if own and config.stage in TARGETS:
    if {'demos', 'demos_no_gaze'} & {*order_for(config)}:
      raise UserError(
          'config.questions.train: the expert whom SFT imitates knows the '
          'embedded world alone; pass --config.sft.data=FILE, what to imitate: '
          'WORKDIR/instruct/set, if configs/instruct.py has built it'
      )


def walk(run: Run) -> None:
  """Runs what `config.stage` names and, first, whatever it needs.

  Raises:
    UserError: As `check`; a stage made with other settings; or, without
      `config.unasked`, a stage that another command must make first.
  """
  check(run.config)
  files.check_writable(run.workdir)
  if run.config.seeds:
    _walk_seeds(run)
  else:
    bring(run, order_for(run.config), run.config.stage)


def _walk_seeds(run: Run) -> None:
  """One walk for each seed, in a folder of its own, then a report over all."""
  folders = {}
  for seed in run.config.seeds:
    folders[seed] = folder = run.workdir / f'seed_{seed}'
    metrics.say(f'seed {seed}: {folder}')
    one = build(run.config.of_seed(seed), folder, like=run)
    before = settings.read(folder)
    with settings.taken_back(
        run.workdir, unless=lambda f=folder, b=before: settings.read(f) != b
    ):
      settings.remember(run.workdir, run.config)
      bring(one, order_for(one.config), one.config.stage)
  if TARGETS[run.config.stage] == 'report':
    print(f'seeds {", ".join(map(str, folders))}')
    stages.report_on(run, n_trajectories=0, seeds=folders)


def bring(run: Run, names: Sequence[str], target: str) -> None:
  """Makes what is not complete of these stages, and of those they need.

  Raises:
    UserError: As `walk`.
  """
  held = stages.stages_of(run.config)
  for name in in_order(held, names):
    # A report is quick to make, from whatever is there.
    if name != 'report' and is_complete(run, name):
      metrics.say(f'{name}: complete in {stages.folder_of(run, name)}, reused')
      continue
    check_asked_for(run, name, target)
    facts = metrics.shown(make(run, name))
    metrics.say(f'{name}: done in {stages.folder_of(run, name)}: {facts}')


def check_asked_for(run: Run, name: str, target: str) -> None:
  """Refuses a stage that the page `target` does not make, if it is `unasked`.

  Raises:
    UserError: Names the command that makes it.
  """
  pages = stages.stages_of(run.config)[name].pages
  if not run.config.unasked and target not in pages:
    raise UserError(_missing(run, name, target))


def is_complete(run: Run, name: str) -> bool:
  """Whether a stage is there, as this run would make it.

  Raises:
    UserError: It was made with other settings.
  """
  folder = stages.folder_of(run, name)
  if not stages.manifest_of(run, name).is_complete(folder):
    return False
  return not stages.stages_of(run.config)[name].again(run, folder)


def make(run: Run, name: str) -> Mapping[str, Any]:
  """Runs one stage, on top of those it needs; returns its facts."""
  stage = stages.stages_of(run.config)[name]
  manifest, folder = stages.manifest_of(run, name), stages.folder_of(run, name)
  about = dict(stage.about(run))
  manifest.write(folder, complete=False, **about)
  run.toolbox.counts.take()
  if run.judge is not None:
    run.judge.counts.take()
  made = (folder / 'manifest.json').exists
  with heartbeat.doing(name), settings.taken_back(run.workdir, unless=made):
    settings.remember(run.workdir, run.config)
    with manifest.taken_back(folder):
      facts = stage.make(run.with_config(stage.config(run.config)), folder)
  # What RL has counted step by step is in its own metrics.
  tools = run.toolbox.counts.take()
  lines = [trouble(tools.get('all', {}))]
  if run.judge is not None:
    about['judge'] = run.judge.facts()
    if judged := describe(about['judge']):
      lines.append(f'judge: {judged}')
  manifest.write(folder, complete=True, facts=facts, tools=tools, **about)
  for line in filter(None, lines):
    metrics.say(f'{name}: {line}')
  return facts


def order_for(config: Config) -> list[str]:
  """The stages of a command: what it names, after all that this needs."""
  held = stages.stages_of(config)
  named = [TARGETS[config.stage]]
  if config.stage == 'sft' and paradigms.SFT_NO_GAZE in held['report'].needs:
    named.append(paradigms.SFT_NO_GAZE)
  return in_order(held, named)


def in_order(
    held: Mapping[str, stages.Stage], names: Iterable[str]
) -> list[str]:
  """Each stage once, after those that it needs."""
  order = []
  for name in names:
    whole = (*in_order(held, held[name].needs), name)
    order += [one for one in whole if one not in order]
  return order


def _missing(run: Run, name: str, target: str) -> str:
  """What to do about a stage that this command does not make."""
  pages = stages.stages_of(run.config)[name].pages
  what = f'{target} needs {name}, which is not complete in {run.workdir}: '
  own = ''
  if name == paradigms.SFT and run.config.rl.init != name:
    own = (
        'for what is evaluated; leave that out with '
        '--config.eval.policies="(\'gog@base\', \'rl\')", or '
    )
  if name == 'data':
    own = (
        'these are questions of the embedded world; name your own with '
        '--config.questions.train="(\'jsonl:FILE\',)", or '
    )
  return f'{what}{own}run this first: {_command(run, pages[0])}'


def _command(run: Run, page: str) -> str:
  """What to type for a page to make a stage as this run needs it.

  What the workdir does not remember is given, so that it can be pasted whole;
  but for what may be a secret.
  """
  c, saved = run.config, settings.read(run.workdir)
  fields = {field.name for field in dataclasses.fields(Config)} - {'profile'}
  flags = [
      help.typed(
          f'--config.{field}', '...' if settings.is_secret(value) else value
      )
      for field, value in c.given.items()
      if field.partition('.')[0] in fields
      and files.dumps(saved.get(field)) != files.dumps(value)
  ]
  page = f'configs/{page}.py:{c.given["profile"]}'
  return ' '.join([
      f'python -m gog_jax.main --config={page}',
      *flags,
      f'--workdir={shlex.quote(str(run.workdir))}',
  ])

"""--dry_run: what a page would take, stage by stage; nothing is made.

The tools, the judge and remote models are asked whether they answer, which
costs nothing, and nothing else.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
import dataclasses
import tempfile
from typing import Any, TypeVar

from etils import epath

from gog_jax.app import commands
from gog_jax.app import plans
from gog_jax.app import stages
from gog_jax.app import walk
from gog_jax.app.stage import Plan
from gog_jax.config import Config
from gog_jax.config import paradigms
from gog_jax.config.pages import GogPage
from gog_jax.config.pages import InstructPage
from gog_jax.config.tools import ToolsConfig
from gog_jax.errors import UserError
from gog_jax.evaluation import estimate
from gog_jax.instruct import teachers
from gog_jax.remote.endpoint import Endpoint
from gog_jax.run import build
from gog_jax.run import Run
from gog_jax.storage import files
from gog_jax.storage.manifest import read

# Commands that take time.
_COMMANDS = ('instruct', 'export', 'index', 'gog')
C = TypeVar('C', bound=Config)


def dry_run(config: Any, workdir: epath.Path) -> None:
  """Prints what a page would take.

  Raises:
    UserError: Names, in one line, all that would stop it; or the page makes
      nothing.
  """
  if config.stage not in (*walk.TARGETS, *_COMMANDS):
    raise UserError(
        f'--dry_run is for pages that make something, {config.stage} takes no '
        'time'
    )
  told = _Told()
  with files.nothing_written(), tempfile.TemporaryDirectory() as scratch:
    walked = [config]
    if isinstance(config, GogPage):
      *walked, _ = commands.recipe(config, workdir)  # A table takes no time.
    for page in walked:
      _of_page(page, workdir, scratch, told)
  price = sum(plan.price for plan in told.plans)
  total = f'all at most: {estimate.dollars(price)}'
  if any(plan.judged for plan in told.plans):
    total += f'; the judge: {_judge_price(config)}'
  print(f'{total}\nnothing was run (--dry_run)')
  if told.stops:
    raise UserError('; '.join(told.stops))


def _judge_price(config: Any) -> str:
  c = config.judge
  if c.price_in or c.price_out:
    return f'no more than judge.max_spend=${c.max_spend:,.2f}'
  return 'price unknown (judge.price_in and price_out)'


class _Told:
  """What was told so far, and what would stop the run."""

  def __init__(self):
    self.stops: dict[str, None] = {}
    self.plans: list[Plan] = []

  def of(self, name: str, plan: Callable[[], Plan]) -> None:
    """Prints a plan under a name, or why there is none."""
    try:
      found = plan()
    except UserError as error:
      self.stops[str(error)] = None
      found = Plan([f'would stop: {error}'])
    self.plans.append(found)
    lines = found.lines or ['is not made yet']
    print('\n  '.join([f'{name}:', *lines]), flush=True)


def _of_page(
    config: Any, workdir: epath.Path, scratch: str, told: _Told
) -> None:
  """Tells of one page."""
  if config.stage == 'index':
    return told.of('index', lambda: plans.index(config))
  if config.stage == 'export':
    return told.of('export', lambda: plans.export(config, workdir))
  run = build(_harmless(config, scratch), workdir)
  told.of('services', lambda: _services(run))
  walk.check(run.config)
  seeds = run.config.seeds or (None,)
  for seed in seeds:
    one = run
    if seed is not None:
      print(f'seed {seed}:')
      own, folder = run.config.of_seed(seed), workdir / f'seed_{seed}'
      one = build(own, folder, like=run)
    if config.stage == 'instruct':
      _of_stages(one, teachers.stages_of(one.config), told)
      own = one.with_config(teachers.config_of(one.config))
      told.of('instruct', lambda own=own: plans.instruct(own))
    else:
      _of_stages(one, walk.order_for(one.config), told)


def _of_stages(run: Run, names: Iterable[str], told: _Told) -> None:
  """Tells of the stages that are not complete."""
  held = stages.stages_of(run.config)
  for name in walk.in_order(held, names):
    if name == 'report':  # Quick to make.
      continue

    def plan(name: str = name) -> Plan:
      stage, folder = held[name], stages.folder_of(run, name)
      # What it was made from is compared only where it was begun.
      if read(folder) and walk.is_complete(run, name):
        return Plan([f'complete in {folder}, reused'])
      walk.check_asked_for(run, name, run.config.stage)
      return stage.plan(run.with_config(stage.config(run.config)), folder)

    told.of(name, plan)


def _services(run: Run) -> Plan:
  """Whether what would be asked answers."""
  c, lines = run.config, [f'tools search {run.toolbox.version or "nothing"}']
  models = [paradigms.parse(one, c.arms).model for one in c.eval.policies]
  if c.stage not in ('rl', 'eval'):
    models = [c.instruct.teacher] if isinstance(c, InstructPage) else []
  asked = {}
  if run.judge is not None:
    asked['judge'] = run.judge
  if paradigms.REMOTE in models:
    asked['remote'] = Endpoint(c.remote, name='remote', workdir=run.workdir)
  for section, endpoint in asked.items():
    remark = endpoint.probe()
    model = getattr(c, section).model
    lines.append(f'{section} {model}: {remark or "answers"}')
  return Plan(lines)


def _harmless(config: C, scratch: str) -> C:
  """A config whose tools and judge make no file but in `scratch`.

  Images that are not fetched yet are not: their questions are left out.
  """

  def read_only(c: ToolsConfig) -> ToolsConfig:
    mode = 'live' if c.mode == 'record' else c.mode
    return dataclasses.replace(c, mode=mode, cache='')

  general, replace = config.general, dataclasses.replace
  if general:
    general = replace(general, tools=read_only(general.tools))
  return replace(
      config,
      tools=read_only(config.tools),
      general=general,
      judge=replace(config.judge, cache=f'{scratch}/verdicts'),
      questions=replace(config.questions, fetch_images=False),
      benchmark=replace(config.benchmark, fetch_images=False),
  )

"""--dry_run: what a page would take, stage by stage; nothing is made.

The tools, the judge and remote models are asked whether they answer, which
costs nothing, and nothing else.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
import dataclasses
import math
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
        f'--dry_run: nothing to plan for {config.stage}'
    )
  told = _Told(config)
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

  def __init__(self, config: Any):
    self.stops: dict[str, None] = {}
    self.plans: list[Plan] = []
    # How a drop's detail ends where the run itself will fetch the image.
    self._fetched = tuple(
        f'--config.{section}.fetch_images'
        for section in ('questions', 'benchmark')
        if getattr(getattr(config, section, None), 'fetch_images', False)
    )

  def of(
      self, name: str, plan: Callable[[], Plan], price: float = math.nan
  ) -> None:
    """Prints a plan under a name, or why there is none.

    Args:
      name: Of what is planned.
      plan: Makes its plan.
      price: US dollars that count where it cannot be made.
    """
    try:
      found = plan()
    except UserError as error:
      drops = getattr(error, 'drops', ())
      if n := sum(drop.detail.endswith(self._fetched) for drop in drops):
        why = f'unknown until the images of {n:,} questions are fetched'
      else:
        self.stops[str(error)] = None
        why = f'would stop: {error}'
      found = Plan([why], price)
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
  c, runs = _harmless(config, scratch), list[Run]()

  def opened() -> Plan:
    walk.check(c)
    runs.append(build(c, workdir))
    return Plan([f'tools search {runs[0].toolbox.version or "nothing"}'])

  told.of('config', opened)
  _of_services(c, workdir, told)
  if not runs:
    return
  (run,) = runs
  if c.stage == 'instruct':
    _of_stages(run, teachers.stages_of(c), told)
    of_teacher = lambda: run.with_config(teachers.config_of(c))
    return told.of('instruct', lambda: plans.instruct(of_teacher()))
  for seed in c.seeds or (None,):
    one = run
    if seed is not None:
      print(f'seed {seed}:')
      one = build(c.of_seed(seed), workdir / f'seed_{seed}', like=run)
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


def _of_services(c: Config, workdir: epath.Path, told: _Told) -> None:
  """Tells whether what would be asked answers."""
  models = [paradigms.parse(one, c.arms).model for one in c.eval.policies]
  if c.stage not in ('rl', 'eval'):
    models = [c.instruct.teacher] if isinstance(c, InstructPage) else []
  asked = {'judge': c.reward.asks_judge, 'remote': paradigms.REMOTE in models}
  for name in filter(asked.get, asked):

    def answers(name: str = name) -> Plan:
      section = getattr(c, name)
      remark = Endpoint(section, name=name, workdir=workdir).probe()
      return Plan([f'{section.model}: {remark or "answers"}'])

    told.of(name, answers, price=0.0)


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

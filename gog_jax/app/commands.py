"""What a config page asks for: a stage, with those it needs, or a command.

Commands make no stage: what they find or answer is printed. What a command
alone needs is imported when it is called: none waits for another's libraries.
"""

from __future__ import annotations

from collections.abc import Callable
import dataclasses
from typing import Any

from etils import epath
from immutabledict import immutabledict

from gog_jax.app import ask
from gog_jax.app import stages
from gog_jax.app import walk
from gog_jax.config import pages
from gog_jax.config import paradigms
from gog_jax.errors import UserError
from gog_jax.models.folders import model_folder
from gog_jax.run import build
from gog_jax.storage import files
from gog_jax.storage import heartbeat
from gog_jax.storage import metrics
from gog_jax.storage.typed import FieldError


def inspect(config: Any, workdir: epath.Path) -> None:
  """Says what a model folder holds."""
  from gog_jax.app import inspect_folder

  del workdir
  folder = model_folder(config)
  findings = inspect_folder.inspect(folder)
  print(findings)
  if n_bad := sum(not works for works, _ in findings.checks):
    raise UserError(f'{folder}: {n_bad} of the above will not work')


def index(config: Any, workdir: epath.Path) -> None:
  """Builds an index of a user's own documents and images."""
  from gog_jax.index import backend
  from gog_jax.index import build as index_build

  del workdir
  print(
      index_build.build(
          config.index,
          docs=config.docs,
          images=config.images,
          encoder=backend.load_encoder(config.encoder),
      )
  )


def retrieve(config: Any, workdir: epath.Path) -> None:
  """Serves what is searched over HTTP."""
  from gog_jax.tools import serve
  from gog_jax.tools import toolbox

  del workdir
  opened, top_k = toolbox.open_backends(config.tools), config.tools.top_k
  with heartbeat.doing(''):  # It waits.
    serve.serve(opened, host=config.host, port=config.port, top_k=top_k)


def benchmark(config: Any, workdir: epath.Path) -> None:
  """Says what a published set of questions holds."""
  from gog_jax.questions import benchmarks
  from gog_jax.questions.benchmarks import describe

  opened = benchmarks.open(config.benchmark, workdir=workdir)
  print(describe.describe(opened))
  metrics.say(f'benchmark: hashes kept in {workdir / "benchmarks"}')


def instruct(config: Any, workdir: epath.Path) -> None:
  """Builds a GoG-Instruct set."""
  from gog_jax.instruct import build as instruct_build
  from gog_jax.instruct import teachers
  from gog_jax.toy import expert

  run = build(config, workdir)
  walk.check(config)
  files.check_writable(workdir)
  needed = teachers.stages_of(config)
  walk.bring(run, needed, 'instruct')
  inputs = {name: stages.identity(run, name) for name in needed}
  if config.instruct.teacher == paradigms.EXPERT:
    inputs['maker'] = expert.version()
  run = run.with_config(teachers.config_of(config))
  facts = instruct_build.build(run, inputs)
  print(instruct_build.shown(run, facts))


def judge(config: Any, workdir: epath.Path) -> None:
  """Measures how often a judge says what people say."""
  from gog_jax.judge import agreement
  from gog_jax.judge.judge import Judge

  path = workdir / 'agreement.json'
  found = agreement.measure(Judge(config.judge, workdir), config.labels, path)
  print(agreement.table(found))
  metrics.say(f'judge: {path}')


def convert(config: Any, workdir: epath.Path) -> None:
  """Writes training data in another format."""
  from gog_jax.conversations import convert
  from gog_jax.conversations import sft_data

  done = convert.convert(
      config.input,
      config.output,
      form=config.format,
      run=lambda: build(config, workdir),
      split=config.split,
      data_box=config.sft.data_box,
      name=config.name,
      description=config.description,
  )
  sft_data.say(done)
  print(
      f'{len(done.items)} conversations written to {config.output} as '
      f'{config.format}, {len(done.drops)} dropped'
  )


def check(config: Any, workdir: epath.Path) -> None:
  """Checks a machine with a model; the process ends with 1 if it fails."""
  from gog_jax.app import check

  if not check.check(config, workdir):
    raise SystemExit(1)


def export(config: Any, workdir: epath.Path) -> None:
  """Writes what a stage has trained as a folder for others."""
  from gog_jax.app import export

  export.export(config, workdir)


def table(config: Any, workdir: epath.Path) -> None:
  """Puts what runs have evaluated beside the paper's table."""
  from gog_jax.report import table

  c = config.table
  print(table.make(c.workdirs or (workdir,), workdir, seed=c.seed), end='')
  metrics.say(f'table: {workdir / "table.md"} and table.json')


def gog(config: pages.GogPage, workdir: epath.Path) -> None:
  """Walks the paper's recipe: one page after the other."""
  for page in recipe(config, workdir):
    do(page, workdir)


def recipe(config: pages.GogPage, workdir: epath.Path) -> list[Any]:
  """The pages that a recipe walks.

  Raises:
    UserError: A page's fields do not fit.
  """
  from gog_jax.instruct import build as instruct_build

  # Other pages go on asking before they make what is another's.
  given = {k: v for k, v in config.given.items() if k != 'unasked'}
  config = dataclasses.replace(config, given=immutabledict(given))
  built = str(instruct_build.set_of(workdir))
  data = config.sft.data or built
  walked = []
  sft = dataclasses.replace(config.sft, data=data)
  given = config.given | {'sft.data': data}
  table = pages.TableConfig(workdirs=(), seed=config.seed)
  try:
    if data == built:  # As it also is where the workdir remembers it.
      walked.append(dataclasses.replace(config, stage='instruct'))
    return [
        *walked,
        dataclasses.replace(config, stage='rl', sft=sft, given=given),
        pages.TablePage(stage='table', profile=config.profile, table=table),
    ]
  except FieldError as error:
    raise UserError(f'config.{error}') from error


COMMANDS: dict[str, Callable[[Any, epath.Path], None]] = {
    command.__name__: command
    for command in (
        inspect, index, retrieve, ask.ask, benchmark, instruct, judge, convert,
        check, export, table, gog,
    )
}  # fmt: skip


def do(config: Any, workdir: epath.PathLike) -> None:
  """Does what `config.stage` names.

  Raises:
    UserError: As the stage or command says.
  """
  if config.stage in COMMANDS:
    COMMANDS[config.stage](config, epath.Path(workdir))
  else:
    walk.walk(build(config, workdir))

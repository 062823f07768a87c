"""What a config page asks for: a stage, with those it needs, or a command.

Commands make no stage: what they find or answer is printed. Each imports what
it needs when it is called, so that no command waits for another's libraries.
"""

from __future__ import annotations

from collections.abc import Callable

from gog_jax.app import stages
from gog_jax.errors import UserError
from gog_jax.run import Run
from gog_jax.storage import metrics


def inspect(run: Run) -> None:
  """Says what a model folder holds.

  Raises:
    UserError: Something in it will not work.
  """
  from gog_jax.app import inspect_folder

  findings = inspect_folder.inspect(run.model_folder)
  print(findings)
  if n_bad := sum(not works for works, _ in findings.checks):
    raise UserError(f'{run.model_folder}: {n_bad} of the above will not work')


def index(run: Run) -> None:
  """Builds an index of a user's own documents and images."""
  from gog_jax.index import backend
  from gog_jax.index import build

  c = run.config
  print(
      build.build(
          c.index,
          docs=c.docs,
          images=c.images,
          encoder=backend.load_encoder(c.encoder),
      )
  )


def retrieve(run: Run) -> None:
  """Serves an index over HTTP."""
  from gog_jax.index import backend
  from gog_jax.index import serve

  c = run.config
  opened = backend.open_index(c.index, encoder=c.encoder)
  serve.serve(opened, host=c.host, port=c.port)


def ask(run: Run) -> None:
  """Asks one question about one image."""
  from gog_jax.app import ask

  stages.prepare(run)
  ask.ask(run)


def benchmark(run: Run) -> None:
  """Says what a published set of questions holds.

  Raises:
    UserError: It cannot be used.
  """
  from gog_jax.questions import benchmarks
  from gog_jax.questions.benchmarks import describe

  opened = benchmarks.open(**run.config.benchmark, workdir=run.workdir)
  print(describe.describe(opened))
  metrics.say(f'benchmark: hashes kept in {run.workdir / "benchmarks"}')


def instruct(run: Run) -> None:
  """Builds a GoG-Instruct set."""
  from gog_jax.instruct import build
  from gog_jax.instruct import settings
  from gog_jax.toy import expert

  stages.prepare(run)
  needed = settings.stages(run.config)
  stages.bring(run, needed, 'instruct')
  inputs = {name: stages.identity(run, name) for name in needed}
  if run.config.instruct.teacher == settings.EXPERT:
    inputs['maker'] = expert.version()
  facts = build.build(run, inputs)
  print(build.shown(run, facts))


def judge(run: Run) -> None:
  """Measures how often a judge says what people say.

  Raises:
    UserError: The file holds no label, or the judge cannot be asked or fails
      too often.
  """
  from gog_jax.judge import agreement
  from gog_jax.judge import config
  from gog_jax.judge.judge import Judge

  config.check(run.config.judge)
  asked = Judge(run.config.judge, run.workdir)
  path = run.workdir / 'agreement.json'
  found = agreement.measure(asked, run.config.labels, path)
  print(agreement.table(found))
  metrics.say(f'judge: {path}')


def convert(run: Run) -> None:
  """Writes training data in another format.

  Raises:
    UserError: Nothing in it is of use.
  """
  from gog_jax.conversations import convert
  from gog_jax.train import sft_data

  c = run.config
  if not c.input or not c.output:
    raise UserError('pass --config.input=FILE and --config.output=FILE')
  done = convert.convert(
      c.input,
      c.output,
      form=c.format,
      chat=lambda: run.chat,
      split=c.split,
      name=c.name,
      description=c.description,
  )
  sft_data.say(done)
  print(
      f'{len(done.items)} conversations written to {c.output} as {c.format}, '
      f'{len(done.drops)} dropped'
  )


def table(run: Run) -> None:
  """Puts what runs have evaluated beside the paper's table."""
  from gog_jax.report import table as report_table

  c = run.config.table
  print(
      report_table.make(
          c.workdirs or (run.workdir,), run.workdir, seed=c.seed
      ),
      end='',
  )
  metrics.say(f'table: {run.workdir / "table.md"} and table.json')


COMMANDS: dict[str, Callable[[Run], None]] = {
    'inspect': inspect,
    'index': index,
    'retrieve': retrieve,
    'ask': ask,
    'benchmark': benchmark,
    'instruct': instruct,
    'judge': judge,
    'convert': convert,
    'table': table,
}


def dry_run(run: Run) -> None:
  """Says what an evaluation or a builder's run would take, and asks nobody.

  For the builder the world's questions are made, if it asks those and they are
  not there.

  Raises:
    UserError: The page is about neither, or as a walk says at once.
  """
  from gog_jax.app import config_check
  from gog_jax.evaluation import estimate
  from gog_jax.instruct import estimate as instruct_estimate
  from gog_jax.instruct import settings

  if run.config.stage == 'eval':
    config_check.check(run.config)
    print(estimate.describe(estimate.estimate(run)))
  elif run.config.stage == 'instruct':
    stages.prepare(run)
    needed = [name for name in settings.stages(run.config) if name == 'data']
    stages.bring(run, needed, 'instruct')
    print(instruct_estimate.table(run))
  else:
    raise UserError(
        '--dry_run is for --config=configs/eval.py and instruct.py, not for a '
        f'page of stage {run.config.stage!r}'
    )


def do(run: Run) -> None:
  """Does what `config.stage` names.

  Raises:
    UserError: Nothing has that name, or as the stage or command says.
  """
  name = run.config.stage
  if name in COMMANDS:
    COMMANDS[name](run)
  elif name in stages.TARGETS:
    stages.walk(run)
  else:
    known = ', '.join((*stages.TARGETS, *COMMANDS))
    raise UserError(f'unknown stage {name!r}; there are {known}')

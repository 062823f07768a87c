"""Asks one question about one image, and shows how it is answered."""

from __future__ import annotations

import contextlib

from etils import epath

from gog_jax import images
from gog_jax.app import narrator
from gog_jax.config import paradigms
from gog_jax.config.pages import AskPage
from gog_jax.errors import UserError
from gog_jax.evaluation import policies
from gog_jax.remote import secrets
from gog_jax.remote.endpoint import shown_url
from gog_jax.report import cards
from gog_jax.rollout.policy import Request
from gog_jax.storage import blobs
from gog_jax.storage import files
from gog_jax.storage import trajectories as store
from gog_jax.toy import knowledge
from gog_jax.types import Example
from gog_jax.types import StopReason
from gog_jax.types import Trajectory


def ask(config: AskPage, workdir: epath.Path) -> None:
  """Asks, tells it on the terminal, and writes the record and the page.

  Raises:
    UserError: The image cannot be read, the policy is not there or fails, or
      the folder cannot be written.
  """
  if config.tools.searches_world:
    knowledge.world_of(config.scope)
  example = read_example(config)
  name = config.policy
  model = paradigms.parse(name, config.arms).model
  run = policies.trained_run(config, workdir, name)
  policy = policies.make(run, name, tolerant=False)
  told = narrator.Narrator(example)
  who, key = config.policy, {}
  if model == paradigms.REMOTE:
    who = f'{config.remote.model} at {shown_url(config.remote.url)}'
    if secrets.from_environment(variable := config.remote.key_variable):
      key = {'key': f'from the variable {variable}'}
  told.header(image=str(config.image), policy=who, **key)
  request = Request(example=example, sample=0, seed=run.seed('ask'))
  finished: list[Trajectory] = []
  run.loop(
      policy,
      on_finished=lambda *done: finished.append(done[-1]),
      on_turn=lambda _, turn: told.on_turn(turn),
  ).run([request])
  (trajectory,) = finished
  folder = _next_folder(run.workdir / 'ask')
  store.write(folder / 'trajectories.jsonl', [trajectory], [example])
  page = epath.Path(config.page) if config.page else folder
  if page.suffix != '.html':
    page = page / 'index.html'
  shown = cards.render(
      'ask.html.j2',  # The report's card of a trajectory, which nobody judges.
      package='gog_jax.app',
      card=cards.card(who, example, trajectory),
      counts=narrator.counts(trajectory),
  )
  files.write_atomic(page, shown)
  facts = {'page': str(page)}
  if model == paradigms.REMOTE and trajectory.stop_reason == StopReason.LENGTH:
    facts['hint'] = (
        'its last message was cut off: raise --config.remote.max_tokens or '
        '--config.rollout.max_turn_tokens'
    )
  told.footer(trajectory, **facts)


def read_example(config: AskPage) -> Example:
  """The question with its image; what would be right is not known.

  Raises:
    UserError: The image cannot be read.
  """
  path = epath.Path(config.image)
  with files.readable(f'--config.image={path}'):
    data = path.read_bytes()
  try:
    image = images.decode(data)
  except UserError as error:
    raise UserError(f'--config.image={path}: {error}') from error
  if blobs.suffix_of(data) == 'bin':  # Examples hold no other kinds.
    data = images.encode_png(image)
  return Example(
      id=path.name,
      images=(data,),
      question=config.question,
      answers=(),
      source='',
      scope=config.scope,
  )


def _next_folder(parent: epath.Path) -> epath.Path:
  """A new folder, numbered from 1.

  Raises:
    UserError: It cannot be made.
  """
  # In a bucket, nothing refuses to be made twice.
  taken = {path.name for path in parent.iterdir()} if parent.exists() else set()
  number = 1
  while True:
    folder = parent / f'{number:04d}'
    number += 1
    if folder.name in taken:
      continue
    with files.writable(folder), contextlib.suppress(FileExistsError):
      folder.mkdir(parents=True)
      return folder

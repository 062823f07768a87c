"""What SFT imitates: the expert's demos, or a user's own data.

A user's data is encoded once, for this run's model, into the stage's folder,
from where any number of workers read it at random. Demonstrations of questions
that are evaluated, too, are left out: see questions/leaks.py.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
import functools
import math
from typing import Any

from etils import epath

from gog_jax import interrupt
from gog_jax.conversations import reader
from gog_jax.conversations.encode import encode
from gog_jax.conversations.messages import Conversation
from gog_jax.conversations.messages import IMAGE
from gog_jax.conversations.messages import Role
from gog_jax.conversations.messages import unescape
from gog_jax.conversations.regions import FrameError
from gog_jax.errors import UserError
from gog_jax.questions import checked
from gog_jax.questions import splits
from gog_jax.run import Run
from gog_jax.storage import metrics
from gog_jax.storage import rollouts
from gog_jax.storage import trajectories as trajectories_lib
from gog_jax.storage.records import Loaded
from gog_jax.storage.records import sift
from gog_jax.storage.records import Unusable
from gog_jax.types import Example
from gog_jax.types import Trajectory

# Every stage asks for it; it is computed once a process.
digest = functools.cache(reader.digest)

_SAID = 5  # Drops that are said one by one.


def read(
    run: Run, folder: epath.Path, *, demos: str, path: str
) -> tuple[Sequence[Trajectory], dict[str, Any]]:
  """Reads what to imitate; returns it with facts for the manifest.

  Args:
    run: Its chat and limits decide what can be used.
    folder: The stage's.
    demos: The stage that made the demos, if there is no `path`.
    path: The user's file or folder, or ''.

  Raises:
    UserError: There is no usable record.
  """
  if not path:
    made = run.workdir / demos / 'trajectories.jsonl'
    shown = trajectories_lib.read(made, Trajectory)
    return shown, {'n_demos': len(shown)}
  found = reader.read(
      path, run=lambda: run, data_box=run.config.sft.data_box
  )
  target = epath.Path(folder) / 'data'
  if target.exists():  # Of a start that was stopped.
    target.rmtree()
  with rollouts.Rollouts(target) as encoded:

    def take(trajectory: Trajectory) -> None:
      check(run, trajectory)
      encoded.add(len(encoded.items), {}, trajectory=trajectory)

    kept, left_out = encoded_as(run, found, take)
  say(kept)
  checked.check_same(left_out, target.parent / 'left_out.json')
  facts = {'n_demos': len(kept.items), 'dropped': kept.reasons()}
  return rollouts.Saved(target), facts


def encoded_as(
    run: Run,
    found: Loaded[Conversation],
    take: Callable[[Trajectory], None],
) -> tuple[Loaded[str], list[str]]:
  """Encodes a user's data for this run's model.

  Args:
    run: Its chat decides what can be encoded.
    found: As `reader.read` gives it.
    take: Given each trajectory; what raises Unusable is dropped.

  Returns:
    Ids of what is kept; and of what is left out since it is evaluated, too.

  Raises:
    UserError: There is no usable record.
  """
  leaked = splits.leaked(run.config, workdir=run.workdir)
  left_out = list[str]()

  def keep(told: Conversation) -> str:
    interrupt.check()
    try:
      trajectory = encode(
          told, run.chat, run.box_spec, data_box=run.config.sft.data_box
      )
      why = next(filter(None, map(leaked, _asked(told))), '')
    except FrameError:
      raise  # It is that of all.
    except UserError as error:
      raise Unusable('damaged', str(error)) from error
    if why:
      left_out.append(told.id)
      raise Unusable(checked.LEAKED, why)
    take(trajectory)
    return told.id

  kept = sift(
      found.name,
      ((f'{found.name}, {told.id}', told) for told in found.items),
      keep,
      drops=found.drops,
  )
  return kept.required(), left_out


def say(found: Loaded[Any]) -> None:
  """Prints the first drops, and how many there are by reason."""
  for drop in found.drops[:_SAID]:
    metrics.say(f'dropped: {drop}')
  if len(found.drops) > _SAID:
    metrics.say(f'dropped: {len(found.drops) - _SAID} more')
  if found.drops:
    counts = ', '.join(f'{why} {n}' for why, n in found.reasons().items())
    metrics.say(f'{found.name}: {len(found.items)} of use; dropped: {counts}')


def _asked(told: Conversation) -> Iterator[Example]:
  """What the user asks, each with all images so far."""
  n_shown = 0
  for message in told.messages:
    n_shown += message.text.count(IMAGE)
    if message.role == Role.USER:
      yield Example(
          id=told.id,
          images=tuple(one.read() for one in told.pictures[:n_shown]),
          question=unescape(message.text.replace(IMAGE, ' ')),
          answers=(),
          source='',
          scope='',
      )


def check(run: Run, trajectory: Trajectory) -> None:
  """Refuses a trajectory that this run cannot train on.

  Raises:
    Unusable: It is too long or has no targets.
  """
  c = run.config.batch
  n_tokens, n_patches = size_of(trajectory)
  if n_tokens > c.row_tokens or n_patches > c.row_patches:
    raise Unusable(
        'too long',
        f'{n_tokens} tokens and {n_patches} patches, a row holds '
        f'config.batch.row_tokens={c.row_tokens} and '
        f'row_patches={c.row_patches}',
    )
  if not trajectory.loss_mask.any():
    raise Unusable('no targets', 'no token of it is a target')


def size_of(trajectory: Trajectory) -> tuple[int, int]:
  """Tokens and image patches, of which a packed row holds so many."""
  patches = sum(math.prod(one.grid) for one in trajectory.placements)
  return len(trajectory.token_ids), patches

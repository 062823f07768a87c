"""What SFT imitates: the expert's demos, or a user's own data.

Unless the data is a TFDS set, its usable records are written to the stage's
folder as one: encoded once, and read at random by any number of workers.
"""

from __future__ import annotations

from collections.abc import Sequence
import functools
import math
import operator
from typing import Any

from etils import epath

from gog_jax import images as image_files
from gog_jax.conversations import reader
from gog_jax.conversations import tfds_set
from gog_jax.conversations.record import Record
from gog_jax.run import Run
from gog_jax.storage import metrics
from gog_jax.storage import trajectories as trajectories_lib
from gog_jax.storage.records import Loaded
from gog_jax.storage.records import Mapped
from gog_jax.storage.records import Unusable
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
      path, chat=lambda: run.chat, check=lambda record: _check(run, record)
  )
  say(found)
  records = found.items
  if reader.kind_of(path) != 'tfds':
    tfds_set.write(
        folder / 'data', records, name='sft_data', description='For SFT.'
    )
    records = tfds_set.load(folder / 'data')
  facts = {'n_demos': len(records), 'dropped': found.reasons()}
  return Mapped(records, operator.attrgetter('trajectory')), facts


def say(found: Loaded[Any]) -> None:
  """Prints the first drops, and how many there are by reason."""
  for drop in found.drops[:_SAID]:
    metrics.say(f'dropped: {drop}')
  if len(found.drops) > _SAID:
    metrics.say(f'dropped: {len(found.drops) - _SAID} more')
  if found.drops:
    counts = ', '.join(f'{why} {n}' for why, n in found.reasons().items())
    metrics.say(f'{found.name}: {len(found.items)} of use; dropped: {counts}')


def _check(run: Run, record: Record) -> None:
  """Refuses a record that this run cannot train on.

  Raises:
    Unusable: It is too long, has no targets, or was made for another model.
  """
  trajectory, c = record.trajectory, run.config.batch
  n_tokens = len(trajectory.token_ids)
  n_patches = sum(math.prod(p.grid) for p in trajectory.placements)
  if n_tokens > c.row_tokens or n_patches > c.row_patches:
    raise Unusable(
        'too long',
        f'{n_tokens} tokens and {n_patches} patches, a row holds '
        f'config.batch.row_tokens={c.row_tokens} and '
        f'row_patches={c.row_patches}',
    )
  if not trajectory.loss_mask.any():
    raise Unusable('no targets', 'no token of it is a target')
  head = run.chat.head
  if tuple(trajectory.token_ids[: len(head)].tolist()) != head or any(
      run.processor.grid(
          *image_files.size_of(trajectory.images[placement.image].data)
      )
      != placement.grid
      for placement in trajectory.placements
  ):
    raise Unusable(
        'other model',
        'its tokens are for another model, dialect, set of tools or '
        'model.max_image_tokens than this run has',
    )

"""Orbax checkpoints of a training run: all of it, or nothing.

Restore order, when a training stage starts:

1. The base model's folder (for pretraining, the initialiser).
2. The stage it builds on: GRPO loads what SFT trained, twice: the policy, and
   the frozen reference of its KL.
3. Its own newest whole checkpoint, if there is one: parameters, optimizer, RNG
   and step replace those of 1 and 2, the data iterator moves to where it stood.
4. Metrics written after that step are dropped; the run goes on as if it had
   never been killed.

A checkpoint that a kill left half-written has no commit marker: Orbax does not
list it, and the one before it is used.
"""

from __future__ import annotations

from collections.abc import Iterator
import contextlib
from typing import Any

from etils import epath
import grain
import jax
import numpy as np
import orbax.checkpoint as ocp

from gog_jax.errors import first_line
from gog_jax.errors import UserError
from gog_jax.storage import disk
from gog_jax.storage import files


class Checkpointer:
  """Saves and restores a pytree with the data iterator that feeds it.

  Args:
    folder: Where checkpoints go, one subfolder a step.
    every: Steps between checkpoints.
    keep: How many of the newest to keep.
  """

  def __init__(self, folder: epath.PathLike, *, every: int, keep: int):
    self._every = every
    folder = epath.Path(folder)
    with files.writable(folder):
      folder.mkdir(parents=True, exist_ok=True)
    self._manager = ocp.CheckpointManager(
        _absolute(folder),
        options=ocp.CheckpointManagerOptions(
            max_to_keep=keep, enable_async_checkpointing=True
        ),
    )

  def __enter__(self) -> Checkpointer:
    return self

  def __exit__(self, *unused_error) -> None:
    self._manager.wait_until_finished()
    self._manager.close()

  def latest_step(self) -> int | None:
    """The newest whole checkpoint's step; None without one."""
    return self._manager.latest_step()

  def is_due(self, step: int) -> bool:
    """Whether `step` is one of those saved regularly."""
    return step % self._every == 0

  def save(self, step: int, state: Any, iterator: Any) -> None:
    """Saves in the background, unless this step is saved already.

    Raises:
      UserError: The disk has no room for it.
    """
    if step == self.latest_step():
      return
    self._manager.wait_until_finished()  # Or its room would count as free.
    disk.check_room(self._manager.directory, _n_bytes(state))
    self._manager.save(
        step,
        args=ocp.args.Composite(
            state=ocp.args.StandardSave(state),
            data=grain.checkpoint.CheckpointSave(iterator),
        ),
        force=True,
    )

  def restore(self, state: Any, iterator: Any) -> Any:
    """The newest checkpoint's state, laid out like `state`.

    `iterator` is moved to where it stood.

    Raises:
      UserError: The checkpoint does not fit `state`: another config made it;
        or other hosts or data workers than now read its data.
    """
    self._check_processes()
    with _fitting(self._manager.directory):
      restored = self._manager.restore(
          self.latest_step(),
          args=ocp.args.Composite(
              state=ocp.args.StandardRestore(_abstract(state)),
              data=grain.checkpoint.CheckpointRestore(iterator),
          ),
      )
    return restored['state']

  def _check_processes(self) -> None:
    """Refuses what another number of processes saved: their data differ."""
    data = self._manager.directory / str(self.latest_step()) / 'data'
    name = f'process_{jax.process_index()}-of-{jax.process_count()}.json'
    saved = sorted(path.name for path in data.glob('process_*-of-*.json'))
    if saved and name not in saved:
      n = saved[0].rpartition('-of-')[2].removesuffix('.json')
      raise UserError(
          f'the checkpoint in {self._manager.directory} was saved by {n} '
          f'processes, now there are {jax.process_count()}: its place in the '
          'data would be lost; start as many, or use another --workdir'
      )


def save_pytree(folder: epath.PathLike, tree: Any) -> None:
  """Writes a finished stage's parameters, replacing older ones.

  Raises:
    UserError: The disk has no room for them.
  """
  disk.check_room(folder, _n_bytes(tree))
  with ocp.StandardCheckpointer() as checkpointer:
    checkpointer.save(_absolute(epath.Path(folder)), tree, force=True)


def load_pytree(folder: epath.PathLike, like: Any) -> Any:
  """Reads `save_pytree`'s output, laid out (shapes, shardings) like `like`.

  Raises:
    UserError: There is none, or another config made it.
  """
  path = epath.Path(folder)
  if not path.exists():
    raise UserError(f'{path} does not exist; run the stage that makes it first')
  path = _absolute(path)
  with ocp.StandardCheckpointer() as checkpointer, _fitting(path):
    return checkpointer.restore(path, _abstract(like))


def _absolute(path: epath.Path) -> epath.Path:
  """What Orbax asks for; a bucket's path already is."""
  return path if '://' in str(path) else path.resolve()


def _n_bytes(tree: Any) -> int:
  """Bytes of a tree, and an eighth more for what describes it."""
  return sum(getattr(x, 'nbytes', 8) for x in jax.tree.leaves(tree)) * 9 // 8


@contextlib.contextmanager
def _fitting(folder: epath.Path) -> Iterator[None]:
  """Makes Orbax's ValueError about other shapes or names a UserError."""
  try:
    yield
  except ValueError as error:
    raise UserError(
        f'the checkpoint in {folder} does not fit this config '
        f'({first_line(error)}); use another --workdir'
    ) from error


def _abstract(tree: Any) -> Any:
  def leaf(x):
    if isinstance(x, jax.Array):
      return jax.ShapeDtypeStruct(x.shape, x.dtype, sharding=x.sharding)
    return np.asarray(x)

  return jax.tree.map(leaf, tree)

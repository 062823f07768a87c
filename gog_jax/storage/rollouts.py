"""Rolled-out items on disk, each durable as it finishes.

    FOLDER/trajectories.jsonl   a line per finished item, see trajectories.py
    FOLDER/examples.jsonl       what was asked, likewise
    FOLDER/images/

Lines stand in the order in which items finished; if an item was rolled out
again, its last line counts. The files can be read at any time.

A line is written at once and never changed: a kill loses what was under way
and at worst leaves a partial line, which is dropped. Objects in a bucket cannot
be appended to, so there whole files are written from time to time, and a kill
also loses what finished since.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
import contextlib
import functools
import json
import os
import time
from typing import Any

from etils import epath

from gog_jax.errors import UserError
from gog_jax.storage import blobs
from gog_jax.storage import files
from gog_jax.storage import trajectories as store
from gog_jax.storage.records import Lazy
from gog_jax.types import Example
from gog_jax.types import Trajectory

_SYNC_S = 1.0  # A power failure loses no more than this.
_BUCKET_S = 60.0
_GOES_ON = 'what finished before is kept: the same command goes on'


def items(folder: epath.PathLike) -> dict[int, Mapping[str, Any]]:
  """The notes on each finished item, by its number.

  Raises:
    UserError: A line is damaged.
  """
  found, _, _ = _scan(epath.Path(folder) / 'trajectories.jsonl')
  return found


def read(
    folder: epath.PathLike, *, images: bool = True
) -> tuple[list[Trajectory], list[Example]]:
  """What there is in a folder, complete or not, in the items' order.

  Args:
    folder: Another process may be adding to it.
    images: False leaves every image empty, for those who only count.

  Raises:
    UserError: As `trajectories.read`.
  """
  folder = epath.Path(folder)
  read_all = functools.partial(store.read, images=images, growing=True)
  return (
      read_all(folder / 'trajectories.jsonl', Trajectory),
      read_all(folder / 'examples.jsonl', Example),
  )


class Rollouts:
  """A folder of items that one process adds to.

  Attributes:
    items: The notes on each finished item, by its number.
  """

  def __init__(self, folder: epath.PathLike, *, samples: int = 1):
    """Continues where an earlier process stopped.

    Args:
      folder: Where the files are.
      samples: Items per example: item n is about example n // samples.

    Raises:
      UserError: Another process is adding to it, or it is damaged or cannot be
        written.
    """
    self._folder = epath.Path(folder)
    self._samples = samples
    self._sync_s = _SYNC_S
    with contextlib.ExitStack() as stack:
      if '://' in str(folder):
        self._sync_s = _BUCKET_S
      else:
        lock = files.lock(
            self._folder / '.lock',
            taken=f'another process is at {folder}: wait until it is done',
            unwritable='choose a folder you can write with --workdir=FOLDER',
        )
        stack.callback(lock.release)
      self._examples = _File(self._folder / 'examples.jsonl', stack)
      self._trajectories = _File(self._folder / 'trajectories.jsonl', stack)
      self._open = stack.pop_all()
    self._synced = time.monotonic()
    self.items = self._trajectories.items

  def __enter__(self) -> Rollouts:
    return self

  def __exit__(self, *unused_error) -> None:
    """Syncs, and lets other processes continue."""
    with self._open:
      self.sync()

  def add(
      self,
      index: int,
      item: Mapping[str, Any],
      example: Example | None = None,
      trajectory: Trajectory | None = None,
  ) -> None:
    """Keeps a finished item.

    Args:
      index: Its number.
      item: The notes on it, for `items`.
      example: What was asked; None keeps the notes alone.
      trajectory: Likewise.

    Raises:
      UserError: The files cannot be written.
    """
    asked = index // self._samples
    if example is not None and asked not in self._examples.items:
      self._examples.add({'index': asked}, example)
    self._trajectories.add({'index': index, **item}, trajectory)
    if time.monotonic() - self._synced > self._sync_s:
      self.sync()

  def read(self, indices: Iterable[int]) -> Iterator[Trajectory]:
    """The trajectories of finished items.

    Raises:
      UserError: As `trajectories.read`.
    """
    self.sync()
    load = store.loader(self._folder)
    for index, line in self._trajectories.lines(indices):
      where = f'{self._trajectories.path}, item {index},'
      _, trajectory = store.decode(line, Trajectory, load, where=where)
      yield trajectory

  def sync(self) -> None:
    """Flushes what was added to the disk."""
    self._examples.sync()  # First: no trajectory without what was asked.
    self._trajectories.sync()
    self._synced = time.monotonic()

  def settle(self) -> None:
    """Rewrites the files in the items' order; nothing is added after that."""
    self.sync()
    for file in (self._examples, self._trajectories):
      lines = file.lines(sorted(file.items))
      files.write_atomic(file.path, (line for _, line in lines))


class Saved(Lazy[Trajectory]):
  """A folder's trajectories in the items' order, read one at a time.

  Grain's workers get it pickled.
  """

  def __init__(self, folder: epath.PathLike):
    """Opens a folder to which nobody adds.

    Raises:
      UserError: A line is damaged.
    """
    self._path = epath.Path(folder) / 'trajectories.jsonl'
    _, starts, _ = _scan(self._path)
    self._starts = [starts[index] for index in sorted(starts)]

  def __len__(self) -> int:
    return len(self._starts)

  def item(self, index: int) -> Trajectory:
    """Reads one; raises UserError if it is damaged."""
    with self._path.open('rb') as f:
      f.seek(self._starts[index])
      line = f.readline()
    load = functools.partial(blobs.get, self._path.parent)
    where = f'{self._path}, item {index},'
    return store.decode(line, Trajectory, load, where=where)[1]


class _File:
  """A file of items' lines, open for adding.

  Attributes:
    path: Where it is.
    items: The notes in each item's last line.
  """

  def __init__(self, path: epath.Path, stack: contextlib.ExitStack):
    """Drops a partial last line; `stack` closes the file."""
    self.path = path
    self.items, self._starts, self._end = _scan(path)
    self._synced = self._end
    self._texts, self._file = [], None
    if '://' not in str(path):
      self._file = stack.enter_context(open(path, 'ab', buffering=0))
      self._file.truncate(self._end)
    elif path.exists():
      self._texts = [path.read_text()]

  def add(self, item: Mapping[str, Any], record: Any) -> None:
    folder = self.path.parent
    text = store.encode(record, item, lambda data: blobs.put(folder, data))
    if self._file is None:
      self._texts.append(text)
    else:
      rest = memoryview(text.encode('ascii'))
      with files.writable(self.path, _GOES_ON):
        while rest:
          rest = rest[self._file.write(rest) :]
    self.items[item['index']] = item
    self._starts[item['index']] = self._end
    self._end += len(text)

  def sync(self) -> None:
    if self._synced == self._end:
      return
    if self._file is None:
      files.write_atomic(self.path, self._texts)
    else:
      os.fsync(self._file)
    self._synced = self._end

  def lines(self, indices: Iterable[int]) -> Iterator[tuple[int, bytes]]:
    """Items with their last lines, read one at a time."""
    if not self.items:
      return
    with self.path.open('rb') as f:
      for index in indices:
        f.seek(self._starts[index])
        yield index, f.readline()


def _scan(
    path: epath.Path,
) -> tuple[dict[int, Mapping[str, Any]], dict[int, int], int]:
  """Reads the notes on items, by their numbers.

  Returns:
    The notes in the last whole line of each item, where that line begins, and
    where the whole lines end.

  Raises:
    UserError: A line is damaged.
  """
  items: dict[int, Mapping[str, Any]] = {}
  starts: dict[int, int] = {}
  start = 0
  if not path.exists():
    return items, starts, start
  decoder = json.JSONDecoder()
  with path.open('rb') as f:
    for number, line in enumerate(f, start=1):
      if not line.endswith(b'\n'):  # It was cut off, or is being written.
        break
      text = line.decode('ascii', 'replace')
      try:
        if not text.startswith(store.HEAD):
          raise ValueError
        item, _ = decoder.raw_decode(text, len(store.HEAD))
        items[item['index']] = item
        starts[item['index']] = start
      except (ValueError, KeyError, TypeError) as error:
        raise UserError(
            f'{path}, line {number}, is damaged or of another version; '
            f'delete {path.parent} to have it made again'
        ) from error
      start += len(line)
  return items, starts, start

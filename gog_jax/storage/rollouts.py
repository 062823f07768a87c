"""Rolled-out items on disk, each durable as it finishes.

    FOLDER/trajectories.jsonl   a line per finished item, see trajectories.py
    FOLDER/examples.jsonl       what was asked, likewise
    FOLDER/images/

Lines stand in the order in which the items finished; of an item that was rolled
out again the last one counts. The files can be read at any time.

A line is written in one piece and never changed: a kill loses what was under
way and at worst leaves a line that is cut off, which is dropped. In a bucket,
where nothing can be appended, whole files are written now and then: a kill
also loses what finished since.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
import json
import os
import time
from typing import Any, NamedTuple

from etils import epath

from gog_jax.errors import UserError
from gog_jax.storage import blobs
from gog_jax.storage import files
from gog_jax.storage import trajectories as store
from gog_jax.types import Example
from gog_jax.types import Trajectory

KINDS = ('examples', 'trajectories')  # Examples reach the disk first.
_SYNC_S = 1.0  # A power failure loses no more than this.
_BUCKET_S = 60.0


class _Line(NamedTuple):
  """An item's line: its first byte, and what it says of the item."""

  start: int
  item: Mapping[str, Any]


def items(folder: epath.PathLike) -> dict[int, Mapping[str, Any]]:
  """What is noted of each finished item, by its number.

  Raises:
    UserError: A line is no item's.
  """
  lines, _ = _scan(epath.Path(folder) / 'trajectories.jsonl')
  return {index: line.item for index, line in lines.items()}


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
  options = dict(images=images, growing=True)
  return (
      store.read(folder / 'trajectories.jsonl', **options),
      store.read_examples(folder / 'examples.jsonl', **options),
  )


class Rollouts:
  """A folder of items that one process adds to.

  Attributes:
    items: What is noted of each finished item, by its number.
  """

  def __init__(self, folder: epath.PathLike, *, samples: int = 1):
    """Continues where an earlier process stopped.

    Args:
      folder: Where the files are.
      samples: Items of one example: number n is about example n // samples.

    Raises:
      UserError: Another process is adding to it, or it is damaged or cannot be
        written.
    """
    self._folder = epath.Path(folder)
    self._samples = samples
    self._in_bucket = '://' in str(folder)
    self._paths = {kind: self._folder / f'{kind}.jsonl' for kind in KINDS}
    if not self._in_bucket:
      self._lock = files.lock(
          self._folder / '.lock',
          taken=f'another process is at {self._folder}: wait until it is done',
          unwritable='choose a folder you can write with --workdir=FOLDER',
      )
    try:
      self._open()
    except BaseException:
      self._release()
      raise

  def _open(self) -> None:
    self._lines: dict[str, dict[int, _Line]] = {}
    self._ends: dict[str, int] = {}
    for kind, path in self._paths.items():
      self._lines[kind], self._ends[kind] = _scan(path)
    self.items: dict[int, Mapping[str, Any]] = {
        index: line.item for index, line in self._lines['trajectories'].items()
    }
    self._synced = time.monotonic()
    self._unsynced = False
    if self._in_bucket:
      self._texts = {
          kind: [path.read_text()] if path.exists() else []
          for kind, path in self._paths.items()
      }
      return
    self._files = {
        kind: open(path, 'ab', buffering=0)
        for kind, path in self._paths.items()
    }
    for kind, file in self._files.items():
      file.truncate(self._ends[kind])

  def __enter__(self) -> Rollouts:
    return self

  def __exit__(self, *unused_error) -> None:
    """Syncs, and lets other processes continue."""
    try:
      self.sync()
    finally:
      if not self._in_bucket:
        for file in self._files.values():
          file.close()
      self._release()

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
      item: What `items` says of it later.
      example: What was asked; None keeps `item` alone.
      trajectory: Likewise.

    Raises:
      UserError: The files cannot be written.
    """
    asked = index // self._samples
    if example is not None and asked not in self._lines['examples']:
      self._append('examples', {'index': asked}, example)
    self._append('trajectories', {'index': index, **item}, trajectory)
    self.items[index] = self._lines['trajectories'][index].item
    every = _BUCKET_S if self._in_bucket else _SYNC_S
    if time.monotonic() - self._synced > every:
      self.sync()

  def read(self, indices: Iterable[int]) -> Iterator[Trajectory]:
    """The trajectories of finished items.

    Raises:
      UserError: As `trajectories.read`.
    """
    self.sync()
    path = self._paths['trajectories']
    load = store.loader(self._folder)
    with path.open('rb') as f:
      for index in indices:
        f.seek(self._lines['trajectories'][index].start)
        where = f'{path}, item {index},'
        _, trajectory = store.decode(
            f.readline(), store.trajectory_of, load, where=where
        )
        yield trajectory

  def sync(self) -> None:
    """Has what was added reach the disk."""
    if not self._unsynced:
      return
    for kind in KINDS:
      if self._in_bucket:
        files.write_atomic(self._paths[kind], ''.join(self._texts[kind]))
      else:
        os.fsync(self._files[kind])
    self._synced = time.monotonic()
    self._unsynced = False

  def settle(self) -> None:
    """Rewrites the files in the items' order; nothing is added after that."""
    self.sync()
    for kind, path in self._paths.items():
      files.write_atomic(path, _texts(path, self._lines[kind]))

  def _release(self) -> None:
    if not self._in_bucket:
      self._lock.release()

  def _append(self, kind: str, item: Mapping[str, Any], record: Any) -> None:
    text = store.encode(record, item, lambda d: blobs.put(self._folder, d))
    self._unsynced = True
    if self._in_bucket:
      self._texts[kind].append(text)
    else:
      rest = memoryview(text.encode('ascii'))
      try:
        while rest:
          rest = rest[self._files[kind].write(rest) :]
      except OSError as error:
        raise UserError(
            f'cannot write {self._paths[kind]}: {error.strerror or error}; '
            'what finished before is kept: the same command goes on'
        ) from error
    self._lines[kind][item['index']] = _Line(self._ends[kind], item)
    self._ends[kind] += len(text)


def _scan(path: epath.Path) -> tuple[dict[int, _Line], int]:
  """The last whole line of each item, and where the whole lines end.

  Raises:
    UserError: A line is no item's.
  """
  found: dict[int, _Line] = {}
  start = 0
  if not path.exists():
    return found, start
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
        found[item['index']] = _Line(start, item)
      except (ValueError, KeyError, TypeError) as error:
        raise UserError(
            f'{path}, line {number}, is damaged or of another version; '
            f'delete {path.parent} to have it made again'
        ) from error
      start += len(line)
  return found, start


def _texts(path: epath.Path, lines: Mapping[int, _Line]) -> Iterator[str]:
  """The lines themselves, in the items' order, read one at a time."""
  if not lines:
    return
  with path.open('rb') as f:
    for index in sorted(lines):
      f.seek(lines[index].start)
      yield f.readline().decode('ascii')

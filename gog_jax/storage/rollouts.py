"""Rolled-out items on disk, each durable as it finishes.

    FOLDER/trajectories.jsonl   a line for each item, its number first:
                                {"version":1,"item":{"index":3, ..}, ..}
    FOLDER/examples.jsonl       what was asked, likewise
    FOLDER/images/              see trajectories.py
    FOLDER/trajectories.0-of-2.jsonl, ..
                                one of two hosts', until the last of them puts
                                all into the above

While items are being made, lines stand in the order in which they finished; of
an item that was tried again the last one counts. Once all are there the files
are written again, in the items' order. They can be read at any time.

A line is written in one piece and never changed: a kill loses what was under
way, and at worst leaves a line that is cut off, which is dropped. In a bucket,
where nothing can be appended, a file is written whole now and then: a kill
also loses what finished since.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
import dataclasses
import json
import os
import re
import time
from typing import Any, TypeVar

from etils import epath

from gog_jax.errors import UserError
from gog_jax.storage import blobs
from gog_jax.storage import files
from gog_jax.storage import trajectories as store
from gog_jax.types import Example
from gog_jax.types import Trajectory

T = TypeVar('T')

KINDS = ('trajectories', 'examples')
_HEAD = f'{{"version":{store.VERSION},"item":'
_NAME = re.compile(r'(?:trajectories|examples)(?:\.(\d+)-of-(\d+))?\.jsonl')
_SYNC_S = 1.0  # A power failure loses no more than this.
_BUCKET_S = 60.0


@dataclasses.dataclass(frozen=True)
class Line:
  """Where an item's line stands.

  Attributes:
    path: The file.
    start: Its first byte.
    item: What the line says of the item: its 'index', and what else it was
      written with.
  """

  path: epath.Path
  start: int
  item: Mapping[str, Any]


def lines(path: epath.PathLike) -> dict[int, Line]:
  """The last whole line of each item of a file, by number; none if no file.

  Raises:
    UserError: A line is no item's.
  """
  path = epath.Path(path)
  found: dict[int, Line] = {}
  if not path.exists():
    return found
  decoder = json.JSONDecoder()
  start = 0
  with path.open('rb') as f:
    for number, line in enumerate(f, start=1):
      if line.endswith(b'\n'):  # Or it is still being written.
        text = line.decode('ascii', 'replace')
        try:
          if not text.startswith(_HEAD):
            raise ValueError
          item, _ = decoder.raw_decode(text, len(_HEAD))
          found[item['index']] = Line(path, start, item)
        except (ValueError, KeyError, TypeError) as error:
          raise UserError(
              f'{path}, line {number}, is damaged or of another version; '
              f'delete {path.parent} to have it made again'
          ) from error
      start += len(line)
  return found


def read(
    folder: epath.PathLike, *, images: bool = True
) -> tuple[list[Trajectory], list[Example]]:
  """What there is in a folder, complete or not, in the items' order.

  Files without items' numbers, as `trajectories.write` makes them, are read
  as they stand.

  Args:
    folder: Of one host or of several, that may be at it.
    images: False leaves every image empty, for those who only count.

  Raises:
    UserError: As `trajectories.read`.
  """
  folder = epath.Path(folder)
  load = store.loader(folder) if images else lambda name: b''

  def read_kind(kind: str, decode: Callable[..., T]) -> list[T]:
    found = all_lines(folder, kind)
    return [
        store.decode_line(
            text, decode, load, where=f'{found[index].path}, item {index},'
        )
        for index, text in zip(sorted(found), _texts(found))
    ]

  path = folder / 'trajectories.jsonl'
  if path.exists() and not _is_numbered(path):
    return (
        store.read(path, images=images),
        store.read_examples(folder / 'examples.jsonl', images=images),
    )
  return (
      read_kind('trajectories', store.trajectory_of),
      read_kind('examples', store.example_of),
  )


def files_of(folder: epath.Path, kind: str) -> list[epath.Path]:
  """The files of a kind in a folder: the whole one, or the hosts'."""
  whole = folder / f'{kind}.jsonl'
  if whole.exists():
    return [whole]
  names = sorted(folder.glob(f'{kind}.*.jsonl')) if folder.exists() else []
  return [path for path in names if _NAME.fullmatch(path.name)]


def all_lines(folder: epath.PathLike, kind: str = KINDS[0]) -> dict[int, Line]:
  """`lines` of every file of a kind in a folder."""
  found: dict[int, Line] = {}
  for path in files_of(epath.Path(folder), kind):
    found |= lines(path)
  return found


class Shard:
  """One host's share of a folder, open for writing."""

  def __init__(self, folder: epath.PathLike, *, host: int = 0, hosts: int = 1):
    """Goes on where an earlier process stopped.

    Raises:
      UserError: Another number of hosts has begun it, another process is at
        it, or it is damaged or cannot be written.
    """
    self._folder = epath.Path(folder)
    self._in_bucket = '://' in str(folder)
    _check_hosts(self._folder, hosts)
    part = '' if hosts == 1 else f'.{host}-of-{hosts}'
    self._paths = {
        kind: self._folder / f'{kind}{part}.jsonl' for kind in KINDS
    }
    if not self._in_bucket:
      path = self._folder / f'.lock{part}'
      self._lock = files.lock(
          path,
          taken=f'another process is at {self._paths[KINDS[0]]}: wait until it '
          'is done',
          unwritable='choose a folder you can write with --workdir=FOLDER',
      )
    try:
      self._open(_BUCKET_S if self._in_bucket else _SYNC_S)
    except BaseException:
      self._release()
      raise

  def _open(self, sync_s: float) -> None:
    self._asked = set(lines(self._paths['examples']))
    self.items: dict[int, Mapping[str, Any]] = {
        index: line.item
        for index, line in lines(self._paths['trajectories']).items()
    }
    self._sync_s = sync_s
    self._synced = time.monotonic()
    self._unsynced = False
    if self._in_bucket:
      self._texts = {
          kind: [path.read_text()] if path.exists() else []
          for kind, path in self._paths.items()
      }
    else:
      self._files = {
          kind: _opened(path) for kind, path in self._paths.items()
      }

  def __enter__(self) -> Shard:
    return self

  def __exit__(self, *unused_error) -> None:
    self.close()

  def add(
      self,
      index: int,
      example: Example,
      trajectory: Trajectory,
      item: Mapping[str, Any],
  ) -> None:
    """Keeps a finished item; `item` is what `lines` tells of it later.

    Raises:
      UserError: The files cannot be written.
    """
    if index not in self._asked:
      self._write('examples', {'index': index}, example)
      self._asked.add(index)
    item = {'index': index, **item}
    self._write('trajectories', item, trajectory)
    self.items[index] = item
    if time.monotonic() - self._synced > self._sync_s:
      self.sync()

  def read(self, indices: Sequence[int]) -> Iterator[Trajectory]:
    """What an earlier process has kept of these items, in their order.

    Raises:
      UserError: As `trajectories.read`.
    """
    path = self._paths[KINDS[0]]
    wanted = set(indices)
    found = {i: line for i, line in lines(path).items() if i in wanted}
    load = store.loader(self._folder)
    for index, text in zip(sorted(found), _texts(found)):
      where = f'{path}, item {index},'
      yield store.decode_line(text, store.trajectory_of, load, where=where)

  def sync(self) -> None:
    """Has what was added reach the disk."""
    if not self._unsynced:
      return
    for kind in reversed(KINDS):  # Nothing without what was asked.
      if self._in_bucket:
        files.write_atomic(self._paths[kind], ''.join(self._texts[kind]))
      else:
        os.fsync(self._files[kind])
    self._synced = time.monotonic()
    self._unsynced = False

  def close(self) -> None:
    """Syncs, and lets others go on."""
    try:
      self.sync()
    finally:
      if not self._in_bucket:
        for file in self._files.values():
          os.close(file)
      self._release()

  def _release(self) -> None:
    if not self._in_bucket:
      self._lock.release()

  def _write(self, kind: str, item: Mapping[str, Any], record: Any) -> None:
    body = json.dumps(
        store.plain(record, lambda data: blobs.put(self._folder, data)),
        separators=(',', ':'),
    )
    text = f'{_HEAD}{files.dumps(item)},{body[1:]}\n'
    self._unsynced = True
    if self._in_bucket:
      self._texts[kind].append(text)
      return
    data = memoryview(text.encode('ascii'))
    try:
      while data:
        data = data[os.write(self._files[kind], data) :]
    except OSError as error:
      raise UserError(
          f'cannot write {self._paths[kind]}: {error.strerror or error}; '
          'what finished before is kept: the same command goes on'
      ) from error


def merge(folder: epath.PathLike) -> None:
  """Writes the whole files, in the items' order, and drops the hosts'."""
  folder = epath.Path(folder)
  for kind in reversed(KINDS):  # Who sees the last one may read all.
    parts = files_of(folder, kind)
    found = all_lines(folder, kind)
    whole = folder / f'{kind}.jsonl'
    files.write_atomic(whole, _texts(found))
    for path in parts:
      if path != whole:
        path.unlink(missing_ok=True)


def _texts(found: Mapping[int, Line]) -> Iterator[str]:
  """The lines themselves, in the items' order, read one at a time."""
  opened: dict[epath.Path, Any] = {}
  try:
    for index in sorted(found):
      line = found[index]
      if line.path not in opened:
        opened[line.path] = line.path.open('rb')
      file = opened[line.path]
      file.seek(line.start)
      yield file.readline().decode('ascii')
  finally:
    for file in opened.values():
      file.close()


def _check_hosts(folder: epath.Path, hosts: int) -> None:
  """Refuses a folder that another number of hosts has begun."""
  for kind in KINDS:
    for path in folder.glob(f'{kind}*.jsonl') if folder.exists() else ():
      match = _NAME.fullmatch(path.name)
      begun = int(match[2] or 1) if match else hosts
      if begun != hosts:
        raise UserError(
            f'{folder} was begun by {begun} hosts, now there are {hosts}: go '
            f'on with --config.eval.hosts={begun}, or delete {folder}'
        )


def _is_numbered(path: epath.Path) -> bool:
  with path.open('rb') as f:
    return f.readline(len(_HEAD)).decode('ascii', 'replace') == _HEAD


def _opened(path: epath.Path) -> int:
  """A file to append to; the line that a kill cut off is dropped."""
  file = os.open(path, os.O_RDWR | os.O_CREAT | os.O_APPEND, 0o644)
  end = size = os.fstat(file).st_size
  while end:
    start = max(end - 2**16, 0)
    at = os.pread(file, end - start, start).rfind(b'\n')
    if at >= 0:
      end = start + at + 1
      break
    end = start
  if end < size:
    os.ftruncate(file, end)
  return file

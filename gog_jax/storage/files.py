"""Files that are whole or absent, on a local disk or in a bucket."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
import contextlib
import functools
import hashlib
import json
import os
from typing import Any, IO

from etils import epath
import filelock

from gog_jax.errors import UserError
from gog_jax.storage import disk
from gog_jax.storage import heartbeat
from gog_jax.storage import typed

_CHOOSE = 'choose a folder you can write with --workdir=FOLDER'
_writes = True


@contextlib.contextmanager
def nothing_written() -> Iterator[None]:
  """Inside, `write_atomic` and all that write by it do nothing: a dry run."""
  global _writes
  _writes = False
  try:
    yield
  finally:
    _writes = True


@contextlib.contextmanager
def writable(path: epath.PathLike, advice: str = _CHOOSE) -> Iterator[None]:
  """Turns an OSError inside into a UserError that names `path`."""
  try:
    yield
  except OSError as error:
    if error.errno in disk.FULL:
      advice = disk.ADVICE
    raise UserError(
        f'cannot write {path}: {error.strerror or error}; {advice}'
    ) from error


@contextlib.contextmanager
def readable(what: object, advice: str = '') -> Iterator[None]:
  """Turns errors of reading and parsing into a UserError about `what`."""
  try:
    yield
  except (OSError, ValueError, RecursionError) as error:
    reason = getattr(error, 'strerror', None) or error
    advice = advice and f'; {advice}'
    raise UserError(f'{what} cannot be read ({reason}){advice}') from error


def write_atomic(
    path: epath.PathLike, data: str | bytes | Iterable[str | bytes]
) -> None:
  """Writes `data` to a neighbour and renames it: no reader sees half of it.

  Data in pieces need not be in memory all at once.

  Raises:
    UserError: The folder cannot be written.
  """
  if not _writes:
    return
  path = epath.Path(path)
  partial = path.with_name(path.name + '.partial')
  with writable(path):
    path.parent.mkdir(parents=True, exist_ok=True)
    with partial.open('wb') as f:
      for piece in [data] if isinstance(data, (str, bytes)) else data:
        f.write(piece.encode() if isinstance(piece, str) else piece)
      sync(f, path)
    partial.replace(path)


def sync(file: IO[Any], path: epath.PathLike) -> None:
  """Flushes an open file to its disk; a bucket has none."""
  if '://' not in str(path):
    file.flush()
    os.fsync(file.fileno())


def check_writable(folder: epath.PathLike) -> None:
  """Makes a folder and checks that it can be written.

  Raises:
    UserError: It cannot.
  """
  probe = epath.Path(folder) / '.writable'
  write_atomic(probe, '')
  probe.unlink()


def append_line(path: epath.PathLike, line: str) -> int:
  """Adds one line to a file on a local disk, which may not exist yet.

  The line is one write: a kill leaves all of it or, at worst, a beginning that
  is not JSON. Such a beginning is ended by a newline, so that it damages no
  other line.

  Returns:
    Where the line begins, in bytes.

  Raises:
    UserError: The file cannot be written.
  """
  with writable(path, 'choose a folder on a local disk that you can write'):
    os.makedirs(os.path.dirname(path) or '.', exist_ok=True)
    with open(path, 'ab+') as f:
      f.seek(0, os.SEEK_END)
      if f.tell():
        f.seek(-1, os.SEEK_END)
        if f.read(1) != b'\n':
          f.write(b'\n')
      start = f.seek(0, os.SEEK_END)
      f.write(line.encode() + b'\n')
      return start


def lock(
    path: epath.PathLike, *, taken: str, unwritable: str
) -> filelock.BaseFileLock:
  """Takes a lock; releasing it, or the end of the process, frees it.

  Args:
    path: The lock's own file, on a local disk.
    taken: The error if another process holds it.
    unwritable: Advice if its folder cannot be written.

  Raises:
    UserError: Another process holds it, or the file cannot be made.
  """
  held = filelock.FileLock(path, timeout=0)
  with writable(path, unwritable):
    os.makedirs(os.path.dirname(path) or '.', exist_ok=True)
    try:
      held.acquire()
    except filelock.Timeout as error:
      raise UserError(taken) from error
  return held


def model_digest(folder: epath.PathLike, *, salt: str = '') -> str:
  """16 hex digits that change with a model folder's weights or settings.

  It covers the names and contents of the .json, .jinja and .safetensors files;
  a file that has not changed since is not read again. A missing folder counts
  as an empty one.
  """
  digest = hashlib.sha256(salt.encode())
  folder = epath.Path(folder)
  for path in sorted(folder.iterdir()) if folder.is_dir() else ():
    if path.suffix in ('.json', '.jinja', '.safetensors'):
      if '://' in str(path):  # Objects are replaced whole.
        found = path.stat()
        version = found.length, found.mtime
      else:
        local = os.stat(path)
        version = local.st_size, local.st_mtime_ns
      digest.update(f'{path.name} {_content(str(path), version)}'.encode())
  return digest.hexdigest()[:16]


@functools.cache
def _content(path: str, version: tuple[Any, ...]) -> str:
  """A file's digest; `version` tells when it has to be read again."""
  del version
  digest = hashlib.sha256()
  with heartbeat.doing(f'reading {path}'), epath.Path(path).open('rb') as f:
    while block := f.read(2**20):
      digest.update(block)
  return digest.hexdigest()


def text_of(data: bytes) -> str:
  """The text in UTF-8; a byte order mark is no part of it.

  Raises:
    ValueError: It is not UTF-8.
  """
  if data[:2] in (b'\xff\xfe', b'\xfe\xff'):
    raise ValueError('it is UTF-16: save it as UTF-8')
  return data.decode('utf-8-sig')


def write_json(path: epath.PathLike, value: Any, **options: Any) -> None:
  """Writes indented JSON, atomically; `options` are those of json.dumps."""
  write_atomic(path, json.dumps(value, indent=2, **options) + '\n')


def write_jsonl(path: epath.PathLike, rows: Iterable[Any]) -> None:
  """Writes one compact JSON object a line, atomically."""
  write_atomic(path, ''.join(dumps(row) + '\n' for row in rows))


def read_json(
    path: epath.PathLike,
    kind: Any = dict[str, Any],
    *,
    advice: str,
    **options: Any,
) -> Any:
  """The value in a JSON file; `kind` and `options` are those of `typed.read`.

  Raises:
    UserError: The file is missing, cannot be read or holds something else; ends
      in `advice`.
  """
  with readable(path, advice):
    text = text_of(epath.Path(path).read_bytes())
    return typed.read(kind, json.loads(text), **options)


def read_jsonl(
    path: epath.PathLike, kind: Any = dict[str, Any]
) -> Iterator[Any]:
  """Yields what each line holds; `kind` is that of `typed.read`.

  Raises:
    UserError: The file is missing or not UTF-8, or a line is not JSON or holds
      something else; names the line.
  """
  advice = 'delete the file to have it made again'
  with readable(path, advice):
    # Not splitlines, which also splits at U+2028 and its like.
    text = text_of(epath.Path(path).read_bytes())
    lines = text.removesuffix('\n').split('\n')
  for number, line in enumerate(lines if lines != [''] else [], start=1):
    with readable(f'{path}, line {number},', advice):
      row = typed.read(kind, json.loads(line))
    yield row


def dumps(value: Any) -> str:
  """Canonical JSON: compact, sorted keys.

  Escaped to ASCII: a policy can write lone surrogates, which no file can hold.
  """
  return json.dumps(value, sort_keys=True, separators=(',', ':'))

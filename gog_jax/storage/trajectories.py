"""Trajectories and examples on disk: JSON lines, and image files beside them.

    FOLDER/trajectories.jsonl   {"version":1,"item":{"index":0},...} a line
    FOLDER/examples.jsonl       what was asked, likewise
    FOLDER/images/SHA256.png    every image once, named by its content

Items are read in the order of their numbers, and of several lines of an item
the last one counts (rollouts.py); where older files have no "item", the line's
own number stands for it. Reading gives back what was written, bit for bit.
Images are written first, so that a line never names a file that is not there.
JSON is escaped to ASCII: a policy can write lone surrogates, which UTF-8 cannot
carry.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
import dataclasses
import enum
import functools
import json
from typing import Any, TypeVar

from etils import epath
import numpy as np

from gog_jax.errors import UserError
from gog_jax.storage import blobs
from gog_jax.storage import files
from gog_jax.storage import typed
from gog_jax.types import Example
from gog_jax.types import Trajectory

VERSION = 1
# How a line begins; what it says of its item follows.
HEAD = f'{{"version":{VERSION},"item":'

_AS_THEY_ARE = frozenset((str, int, float, bool, type(None)))

T = TypeVar('T')
# The bytes of an image by what `plain` was told to call it.
Load = Callable[[str], bytes]


def write(
    path: epath.PathLike,
    records: Iterable[Trajectory] | Iterable[Example],
    examples: Iterable[Example] | None = None,
) -> None:
  """Writes a whole file, atomically; `examples` go to examples.jsonl beside.

  Raises:
    UserError: The folder cannot be written.
  """
  path = epath.Path(path)
  if examples is not None:
    write(path.parent / 'examples.jsonl', examples)
  store = functools.cache(lambda data: blobs.put(path.parent, data))
  # The images are on disk before the file that names them is begun.
  lines = [
      encode(record, {'index': index}, store)
      for index, record in enumerate(records)
  ]
  files.write_atomic(path, lines)


def read(
    path: epath.PathLike,
    kind: type[T],
    *,
    images: bool = True,
    damaged: list[UserError] | None = None,
    growing: bool = False,
) -> list[T]:
  """Reads what `write` or `rollouts.Rollouts` wrote, in the items' order.

  Args:
    path: The file.
    kind: Trajectory or Example.
    images: False leaves every image empty, for those who only count.
    damaged: Gets the errors of lines that cannot be read, which are left out.
    growing: Whether to drop a last line that is cut off.

  Raises:
    UserError: The file or an image is missing or damaged, a line is cut off,
      or another version wrote it; names the file and the line.
  """
  path = epath.Path(path)
  if not path.exists():
    raise UserError(f'{path} does not exist')
  load = loader(path.parent) if images else lambda name: b''
  found: dict[int, T] = {}
  with path.open('rb') as f:
    for number, line in enumerate(f, start=1):
      if growing and not line.endswith(b'\n'):
        break
      where = f'{path}, line {number},'
      try:
        index, record = decode(line, kind, load, where=where)
        found[number - 1 if index is None else index] = record
      except UserError as error:
        if damaged is None:
          raise
        damaged.append(error)
  return [found[index] for index in sorted(found)]


def encode(
    record: Any, item: Mapping[str, Any], store: Callable[[bytes], str]
) -> str:
  """One line.

  Args:
    record: A Trajectory or an Example; None leaves `item` alone.
    item: Its 'index', and whatever else shall be known without decoding it.
    store: See `plain`.
  """
  if record is None:
    return f'{HEAD}{files.dumps(item)}}}\n'
  body = json.dumps(plain(record, store), separators=(',', ':'))
  return f'{HEAD}{files.dumps(item)},{body[1:]}\n'


def plain(value: Any, store: Callable[[bytes], str]) -> Any:
  """Turns any record into what JSON can hold.

  Args:
    value: A Trajectory, an Example or a part of one.
    store: Keeps an image; what it returns stands for it.
  """
  if type(value) in _AS_THEY_ARE:  # Most values; the rest takes its time.
    return value
  if isinstance(value, bytes):
    return store(value)
  if isinstance(value, enum.Enum):
    return value.value
  if isinstance(value, (np.ndarray, np.generic)):
    return value.tolist()  # Each float32 is a double; doubles print exactly.
  if names := _field_names(type(value)):
    return {name: plain(getattr(value, name), store) for name in names}
  if isinstance(value, Mapping):
    return {key: plain(item, store) for key, item in value.items()}
  if isinstance(value, (list, tuple)):
    return [plain(item, store) for item in value]
  return value


@functools.cache
def _field_names(kind: type) -> tuple[str, ...]:
  """Of a dataclass; of other types none."""
  if not dataclasses.is_dataclass(kind):
    return ()
  return tuple(
      field.name
      for field in dataclasses.fields(kind)
      if field.metadata.get('stored', True)
  )


def loader(folder: epath.PathLike) -> Load:
  """Reads a folder's images by name; the same image is the same memory."""
  folder = epath.Path(folder)
  return functools.cache(lambda name: blobs.get(folder, name))


def decode(
    line: bytes, kind: type[T], load: Load, *, where: str
) -> tuple[int | None, T]:
  """Reads the record on a line, which `where` names in errors.

  Returns:
    The item's number, if the line has one, and the record, bit for bit.

  Raises:
    UserError: It is damaged, or another version wrote it, or an image is
      missing or damaged.
  """
  try:
    row = json.loads(line)
  except ValueError as error:
    broken = 'is not JSON' if line.endswith(b'\n') else 'is cut off'
    raise UserError(f'{where} {broken}; delete that line') from error
  version = row.pop('version', None) if isinstance(row, dict) else None
  if version != VERSION:
    raise UserError(
        f'{where} has version {version}, but this gog_jax reads version '
        f'{VERSION}; make the file again'
    )
  try:
    item = typed.read(dict[str, Any], row.pop('item', {}), 'item')
    return item.get('index'), typed.read(kind, row, load=load)
  except ValueError as error:
    raise UserError(
        f'{where} is damaged ({error}); delete that line'
    ) from error
  except OSError as error:
    raise UserError(
        f'{where} needs {error.filename}, which is missing or damaged'
    ) from error

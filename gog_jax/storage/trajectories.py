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
from gog_jax.types import Example
from gog_jax.types import Hit
from gog_jax.types import ParsedTurn
from gog_jax.types import Placement
from gog_jax.types import StopReason
from gog_jax.types import ToolCall
from gog_jax.types import ToolResult
from gog_jax.types import ToolStatus
from gog_jax.types import Trajectory
from gog_jax.types import Turn
from gog_jax.types import Verdict
from gog_jax.types import View

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


def read(path: epath.PathLike, **options: Any) -> list[Trajectory]:
  """Reads what `write` or `rollouts.Rollouts` wrote.

  Args:
    path: The file.
    **options: `images`: False leaves every image empty, for those who only
      count. `damaged`: a list to which goes what is wrong with lines that
      cannot be read, which are left out. `growing`: True drops a last line
      that is cut off.

  Raises:
    UserError: The file or an image is missing or damaged, a line is cut off,
      or another version wrote it; names the file and the line.
  """
  return _read(epath.Path(path), trajectory_of, **options)


def read_examples(path: epath.PathLike, **options: Any) -> list[Example]:
  """Reads examples; options and errors are those of `read`."""
  return _read(epath.Path(path), example_of, **options)


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


def _read(
    path: epath.Path,
    decode_row: Callable[[Mapping[str, Any], Load], T],
    *,
    images: bool = True,
    damaged: list[UserError] | None = None,
    growing: bool = False,
) -> list[T]:
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
        index, record = decode(line, decode_row, load, where=where)
        found[number - 1 if index is None else index] = record
      except UserError as error:
        if damaged is None:
          raise
        damaged.append(error)
  return [found[index] for index in sorted(found)]


def loader(folder: epath.PathLike) -> Load:
  """Reads a folder's images by name; the same image is the same memory."""
  folder = epath.Path(folder)
  return functools.cache(lambda name: blobs.get(folder, name))


def decode(
    line: bytes,
    decode_row: Callable[[Mapping[str, Any], Load], T],
    load: Load,
    *,
    where: str,
) -> tuple[int | None, T]:
  """Reads one line; `where` names it in errors.

  Returns:
    The item's number, if the line has one, and the record.

  Raises:
    UserError: It is damaged, or another version wrote it, or an image is
      missing or damaged.
  """
  try:
    row = json.loads(line)
  except ValueError as error:
    broken = 'is not JSON' if line.endswith(b'\n') else 'is cut off'
    raise UserError(f'{where} {broken}; delete that line') from error
  version = row.get('version') if isinstance(row, dict) else None
  if version != VERSION:
    raise UserError(
        f'{where} has version {version}, but this gog_jax reads version '
        f'{VERSION}; make the file again'
    )
  try:
    index = row['item']['index'] if 'item' in row else None
    return index, decode_row(row, load)
  except (KeyError, TypeError, ValueError) as error:
    raise UserError(
        f'{where} is damaged ({type(error).__name__}: {error}); '
        'delete that line'
    ) from error
  except OSError as error:
    raise UserError(
        f'{where} needs {error.filename}, which is missing or damaged'
    ) from error


def trajectory_of(row: Mapping[str, Any], load: Load) -> Trajectory:
  """Turns what `plain` made back into a Trajectory, bit for bit.

  Raises:
    KeyError, TypeError, ValueError: It is damaged.
    OSError: As `load`.
  """
  token_ids = np.array(row['token_ids'], np.int32)
  loss_mask = np.array(row['loss_mask'], np.int8)
  sampler_logprobs = np.array(row['sampler_logprobs'], np.float32)
  if not token_ids.shape == loss_mask.shape == sampler_logprobs.shape:
    raise ValueError('token_ids, loss_mask and sampler_logprobs differ in size')
  return Trajectory(
      example_id=row['example_id'],
      sample=row['sample'],
      token_ids=token_ids,
      loss_mask=loss_mask,
      sampler_logprobs=sampler_logprobs,
      images=tuple(_view(view, load) for view in row['images']),
      placements=tuple(
          Placement(**{**placement, 'grid': tuple(placement['grid'])})
          for placement in row['placements']
      ),
      turns=tuple(_turn(turn, load) for turn in row['turns']),
      stop_reason=StopReason(row['stop_reason']),
      answer=row['answer'],
      seconds=row['seconds'],
      reward=row['reward'],
      reward_parts=row['reward_parts'],
      verdict=Verdict(**row['verdict']) if row.get('verdict') else None,
      masked=row.get('masked', ''),
      usage=row.get('usage', {}),
      error=row.get('error', ''),
  )


def _turn(row: Mapping[str, Any], load: Load) -> Turn:
  parsed = row['parsed']
  calls = tuple(ToolCall(**call) for call in parsed['calls'])
  return Turn(
      parsed=ParsedTurn(**{**parsed, 'calls': calls}),
      results=tuple(_result(result, load) for result in row['results']),
      n_sampled=row['n_sampled'],
  )


def _result(row: Mapping[str, Any], load: Load) -> ToolResult:
  view = row['view']
  hits = [
      Hit(**{**hit, 'image': load(hit['image']) if hit['image'] else None})
      for hit in row['hits']
  ]
  return ToolResult(**{
      **row,
      'status': ToolStatus(row['status']),
      'hits': tuple(hits),
      'view': None if view is None else _view(view, load),
      'parts': tuple(
          part if isinstance(part, str) else _view(part, load)
          for part in row.get('parts', ())
      ),
  })


def _view(row: Mapping[str, Any], load: Load) -> View:
  return View(
      data=load(row['data']), root=row['root'], box=tuple(row['box'])
  )


def example_of(row: Mapping[str, Any], load: Load) -> Example:
  """Turns what `plain` made back into an Example; raises as `trajectory_of`."""
  about = ('version', 'item')  # Of the line, not of the example.
  row = {key: value for key, value in row.items() if key not in about}
  return Example(**{
      **row,
      'images': tuple(load(name) for name in row['images']),
      'answers': tuple(row['answers']),
      'gold_regions': tuple(tuple(box) for box in row['gold_regions']),
  })

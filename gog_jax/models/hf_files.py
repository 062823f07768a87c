"""Safetensors files: where tensors lie, slices of them, and writing folders.

The library checks headers and writes shards. It does not read tensors here: it
maps a file as a whole, so that whatever was read stays in the process's
resident set, where we map a few megabytes at a time.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
import dataclasses
import json
import math
from typing import Annotated, Any, NamedTuple

from etils import epath
import ml_dtypes
import numpy as np
import safetensors
import safetensors.numpy

from gog_jax import errors
from gog_jax.storage import files
from gog_jax.storage import typed

WEIGHTS = 'model.safetensors'
INDEX = 'model.safetensors.index.json'

DTYPES = {
    'F64': np.dtype(np.float64),
    'F32': np.dtype(np.float32),
    'F16': np.dtype(np.float16),
    'BF16': np.dtype(ml_dtypes.bfloat16),
}

# The beginning of a Git LFS pointer, which stands for another file.
_LFS = b'version https://git-lfs'

# Bytes of a file that are mapped at a time.
_MAPPED = 2**26

_IN_THE_FOLDER = typed.Bound('a file of the folder', lambda x: '/' not in x)

_FETCH = (
    'config.json and weights do not belong together; fetch the folder again'
)

# Bytes that are transposed at a time: three times as fast as all at once.
_TRANSPOSED = 2**21


@dataclasses.dataclass(frozen=True)
class _Index:
  """The field that is read from model.safetensors.index.json.

  Attributes:
    weight_map: Tensor -> shard.
  """

  weight_map: dict[str, Annotated[str, _IN_THE_FOLDER]]


class Tensor(NamedTuple):
  """A tensor in a file.

  Attributes:
    path: The file.
    key: Its name there.
    dtype: Its name in the format; not all are keys of DTYPES.
    shape: Its shape.
    start: Where it begins in the file, in bytes.
    n_bytes: Its size.
  """

  path: epath.Path
  key: str
  dtype: str
  shape: tuple[int, ...]
  start: int
  n_bytes: int

  def __str__(self) -> str:
    return f'{self.path}: {self.key}'

  def read(
      self, index: Sequence[slice], out: np.ndarray, *, transposed: bool
  ) -> None:
    """Reads a slice, casts it to out's dtype and writes it there.

    Args:
      index: A slice of each axis; of the first and of all others, flattened,
        where `transposed`.
      out: Of the slice's shape.
      transposed: Whether `out` has its two axes exchanged.
    """
    shape = self.shape
    if transposed:
      shape = (shape[0], math.prod(shape[1:]))
      out = out.T
    row_bytes = DTYPES[self.dtype].itemsize * math.prod(shape[1:])
    first, last, _ = index[0].indices(shape[0])
    n_rows = max(1, (_TRANSPOSED if transposed else _MAPPED) // row_bytes)
    # NumPy copies integers several times as fast as bfloat16.
    as_bits = np.dtype(f'u{out.dtype.itemsize}')
    for start in range(first, last, n_rows):
      rows = slice(start, min(start + n_rows, last))
      # Mapped anew each time: pages count as resident while they are mapped.
      some = self.map().reshape(shape)[rows, *index[1:]]
      some = some.astype(out.dtype, copy=False)
      there = out[start - first :][: len(some)]
      there.view(as_bits)[...] = some.view(as_bits)

  def map(self) -> np.ndarray:
    """The tensor, mapped into memory; only what is accessed is read."""
    dtype = DTYPES[self.dtype]
    return np.memmap(self.path, dtype, 'r', self.start, self.shape)


def tensors(folder: epath.Path) -> list[Tensor]:
  """Every tensor of a folder's weights, in one file or in shards.

  Raises:
    UserError: There are no weights; a shard is missing, cut off or damaged, or
      does not hold what the index says.
  """
  if (folder / WEIGHTS).exists():
    return list(read_header(folder / WEIGHTS).values())
  if not (folder / INDEX).exists():
    raise errors.UserError(
        f'{folder} holds no weights ({WEIGHTS} or {INDEX}): download them into '
        'the folder; others than safetensors are not read: convert them '
        '(transformers: from_pretrained, then save_pretrained)'
    )
  shard_of = files.read_json(
      folder / INDEX, _Index, ignore_unknown=True, advice='fetch it again'
  ).weight_map
  result = []
  for name in sorted(set(shard_of.values())):
    path = folder / name
    expected = {key for key, shard in shard_of.items() if shard == name}
    if not path.exists():
      raise errors.UserError(
          f'{folder} lacks the shard {name}, which its index names for '
          f'{some(expected)}: fetch it'
      )
    found = read_header(path)
    if differ := found.keys() ^ expected:
      raise errors.UserError(
          f'{path} and {INDEX} differ in {some(differ)}: fetch both again'
      )
    result += found.values()
  return result


def check(
    folder: epath.Path,
    tensors: Mapping[str, Tensor],
    shapes: Mapping[str, tuple[int, ...]],
    *,
    advice: str = _FETCH,
) -> None:
  """Refuses tensors of other names or shapes than a model's, or quantised.

  Args:
    folder: Holds them; for messages.
    tensors: By the same names as `shapes`.
    shapes: Those of the model's tensors.
    advice: What to do where names differ.
  """
  problems = []
  if missing := shapes.keys() - tensors.keys():
    problems.append(f'lacks {some(missing)}')
  if extra := tensors.keys() - shapes.keys():
    problems.append(f'has unknown {some(tensors[key].key for key in extra)}')
  if problems:
    raise errors.UserError(f'{folder} {" and ".join(problems)}: {advice}')
  for key, shape in shapes.items():
    tensor = tensors[key]
    if tensor.dtype not in DTYPES:
      raise errors.UserError(
          f'{tensor} has dtype {tensor.dtype}: quantised weights are not read; '
          f'take the folder of the unquantised model ({", ".join(DTYPES)})'
      )
    if tensor.shape != shape:
      raise errors.UserError(
          f'{tensor} has shape {list(tensor.shape)}, which does not fit '
          f'config.json ({list(shape)}); fetch the folder again'
      )


def some(keys: Iterable[str]) -> str:
  """The first four names, and the number of the others."""
  keys = sorted(keys)
  more = f' and {len(keys) - 4} more' if len(keys) > 4 else ''
  return ', '.join(keys[:4]) + more


def read_header(path: epath.Path) -> dict[str, Tensor]:
  """Where a file's tensors lie; all of its bytes are accounted for.

  Raises:
    UserError: The file is cut off, damaged, or no safetensors file.
  """
  damaged = lambda how: errors.UserError(
      f'{path} is damaged ({how}): fetch it again'
  )
  try:
    with path.open('rb') as f:
      n_file = f.seek(0, 2)
      f.seek(0)
      start = f.read(8)
      if start and _LFS.startswith(start):
        raise errors.UserError(
            f'{path} is a Git LFS pointer, not the weights: run git lfs pull'
        )
      n_header = int.from_bytes(start, 'little')
      if n_file < 8 + n_header or len(start) < 8:
        raise ValueError('its header is cut off, or it is no safetensors file')
      header = json.loads(f.read(n_header))
    header.pop('__metadata__', None)
    found = {
        key: Tensor(
            path=path,
            key=key,
            dtype=entry['dtype'],
            shape=tuple(entry['shape']),
            start=8 + n_header + entry['data_offsets'][0],
            n_bytes=entry['data_offsets'][1] - entry['data_offsets'][0],
        )
        for key, entry in header.items()
    }
    cut = [t.key for t in found.values() if t.start + t.n_bytes > n_file]
    if cut:
      raise ValueError(f'it is cut off and lacks all or some of {some(cut)}')
    with safetensors.safe_open(path, 'numpy'):
      return found  # The library has checked all else.
  except (OSError, ValueError, safetensors.SafetensorError) as error:
    raise damaged(error) from error
  except (LookupError, AttributeError, TypeError) as error:
    raise damaged(f'its header is invalid: {error!r}') from error


def write(
    folder: epath.Path,
    tensors: Iterable[tuple[str, np.ndarray]],
    *,
    config: Mapping[str, Any],
    max_shard_bytes: int,
) -> None:
  """Writes model.safetensors, or shards and their index, and config.json.

  Weights of an earlier call are removed. A kill leaves the folder as it was,
  or without a config.json, which nothing loads, or complete.

  Args:
    folder: Made if need be; other files in it are left alone.
    tensors: By name, in order; those of one shard are held at a time.
    config: Contents of config.json.
    max_shard_bytes: A shard holds no more than that, or a single tensor.
  """
  partial = folder / 'partial_model'
  shards: list[list[str]] = []
  metadata = {'total_parameters': 0, 'total_size': 0}
  with files.writable(folder, 'make room or choose another folder'):
    partial.rmtree(missing_ok=True)
    partial.mkdir(parents=True)
    try:
      for shard in _shards(tensors, max_shard_bytes):
        path = partial / str(len(shards))
        with path.open('wb') as f:
          f.write(safetensors.numpy.save(shard, {'format': 'pt'}))
          files.sync(f, path)
        shards.append(list(shard))
        metadata['total_parameters'] += sum(x.size for x in shard.values())
        metadata['total_size'] += sum(x.nbytes for x in shard.values())
    except OSError:
      partial.rmtree()  # A full disk need not stay full.
      raise
    names = [WEIGHTS]
    if len(shards) > 1:
      names = [
          f'model-{i:05}-of-{len(shards):05}.safetensors'
          for i in range(1, len(shards) + 1)
      ]
    # From here to the end there is no config.json, and so no model.
    (folder / 'config.json').unlink(missing_ok=True)
    for pattern in (WEIGHTS, INDEX, 'model-*-of-*.safetensors'):
      for path in folder.glob(pattern):
        path.unlink()
    for i, name in enumerate(names):
      (partial / str(i)).replace(folder / name)
    partial.rmtree(missing_ok=True)  # Empty; a bucket has none then.
    if len(shards) > 1:
      weight_map = {
          key: name for name, keys in zip(names, shards) for key in keys
      }
      index = {'metadata': metadata, 'weight_map': weight_map}
      files.write_json(folder / INDEX, index, sort_keys=True)
    files.write_json(folder / 'config.json', config)


def _shards(
    tensors: Iterable[tuple[str, np.ndarray]], max_bytes: int
) -> Iterator[dict[str, np.ndarray]]:
  """Tensors in order, each shard as full as it can be."""
  shard, n_bytes = {}, 0
  for key, tensor in tensors:
    n_bytes += tensor.nbytes
    if shard and n_bytes > max_bytes:
      yield shard
      shard, n_bytes = {}, tensor.nbytes
    shard[key] = tensor
  yield shard

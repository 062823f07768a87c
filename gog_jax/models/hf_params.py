"""A Hugging Face folder's weights <-> our parameters.

`hf_table` says which tensors belong to which parameter, `hf_files` where they
lie. Loading goes parameter by parameter and slice by slice, straight into host
arrays of the size of what a device gets; saving goes tensor by tensor.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
import math
from typing import Any

from etils import epath
import jax
import ml_dtypes
import numpy as np

from gog_jax import errors
from gog_jax.models import config as config_lib
from gog_jax.models import hf_config
from gog_jax.models import hf_files
from gog_jax.models import hf_table
from gog_jax.models.hf_table import Entry
from gog_jax.models.hf_table import Path

# index, a slice of each axis -> that part of a parameter.
Read = Callable[[tuple[slice, ...]], np.ndarray]

# Of parameters above this, layers are brought to the host one by one.
_MOST_AT_ONCE = 2**30

_EMBEDDING = 'model.embed_tokens.weight'
# Numbers of two tensors that are compared at a time.
_COMPARED = 2**22


def load(
    folder: epath.Path,
    config: config_lib.VLMConfig,
    params: Mapping[Path, jax.ShapeDtypeStruct],
    make: Callable[[Path, Read], Any],
) -> dict[Path, Any]:
  """Makes every parameter from a folder's weights.

  Args:
    folder: With model.safetensors, or shards and their index.
    config: Of that folder.
    params: Shapes and dtypes of ours.
    make: Makes a parameter from what it reads of it. Of the host's memory it
      takes what it asks for, and 64 MiB while it is read.

  Returns:
    What `make` returned for each parameter.

  Raises:
    UserError: Weights are missing, incomplete, misshapen, of a dtype that is
      not read, damaged, or hold tensors that the model has no place for; names
      tensors and files.
  """
  tensors = check(folder, config, params)

  def reader(entry: Entry) -> Read:
    param = params[entry.path]

    def read(index):
      layers, own = entry.their_index(index, param.shape)
      shape = [len(range(*s.indices(n))) for s, n in zip(index, param.shape)]
      result = _empty(tuple(shape), param.dtype)
      stacked = result if entry.n_layers else result[None]
      for layer, out in zip(layers, stacked, strict=True):
        tensor = tensors[entry.keys[layer]]
        tensor.read(own, out, transposed=entry.transposed)
      return result

    return read

  return {
      entry.path: make(entry.path, reader(entry))
      for entry in hf_table.table(config)
  }


def check(
    folder: epath.Path,
    config: config_lib.VLMConfig,
    params: Mapping[Path, jax.ShapeDtypeStruct],
) -> dict[str, hf_files.Tensor]:
  """The tensors that the model consists of, by their names in the table.

  Args:
    folder: As in `load`.
    config: As in `load`.
    params: As in `load`.

  Raises:
    UserError: As `load`.
  """
  tensors: dict[str, hf_files.Tensor] = {}
  for tensor in hf_files.tensors(folder):
    if hf_table.IGNORED.search(tensor.key):
      continue
    key = hf_table.published_key(tensor.key)
    if key in tensors:
      raise errors.UserError(
          f'{tensor} is also in {tensors[key]}, and which one counts cannot be '
          'known: fetch the folder again'
      )
    tensors[key] = tensor
  shapes = hf_table.their_shapes(
      config, {path: param.shape for path, param in params.items()}
  )
  # A tied model's folder may hold the head all the same.
  head = 'lm_head.weight'
  optional = {head} if config.tied else set()
  problems = []
  if missing := shapes.keys() - tensors.keys():
    problems.append(f'lacks {hf_files.some(missing)}')
  if extra := tensors.keys() - shapes.keys() - optional:
    named = hf_files.some(tensors[key].key for key in extra)
    problems.append(f'has unknown {named}')
  if problems:
    raise errors.UserError(
        f'{folder} {" and ".join(problems)}: config.json and weights do not '
        'belong together; fetch the folder again'
    )
  for key, shape in shapes.items():
    tensor = tensors[key]
    if tensor.dtype not in hf_files.DTYPES:
      raise errors.UserError(
          f'{tensor} has dtype {tensor.dtype}: quantised weights are not read; '
          'take the folder of the model as it was trained '
          f'({", ".join(hf_files.DTYPES)})'
      )
    if tensor.shape != shape:
      raise errors.UserError(
          f'{tensor} has shape {list(tensor.shape)}, which does not fit '
          f'config.json ({list(shape)}); fetch the folder again'
      )
  if config.tied and head in tensors:
    if not _equal(tensors[head], tensors[_EMBEDDING]):
      raise errors.UserError(
          f'{tensors[head]} is not the embedding, which config.json says it is '
          '(tie_word_embeddings): set that to false, in text_config as well, '
          'or fetch the folder again'
      )
  return tensors


def names_of(
    path: Path, config: config_lib.VLMConfig, bad: np.ndarray
) -> list[str]:
  """The tensors that make a parameter, of the layers that are marked.

  Args:
    path: The parameter's.
    config: Of the folder.
    bad: bool[L] where the parameter is stacked, else anything.
  """
  entry = next(e for e in hf_table.table(config) if e.path == path)
  if not entry.n_layers:
    return [entry.key]
  return [key for key, marked in zip(entry.keys, bad, strict=True) if marked]


def _equal(tensor: hf_files.Tensor, other: hf_files.Tensor) -> bool:
  """Whether both hold the same numbers; some megabytes are read at a time."""
  if (tensor.dtype, tensor.shape) != (other.dtype, other.shape):
    return False
  n_rows = max(1, _COMPARED // math.prod(tensor.shape[1:]))
  for start in range(0, tensor.shape[0], n_rows):
    here = [slice(start, start + n_rows), *map(slice, tensor.shape[1:])]
    shape = (min(n_rows, tensor.shape[0] - start), *tensor.shape[1:])
    one, two = (np.empty(shape, hf_files.DTYPES[tensor.dtype]) for _ in '12')
    tensor.read(here, one, transposed=False)
    other.read(here, two, transposed=False)
    if not np.array_equal(one.view(np.uint8), two.view(np.uint8)):
      return False
  return True


def _empty(shape: tuple[int, ...], dtype: Any) -> np.ndarray:
  """Aligned so that JAX's CPU devices take it as it is, without a copy."""
  n_bytes = math.prod(shape) * np.dtype(dtype).itemsize
  buffer = np.empty(n_bytes + 64, np.uint8)
  start = -buffer.ctypes.data % 64
  return buffer[start : start + n_bytes].view(dtype).reshape(shape)


def save(
    folder: epath.PathLike,
    config: config_lib.VLMConfig,
    params: Mapping[Path, jax.Array],
    *,
    dtype: Any,
    max_shard_bytes: int,
) -> None:
  """Writes config.json and weights as transformers reads them.

  Args:
    folder: Made if need be; other files in it are left alone.
    config: Becomes config.json.
    params: Ours, wherever they are.
    dtype: Of the file; None for the parameters' own.
    max_shard_bytes: As in hf_files.write.

  Raises:
    UserError: The folder cannot be written.
  """
  of = lambda path: np.dtype(dtype or params[path].dtype)
  # The table lists the parts of one tensor in their order, but not together.
  groups: dict[str, list[Entry]] = {}
  for entry in hf_table.table(config):
    groups.setdefault(entry.key, []).append(entry)
  shapes = hf_table.their_shapes(
      config, {path: param.shape for path, param in params.items()}
  )
  specs = [
      hf_files.Spec(
          key=hf_table.file_key(key, config.family),
          dtype=of(entries[0].path),
          shape=shapes[key],
      )
      for entries in groups.values()
      for key in entries[0].keys
  ]

  def arrays() -> Iterator[np.ndarray]:
    for entries in groups.values():
      layers = [_layers(entry, params[entry.path]) for entry in entries]
      for key, *parts in zip(entries[0].keys, *layers, strict=True):
        whole = np.concatenate([
            ours.T if entry.transposed else ours
            for entry, ours in zip(entries, parts, strict=True)
        ])
        whole = whole.astype(of(entries[0].path), copy=False)
        yield whole.reshape(shapes[key])

  names = {np.dtype(ml_dtypes.bfloat16): 'bfloat16'}
  written = of(('text', 'embedding'))
  hf_files.write(
      epath.Path(folder),
      specs,
      arrays(),
      config={
          **hf_config.to_dict(config),
          'dtype': names.get(written, written.name),
      },
      max_shard_bytes=max_shard_bytes,
  )


def _layers(entry: Entry, param: jax.Array) -> Iterator[np.ndarray]:
  """On the host, whole or layer by layer."""
  if not entry.n_layers:
    return iter([np.asarray(param)])
  if param.nbytes <= _MOST_AT_ONCE:
    return iter(np.asarray(param))
  return (np.asarray(param[i]) for i in range(entry.n_layers))

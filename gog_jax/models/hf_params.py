"""A Hugging Face folder's weights <-> our parameters.

`hf_table` says which tensors belong to which parameter, `hf_files` where they
lie. Loading goes parameter by parameter and slice by slice, straight into host
arrays of the size of what a device gets; saving goes shard by shard, and merges
adapters layer by layer on the way.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping
import functools
import math
from typing import Any, TypeVar

from etils import epath
from flax import nnx
import jax
import jax.numpy as jnp
from jax.sharding import Mesh, NamedSharding, PartitionSpec
import numpy as np

from gog_jax import errors
from gog_jax.models import config as config_lib
from gog_jax.models import families
from gog_jax.models import folders
from gog_jax.models import hf_config
from gog_jax.models import hf_files
from gog_jax.models import hf_table
from gog_jax.models import layers
from gog_jax.models import sharding
from gog_jax.models import vlm
from gog_jax.models.hf_table import Entry
from gog_jax.storage import heartbeat

M = TypeVar('M', bound=nnx.Module)

# Larger parameters are brought to the host layer by layer.
_MOST_AT_ONCE = 2**30

# Elements of two tensors that are compared at a time.
_COMPARED = 2**22


def from_pretrained(
    folder: epath.PathLike,
    *,
    dtype: Any = jnp.bfloat16,
    mesh: Mesh | None = None,
) -> tuple[vlm.VLM, config_lib.VLMConfig]:
  """Loads Qwen2.5-VL or Qwen3-VL as Hugging Face keeps it.

  Each host reads the slices that its own devices hold. Besides those it needs
  memory for a device's part of one parameter, at most 1 GiB, and 64 MiB.

  Args:
    folder: A local folder with config.json and safetensors, or the id of one
      on the Hugging Face hub: 'org/name' or 'org/name@revision'.
    dtype: Of parameters and activations, one of hf_files.DTYPES.
    mesh: Where to place the parameters, each by its logical axes; None for
      the default device. From sharding.make_mesh.

  Raises:
    UserError: The folder is missing, incomplete, damaged, or another model's.
  """
  _check_dtype(dtype)
  folder = folders.local_folder(folder)
  config = hf_config.read_config(folder)
  tensors = check(folder, config)
  model = vlm.abstract(config, dtype=dtype)
  table = hf_table.table(config)
  with heartbeat.doing(f'loading weights from {folder}'):
    return load(model, table, tensors, folder=folder, mesh=mesh), config


def load(
    model: M,
    table: Iterable[Entry],
    tensors: Mapping[str, hf_files.Tensor],
    *,
    folder: epath.Path,
    mesh: Mesh | None = None,
) -> M:
  """Fills an abstract model.

  Args:
    model: Of jax.ShapeDtypeStructs.
    table: Its parameters.
    tensors: By name in the table; checked (hf_files.check).
    folder: Where they are, for messages.
    mesh: As in from_pretrained.

  Raises:
    UserError: A tensor holds non-finite values.
  """
  graphdef, state = nnx.split(model)
  flat = dict(nnx.to_flat_state(state))
  whole = where = None
  if mesh is not None:
    whole = NamedSharding(mesh, PartitionSpec())
  for entry in table:
    variable = flat[entry.path]
    param = variable.get_value()
    if mesh is not None:
      where = sharding.param_shardings(variable, mesh).get_value()
    array = sharding.from_slices(
        param, where, functools.partial(_read, entry, param, tensors)
    )
    finite = np.asarray(_finite(whole)(array))
    if not finite.all():
      keys = entry.keys
      if entry.n_layers:
        keys = [key for key, ok in zip(keys, finite, strict=True) if not ok]
      raise errors.UserError(
          f'{folder}: {hf_files.some(keys)} holds non-finite values: fetch the '
          'folder again'
      )
    flat[entry.path] = variable.replace(array)
  return nnx.merge(graphdef, nnx.from_flat_state(flat))


def check(
    folder: epath.Path, config: config_lib.VLMConfig
) -> dict[str, hf_files.Tensor]:
  """The tensors that the model consists of, by their names in the table.

  Raises:
    UserError: Weights are missing, incomplete, misshapen, of a dtype that is
      not read, damaged, or hold tensors that the model has no place for.
  """
  tensors: dict[str, hf_files.Tensor] = {}
  for tensor in hf_files.tensors(folder):
    if hf_table.IGNORED.search(tensor.key):
      continue
    key = hf_table.published_key(tensor.key)
    if key in tensors:
      raise errors.UserError(
          f'{tensor} is also in {tensors[key]}: fetch the folder again'
      )
    tensors[key] = tensor
  # A tied model's folder may hold the head all the same.
  head = tensors.pop(families.HEAD, None) if config.tied else None
  shapes = hf_table.their_shapes(hf_table.table(config))
  hf_files.check(folder, tensors, shapes)
  embedding = tensors[families.EMBEDDING]
  if head is not None and not _equal(head, embedding):
    raise errors.UserError(
        f'{head} is not the embedding, which config.json says it is: set '
        'tie_word_embeddings to false, in text_config as well, or fetch the '
        'folder again'
    )
  return tensors


def _read(
    entry: Entry,
    param: jax.ShapeDtypeStruct,
    tensors: Mapping[str, hf_files.Tensor],
    index: tuple[slice, ...],
) -> np.ndarray:
  """A slice of a parameter."""
  layers, theirs = entry.their_index(index, param.shape)
  shape = [len(range(*s.indices(n))) for s, n in zip(index, param.shape)]
  # Aligned, so that JAX's CPU devices use it without a copy.
  n_bytes = math.prod(shape) * param.dtype.itemsize
  buffer = np.empty(n_bytes + 64, np.uint8)
  start = -buffer.ctypes.data % 64
  buffer = buffer[start : start + n_bytes]
  result = buffer.view(param.dtype).reshape(shape)
  stacked = result if entry.n_layers else result[None]
  for layer, out in zip(layers, stacked, strict=True):
    tensor = tensors[entry.keys[layer]]
    tensor.read(theirs, out, transposed=entry.transposed)
  return result


@functools.cache
def _finite(place: NamedSharding | None) -> Callable[[jax.Array], jax.Array]:
  """x -> bool[first axis], whether x is finite, on every device."""

  def finite(x):
    return jnp.isfinite(x).all(axis=tuple(range(1, x.ndim)))

  return jax.jit(finite, out_shardings=place)


def _equal(tensor: hf_files.Tensor, other: hf_files.Tensor) -> bool:
  """Whether both hold the same bits; reads a few megabytes at a time."""
  if (tensor.dtype, tensor.shape) != (other.dtype, other.shape):
    return False
  n_rows, width = tensor.shape
  step = max(1, _COMPARED // width)
  for start in range(0, n_rows, step):
    one, two = (x.map()[start : start + step] for x in (tensor, other))
    if not np.array_equal(one.view(np.uint8), two.view(np.uint8)):
      return False
  return True


def save_pretrained(
    model: vlm.VLM,
    folder: epath.PathLike,
    *,
    dtype: Any = None,
    max_shard_bytes: int = 10**9,
) -> float:
  """Writes a folder that from_pretrained and transformers 5 load.

  A kill at any instant leaves the model that was there, or none that loads, or
  this one.

  Args:
    model: Adapters are merged into what is written, in float32 and cast once;
      the model keeps them.
    folder: Made if need be. Weights in it are replaced, other files are left
      alone.
    dtype: Of the files; None for the parameters' own.
    max_shard_bytes: Above this there are several files and an index. A shard
      is on the host at a time, twice; it holds one tensor at least.

  Returns:
    How much of what the adapters add is in the files: near 1.0, but for small
    adapters in bfloat16, whose updates are less than half a step of most
    weights, and are rounded away. 1.0 without adapters.

  Raises:
    UserError: The folder cannot be written.
  """
  state = nnx.to_flat_state(nnx.state(model))
  params = {path: leaf.get_value() for path, leaf in state}
  config = model.config
  written = _check_dtype(dtype or params['text', 'embedding'].dtype)
  merge = _Merge(model, dtype)
  # The table lists the parts of one tensor in their order, but not together.
  groups: dict[str, list[Entry]] = {}
  for entry in hf_table.table(config):
    groups.setdefault(entry.key, []).append(entry)

  def tensors() -> Iterator[tuple[str, np.ndarray]]:
    for entries in groups.values():
      layers = [
          merge(entry.path, _layers(entry, params[entry.path]))
          for entry in entries
      ]
      for key, *parts in zip(entries[0].keys, *layers, strict=True):
        whole = np.concatenate([
            ours.T if entry.transposed else ours
            for entry, ours in zip(entries, parts, strict=True)
        ])
        whole = whole.astype(dtype or whole.dtype, order='C', copy=False)
        name = hf_table.file_key(key, config.family)
        yield name, whole.reshape(entries[0].shape)

  hf_files.write(
      epath.Path(folder),
      tensors(),
      config={**hf_config.to_dict(config), 'dtype': written.name},
      max_shard_bytes=max_shard_bytes,
  )
  return merge.kept


class _Merge:
  """Adds adapters to the kernels they sit on, and measures what is left.

  Args:
    model: Has adapters, or none.
    dtype: What sums are rounded to; None for the kernels' own.
  """

  def __init__(self, model: vlm.VLM, dtype: Any):
    self._model, self._dtype = model, dtype
    self._added = self._left = 0.0

  @property
  def kept(self) -> float:
    """Share of the updates that rounding has left, along their direction."""
    return self._left / self._added if self._added else 1.0

  def __call__(
      self, path: hf_table.Path, kernels: Iterator[np.ndarray]
  ) -> Iterator[np.ndarray]:
    """A parameter's layers with the adapters on them, if there are any."""
    linear = functools.reduce(getattr, path[:-1], self._model)
    if path[-1] != 'kernel' or not isinstance(linear, layers.Linear):
      return kernels
    if linear.lora_a is None or linear.lora_b is None:
      return kernels
    a = np.asarray(linear.lora_a[...], np.float32)
    b = linear.lora_scale * np.asarray(linear.lora_b[...], np.float32)
    return map(self._add, kernels, (x @ y for x, y in zip(a, b, strict=True)))

  def _add(self, kernel: np.ndarray, update: np.ndarray) -> np.ndarray:
    before = kernel.astype(np.float32)
    merged = (before + update).astype(self._dtype or kernel.dtype)
    self._added += float(np.vdot(update, update))
    self._left += float(np.vdot(update, merged.astype(np.float32) - before))
    return merged


def _layers(entry: Entry, param: jax.Array) -> Iterator[np.ndarray]:
  """A parameter's layers on the host, brought there together or one by one."""
  if not entry.n_layers:
    return iter([np.asarray(param)])
  if param.nbytes <= _MOST_AT_ONCE:
    return iter(np.asarray(param))
  return (np.asarray(param[i]) for i in range(entry.n_layers))


def _check_dtype(dtype: Any) -> np.dtype:
  if np.dtype(dtype) not in hf_files.DTYPES.values():
    names = ', '.join(map(str, hf_files.DTYPES.values()))
    raise ValueError(f'dtype must be one of {names}, not {np.dtype(dtype)}')
  return np.dtype(dtype)

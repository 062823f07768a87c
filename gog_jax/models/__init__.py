"""Vision-language backbones: load, make and save them.

    model, config = models.from_pretrained(folder, dtype=jnp.bfloat16)
"""

from __future__ import annotations

from collections.abc import Callable
import functools
from typing import Any

from etils import epath
from flax import nnx
import jax
import jax.numpy as jnp
from jax.sharding import Mesh, NamedSharding, PartitionSpec
import numpy as np

from gog_jax import errors
from gog_jax.models import hf_files
from gog_jax.models import hf_params
from gog_jax.models import sharding
from gog_jax.models.config import TextConfig
from gog_jax.models.config import VisionConfig
from gog_jax.models.config import VLMConfig
from gog_jax.models.hf_config import from_folder as read_config
from gog_jax.models.hf_config import published as published_config
from gog_jax.models.hub import local_folder
from gog_jax.models.logprobs import token_logprobs
from gog_jax.models.lora import add_lora
from gog_jax.models.lora import merge_lora
from gog_jax.models.lora import put_adapters
from gog_jax.models.lora import split
from gog_jax.models.lora import take_adapters
from gog_jax.models.peft_files import load_adapters
from gog_jax.models.peft_files import save_adapters
from gog_jax.models.rope import mrope_positions
from gog_jax.models.text import KVCache
from gog_jax.models.vision import pack_images
from gog_jax.models.vision import patch_layout
from gog_jax.models.vision import VisionInputs
from gog_jax.models.vlm import VLM

__all__ = [
    'KVCache',
    'TextConfig',
    'VLM',
    'VLMConfig',
    'VisionConfig',
    'VisionInputs',
    'abstract',
    'add_lora',
    'from_pretrained',
    'init',
    'load_adapters',
    'local_folder',
    'merge_lora',
    'mrope_positions',
    'pack_images',
    'patch_layout',
    'published_config',
    'put_adapters',
    'read_config',
    'save_adapters',
    'save_pretrained',
    'split',
    'take_adapters',
    'token_logprobs',
]


def from_pretrained(
    folder: epath.PathLike,
    *,
    dtype: Any = jnp.bfloat16,
    mesh: Mesh | None = None,
) -> tuple[VLM, VLMConfig]:
  """Loads Qwen2.5-VL or Qwen3-VL as Hugging Face keeps it.

  Each host reads the slices that its own devices hold. What it takes of its
  memory for that is a device's part of one parameter, or 1 GiB of it, and some.

  Args:
    folder: A local folder with config.json and safetensors, or the id of one
      on the Hugging Face hub: 'org/name' or 'org/name@revision'.
    dtype: Of parameters and activations, one that files have as well.
    mesh: Where to place the parameters, each by its logical axes; None for
      the default device. Its axes are those of sharding.make_mesh.

  Raises:
    UserError: The folder is missing, incomplete, damaged, or another model's.
    ValueError: There is no such dtype, or the mesh has other axes.
  """
  _check_dtype(dtype)
  if mesh is not None and set(mesh.axis_names) != set(sharding.MESH_AXES):
    raise ValueError(
        f'the mesh must have the axes {", ".join(sharding.MESH_AXES)}, not '
        f'{", ".join(mesh.axis_names)}: make it with sharding.make_mesh'
    )
  folder = local_folder(folder)
  config = read_config(folder)
  # The parameters' first memory is what the file fills.
  graphdef, state = nnx.split(abstract(config, dtype=dtype))
  flat = dict(nnx.to_flat_state(state))
  shapes = {path: leaf.get_value() for path, leaf in flat.items()}

  whole = None if mesh is None else NamedSharding(mesh, PartitionSpec())

  def make(path, read):
    variable = flat[path]
    where = None
    if mesh is not None:
      where = sharding.param_shardings(variable, mesh).get_value()
    array = sharding.from_slices(shapes[path], where, read)
    finite = np.asarray(_finite(whole)(array))
    if not finite.all():
      names = hf_params.names_of(path, config, ~finite)
      raise errors.UserError(
          f'{folder}: {hf_files.some(names)} holds numbers that are none (NaN, '
          'infinity): fetch the folder again'
      )
    return variable.replace(array)

  loaded = hf_params.load(folder, config, shapes, make)
  return nnx.merge(graphdef, nnx.from_flat_state(loaded)), config


@functools.cache
def _finite(place: NamedSharding | None) -> Callable[[jax.Array], jax.Array]:
  """x -> bool[first axis], whether all of it are numbers, on each device."""

  def finite(x):
    return jnp.isfinite(x).all(axis=tuple(range(1, x.ndim)))

  return jax.jit(finite, out_shardings=place)


def abstract(config: VLMConfig, *, dtype: Any) -> VLM:
  """A model of jax.ShapeDtypeStructs: shapes and axes, no memory."""
  return nnx.eval_shape(
      lambda: VLM(config, dtype=dtype, draw=lambda shape, _: jnp.zeros(shape))
  )


def init(
    config: VLMConfig, key: jax.Array, *, dtype: Any = jnp.float32
) -> VLM:
  """Random parameters: kernels ~ gain / sqrt(fan in), biases 0, norms 1."""
  # On the host: compiling a draw for every shape takes longer than all draws.
  generator = np.random.default_rng(np.asarray(jax.random.key_data(key)))

  def draw(shape, std):
    return generator.standard_normal(shape, np.float32) * np.float32(std)

  return VLM(config, dtype=dtype, draw=draw)


def save_pretrained(
    model: VLM,
    folder: epath.PathLike,
    *,
    dtype: Any = None,
    max_shard_bytes: int = 5 * 10**9,
) -> None:
  """Writes a folder that from_pretrained and transformers 5 load.

  A kill at any instant leaves the model that was there, or none that loads, or
  this one.

  Args:
    model: Adapters must be merged first (merge_lora).
    folder: Made if need be. Weights in it are replaced, other files are left
      alone.
    dtype: Of the files; None for the parameters' own.
    max_shard_bytes: Above this there are several files and an index. Not more
      than one tensor, or 1 GiB of them, is on the host at a time.

  Raises:
    ValueError: The model carries unmerged adapters, or there is no such dtype.
    UserError: The folder cannot be written.
  """
  if dtype is not None:
    _check_dtype(dtype)
  flat = dict(nnx.to_flat_state(nnx.state(model)))
  if any(isinstance(leaf, nnx.LoRAParam) for leaf in flat.values()):
    raise ValueError('merge the adapters first: models.merge_lora(model)')
  params = {path: leaf.get_value() for path, leaf in flat.items()}
  hf_params.save(
      folder,
      model.config,
      params,
      dtype=dtype,
      max_shard_bytes=max_shard_bytes,
  )


def _check_dtype(dtype: Any) -> None:
  known = hf_files.DTYPES.values()
  if jnp.dtype(dtype) not in known:
    names = ', '.join(str(one) for one in known)
    raise ValueError(f'dtype must be one of {names}, not {jnp.dtype(dtype)}')

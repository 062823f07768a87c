"""The mesh, and the mesh axis of each logical axis of an array.

Mesh axes: `data` replicates the model, `fsdp` splits rows *and* parameters
(gathered layer by layer), `tensor` splits heads, feed-forward and vocabulary.
Nothing else in the package names a mesh axis.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
import functools
import math
from typing import Any

from flax import nnx
import jax
import jax.numpy as jnp
from jax.sharding import AxisType, Mesh, NamedSharding, PartitionSpec
import numpy as np

from gog_jax import errors

MESH_AXES = ('data', 'fsdp', 'tensor')

# Rows of a batch are spread over both of these, attention's heads over this.
ROW_AXES = ('data', 'fsdp')
HEADS_AXIS = 'tensor'

# A logical axis that is not split maps to None; an unknown one is an error.
LOGICAL_AXES = {
    'layers': None,  # Scanned over.
    'embed': 'fsdp',
    'heads': HEADS_AXIS,
    'kv_heads': HEADS_AXIS,
    'ffn': 'tensor',
    'vocab': 'tensor',
    'norm': None,
    'patch': None,
    'rank': None,
}


def make_mesh(
    data: int, fsdp: int, tensor: int, *, devices: Sequence[Any] | None = None
) -> Mesh:
  """A mesh over all devices, or over those given.

  Args:
    data: Replicas.
    fsdp: Shards of rows and parameters.
    tensor: Shards of heads, feed-forward and vocabulary. One of the three may
      be -1: whatever is left.
    devices: Another machine's, to compile for it; None for this one's.

  Raises:
    UserError: The sizes do not multiply to the number of devices.
  """
  sizes = [data, fsdp, tensor]
  n_devices = jax.device_count() if devices is None else len(devices)
  if -1 in sizes:
    others = [size for size in sizes if size != -1]
    sizes[sizes.index(-1)] = n_devices // max(math.prod(others), 1)
  if min(sizes) < 1 or math.prod(sizes) != n_devices:
    raise errors.UserError(
        f'mesh data={data}, fsdp={fsdp}, tensor={tensor}: sizes must multiply '
        f'to the {n_devices} devices, and one of them may be -1 (the rest)'
    )
  # Explicit axes, the default, would demand a sharding for each contraction.
  return jax.make_mesh(
      tuple(sizes),
      MESH_AXES,
      axis_types=(AxisType.Auto,) * len(MESH_AXES),
      devices=devices,
  )


def partition_spec(
    shape: tuple[int, ...], axes: tuple[str, ...], mesh: Any
) -> PartitionSpec:
  """The mesh axes of one array.

  An axis that its mesh axis does not divide is replicated: a toy's two
  key-value heads on four tensor shards cost memory, not correctness.
  """
  if len(shape) != len(axes):
    raise ValueError(f'shape {shape} does not fit logical axes {axes}')
  spec = []
  for size, axis in zip(shape, axes, strict=True):
    mesh_axis = LOGICAL_AXES[axis]
    if mesh_axis is not None and size % mesh.shape[mesh_axis]:
      mesh_axis = None
    spec.append(mesh_axis)
  return PartitionSpec(*spec)


def param_shardings(state: Any, mesh: Mesh) -> Any:
  """Where each array of a pytree of parameters belongs.

  Args:
    state: An nnx.State, a model, or an optimizer state built over one.
    mesh: From make_mesh.

  Returns:
    The same pytree with a NamedSharding in place of each array, fit for
    jax.device_put and for in_shardings. Arrays that are not nnx.Variables
    (an optimizer's step count) are replicated.
  """

  def place(leaf):
    if not isinstance(leaf, nnx.Variable):
      return NamedSharding(mesh, PartitionSpec())
    value = leaf.get_value()
    if not jax.tree.leaves(value):  # What an optimizer leaves to another.
      return leaf
    spec = partition_spec(value.shape, leaf.get_metadata('axes'), mesh)
    return leaf.replace(NamedSharding(mesh, spec))

  return jax.tree.map(
      place, state, is_leaf=lambda leaf: isinstance(leaf, nnx.Variable)
  )


def from_slices(
    shape: jax.ShapeDtypeStruct,
    where: NamedSharding | None,
    read: Callable[[tuple[slice, ...]], np.ndarray],
) -> jax.Array:
  """An array; this host reads what its own devices hold, each slice once.

  jax.make_array_from_callback would have all slices on the host at a time, and
  one for each replica.

  Args:
    shape: Shape and dtype of the whole array.
    where: From param_shardings; None for the default device.
    read: Gets a slice of each axis.
  """
  if where is None:
    return _read_onto(None, shape, [slice(0, n) for n in shape.shape], read)
  pieces: dict[tuple[tuple[int, int, int], ...], jax.Array] = {}
  parts = []
  for device, index in where.addressable_devices_indices_map(
      shape.shape
  ).items():
    assert index is not None
    key = tuple(s.indices(n) for s, n in zip(index, shape.shape, strict=True))
    if key in pieces:  # A replica is copied from device to device.
      pieces[key] = jax.device_put(pieces[key], device)
    else:
      here = [slice(*bounds) for bounds in key]
      pieces[key] = _read_onto(device, shape, here, read)
    parts.append(jax.block_until_ready(pieces[key]))
  return jax.make_array_from_single_device_arrays(shape.shape, where, parts)


# Bytes of a slice that the host holds at a time.
_MOST_AT_ONCE = 2**30


def _read_onto(
    device: Any,
    shape: jax.ShapeDtypeStruct,
    index: Sequence[slice],
    read: Callable[[tuple[slice, ...]], np.ndarray],
) -> jax.Array:
  """Puts a slice on a device; a large one some rows at a time."""
  rows, *others = index
  sizes = [s.stop - s.start for s in index]
  row_bytes = math.prod(sizes[1:]) * shape.dtype.itemsize
  n_rows = max(1, _MOST_AT_ONCE // row_bytes)
  if n_rows >= sizes[0]:
    whole = jax.device_put(read((rows, *others)), device)
    return jax.block_until_ready(whole)
  whole = jnp.zeros(sizes, shape.dtype, device=device)
  for start in range(rows.start, rows.stop, n_rows):
    some = slice(start, min(start + n_rows, rows.stop))
    part = jax.device_put(read((some, *others)), device)
    whole = jax.block_until_ready(_fill(whole, part, start - rows.start))
    del part  # Or the next one would be read while it is still held.
  return whole


@functools.partial(jax.jit, donate_argnums=0)
def _fill(whole: jax.Array, part: jax.Array, start: int) -> jax.Array:
  return jax.lax.dynamic_update_slice_in_dim(whole, part, start, axis=0)


def batch_sharding(mesh: Mesh) -> NamedSharding:
  """Rows over data and fsdp; every other axis whole."""
  return NamedSharding(mesh, PartitionSpec(ROW_AXES))


def row_spec(n_rows: int, mesh: Any) -> PartitionSpec:
  """The spec of a batch's rows; replicated where they do not divide."""
  return PartitionSpec(None if n_rows % n_row_shards(mesh) else ROW_AXES)


def n_row_shards(mesh: Any) -> int:
  """The number of shards that the rows of a batch are split into."""
  return math.prod(mesh.shape[axis] for axis in ROW_AXES)


def next_multiple(n: int, mesh: Any) -> int:
  """n, rounded up to the same number of rows on each shard."""
  shards = n_row_shards(mesh)
  return -(-n // shards) * shards


def cache_sharding(shape: tuple[int, ...], mesh: Any) -> NamedSharding:
  """For keys or values [B, K, S, H]: by rows and heads, where they divide."""
  heads = None if shape[1] % mesh.shape[HEADS_AXIS] else HEADS_AXIS
  return NamedSharding(mesh, PartitionSpec(*row_spec(shape[0], mesh), heads))


def constrain_whole(x: jax.Array) -> jax.Array:
  """Puts activations on every device, under an ambient mesh.

  For a step of decoding: its few activations move to the parameters, which are
  far larger.
  """
  if jax.sharding.get_abstract_mesh().empty:
    return x
  return jax.lax.with_sharding_constraint(x, PartitionSpec())


def constrain_widths(x: jax.Array) -> jax.Array:
  """Splits the last axis as the head's rows are, under an ambient mesh.

  Each device then multiplies its part of the head, and partial sums move.
  """
  mesh = jax.sharding.get_abstract_mesh()
  axis = LOGICAL_AXES['embed']
  if mesh.empty or x.shape[-1] % mesh.shape[axis]:
    return x
  return jax.lax.with_sharding_constraint(
      x, PartitionSpec(*[None] * (x.ndim - 1), axis)
  )


def constrain_rows(x: jax.Array) -> jax.Array:
  """Keeps activations split by rows, under an ambient mesh (jax.set_mesh).

  Left to itself the compiler may instead split them as the parameters are,
  and gather activations where gathering weights is cheaper. Without an
  ambient mesh, or where the rows do not divide, x is returned unchanged.
  """
  mesh = jax.sharding.get_abstract_mesh()
  if mesh.empty or x.shape[0] % n_row_shards(mesh):
    return x
  free = [PartitionSpec.UNCONSTRAINED] * (x.ndim - 1)
  return jax.lax.with_sharding_constraint(x, PartitionSpec(ROW_AXES, *free))

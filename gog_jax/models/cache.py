"""Appending to a decoder's cache, in place."""

from __future__ import annotations

import jax
from jax import lax
import jax.numpy as jnp
from jaxtyping import Array, Float, Int

from gog_jax.models import sharding


def append(
    held: Float[Array, 'B K S H'],
    new: Float[Array, 'B T K H'],
    *,
    lengths: Int[Array, ' B'],
    n_valid: Int[Array, ' B'],
) -> Float[Array, 'B K S H']:
  """Writes each row's first n_valid of T tokens behind its `lengths`.

  What would stand beyond S is dropped. One slice a row is replaced: a scatter
  is compiled for TPUs to another layout of the whole cache, which then is
  copied there and back for every token.
  """
  new = new.astype(held.dtype).swapaxes(1, 2)
  n_slots = held.shape[2]
  width = min(new.shape[2], n_slots)

  def of_device(held, new, lengths, n_valid):
    def row(index, held):
      length, n = lengths[index], n_valid[index]
      start = jnp.minimum(length, n_slots - width)
      at = (index, 0, start, 0)
      size = (1, held.shape[1], width, held.shape[3])
      before = lax.dynamic_slice(held, at, size)
      tokens = lax.dynamic_slice(
          new, (index, 0, 0, 0), (1, *new.shape[1:])
      )
      # Which token each of the slots gets: one before them, or none.
      token = start + jnp.arange(width) - length
      there = (token >= 0) & (token < n)
      if width > 1:
        tokens = jnp.take(tokens, jnp.maximum(token, 0), axis=2, mode='clip')
      after = jnp.where(there[:, None], tokens, before)
      return lax.dynamic_update_slice(held, after, at)

    return lax.fori_loop(0, held.shape[0], row, held)

  mesh = jax.sharding.get_abstract_mesh()
  if mesh.empty:
    return of_device(held, new, lengths, n_valid)
  spec = sharding.cache_sharding(held.shape, mesh).spec
  rows = sharding.row_spec(held.shape[0], mesh)
  return jax.shard_map(
      of_device,
      in_specs=(spec, spec, rows, rows),
      out_specs=spec,
      check_vma=False,
  )(held, new, lengths, n_valid)

"""The decoder, over whole packed rows or against a cache.

Axis letters: B row, T query time, S key time (cache slots), D width, V
vocabulary, K key-value heads, H head dimension, L layers, E deepstacks.
"""

from __future__ import annotations

import functools
from typing import Any, NamedTuple

from flax import nnx
import jax
from jax import lax
import jax.numpy as jnp
from jaxtyping import Array, Float, Int
import numpy as np

from gog_jax.models import attention as attention_lib
from gog_jax.models import config as config_lib
from gog_jax.models import layers
from gog_jax.models import rope
from gog_jax.models import sharding


class KVCache(NamedTuple):
  """Keys and values of the tokens of each row so far.

  One array per layer, because a step of decoding updates each in place and
  reads it whole: a slice of one stacked array would be a copy. Heads come
  before slots, so that a head's keys are contiguous for its matrix product.
  Rows are axis 0 of every leaf: `jax.tree.map(lambda leaf: leaf[rows], cache)`
  forks rows, and sharding.batch_sharding places them.

  Attributes:
    k: L arrays [B, K, S, H], rotated. Slots from lengths on hold nothing.
    v: L arrays [B, K, S, H].
    lengths: int32[B], slots in use.
  """

  k: tuple[jax.Array, ...]
  v: tuple[jax.Array, ...]
  lengths: jax.Array


class TextTower(nnx.Module):
  """Token embeddings (with images in them) -> hidden states."""

  def __init__(
      self,
      config: config_lib.TextConfig,
      *,
      tied: bool,
      dtype: Any,
      draw: layers.Draw,
  ):
    self.config = config

    def matrix(axes, shape):
      values = draw(shape, config.width**-0.5)
      return nnx.Param(jnp.asarray(values, dtype), axes=axes)

    self.embedding = matrix(
        ('vocab', 'embed'), (config.vocab_size, config.width)
    )
    self.blocks = layers.Block(
        config,
        dtype=dtype,
        draw=draw,
        # Larger updates would drown the embeddings, which the head needs small.
        residual_gain=0.2,
    )
    self.norm = layers.Norm(config.width, config, stack=(), dtype=dtype)
    self.untied_head = nnx.data(None)
    if not tied:
      self.untied_head = matrix(
          ('embed', 'vocab'), (config.width, config.vocab_size)
      )

  def head(self) -> Float[Array, 'D V']:
    """The output head; the transposed embedding where they are tied."""
    if self.untied_head is None:
      return self.embedding[...].T
    return self.untied_head[...]

  def rotary(self, positions: Int[Array, 'B 3 T']) -> rope.Rotary:
    return rope.mrope(
        positions,
        head_dim=self.config.head_dim,
        theta=self.config.rope_theta,
        sections=self.config.mrope_sections,
        interleaved=self.config.mrope_interleaved,
    )

  def hidden(
      self,
      tokens: Int[Array, 'B T'],
      positions: Int[Array, 'B 3 T'],
      segment_ids: Int[Array, 'B T'],
      image_features: Float[Array, 'B M F'] | None,
      image_index: Int[Array, 'B T'] | None,
      how: layers.Execution = layers.Execution(),
  ) -> Float[Array, 'B T D']:
    """Hidden states after the final norm, over whole (packed) rows.

    A token sees itself and the tokens before it in its own segment, whatever
    their positions, which start again in each segment. Padding is a segment
    like any other, so that every query sees at least itself.

    Args:
      tokens: Ids; any at image tokens and padding.
      positions: M-RoPE positions, from rope.mrope_positions.
      segment_ids: Which trajectory of the row a token belongs to; 0 is
        padding.
      image_features: The vision tower's; None where no row has an image.
      image_index: Which of the row's features stands here; -1 for text.
        Not read where image_features is None.
      how: How the layers run.
    """
    x, deepstack = self._embed(tokens, image_features, image_index)
    rotary = self.rotary(positions)

    def step(x, layer: tuple[layers.Block, Any]):
      block, index = layer
      attended = attention_lib.segment_attention(
          *block.project(x, rotary),
          segment_ids,
          causal=True,
          backend=how.attention,
      )
      x = sharding.constrain_rows(block.finish(x, attended))
      if deepstack is None:
        return x
      # One body for all layers: the others add nothing.
      there = index < len(deepstack)
      nearest = jnp.minimum(index, len(deepstack) - 1)
      added = lax.dynamic_index_in_dim(deepstack, nearest, keepdims=False)
      return x + jnp.where(there, added, 0)

    x = layers.run_blocks(
        step,
        sharding.constrain_rows(x),
        (self.blocks, np.arange(self.config.n_layers)),
        how,
    )
    return self.norm(x)

  def extend(
      self,
      tokens: Int[Array, 'B T'],
      positions: Int[Array, 'B 3 T'],
      n_valid: Int[Array, ' B'],
      image_features: Float[Array, 'B M F'] | None,
      image_index: Int[Array, 'B T'] | None,
      cache: KVCache,
  ) -> tuple[Float[Array, 'B T D'], KVCache]:
    """Appends up to T tokens to each row, at the row's own length.

    Layers are unrolled: the cache is then updated in place, where a scan
    would copy it from its inputs to its outputs. On several devices a chunk of
    tokens is split by rows and gathers the parameters, a single one goes to
    where they lie.

    Args:
      tokens: Ids; T = 1 is a step of decoding.
      positions: M-RoPE positions; they go on from the row's last turn.
      n_valid: How many of a row's tokens are real; the others leave no trace
        in the cache, and their hidden states mean nothing.
      image_features: As in `hidden`.
      image_index: As in `hidden`.
      cache: From init_cache or the last call. Donate it: it is updated in
        place. What does not fit into its S slots is dropped, so the caller
        stops a row before it is full.

    Returns:
      Hidden states after the final norm, and the cache with its lengths grown
      by n_valid.
    """
    x, deepstack = self._embed(tokens, image_features, image_index)
    place = sharding.constrain_rows
    if x.shape[1] == 1:
      place = sharding.constrain_whole
    x = place(x)
    rotary = self.rotary(positions)
    n_slots = cache.k[0].shape[2]
    slots = cache.lengths[:, None] + jnp.arange(x.shape[1])
    # Slot 0 is visible even to rows that have nothing to append.
    mask = jnp.arange(n_slots) <= slots[:, :, None]
    append = functools.partial(
        append_to_cache, lengths=cache.lengths, n_valid=n_valid
    )
    keys, values = [], []
    for index in range(self.config.n_layers):
      block = layers.layer_slice(self.blocks, index)
      query, key, value = map(place, block.project(x, rotary))
      keys.append(append(cache.k[index], key))
      values.append(append(cache.v[index], value))
      attended = attention_lib.cached_attention(
          query, keys[-1], values[-1], mask
      )
      x = place(block.finish(x, place(attended)))
      if deepstack is not None and index < len(deepstack):
        x += deepstack[index]
    lengths = jnp.minimum(cache.lengths + n_valid, n_slots)
    return self.norm(x), KVCache(tuple(keys), tuple(values), lengths)

  def init_cache(
      self,
      batch: int,
      max_len: int,
      dtype: Any,
      mesh: jax.sharding.Mesh | None = None,
  ) -> KVCache:
    """An empty cache of `max_len` slots for each of `batch` rows.

    On a mesh, rows are split as those of a batch are, and heads.
    """
    config = self.config
    shape = (batch, config.n_kv_heads, max_len, config.head_dim)
    place = None if mesh is None else sharding.cache_sharding(shape, mesh)

    def empty():
      # One buffer each: they are donated, which a shared one could not be.
      return tuple(
          jnp.zeros(shape, dtype, device=place) for _ in range(config.n_layers)
      )

    return KVCache(empty(), empty(), jnp.zeros((batch,), jnp.int32))

  def logits(self, hidden: Float[Array, '*B D']) -> Float[Array, '*B V']:
    """float32 logits; for single positions, not for whole rows."""
    return jnp.dot(
        sharding.constrain_widths(hidden),
        self.head().astype(hidden.dtype),
        preferred_element_type=jnp.float32,
    )

  def _embed(self, tokens, image_features, image_index):
    """Embeddings [B, T, D], and what deepstack adds [E, B, T, D] or None."""
    x = self.embedding[...][tokens]
    if image_features is None:
      return x, None
    features = jnp.take_along_axis(
        image_features, jnp.maximum(image_index, 0)[..., None], axis=1
    )
    is_image = image_index[..., None] >= 0
    features = jnp.where(is_image, features.astype(x.dtype), 0)
    features = features.reshape(*x.shape[:-1], -1, x.shape[-1])
    x = jnp.where(is_image, features[..., 0, :], x)
    if features.shape[-2] == 1:
      return x, None
    return x, jnp.moveaxis(features[..., 1:, :], -2, 0)


def append_to_cache(
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

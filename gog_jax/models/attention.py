"""Attention: within the segments of packed rows, and over a cache.

Axis letters: B row, T query time, S key time, N query heads, K key-value heads
(query head n reads key-value head n // (N / K)), H head dimension.

`segment_attention` is what training and the vision tower run. It has two
backends: 'xla', the oracle, which runs everywhere and takes blocks of queries
where all logits at once would be too many; and 'splash', JAX's Pallas kernel
for TPUs, which never holds them. 'splash_interpret' runs the same kernel in an
interpreter, slowly, on machines without a TPU.
"""

from __future__ import annotations

import itertools
from typing import Any

import jax
from jax import lax
from jax.experimental.pallas.ops.tpu import splash_attention as splash
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float, Int

from gog_jax.models import sharding

BACKENDS = ('xla', 'splash', 'splash_interpret')

# The logit of probability 0; finite, so that no gradient is NaN.
_MASKED = -1e30

# Causal attention takes at most _MOST_BLOCKS blocks of at least _BLOCK queries:
# more of them save little and take longer to compile.
_MOST_BLOCKS, _BLOCK = 4, 128

# Rows longer than _LONG are attended to _QUERIES_AT_ONCE queries at a time.
_LONG, _QUERIES_AT_ONCE = 2048, 512

# Up to this length, segments are attended to in blocks and their neighbours.
_NEAR = 128

# The kernel takes whole tiles: of head dimensions, and of time the largest that
# fits.
_LANES, _TILES = 128, (512, 256, 128)
_BLOCK_SIZES = (
    'block_q', 'block_kv', 'block_q_dkv', 'block_kv_dkv', 'block_q_dq',
    'block_kv_dq',
)  # fmt: skip


def backend_for(choice: str) -> str:
  """The backend for a config's choice; 'auto' depends on the platform."""
  if choice != 'auto':
    return choice
  return 'splash' if jax.default_backend() == 'tpu' else 'xla'


def segment_attention(
    query: Float[Array, 'B T N H'],
    key: Float[Array, 'B T K H'],
    value: Float[Array, 'B T K H'],
    segment_ids: Int[Array, 'B T'],
    *,
    causal: bool,
    longest: int | None = None,
    backend: str = 'xla',
) -> Float[Array, 'B T N H']:
  """softmax(query . key / sqrt(H)) value, within each segment of a row.

  Logits and softmax are float32. Everything sees at least itself, padding too:
  a fully masked row would be NaN in the gradient even where a loss mask zeroes
  its output.

  Args:
    query: Rotated.
    key: Rotated.
    value: As the keys.
    segment_ids: Equal within a segment, which is contiguous. Padding is a
      segment like any other.
    causal: Whether what comes later in the segment is hidden.
    longest: No segment that counts is longer than this; None if that is not
      known. Only read where not `causal`: what is further away is not looked
      at. Of a longer segment (padding) the result means nothing.
    backend: One of BACKENDS. 'splash' also splits rows and heads over the
      ambient mesh (jax.set_mesh), which the compiler cannot do by itself.

  Raises:
    ValueError: An unknown backend.
  """
  length = query.shape[1]
  if causal or longest is None or longest >= length:
    longest = None
  packed = (query, key, value, segment_ids)
  if backend not in BACKENDS:
    raise ValueError(f'attention {backend!r} is not one of {BACKENDS}')
  if backend != 'xla':
    interpret = backend == 'splash_interpret'
    return _splash(*packed, causal=causal, longest=longest, interpret=interpret)
  if longest is not None and longest <= _NEAR and longest * 3 < length:
    return _neighbouring(*packed, block=longest)
  if length > _LONG:
    return _block_by_block(*packed, causal=causal, longest=longest)
  if causal:
    return _causal(*packed)
  mask = segment_ids[:, :, None] == segment_ids[:, None, :]
  return attention(query, key, value, mask)


def attention(
    query: Float[Array, 'B T N H'],
    key: Float[Array, 'B S K H'],
    value: Float[Array, 'B S K H'],
    mask: Bool[Array, 'B T S'],
) -> Float[Array, 'B T N H']:
  """softmax(query . key / sqrt(H)) value, where mask is True.

  Key-value heads are never repeated in memory. Each row of the mask must have
  a True, see `segment_attention`.
  """
  return cached_attention(
      query, key.swapaxes(1, 2), value.swapaxes(1, 2), mask
  )


def cached_attention(
    query: Float[Array, 'B T N H'],
    key: Float[Array, 'B K S H'],
    value: Float[Array, 'B K S H'],
    mask: Bool[Array, 'B T S'],
) -> Float[Array, 'B T N H']:
  """`attention` over a cache, in which heads come before slots.

  With few queries the cost is reading the cache. The queries that share a
  key-value head become the rows of one matrix, so that neither product has to
  transpose the cache first (on a CPU twice as fast as
  `jax.nn.dot_product_attention`).
  """
  n_rows, n_queries, n_heads, head_dim = query.shape
  n_kv = key.shape[1]
  shared = n_heads // n_kv
  query = query.reshape(n_rows, n_queries, n_kv, shared, head_dim)
  query = query.transpose(0, 2, 3, 1, 4).reshape(n_rows, n_kv, -1, head_dim)
  logits = jnp.einsum(
      'bkqh,bksh->bkqs',
      query,
      key.astype(query.dtype),
      preferred_element_type=jnp.float32,
  )
  logits = logits.reshape(n_rows, n_kv, shared, n_queries, -1)
  logits = jnp.where(mask[:, None, None], logits * head_dim**-0.5, _MASKED)
  probs = jax.nn.softmax(logits, axis=-1).astype(query.dtype)
  attended = jnp.einsum(
      'bkqs,bksh->bkqh',
      probs.reshape(n_rows, n_kv, shared * n_queries, -1),
      value.astype(query.dtype),
  )
  attended = attended.reshape(n_rows, n_kv, shared, n_queries, head_dim)
  return attended.transpose(0, 3, 1, 2, 4).reshape(
      n_rows, n_queries, n_heads, head_dim
  )


def _causal(query, key, value, segment_ids):
  """Multiplies no block of queries with the keys after its end.

  Of two blocks that saves a quarter, of four three eighths.
  """
  length = query.shape[1]
  mask = segment_ids[:, :, None] == segment_ids[:, None, :]
  mask &= jnp.tri(length, dtype=bool)
  key, value = key.swapaxes(1, 2), value.swapaxes(1, 2)
  n_blocks = min(max(length // _BLOCK, 1), _MOST_BLOCKS)
  ends = [length * n // n_blocks for n in range(n_blocks + 1)]
  attended = [
      cached_attention(
          query[:, start:end],
          key[:, :, :end],
          value[:, :, :end],
          mask[:, start:end, :end],
      )
      for start, end in itertools.pairwise(ends)
  ]
  return jnp.concatenate(attended, axis=1)


def _neighbouring(query, key, value, segment_ids, *, block):
  """Each block of queries against the keys of three blocks around it.

  A segment no longer than a block lies in at most two of them.
  """
  n_rows, length = segment_ids.shape
  n_blocks = -(-length // block)

  def blocks(x):
    x = _pad_time(x, n_blocks * block)
    return x.reshape(n_rows, n_blocks, block, *x.shape[2:])

  query, key, value = map(blocks, (query, key, value))
  # Padding of the row is a segment; what lies beyond its ends matches nothing.
  ids = blocks(segment_ids + 1)

  def with_neighbours(x, beyond):
    edges = [(0, 0), (1, 1)] + [(0, 0)] * (x.ndim - 2)
    x = jnp.pad(x, edges, constant_values=beyond)
    return jnp.concatenate([x[:, :-2], x[:, 1:-1], x[:, 2:]], axis=2)

  mask = ids[..., None] == with_neighbours(ids, -1)[:, :, None]
  one_row_each = lambda x: x.reshape(n_rows * n_blocks, *x.shape[2:])
  attended = attention(
      one_row_each(query),
      one_row_each(with_neighbours(key, 0)),
      one_row_each(with_neighbours(value, 0)),
      one_row_each(mask),
  )
  attended = attended.reshape(n_rows, n_blocks * block, *attended.shape[2:])
  return attended[:, :length]


def _block_by_block(query, key, value, segment_ids, *, causal, longest):
  """Blocks of queries one after the other, recomputed going backward.

  Logits of one block exist at a time. A block sees all keys, or those within
  `longest` where it is known.
  """
  length = query.shape[1]
  block = _QUERIES_AT_ONCE
  padded = -(-length // block) * block
  query = _pad_time(query, padded)
  ids = _pad_time(segment_ids + 1, padded)
  near = padded if longest is None else longest
  n_keys = min(padded, near + block + near)
  key, value = (_pad_time(x, padded).swapaxes(1, 2) for x in (key, value))

  @jax.checkpoint
  def one_block(start):
    first = jnp.clip(start - near, 0, padded - n_keys)
    queries = lambda x: lax.dynamic_slice_in_dim(x, start, block, axis=1)
    keys = lambda x, axis: lax.dynamic_slice_in_dim(x, first, n_keys, axis)
    mask = queries(ids)[:, :, None] == keys(ids, 1)[:, None, :]
    if causal:
      at = start + jnp.arange(block)
      mask &= at[:, None] >= first + jnp.arange(n_keys)
    return cached_attention(queries(query), keys(key, 2), keys(value, 2), mask)

  blocks = lax.map(one_block, jnp.arange(0, padded, block))
  return jnp.moveaxis(blocks, 0, 1).reshape(query.shape)[:, :length]


def _splash(query, key, value, segment_ids, *, causal, longest, interpret):
  """The kernel, per device: rows over data and fsdp, heads over tensor."""
  head_dim, length = query.shape[-1], query.shape[1]
  tile = next(t for t in _TILES if length >= t or t == _TILES[-1])
  padded = -(-length // tile) * tile
  ids = _pad_time(segment_ids + 1, padded)
  # The kernel knows no scale.
  query = (query.astype(jnp.float32) * head_dim**-0.5).astype(query.dtype)

  def whole_tiles(x):
    lanes = -head_dim % _LANES
    x = jnp.pad(_pad_time(x, padded), [(0, 0)] * 3 + [(0, lanes)])
    return x.swapaxes(1, 2)

  shape = (padded, padded)
  if causal:
    mask = splash.CausalMask(shape)
  elif longest is None:
    mask = splash.FullMask(shape)
  else:
    mask = splash.LocalMask(shape, (longest - 1, longest - 1), offset=0)

  def one_device(query, key, value, ids):
    # Made here: its number of heads is the device's.
    kernel = splash.make_splash_mha(
        mask=splash.MultiHeadMask([mask] * query.shape[1]),
        head_shards=1,
        q_seq_shards=1,
        interpret=interpret,
        block_sizes=splash.BlockSizes(**dict.fromkeys(_BLOCK_SIZES, tile)),
    )
    return jax.vmap(kernel)(query, key, value, splash.SegmentIds(ids, ids))

  query, key, value = map(whole_tiles, (query, key, value))
  mesh = jax.sharding.get_abstract_mesh()
  on_mesh: Any = one_device
  if not mesh.empty:
    # Queries, too, are split by what divides the key-value heads.
    by_head = sharding.cache_sharding(key.shape, mesh).spec
    rows = sharding.row_spec(key.shape[0], mesh)
    on_mesh = jax.shard_map(
        one_device,
        in_specs=(by_head, by_head, by_head, rows),
        out_specs=by_head,
        check_vma=False,  # The kernel does not say what its output varies over.
    )
  # What is compiled tells the decoder's kernels from the vision tower's.
  with jax.named_scope('causal' if causal else 'bidirectional'):
    attended = on_mesh(query, key, value, ids)
  return attended.swapaxes(1, 2)[:, :length, :, :head_dim]


def _pad_time(x: jax.Array, length: int) -> jax.Array:
  """Zeros at the end of axis 1."""
  return jnp.pad(
      x, [(0, 0), (0, length - x.shape[1])] + [(0, 0)] * (x.ndim - 2)
  )

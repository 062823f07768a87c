"""Every way to attend against the naive one, gradients too."""

from __future__ import annotations

import jax
import jax.numpy as jnp
from jax.sharding import NamedSharding, PartitionSpec
import numpy as np
import pytest

from gog_jax.models import attention
from gog_jax.models import sharding


def arrays(length, *, head_dim=8, longest=None, n_rows=2, n_heads=4, n_kv=2):
  """Queries, keys, values, and segments of at most `longest`, then padding."""
  rng = np.random.default_rng(length)
  query = rng.standard_normal((n_rows, length, n_heads, head_dim), np.float32)
  key, value = rng.standard_normal(
      (2, n_rows, length, n_kv, head_dim), np.float32
  )
  ids = np.zeros((n_rows, length), np.int32)
  for row in ids:
    start, segment = 0, 0
    while start < length * 0.9:
      end = start + rng.integers(1, (longest or length) + 1)
      segment += 1
      row[start:end] = segment
      start = end
  return query, key, value, ids


def naive(query, key, value, ids, *, causal):
  mask = ids[:, :, None] == ids[:, None, :]
  if causal:
    mask &= np.tri(ids.shape[1], dtype=bool)
  shared = query.shape[2] // key.shape[2]
  key, value = (jnp.repeat(x, shared, axis=2) for x in (key, value))
  query, key, value = (x.astype(jnp.float32) for x in (query, key, value))
  logits = jnp.einsum('btnh,bsnh->bnts', query, key) / query.shape[-1] ** 0.5
  logits = jnp.where(mask[:, None], logits, -jnp.inf)
  return jnp.einsum('bnts,bsnh->btnh', jax.nn.softmax(logits), value)


def both(args, *, causal, longest=None, backend='xla'):
  """(values and gradients of ours, those of `naive`), padding left out."""
  query, key, value, ids = args
  weight = np.random.default_rng(1).standard_normal(query.shape, np.float32)
  valid = np.asarray(ids > 0)[..., None, None]
  weight *= valid

  def ours(query, key, value):
    attended = attention.segment_attention(
        query, key, value, ids, causal=causal, longest=longest, backend=backend
    )
    return (attended * weight).sum(), attended

  def theirs(query, key, value):
    attended = naive(query, key, value, ids, causal=causal)
    return (attended * weight).sum(), attended

  results = []
  for fn in (ours, theirs):
    grad = jax.grad(fn, argnums=(0, 1, 2), has_aux=True)
    grads, attended = jax.jit(grad)(query, key, value)
    assert np.isfinite(attended).all()
    results.append((np.asarray(attended) * valid, *grads))
  return results


def check(args, **kwargs):
  for ours, theirs in zip(*both(args, **kwargs), strict=True):
    assert np.abs(theirs).max() > 0.1
    np.testing.assert_allclose(ours, theirs, rtol=0, atol=2e-5)


@pytest.mark.parametrize('length', [3, 200, 300, 1100])
def test_causal_in_up_to_four_blocks(length):
  check(arrays(length), causal=True)


@pytest.mark.parametrize('length', [7, 130])
def test_whole_segments(length):
  check(arrays(length), causal=False)


@pytest.mark.parametrize('length', [48, 50, 100])
def test_windows_look_at_their_neighbours(length):
  check(arrays(length, longest=12), causal=False, longest=12)


@pytest.mark.parametrize(
    ('causal', 'longest'), [(True, None), (False, None), (False, 300)]
)
def test_long_rows_go_block_by_block(monkeypatch, causal, longest):
  monkeypatch.setattr(attention, '_LONG', 512)
  monkeypatch.setattr(attention, '_QUERIES_AT_ONCE', 128)
  args = arrays(700, longest=longest)
  check(args, causal=causal, longest=longest)


@pytest.mark.parametrize(
    ('causal', 'longest', 'head_dim'),
    [(True, None, 128), (False, None, 72), (False, 140, 80)],
)
def test_splash_equals_xla(causal, longest, head_dim):
  """By its interpreter, with head widths and rows that are no whole tiles."""
  args = arrays(300, longest=longest, head_dim=head_dim, n_rows=1)
  check(args, causal=causal, longest=longest, backend='splash_interpret')


def test_splash_in_bfloat16():
  """As near to float32 as XLA attention in bfloat16 is, gradients too."""
  *qkv, ids = arrays(300, head_dim=128, n_rows=1)
  qkv = [jnp.asarray(x, jnp.bfloat16) for x in qkv]

  def errors(backend):
    ours, exact = both((*qkv, ids), causal=True, backend=backend)
    return [
        np.abs(np.asarray(a, np.float32) - np.asarray(b, np.float32)).mean()
        for a, b in zip(ours, exact)
    ]

  assert both((*qkv, ids), causal=True)[0][1].dtype == jnp.bfloat16
  for splash, xla in zip(errors('splash_interpret'), errors('xla')):
    assert 1e-4 < splash < 1.5 * xla


@pytest.mark.parametrize('n_kv', [4, 1])
def test_splash_on_eight_devices(n_kv):
  """Rows over two axes, heads over the third where they divide."""
  if jax.device_count() != 8:
    pytest.skip('needs the eight devices that conftest.py asks for')
  mesh = sharding.make_mesh(2, 2, 2)
  args = arrays(128, n_rows=4, n_kv=n_kv)
  with jax.set_mesh(mesh):
    rows = NamedSharding(mesh, PartitionSpec(sharding.ROW_AXES))
    ours, theirs = both(
        jax.device_put(args, rows), causal=True, backend='splash_interpret'
    )
  assert ours[1].sharding.spec[0] == sharding.ROW_AXES
  for a, b in zip(ours, theirs, strict=True):
    assert np.abs(b).max() > 0.1
    np.testing.assert_allclose(a, b, rtol=0, atol=2e-5)


def test_what_is_far_is_not_multiplied():
  """Windows cost by their size: no array of all pairs of patches exists."""
  length = 4096
  shapes = [
      jax.ShapeDtypeStruct((1, length, 2, 8), jnp.float32) for _ in range(3)
  ]
  ids = jax.ShapeDtypeStruct((1, length), jnp.int32)

  def largest(longest):
    def run(query, key, value, ids):
      return attention.segment_attention(
          query, key, value, ids, causal=False, longest=longest
      )

    memory = jax.jit(run).lower(*shapes, ids).compile().memory_analysis()
    return memory.temp_size_in_bytes

  all_pairs = 2 * length**2 * 4  # Bytes.
  assert largest(64) < all_pairs / 4
  assert largest(512) < all_pairs / 4


def test_unknown_backend():
  with pytest.raises(ValueError, match='not one of'):
    attention.segment_attention(
        *arrays(8)[:3], arrays(8)[3], causal=True, backend='flash'
    )


def test_cached_attention_equals_attention():
  rng = np.random.default_rng(0)
  query = rng.standard_normal((2, 3, 6, 8), np.float32)
  key, value = rng.standard_normal((2, 2, 5, 2, 8), np.float32)
  mask = np.tril(np.ones((3, 5), bool), 2)[None].repeat(2, axis=0)
  logits = np.einsum('btnh,bsnh->bnts', query, key.repeat(3, axis=2)) / 8**0.5
  probs = np.exp(logits) * mask[:, None]
  probs /= probs.sum(-1, keepdims=True)
  expected = np.einsum('bnts,bsnh->btnh', probs, value.repeat(3, axis=2))
  np.testing.assert_allclose(
      attention.attention(query, key, value, mask), expected, atol=1e-5
  )
  cached = attention.cached_attention(
      query, key.swapaxes(1, 2), value.swapaxes(1, 2), mask
  )
  np.testing.assert_allclose(cached, expected, atol=1e-5)

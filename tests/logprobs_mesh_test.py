"""Logprobs over a mesh: rows, widths and vocabulary split, the same numbers."""

from __future__ import annotations

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from gog_jax import models
from gog_jax.models import sharding


@pytest.mark.parametrize('n_rows', [8, 3])
@pytest.mark.parametrize('vocab', [50, 51])
@pytest.mark.parametrize('sizes', [(2, 2, 2), (1, 8, 1), (1, 1, 8)])
def test_eight_devices_equal_one(sizes, vocab, n_rows):
  """Where rows, widths or vocabulary do not divide, too."""
  if jax.device_count() != 8:
    pytest.skip('needs the eight devices that conftest.py asks for')
  rng = np.random.default_rng(0)
  hidden = rng.standard_normal((n_rows, 11, 16), np.float32)
  head = rng.standard_normal((16, vocab), np.float32)
  targets = rng.integers(0, vocab, (n_rows, 11))
  weights = rng.standard_normal((2, n_rows, 11), np.float32)

  def loss(hidden, head):
    logprobs, entropy = models.token_logprobs(hidden, head, targets, chunk=4)
    return (weights[0] * logprobs + weights[1] * entropy).sum(), (
        logprobs,
        entropy,
    )

  run = lambda: jax.jit(
      jax.value_and_grad(loss, argnums=(0, 1), has_aux=True)
  )(hidden, head)
  expected = run()
  jax.clear_caches()  # The mesh is no argument.
  with jax.set_mesh(sharding.make_mesh(*sizes)):
    actual = run()
  jax.tree.map(
      lambda a, b: np.testing.assert_allclose(a, b, rtol=2e-4, atol=2e-4),
      jax.device_get(actual),
      jax.device_get(expected),
  )
  # And what one device computes is what the definition says.
  logits = (hidden @ head).astype(np.float64)
  logp = logits - np.log(np.exp(logits).sum(-1, keepdims=True))
  chosen = np.take_along_axis(logp, targets[..., None], axis=-1)[..., 0]
  entropy = -(np.exp(logp) * logp).sum(-1)
  np.testing.assert_allclose(expected[0][1][0], chosen, atol=1e-4)
  np.testing.assert_allclose(expected[0][1][1], entropy, atol=1e-4)


def test_the_head_travels_once():
  """Neither the head nor its gradient is exchanged for each chunk anew."""
  if jax.device_count() != 8:
    pytest.skip('needs the eight devices that conftest.py asks for')
  from gog_jax.aot import hlo

  mesh = sharding.make_mesh(1, 8, 1)
  place = lambda *spec: jax.sharding.NamedSharding(
      mesh, jax.sharding.PartitionSpec(*spec)
  )
  shape = lambda dims, where, dtype=jnp.float32: jax.ShapeDtypeStruct(
      dims, dtype, sharding=where
  )
  rows = place(sharding.ROW_AXES)
  args = (
      shape((8, 64, 16), rows),
      shape((16, 1000), place('fsdp')),
      shape((8, 64), rows, jnp.int32),
  )

  def loss(hidden, head, targets):
    return models.token_logprobs(hidden, head, targets, chunk=4)[0].sum()

  with jax.set_mesh(mesh):
    text = (
        jax.jit(jax.grad(loss, argnums=(0, 1))).lower(*args).compile().as_text()
    )
  sent = hlo.collective_bytes(text)
  whole = 16 * 1000 * 4
  assert 0 < sent['all-gather'] <= whole
  assert sent['all-reduce'] == 0
  assert 0 < sent['all-to-all'] <= whole

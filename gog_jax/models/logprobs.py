"""Logprobs and entropies of given tokens, without [B, T, V] in memory."""

from __future__ import annotations

import functools
from typing import Any

import jax
from jax import lax
import jax.numpy as jnp
from jaxtyping import Array, Float, Int

from gog_jax.models import sharding


def token_logprobs(
    hidden: Float[Array, 'B T D'],
    head: Float[Array, 'D V'],
    targets: Int[Array, 'B T'],
    *,
    chunk: int,
) -> tuple[Float[Array, 'B T'], Float[Array, 'B T']]:
  """The log probability of each target, and the entropy it was drawn from.

  Logits exist for `chunk` positions at a time, in the forward pass and, by
  recomputation, in the backward pass: B * chunk * V floats, not B * T * V.

  Over the ambient mesh (jax.set_mesh) rows, widths and vocabulary are split as
  `sharding` says: the head is gathered once for all chunks, and its gradient
  is summed over devices once. Left to itself, as where rows do not
  divide, the compiler does both for each chunk.

  Args:
    hidden: After the final norm.
    head: The output head; logits are hidden @ head.
    targets: The token that each position predicts, already shifted.
    chunk: Positions per step; need not divide T.

  Returns:
    logprobs and entropy in nats, float32.
  """
  head = head.astype(hidden.dtype)
  one_device = functools.partial(_token_logprobs, chunk=chunk)
  mesh = jax.sharding.get_abstract_mesh()
  n_rows = hidden.shape[0]
  if mesh.empty or mesh.size == 1 or n_rows % sharding.n_row_shards(mesh):
    return one_device(hidden, head, targets, None, None)
  rows = sharding.row_spec(n_rows, mesh)
  of_head = sharding.partition_spec(head.shape, ('embed', 'vocab'), mesh)
  return jax.shard_map(
      lambda *args: one_device(*args, *of_head),
      in_specs=(rows, of_head, rows),
      out_specs=(rows, rows),
  )(hidden, head, targets)


@functools.partial(jax.custom_vjp, nondiff_argnums=(0,))
def _gather(axis_name: str, x: jax.Array) -> jax.Array:
  """All devices' parts along axis 0.

  Of the gradient each device gets the others' parts of what is its own, and
  adds them up. (A psum_scatter is compiled for TPUs to a sum that is on every
  device whole until the optimizer is done.)
  """
  return lax.all_gather(x, axis_name, axis=0, tiled=True)


def _gather_forward(axis_name, x):
  return _gather(axis_name, x), None


def _gather_backward(axis_name: str, _: None, cotangent: Any):
  n = lax.axis_size(axis_name)
  parts = cotangent.reshape(n, -1, *cotangent.shape[1:])
  parts = lax.all_to_all(parts, axis_name, split_axis=0, concat_axis=0)
  return (parts.sum(axis=0, dtype=jnp.float32).astype(cotangent.dtype),)


_gather.defvjp(_gather_forward, _gather_backward)


def _token_logprobs(
    hidden, head: Any, targets, width_axis, vocab_axis, *, chunk: int
):
  """On one device: its rows, and its part of a head split over these axes."""
  if width_axis is not None:
    head = _gather(width_axis, head)
  first = 0
  of_all, most = lambda x: x, lambda x: x
  if vocab_axis is not None:
    first = lax.axis_index(vocab_axis) * head.shape[1]
    of_all = functools.partial(lax.psum, axis_name=vocab_axis)
    most = functools.partial(lax.pmax, axis_name=vocab_axis)
  n_rows, n_tokens, _ = hidden.shape
  chunk = min(chunk, n_tokens)
  n_chunks = -(-n_tokens // chunk)
  padding = n_chunks * chunk - n_tokens

  def chunks(x):
    x = jnp.pad(x, [(0, 0), (0, padding)] + [(0, 0)] * (x.ndim - 2))
    return x.reshape(n_rows, n_chunks, chunk, *x.shape[2:]).swapaxes(0, 1)

  @jax.checkpoint
  def one_chunk(hidden, targets):
    logits = jnp.dot(hidden, head, preferred_element_type=jnp.float32)
    highest = most(lax.stop_gradient(logits.max(axis=-1)))
    exps = jnp.exp(logits - highest[..., None])
    total = of_all(exps.sum(axis=-1))
    log_normaliser = highest + jnp.log(total)
    at = targets - first
    here = (at >= 0) & (at < logits.shape[-1])
    chosen = jnp.take_along_axis(
        logits, jnp.where(here, at, 0)[..., None], axis=-1
    )[..., 0]
    chosen = of_all(jnp.where(here, chosen, 0))
    mean = of_all((exps * logits).sum(axis=-1)) / total
    return chosen - log_normaliser, log_normaliser - mean

  def join(x):
    return x.swapaxes(0, 1).reshape(n_rows, n_chunks * chunk)[:, :n_tokens]

  logprobs, entropy = lax.map(
      lambda xs: one_chunk(*xs), (chunks(hidden), chunks(targets))
  )
  return join(logprobs), join(entropy)

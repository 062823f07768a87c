"""Logprobs and entropies of given tokens, without [B, T, V] in memory."""

from __future__ import annotations

import jax
from jax import lax
import jax.numpy as jnp
from jaxtyping import Array, Float, Int


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

  Args:
    hidden: After the final norm.
    head: The output head; logits are hidden @ head.
    targets: The token that each position predicts, already shifted.
    chunk: Positions per step; need not divide T.

  Returns:
    logprobs and entropy in nats, float32.
  """
  n_rows, n_tokens, width = hidden.shape
  chunk = min(chunk, n_tokens)
  n_chunks = -(-n_tokens // chunk)
  padding = n_chunks * chunk - n_tokens
  head = head.astype(hidden.dtype)

  def chunks(x):
    x = jnp.pad(x, [(0, 0), (0, padding)] + [(0, 0)] * (x.ndim - 2))
    return x.reshape(n_rows, n_chunks, chunk, *x.shape[2:]).swapaxes(0, 1)

  @jax.checkpoint
  def one_chunk(hidden, targets):
    logits = jnp.dot(hidden, head, preferred_element_type=jnp.float32)
    log_normaliser = jax.nn.logsumexp(logits, axis=-1)
    chosen = jnp.take_along_axis(logits, targets[..., None], axis=-1)[..., 0]
    probs = jnp.exp(logits - log_normaliser[..., None])
    entropy = log_normaliser - jnp.sum(probs * logits, axis=-1)
    return chosen - log_normaliser, entropy

  def join(x):
    return x.swapaxes(0, 1).reshape(n_rows, n_chunks * chunk)[:, :n_tokens]

  logprobs, entropy = lax.map(
      lambda xs: one_chunk(*xs), (chunks(hidden), chunks(targets))
  )
  return join(logprobs), join(entropy)

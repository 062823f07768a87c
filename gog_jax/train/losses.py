"""Token losses: pure functions of logprobs, unreduced.

Reduction is one weighted sum over the batch, with weights that batching made
(see `loss_weights`): exact under packing, padding and sharding.
"""

from __future__ import annotations

import dataclasses

import jax
import jax.numpy as jnp


@dataclasses.dataclass(frozen=True, kw_only=True)
class GRPOConfig:
  """The policy loss.

  Attributes:
    clip_low, clip_high: The ratio is clipped to [1 - low, 1 + high].
    kl_coef: Weight of the KL to the SFT policy.
    max_importance_weight: Cap of the truncated importance weights that
      correct for the gap between sampler and trainer.
  """

  clip_low: float
  clip_high: float
  kl_coef: float
  max_importance_weight: float


def sft_loss(logprobs: jax.Array) -> jax.Array:
  """Cross entropy of each target, [B, T] -> [B, T]."""
  return -logprobs


def grpo_loss(
    logprobs: jax.Array,
    *,
    old_logprobs: jax.Array,
    sampler_logprobs: jax.Array,
    ref_logprobs: jax.Array,
    advantages: jax.Array,
    config: GRPOConfig,
) -> tuple[jax.Array, dict[str, jax.Array]]:
  """Clipped policy loss plus KL, per token; all arguments are [B, T].

      ratio  = exp(logprobs - old_logprobs)
      policy = -min(ratio A, clip(ratio, 1 - low, 1 + high) A)
      kl     = exp(ref - logprobs) - (ref - logprobs) - 1          (k3)
      loss   = min(exp(old - sampler), cap) * policy + kl_coef * kl

  Args:
    logprobs: Of the targets under the policy being trained.
    old_logprobs: Under the trainer at sampling time; no gradient.
    sampler_logprobs: As the sampler reported them.
    ref_logprobs: Under the frozen SFT policy.
    advantages: Of the target's trajectory.
    config: Coefficients.

  Returns:
    The loss and, for logging, `ratio`, `clipped`, `kl`, `importance_weight`.

  Source: DeepSeekMath eq. 3-4 (GRPO, k3); Schulman, "Approximating KL".
  """
  old_logprobs = jax.lax.stop_gradient(old_logprobs)
  ratio = jnp.exp(logprobs - old_logprobs)
  clipped_ratio = jnp.clip(ratio, 1 - config.clip_low, 1 + config.clip_high)
  surrogate = jnp.minimum(ratio * advantages, clipped_ratio * advantages)
  importance_weight = jnp.minimum(
      jnp.exp(old_logprobs - sampler_logprobs), config.max_importance_weight
  )
  log_ratio = ref_logprobs - logprobs
  kl = jnp.exp(log_ratio) - log_ratio - 1
  loss = -importance_weight * surrogate + config.kl_coef * kl
  return loss, {
      'ratio': ratio,
      'clipped': (clipped_ratio * advantages < ratio * advantages).astype(
          loss.dtype
      ),
      'kl': kl,
      'importance_weight': importance_weight,
  }


def masked_mean(values: jax.Array, mask: jax.Array) -> jax.Array:
  """Mean over the places where mask is 1; 0 if there are none."""
  return jnp.where(mask > 0, values, 0).sum() / jnp.maximum(mask.sum(), 1)


def masked_quantile(
    values: jax.Array, mask: jax.Array, q: float
) -> jax.Array:
  """The q-quantile over the places where mask is 1; nan if there are none."""
  return jnp.nanquantile(jnp.where(mask > 0, values, jnp.nan), q)

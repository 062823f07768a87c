"""Token losses: pure functions of logprobs, unreduced.

Reduction is one weighted sum over the batch, with weights that batching made
(see `loss_weights`): exact under packing, padding and sharding.
"""

from __future__ import annotations

from collections.abc import Mapping
import dataclasses

import jax
import jax.numpy as jnp


@dataclasses.dataclass(frozen=True)
class Variant:
  """What the published variants of GRPO differ in.

  Attributes:
    ratio: What the clipped ratio belongs to: each 'token' or the 'sequence',
      where it is the geometric mean of the tokens' ratios.
    aggregation: How token losses become one, see `batching.loss_weights`.
    divide_by_std: Whether advantages are divided by the group's standard
      deviation.
    clip: (low, high) as published, unless the config says otherwise.
  """

  ratio: str
  aggregation: str
  divide_by_std: bool
  clip: tuple[float, float]


# DeepSeekMath (GRPO); Understanding R1-Zero-Like Training (Dr. GRPO); DAPO;
# Group Sequence Policy Optimization (GSPO).
VARIANTS: Mapping[str, Variant] = {
    'grpo': Variant('token', 'sequence_mean', True, (0.2, 0.2)),
    'dr_grpo': Variant('token', 'constant', False, (0.2, 0.2)),
    'dapo': Variant('token', 'token_mean', True, (0.2, 0.28)),
    'gspo': Variant('sequence', 'sequence_mean', True, (3e-4, 4e-4)),
}


@dataclasses.dataclass(frozen=True, kw_only=True)
class GRPOConfig:
  """The policy loss.

  Attributes:
    ratio: 'token' or 'sequence', see `Variant`.
    clip_low, clip_high: The ratio is clipped to [1 - low, 1 + high].
    kl_coef: Weight of the KL to the SFT policy.
    max_importance_weight: Cap of the truncated importance weights that
      correct for the gap between sampler and trainer.
  """

  ratio: str = 'token'
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
    segment_ids: jax.Array,
    loss_mask: jax.Array,
    config: GRPOConfig,
) -> tuple[jax.Array, dict[str, jax.Array]]:
  """Clipped policy loss plus KL, per token; all arguments are [B, T].

      ratio  = exp(logprobs - old_logprobs), or for a 'sequence'
               exp(mean over its targets of logprobs - old_logprobs)
      policy = -min(ratio A, clip(ratio, 1 - low, 1 + high) A)
      kl     = exp(ref - logprobs) - (ref - logprobs) - 1          (k3)
      loss   = min(exp(old - sampler), cap) * policy + kl_coef * kl

  Args:
    logprobs: Of the targets under the policy being trained.
    old_logprobs: Under the trainer at sampling time; no gradient.
    sampler_logprobs: As the sampler reported them.
    ref_logprobs: Under the frozen SFT policy.
    advantages: Of the target's trajectory.
    segment_ids: Which trajectory of its row each target belongs to, 0 none.
    loss_mask: 1 where the target was sampled.
    config: Coefficients.

  Returns:
    The loss and, for logging, `ratio`, `clipped`, `kl`, `importance_weight` and
    whether it was `truncated`.

  Source: DeepSeekMath eq. 3-4 (GRPO, k3); Schulman, "Approximating KL"; GSPO
    eq. 5-7.
  """
  old_logprobs = jax.lax.stop_gradient(old_logprobs)
  change = logprobs - old_logprobs
  if config.ratio == 'sequence':
    change = segment_mean(change, segment_ids, loss_mask)
  ratio = jnp.exp(change)
  clipped_ratio = jnp.clip(ratio, 1 - config.clip_low, 1 + config.clip_high)
  surrogate = jnp.minimum(ratio * advantages, clipped_ratio * advantages)
  weight = jnp.exp(old_logprobs - sampler_logprobs)
  importance_weight = jnp.minimum(weight, config.max_importance_weight)
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
      'truncated': (weight > importance_weight).astype(loss.dtype),
  }


def segment_mean(
    values: jax.Array, segment_ids: jax.Array, mask: jax.Array
) -> jax.Array:
  """The mean over a segment's masked places, at each of its places, [B, T]."""
  n_segments = segment_ids.shape[1] + 1

  def of_row(values, segment_ids, mask):
    def total(x):
      return jax.ops.segment_sum(x, segment_ids, num_segments=n_segments)

    means = total(values * mask) / jnp.maximum(total(mask), 1)
    return means[segment_ids]

  return jax.vmap(of_row)(values, segment_ids, mask)

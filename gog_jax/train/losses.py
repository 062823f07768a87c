"""Token losses: pure functions of logprobs, unreduced.

Reduction is one weighted sum over the batch, with weights that batching made
(see `loss_weights`): exact under packing, padding and sharding.
"""

from __future__ import annotations

from collections.abc import Mapping
import dataclasses
import math

import jax
import jax.numpy as jnp

from gog_jax.config.training import RLConfig

# Log-ratios are cut to this before exp, which overflows in float32 at 89; their
# gradient is 0 beyond. As in verl.
_MAX_LOG_RATIO = 20.0


@dataclasses.dataclass(frozen=True)
class Variant:
  """A variant of GRPO: what the published ones differ in, and coefficients.

  Attributes:
    ratio: What the clipped ratio belongs to: each 'token' or the 'sequence',
      where it is the geometric mean of the tokens' ratios.
    aggregation: How token losses become one, see `batching.loss_weights`.
    divide_by_std: Whether advantages are divided by the group's standard
      deviation.
    clip: (low, high): the ratio is clipped to [1 - low, 1 + high].
    kl_coef: Weight of the KL to the SFT policy.
    max_importance_weight: Cap of the truncated importance weights that
      correct for the gap between sampler and trainer.
  """

  ratio: str
  aggregation: str
  divide_by_std: bool
  clip: tuple[float, float]
  kl_coef: float = 0.0
  max_importance_weight: float = math.inf


# DeepSeekMath (GRPO); Understanding R1-Zero-Like Training (Dr. GRPO); DAPO;
# Group Sequence Policy Optimization (GSPO).
VARIANTS: Mapping[str, Variant] = {
    'grpo': Variant('token', 'sequence_mean', True, (0.2, 0.2)),
    'dr_grpo': Variant('token', 'constant', False, (0.2, 0.2)),
    'dapo': Variant('token', 'token_mean', True, (0.2, 0.28)),
    'gspo': Variant('sequence', 'sequence_mean', True, (3e-4, 4e-4)),
}


def variant_of(config: RLConfig) -> Variant:
  """The variant that `rl.variant` names, with what `rl.loss` says."""
  published = VARIANTS[config.variant]
  return dataclasses.replace(
      published,
      clip=config.loss.clip or published.clip,
      kl_coef=config.loss.kl_coef,
      max_importance_weight=config.loss.max_importance_weight,
  )


def sft_loss(logprobs: jax.Array) -> jax.Array:
  """Cross entropy of each target, [B, T] -> [B, T]."""
  return -logprobs


def grpo_loss(
    logprobs: jax.Array,
    *,
    old_logprobs: jax.Array,
    sampler_logprobs: jax.Array,
    ref_logprobs: jax.Array | None,
    advantages: jax.Array,
    segment_ids: jax.Array,
    loss_mask: jax.Array,
    variant: Variant,
) -> tuple[jax.Array, dict[str, jax.Array]]:
  """Clipped policy loss plus KL, per token; all arguments are [B, T].

      ratio  = exp(logprobs - old_logprobs), or for a 'sequence'
               exp(mean over its targets of logprobs - old_logprobs)
      policy = -min(ratio A, clip(ratio, 1 - low, 1 + high) A)
      kl     = exp(ref - logprobs) - (ref - logprobs) - 1          (k3)
      loss   = min(exp(old - sampler), cap) * policy + kl_coef * kl

  Each of the three differences of logprobs is cut to [-20, 20].

  Args:
    logprobs: Of the targets under the policy being trained.
    old_logprobs: Under the trainer at sampling time; no gradient.
    sampler_logprobs: As the sampler reported them.
    ref_logprobs: Under the frozen SFT policy; None leaves the KL out.
    advantages: Of the target's trajectory.
    segment_ids: Which trajectory of its row each target belongs to, 0 none.
    loss_mask: 1 where the target was sampled.
    variant: Its kind of ratio, clip and coefficients.

  Returns:
    The loss and, for logging, `ratio`, `importance_weight` and, if it is in the
    loss, `kl`; and 1 where the ratio (`clip_frac`) and the weight
    (`truncated_frac`) are cut.

  Source: DeepSeekMath eq. 3-4 (GRPO, k3); Schulman, "Approximating KL"; GSPO
    eq. 5-7.
  """
  old_logprobs = jax.lax.stop_gradient(old_logprobs)
  change = logprobs - old_logprobs
  if variant.ratio == 'sequence':
    change = segment_mean(change, segment_ids, loss_mask)
  ratio = jnp.exp(_cut(change))
  low, high = variant.clip
  clipped_ratio = jnp.clip(ratio, 1 - low, 1 + high)
  surrogate = jnp.minimum(ratio * advantages, clipped_ratio * advantages)
  weight = jnp.exp(_cut(old_logprobs - sampler_logprobs))
  importance_weight = jnp.minimum(weight, variant.max_importance_weight)
  loss = -importance_weight * surrogate
  parts = {
      'ratio': ratio,
      'clip_frac': (clipped_ratio * advantages < ratio * advantages).astype(
          loss.dtype
      ),
      'importance_weight': importance_weight,
      'truncated_frac': (weight > importance_weight).astype(loss.dtype),
  }
  if ref_logprobs is not None:
    log_ratio = _cut(ref_logprobs - logprobs)
    parts['kl'] = jnp.exp(log_ratio) - log_ratio - 1
    loss += variant.kl_coef * parts['kl']
  return loss, parts


def _cut(log_ratio: jax.Array) -> jax.Array:
  return jnp.clip(log_ratio, -_MAX_LOG_RATIO, _MAX_LOG_RATIO)


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

"""One update each: SFT and GRPO. The loss is in sight, there are no hooks."""

from __future__ import annotations

from flax import nnx
import jax
import jax.numpy as jnp
import optax

from gog_jax.rollout.batching import Batch
from gog_jax.train import losses
from gog_jax.train import state as state_lib
from gog_jax.train.losses import masked_mean
from gog_jax.train.losses import masked_quantile
from gog_jax.train.state import FrozenModel
from gog_jax.train.state import TrainState


def make_sft_step(
    model: FrozenModel, optimizer: optax.GradientTransformation
):
  """`step(state, frozen, batch) -> state, metrics`, jitted."""

  def step(state: TrainState, frozen: nnx.State, batch: Batch):
    def loss_fn(params):
      logprobs, _ = state_lib.batch_logprobs(model, params, frozen, batch)
      return (losses.sft_loss(logprobs) * batch.weights).sum(), logprobs

    (loss, logprobs), grads = jax.value_and_grad(loss_fn, has_aux=True)(
        state.params
    )
    state, grad_norm = state_lib.apply_gradients(state, grads, optimizer)
    return state, {
        'loss': loss,
        'grad_norm': grad_norm,
        'n_targets': batch.loss_mask.sum(),
        # Share of targets the policy gives at least one half.
        'confident': masked_mean(logprobs > jnp.log(0.5), batch.loss_mask),
    }

  return jax.jit(step, donate_argnums=0)


def make_grpo_step(
    model: FrozenModel,
    optimizer: optax.GradientTransformation,
    config: losses.GRPOConfig,
):
  """`step(state, frozen, ref_params, batch, old_logprobs)`, jitted.

  `old_logprobs` is None at the first update on a batch: the old policy is the
  current one, and its logprobs are these, without gradient.
  """

  def step(
      state: TrainState,
      frozen: nnx.State,
      ref_params: nnx.State,
      batch: Batch,
      old_logprobs: jax.Array | None,
  ):
    ref_logprobs, _ = state_lib.batch_logprobs(
        model, ref_params, frozen, batch
    )
    ref_logprobs = jax.lax.stop_gradient(ref_logprobs)

    def loss_fn(params):
      logprobs, entropy = state_lib.batch_logprobs(
          model, params, frozen, batch
      )
      old = logprobs if old_logprobs is None else old_logprobs
      token_loss, parts = losses.grpo_loss(
          logprobs,
          old_logprobs=jax.lax.stop_gradient(old),
          sampler_logprobs=batch.sampler_logprobs,
          ref_logprobs=ref_logprobs,
          advantages=batch.advantages,
          config=config,
      )
      # where, not times: an unused position may hold inf, and inf * 0 is nan.
      used = batch.weights > 0
      loss = jnp.where(used, token_loss, 0.0) * batch.weights
      return loss.sum(), (logprobs, old, entropy, parts)

    (loss, (logprobs, old, entropy, parts)), grads = jax.value_and_grad(
        loss_fn, has_aux=True
    )(state.params)
    state, grad_norm = state_lib.apply_gradients(state, grads, optimizer)
    mask = batch.loss_mask
    gap = jnp.abs(old - batch.sampler_logprobs)
    return state, old, {
        'loss': loss,
        'grad_norm': grad_norm,
        'kl': masked_mean(parts['kl'], mask),
        'entropy': masked_mean(entropy, mask),
        'clip_frac': masked_mean(parts['clipped'], mask),
        'ratio': masked_mean(parts['ratio'], mask),
        'importance_weight': masked_mean(parts['importance_weight'], mask),
        'sampler_gap': masked_mean(gap, mask),
        'sampler_gap_p99': masked_quantile(gap, mask, 0.99),
        'sampler_gap_max': (gap * mask).max(),
    }

  return jax.jit(step, donate_argnums=0)

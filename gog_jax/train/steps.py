"""One update each: SFT and GRPO. The loss is in sight, there are no hooks."""

from __future__ import annotations

from collections.abc import Callable
import dataclasses
from typing import Any

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
    model: FrozenModel,
    optimizer: optax.GradientTransformation,
    state: TrainState,
):
  """`step(state, frozen, batch) -> state, metrics`, jitted.

  The state that comes out lies on the mesh as `state` does.
  """

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

  return _jit(step, (shardings_of(state), None))


def make_grpo_step(
    model: FrozenModel,
    optimizer: optax.GradientTransformation,
    state: TrainState,
    config: losses.GRPOConfig,
):
  """`step(state, frozen, ref_params, batch, old_logprobs)`, jitted.

  Returns the new state, laid out as `state` is, the old logprobs and metrics.

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
    features = None
    if not state_lib.trains_vision(ref_params):
      # The reference sees what the policy sees.
      features = state_lib.image_features(model, ref_params, frozen, batch)
    ref_logprobs, _ = state_lib.batch_logprobs(
        model, ref_params, frozen, batch, features
    )
    ref_logprobs = jax.lax.stop_gradient(ref_logprobs)

    def loss_fn(params):
      logprobs, entropy = state_lib.batch_logprobs(
          model, params, frozen, batch, features
      )
      # Before the loss, not after: exp may overflow at a position that no
      # weight counts, and its gradient there is 0 * inf = nan.
      logprobs, reference, sampler = (
          jnp.where(batch.loss_mask > 0, x, 0.0)
          for x in (logprobs, ref_logprobs, batch.sampler_logprobs)
      )
      old = logprobs if old_logprobs is None else old_logprobs
      token_loss, parts = losses.grpo_loss(
          logprobs,
          old_logprobs=old,
          sampler_logprobs=sampler,
          ref_logprobs=reference,
          advantages=batch.advantages,
          segment_ids=batch.segment_ids,
          loss_mask=batch.loss_mask,
          config=config,
      )
      gap = jnp.abs(old - sampler)
      return (token_loss * batch.weights).sum(), (old, gap, entropy, parts)

    (loss, (old, gap, entropy, parts)), grads = jax.value_and_grad(
        loss_fn, has_aux=True
    )(state.params)
    state, grad_norm = state_lib.apply_gradients(state, grads, optimizer)
    mask = batch.loss_mask
    return state, old, {
        'loss': loss,
        'grad_norm': grad_norm,
        'kl': masked_mean(parts['kl'], mask),
        'entropy': masked_mean(entropy, mask),
        'clip_frac': masked_mean(parts['clipped'], mask),
        'ratio': masked_mean(parts['ratio'], mask),
        'importance_weight': masked_mean(parts['importance_weight'], mask),
        'truncated_frac': masked_mean(parts['truncated'], mask),
        'sampler_gap': masked_mean(gap, mask),
        'sampler_gap_p99': masked_quantile(gap, mask, 0.99),
        'sampler_gap_max': (gap * mask).max(),
    }

  return _jit(step, (shardings_of(state), None, None))


def shardings_of(state: TrainState):
  """Where each array of a state lies."""
  return jax.tree.map(lambda array: array.sharding, state)


@dataclasses.dataclass(frozen=True)
class Step:
  """A jitted step that is traced under its mesh, which activations follow."""

  jitted: Any
  mesh: jax.sharding.Mesh

  def __call__(self, *args: Any) -> Any:
    with jax.set_mesh(self.mesh):
      return self.jitted(*args)

  def lower(self, *args: Any) -> jax.stages.Lowered:
    """For shapes in place of arrays: what `.compile()` compiles."""
    with jax.set_mesh(self.mesh):
      return self.jitted.lower(*args)


def _jit(step: Callable[..., Any], out_shardings: Any) -> Step:
  """Donates the state."""
  jitted = jax.jit(step, donate_argnums=0, out_shardings=out_shardings)
  return Step(jitted, out_shardings[0].step.mesh)

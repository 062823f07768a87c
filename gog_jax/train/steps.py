"""One update each: SFT and GRPO.

An update's rows come as micro-batches of one shape: gradients are summed over
them and applied once. As losses are sums over the whole batch (see
`loss_weights`), that is exact; devices hold one of them at a time; and what is
compiled serves any number.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
import dataclasses
from typing import Any

from flax import nnx
import jax
import jax.numpy as jnp
import numpy as np
import optax

from gog_jax.models import sharding
from gog_jax.rollout.batching import Batch
from gog_jax.rollout.batching import MicroBatches
from gog_jax.train import losses
from gog_jax.train import state as state_lib
from gog_jax.train.state import FrozenModel
from gog_jax.train.state import TrainState


def make_sft_step(
    model: FrozenModel,
    optimizer: optax.GradientTransformation,
    state: TrainState,
):
  """`step(state, frozen, micro_batches) -> state, metrics`.

  Donates the state; the one that comes out lies on the mesh as it does.
  """

  def add(sums: Sums, params: nnx.State, batch: Batch, frozen: nnx.State):
    def loss_fn(params):
      logprobs, _ = state_lib.batch_logprobs(model, params, frozen, batch)
      return (losses.sft_loss(logprobs) * batch.weights).sum(), logprobs

    (loss, logprobs), grads = jax.value_and_grad(loss_fn, has_aux=True)(params)
    mask = batch.loss_mask
    totals = {
        'loss': loss,
        'n_targets': mask.sum(),
        # Share of targets the policy gives at least one half.
        'confident': ((logprobs > jnp.log(0.5)) * mask).sum(),
    }
    return sums.plus(grads, totals), loss

  programs = Programs(add, optimizer, state, means=('confident',))

  def step(state: TrainState, frozen: nnx.State, batches: Iterable[Batch]):
    used = model.in_use(state.params)
    state, _, metrics = programs.run(
        state, used, ((batch, frozen) for batch in batches)
    )
    return state, metrics

  return step


def make_grpo_step(
    model: FrozenModel,
    optimizer: optax.GradientTransformation,
    state: TrainState,
    config: losses.GRPOConfig,
):
  """`step(state, frozen, ref_params, batches, old_logprobs=None, used=None)`.

  Donates the state. Returns the new one, laid out as it was, the old logprobs
  of each micro-batch, and metrics. `used` are the state's parameters as they
  are used, if a sampler holds them already.

  `old_logprobs` is None at the first update on a batch: the old policy is the
  current one, and its logprobs are these, without gradient.
  """
  programs = grpo_programs(model, optimizer, state, config)

  def step(
      state: TrainState,
      frozen: nnx.State,
      ref_params: nnx.State,
      batches: MicroBatches | Sequence[Batch],
      old_logprobs: Sequence[jax.Array] | None = None,
      used: nnx.State | None = None,
  ):
    known = old_logprobs or [None] * len(batches)
    if used is None:
      used = model.in_use(state.params)
    state, outputs, metrics = programs.run(
        state,
        used,
        (
            (batch, frozen, ref_params, old)
            for batch, old in zip(batches, known, strict=True)
        ),
    )
    metrics |= _gap_metrics([output['gap'] for output in outputs])
    return state, [output['old'] for output in outputs], metrics

  return step


def grpo_programs(
    model: FrozenModel,
    optimizer: optax.GradientTransformation,
    state: TrainState,
    config: losses.GRPOConfig,
) -> Programs:
  """What a GRPO update compiles; `add` takes (ref_params, old) at the end."""

  def add(
      sums: Sums,
      params: nnx.State,
      batch: Batch,
      frozen: nnx.State,
      ref_params: nnx.State,
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
    mask = batch.loss_mask

    def loss_fn(params):
      logprobs, entropy = state_lib.batch_logprobs(
          model, params, frozen, batch, features
      )
      # Before the loss, not after: exp may overflow at a position that no
      # weight counts, and its gradient there is 0 * inf = nan.
      logprobs, reference, sampler = (
          jnp.where(mask > 0, x, 0.0)
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
          loss_mask=mask,
          config=config,
      )
      parts |= {'entropy': entropy, 'sampler_gap': jnp.abs(old - sampler)}
      return (token_loss * batch.weights).sum(), (old, parts)

    (loss, (old, parts)), grads = jax.value_and_grad(loss_fn, has_aux=True)(
        params
    )
    totals = {'loss': loss, 'n_targets': mask.sum()} | {
        metric: jnp.where(mask > 0, parts[part], 0).sum()
        for metric, part in _GRPO_MEANS.items()
    }
    gap = jnp.where(mask > 0, parts['sampler_gap'], jnp.nan)
    return sums.plus(grads, totals), {'old': old, 'gap': gap}

  return Programs(add, optimizer, state, means=tuple(_GRPO_MEANS))


_GRPO_MEANS = {  # Metric to what it is the mean of, over all targets.
    'kl': 'kl',
    'entropy': 'entropy',
    'clip_frac': 'clipped',
    'ratio': 'ratio',
    'importance_weight': 'importance_weight',
    'truncated_frac': 'truncated',
    'sampler_gap': 'sampler_gap',
}


def _gap_metrics(gaps: Sequence[jax.Array]) -> dict[str, Any]:
  """Quantile and maximum of the gap to the sampler; nan marks unsampled places.

  On the host: on the device it would be compiled for each number of
  micro-batches.
  """
  gap = np.concatenate([np.ravel(one) for one in jax.device_get(gaps)])
  gap = gap[~np.isnan(gap)]
  return {
      'sampler_gap_p99': np.quantile(gap if gap.size else [np.nan], 0.99),
      'sampler_gap_max': gap.max(initial=0.0),
  }


@jax.tree_util.register_dataclass
@dataclasses.dataclass(frozen=True)
class Sums:
  """Over the micro-batches of an update so far.

  Attributes:
    grads: The gradient of the loss, as the parameters are.
    totals: `loss`, `n_targets`, and sums over targets of what is logged.
  """

  grads: nnx.State
  totals: dict[str, jax.Array]

  def plus(self, grads: nnx.State, totals: dict[str, jax.Array]) -> Sums:
    return jax.tree.map(jnp.add, self, Sums(grads, totals))


class Programs:
  """What an update compiles, jitted; traced under the mesh, as activations are.

  Attributes:
    zeros: (params) -> sums of nothing.
    add: (sums, params in use, micro-batch, ...) -> (sums, output). Donates
      the sums.
    apply: (state, sums) -> (state, metrics). Donates the state.
  """

  def __init__(
      self,
      add: Callable[..., Any],
      optimizer: optax.GradientTransformation,
      state: TrainState,
      *,
      means: Sequence[str],
  ):
    """For states like this one; `means` are the totals per target."""
    places = jax.tree.map(lambda array: array.sharding, state)
    whole = {name: places.step for name in ('loss', 'n_targets', *means)}
    summed = Sums(places.params, whole)

    def zeros(params: nnx.State):
      return Sums(
          optax.tree.zeros_like(params),
          {name: jnp.float32(0) for name in whole},
      )

    def apply(state: TrainState, sums: Sums):
      updates, opt_state = optimizer.update(
          sums.grads, state.opt_state, state.params
      )
      state = dataclasses.replace(
          state,
          step=state.step + 1,
          params=optax.apply_updates(state.params, updates),
          opt_state=opt_state,
      )
      totals = sums.totals
      n = jnp.maximum(totals['n_targets'], 1)
      metrics = {name: totals[name] / n for name in means}
      metrics |= {name: totals[name] for name in ('loss', 'n_targets')}
      # Before clipping.
      return state, metrics | {'grad_norm': optax.tree.norm(sums.grads)}

    self.zeros = jax.jit(zeros, out_shardings=summed)
    self.add = jax.jit(add, donate_argnums=0, out_shardings=(summed, None))
    self.apply = jax.jit(apply, donate_argnums=0, out_shardings=(places, None))
    self._mesh = places.step.mesh

  def run(
      self,
      state: TrainState,
      used: nnx.State,
      inputs: Iterable[tuple[Any, ...]],
  ):
    """Adds all (micro-batch, ...) and applies the sum.

    Args:
      state: Donated.
      used: Its parameters in the dtype that they are used in: made once, not
        for each micro-batch.
      inputs: On the host.

    Returns:
      The state, the outputs of `add`, and metrics.
    """
    rows = sharding.batch_sharding(self._mesh)
    with jax.set_mesh(self._mesh):
      sums, outputs = self.zeros(state.params), []
      for batch, *others in inputs:
        # Otherwise all of them would wait on the device.
        jax.block_until_ready(outputs[-1:])
        batch = jax.device_put(batch, rows)
        sums, output = self.add(sums, used, batch, *others)
        outputs.append(output)
      state, metrics = self.apply(state, sums)
    return state, outputs, metrics

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

# Metrics of a GRPO update that are means over all targets; `kl` is another if
# it is in the loss.
GRPO_MEANS = (
    'entropy', 'clip_frac', 'ratio', 'importance_weight', 'truncated_frac',
    'sampler_gap',
)  # fmt: skip


def make_sft_step(
    model: FrozenModel,
    optimizer: optax.GradientTransformation,
    state: TrainState,
):
  """`step(state, micro_batches) -> state, metrics`.

  Donates the state; the one that comes out lies on the mesh as it does.
  """

  def loss_fn(params: nnx.State, batch: Batch, frozen: nnx.State):
    logprobs, _ = state_lib.batch_logprobs(model, params, frozen, batch)
    loss = (losses.sft_loss(logprobs) * batch.weights).sum()
    # Whether the policy gives the target at least one half.
    confident = (logprobs > jnp.log(0.5)).astype(loss.dtype)
    return loss, ({'confident': confident}, None)

  update = Update(model, loss_fn, optimizer, state, means=('confident',))

  def step(state: TrainState, batches: Iterable[Batch]):
    state, _, metrics = update.run(state, ((batch,) for batch in batches))
    return state, metrics

  return step


def make_grpo_step(
    model: FrozenModel,
    optimizer: optax.GradientTransformation,
    state: TrainState,
    variant: losses.Variant,
):
  """`step(state, ref_params, batches, old_logprobs=None, used=None)`.

  Donates the state. Returns the new one, laid out as it was, the old logprobs
  of each micro-batch, and metrics. `ref_params` are the reference's, None
  where the variant has no KL. `used` are the state's parameters as they are
  used, if a sampler holds them already.

  `old_logprobs` is None at the first update on a batch: the old policy is the
  current one, and its logprobs are these, without gradient.
  """
  update = grpo_update(model, optimizer, state, variant)

  def step(
      state: TrainState,
      ref_params: nnx.State | None,
      batches: MicroBatches | Sequence[Batch],
      old_logprobs: Sequence[jax.Array] | None = None,
      used: nnx.State | None = None,
  ):
    known = old_logprobs or [None] * len(batches)
    inputs = (
        (batch, ref_params, old)
        for batch, old in zip(batches, known, strict=True)
    )
    state, outputs, metrics = update.run(state, inputs, used)
    metrics |= _gap_metrics([output['gap'] for output in outputs])
    return state, [output['old'] for output in outputs], metrics

  return step


def grpo_update(
    model: FrozenModel,
    optimizer: optax.GradientTransformation,
    state: TrainState,
    variant: losses.Variant,
) -> Update:
  """What a GRPO update compiles; `add` takes (ref_params, old) at the end."""

  def loss_fn(
      params: nnx.State,
      batch: Batch,
      frozen: nnx.State,
      ref_params: nnx.State | None,
      old_logprobs: jax.Array | None,
  ):
    features, ref_logprobs = None, None
    if not state_lib.trains_vision(params):
      # The reference sees what the policy sees.
      features = state_lib.image_features(model, params, frozen, batch)
    if ref_params is not None:
      ref_logprobs, _ = state_lib.batch_logprobs(
          model, ref_params, frozen, batch, features
      )
    logprobs, entropy = state_lib.batch_logprobs(
        model, params, frozen, batch, features
    )
    mask = batch.loss_mask
    # Before the loss, not after: at a position that no weight counts what is
    # not finite would have the gradient 0 * inf = nan.
    logprobs, reference, sampler = jax.tree.map(
        lambda x: jnp.where(mask > 0, x, 0.0),
        (logprobs, ref_logprobs, batch.sampler_logprobs),
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
        variant=variant,
    )
    gap = jnp.abs(old - sampler)
    parts |= {'entropy': entropy, 'sampler_gap': gap}
    output = {'old': old, 'gap': jnp.where(mask > 0, gap, jnp.nan)}
    return (token_loss * batch.weights).sum(), (parts, output)

  means = (*GRPO_MEANS, *(['kl'] if variant.kl_coef else []))
  return Update(model, loss_fn, optimizer, state, means=means)


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


class Update:
  """What an update compiles, jitted; traced under the mesh, as activations are.

  Attributes:
    zeros: (params) -> sums of nothing.
    add: (sums, params in use, micro-batch, frozen parameters, ...) -> (sums,
      output). Donates the sums.
    apply: (state, sums) -> (state, metrics). Donates the state. Where the loss
      or the gradient's norm is not finite the update is `skipped`, 1 in the
      metrics: parameters and optimizer stay what they are.
  """

  def __init__(
      self,
      model: FrozenModel,
      loss_fn: Callable[..., Any],
      optimizer: optax.GradientTransformation,
      state: TrainState,
      *,
      means: Sequence[str],
  ):
    """Initialises the update of one loss.

    Args:
      model: Around the parameters in training.
      loss_fn: (params in use, micro-batch, frozen parameters, ...) -> (loss,
        (values [B, T] by name, output)).
      optimizer: Applies the gradients; its state says `learning_rate`.
      state: One like those to come.
      means: Of the values, those to log: their means over all targets.
    """
    places = jax.tree.map(lambda array: array.sharding, state)
    whole = {name: places.step for name in ('loss', 'n_targets', *means)}
    summed = Sums(places.params, whole)

    def zeros(params: nnx.State):
      return Sums(
          optax.tree.zeros_like(params),
          {name: jnp.float32(0) for name in whole},
      )

    def add(sums: Sums, params: nnx.State, batch: Batch, *others):
      (loss, (values, output)), grads = jax.value_and_grad(
          loss_fn, has_aux=True
      )(params, batch, *others)
      mask = batch.loss_mask
      totals = {
          name: jnp.where(mask > 0, values[name], 0).sum() for name in means
      }
      totals |= {'loss': loss, 'n_targets': mask.sum()}
      return jax.tree.map(jnp.add, sums, Sums(grads, totals)), output

    def apply(state: TrainState, sums: Sums):
      totals, grad_norm = sums.totals, optax.tree.norm(sums.grads)
      finite = jnp.isfinite(totals['loss']) & jnp.isfinite(grad_norm)

      def updated(params: nnx.State, opt_state: optax.OptState):
        updates, opt_state = optimizer.update(sums.grads, opt_state, params)
        return optax.apply_updates(params, updates), opt_state

      # A select would be fused with the update, and change how it rounds.
      params, opt_state = jax.lax.cond(
          finite, updated, lambda *same: same, state.params, state.opt_state
      )
      state = dataclasses.replace(
          state, step=state.step + 1, params=params, opt_state=opt_state
      )
      n = jnp.maximum(totals['n_targets'], 1)
      metrics = totals | {name: totals[name] / n for name in means}
      metrics['grad_norm'] = grad_norm  # Before clipping.
      metrics['skipped'] = 1 - finite.astype(jnp.int32)
      # The schedule's, of the last update that was made.
      metrics['learning_rate'] = optax.tree.get(
          opt_state,
          'learning_rate',
          filtering=lambda path, value: isinstance(value, jax.Array),
      )
      return state, metrics

    self.zeros = jax.jit(zeros, out_shardings=summed)
    self.add = jax.jit(add, donate_argnums=0, out_shardings=(summed, None))
    self.apply = jax.jit(apply, donate_argnums=0, out_shardings=(places, None))
    self._mesh = places.step.mesh
    self._model = model

  def run(
      self,
      state: TrainState,
      inputs: Iterable[tuple[Any, ...]],
      used: nnx.State | None = None,
  ):
    """Adds all (micro-batch, ...) and applies the sum.

    Args:
      state: Donated.
      inputs: On the host.
      used: The state's parameters in the dtype that they are used in, where
        they exist already.

    Returns:
      The state, the outputs of `add`, and metrics.
    """
    if used is None:  # Once, not for each micro-batch.
      used = self._model.in_use(state.params)
    rows = sharding.batch_sharding(self._mesh)
    with jax.set_mesh(self._mesh):
      sums, outputs, n_tokens = self.zeros(state.params), [], 0
      for batch, *others in inputs:
        n_tokens += np.count_nonzero(batch.segment_ids)
        # Otherwise all of them would wait on the device.
        jax.block_until_ready(outputs[-1:])
        batch = jax.device_put(batch, rows)
        sums, output = self.add(
            sums, used, batch, self._model.frozen, *others
        )
        outputs.append(output)
      state, metrics = self.apply(state, sums)
    return state, outputs, metrics | {'n_tokens': n_tokens}

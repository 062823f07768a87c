"""Optimizers and schedules, by name from the config."""

from __future__ import annotations

from typing import Any

import jax
import optax
from optax import contrib

from gog_jax.config.training import OptimizerConfig


def make_optimizer(
    config: OptimizerConfig, *, n_steps: int
) -> optax.GradientTransformation:
  """Clips gradients, then AdamW or Muon on its schedule.

  Its state says `learning_rate`, that of the last update (with Muon, not that
  of kernels).

  Muon (Jordan, 2024) orthogonalises the momentum (0.95) of the linear layers'
  kernels, at a learning rate of their own; all other parameters follow AdamW
  with Nesterov momentum.

  Args:
    config: An optimizer's section of the config.
    n_steps: Updates of the whole run; a cosine decays to 0 at the last.
  """
  rate = _schedule(config, config.learning_rate, n_steps)
  if config.name == 'adamw':
    optimizer = optax.adamw(
        rate,
        b1=config.b1,
        b2=config.b2,
        weight_decay=config.weight_decay,
    )
  else:
    optimizer = contrib.muon(
        _schedule(config, config.muon_learning_rate, n_steps),
        weight_decay=config.weight_decay,
        adam_b1=config.b1,
        adam_b2=config.b2,
        adam_weight_decay=config.weight_decay,
        adam_learning_rate=rate,
        muon_weight_dimension_numbers=_kernels,
    )
  # It changes no gradient: what it is for is its state.
  told = optax.inject_hyperparams(lambda learning_rate: optax.identity())
  return optax.chain(
      optax.clip_by_global_norm(config.max_grad_norm), optimizer, told(rate)
  )


def _schedule(
    config: OptimizerConfig, peak: float, n_steps: int
) -> optax.Schedule:
  warmup = config.warmup_steps
  # The first update counts: a rate of 0 would be a batch trained on in vain.
  first = peak / (warmup + 1)
  if config.decay == 'cosine':
    return optax.warmup_cosine_decay_schedule(
        first, peak, warmup_steps=warmup, decay_steps=max(n_steps, warmup + 1)
    )
  return optax.linear_schedule(first, peak, max(warmup, 1))


def _kernels(params: Any) -> Any:
  """Marks the kernels, [in, out] or [layers, in, out]; all else is None."""

  def mark(path, array):
    if not any(getattr(key, 'key', None) == 'kernel' for key in path):
      return None
    return contrib.MuonDimensionNumbers(
        reduction_axis=array.ndim - 2, output_axis=array.ndim - 1
    )

  return jax.tree_util.tree_map_with_path(mark, params)

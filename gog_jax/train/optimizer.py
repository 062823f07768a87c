"""Optimizers and schedules, by name from the config."""

from __future__ import annotations

import dataclasses
from typing import Any

import jax
import optax
from optax import contrib

OPTIMIZERS = ('adamw', 'muon')
DECAYS = ('constant', 'cosine')


@dataclasses.dataclass(frozen=True, kw_only=True)
class OptimizerConfig:
  """AdamW or Muon with warm-up and, optionally, decay.

  Muon (Jordan, 2024) orthogonalises the momentum of the linear layers' kernels;
  all other parameters follow AdamW with Nesterov momentum.

  Attributes:
    name: 'adamw', or 'muon'.
    learning_rate: At its peak; under 'muon' of all but the kernels.
    muon_learning_rate: At its peak, of the kernels; only read by 'muon'.
      Their momentum is optax's default, 0.95.
    warmup_steps: Linear from 0.
    decay: 'constant', or 'cosine' to 0 at the last step.
    b1, b2: Adam's moments.
    weight_decay: Decoupled.
    max_grad_norm: Global norm to clip gradients to.
  """

  name: str
  learning_rate: float
  muon_learning_rate: float
  warmup_steps: int
  decay: str
  b1: float
  b2: float
  weight_decay: float
  max_grad_norm: float


def make_optimizer(
    config: OptimizerConfig, *, n_steps: int
) -> optax.GradientTransformation:
  """Clip, then the optimizer on its schedule.

  Raises:
    ValueError: Unknown optimizer or decay.
  """
  if config.name == 'adamw':
    optimizer = optax.adamw(
        _schedule(config, config.learning_rate, n_steps),
        b1=config.b1,
        b2=config.b2,
        weight_decay=config.weight_decay,
    )
  elif config.name == 'muon':
    optimizer = contrib.muon(
        _schedule(config, config.muon_learning_rate, n_steps),
        weight_decay=config.weight_decay,
        adam_b1=config.b1,
        adam_b2=config.b2,
        adam_weight_decay=config.weight_decay,
        adam_learning_rate=_schedule(config, config.learning_rate, n_steps),
        muon_weight_dimension_numbers=_kernels,
    )
  else:
    raise ValueError(
        f'unknown optimizer {config.name!r}: {" or ".join(OPTIMIZERS)}'
    )
  return optax.chain(
      optax.clip_by_global_norm(config.max_grad_norm), optimizer
  )


def _schedule(
    config: OptimizerConfig, peak: float, n_steps: int
) -> optax.Schedule:
  if config.decay == 'cosine':
    return optax.warmup_cosine_decay_schedule(
        0.0,
        peak,
        warmup_steps=config.warmup_steps,
        decay_steps=max(n_steps, config.warmup_steps + 1),
    )
  if config.decay == 'constant':
    return optax.linear_schedule(
        0.0 if config.warmup_steps else peak, peak, max(config.warmup_steps, 1)
    )
  raise ValueError(f'unknown decay {config.decay!r}: constant or cosine')


def _kernels(params: Any) -> Any:
  """Marks the kernels, [in, out] or [layers, in, out]; all else is None."""

  def mark(path, array):
    if not any(getattr(key, 'key', None) == 'kernel' for key in path):
      return None
    return contrib.MuonDimensionNumbers(
        reduction_axis=array.ndim - 2, output_axis=array.ndim - 1
    )

  return jax.tree_util.tree_map_with_path(mark, params)

"""Optimizers and schedules, by name from the config."""

from __future__ import annotations

import dataclasses

import optax

DECAYS = ('constant', 'cosine')


@dataclasses.dataclass(frozen=True, kw_only=True)
class OptimizerConfig:
  """AdamW with warm-up and, optionally, decay.

  Attributes:
    learning_rate: At its peak.
    warmup_steps: Linear from 0.
    decay: 'constant', or 'cosine' to 0 at the last step.
    b1, b2: Adam's moments.
    weight_decay: Decoupled.
    max_grad_norm: Global norm to clip gradients to.
  """

  learning_rate: float
  warmup_steps: int
  decay: str
  b1: float
  b2: float
  weight_decay: float
  max_grad_norm: float


def make_optimizer(
    config: OptimizerConfig, *, n_steps: int
) -> optax.GradientTransformation:
  """Clip, then AdamW on the schedule.

  Raises:
    ValueError: Unknown decay.
  """
  if config.decay == 'cosine':
    schedule = optax.warmup_cosine_decay_schedule(
        0.0,
        config.learning_rate,
        warmup_steps=config.warmup_steps,
        decay_steps=max(n_steps, config.warmup_steps + 1),
    )
  elif config.decay == 'constant':
    schedule = optax.linear_schedule(
        0.0 if config.warmup_steps else config.learning_rate,
        config.learning_rate,
        max(config.warmup_steps, 1),
    )
  else:
    raise ValueError(f'unknown decay {config.decay!r}: constant or cosine')
  return optax.chain(
      optax.clip_by_global_norm(config.max_grad_norm),
      optax.adamw(
          schedule,
          b1=config.b1,
          b2=config.b2,
          weight_decay=config.weight_decay,
      ),
  )

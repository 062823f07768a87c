"""Sections about training."""

from __future__ import annotations

from collections.abc import Mapping
import dataclasses
from typing import Annotated, Any, Literal

from gog_jax.config.fields import Amount
from gog_jax.storage.typed import above
from gog_jax.storage.typed import at_least
from gog_jax.storage.typed import Bound
from gog_jax.storage.typed import Count
from gog_jax.storage.typed import FieldError
from gog_jax.storage.typed import Finite
from gog_jax.storage.typed import Positive
from gog_jax.storage.typed import PositiveFloat
from gog_jax.storage.typed import Share


@dataclasses.dataclass(frozen=True, kw_only=True)
class OptimizerConfig:
  """AdamW or Muon with warm-up and, optionally, decay.

  Muon (Jordan, 2024) orthogonalises the momentum of the linear layers' kernels;
  all other parameters follow AdamW with Nesterov momentum.
  """

  name: Literal['adamw', 'muon']
  learning_rate: Amount  # At its peak; with Muon, not that of kernels.
  muon_learning_rate: Amount  # At its peak, of kernels.
  warmup_steps: Count  # Linear from 0.
  decay: Literal['constant', 'cosine']  # Cosine reaches 0 at the last step.
  b1: Share
  b2: Share
  weight_decay: Finite  # Decoupled.
  # Global norm that gradients are clipped to.
  max_grad_norm: Annotated[float, above(0, ' (1e9 clips nothing)')]


@dataclasses.dataclass(frozen=True, kw_only=True)
class SFTConfig:
  """Stage 1: supervised fine-tuning."""

  n_candidates: Positive  # Questions for the expert.
  n_demos: Positive  # Trajectories chosen from its answers:
  no_search: Share  # this share does not search,
  recovered: Share  # at least this share gazes wrong, then right.
  steps: Positive  # At most.
  eval_every: Positive
  n_validation: Count  # Training ends when their accuracy is flat.
  batch_size: Positive  # Trajectories a step.
  # Rows of a micro-batch, rounded up to a multiple of the shards; a step has as
  # many micro-batches as its trajectories fill.
  micro_rows: Positive
  checkpoint_every: Positive
  # '' for the expert's demos, or a user's data: a TFDS set of trajectories, a
  # folder with trajectories.jsonl, or a file of LLaMA-Factory's ShareGPT or
  # ms-swift's messages.
  data: str
  epochs: Amount  # Over `data`; 0 trains for `steps`.
  data_workers: Count  # Processes that read it; 0 for a thread.
  optimizer: OptimizerConfig


@dataclasses.dataclass(frozen=True, kw_only=True)
class GradeConfig:
  """Pass rates of the SFT policy -> levels."""

  n_queries: Positive  # From the training questions, after the demos'.
  samples: Positive
  solved: Share  # Pass rate from here: Level 0.
  often_failed: Share  # Below: Level 2. Between: Level 1.
  # Share of samples that may fail because a tool failed: a query with more is
  # not graded; if more of the latest samples fail, grading stops.
  most_errors: Share

  def __post_init__(self):
    if self.often_failed > self.solved:
      raise FieldError(
          'often_failed is above config.grade.solved: Level 2 is what fails '
          'more often than Level 0'
      )


# (low, high); empty is as the variant was published.
Clip = Annotated[
    tuple[Amount, ...],
    Bound(
        '(low, high), e.g. (0.2, 0.28), or () as the variant was published',
        lambda value: len(value) in (0, 2),
    ),
]


@dataclasses.dataclass(frozen=True, kw_only=True)
class LossConfig:
  """GRPO's loss, see train/losses.py."""

  clip: Clip
  kl_coef: Amount
  max_importance_weight: PositiveFloat


@dataclasses.dataclass(frozen=True, kw_only=True)
class AlarmsConfig:
  """Bounds of RL's metrics, see train/alarms.py."""

  sampler_gap_p99: Finite
  kl: Finite
  entropy: Finite
  live_groups: Finite
  no_search: Finite
  format: Finite
  sampled_tokens: Finite
  patience: Positive  # Steps for which a sign has to last.
  stop: bool  # Stop the run; otherwise only say it.


@dataclasses.dataclass(frozen=True, kw_only=True)
class RLConfig:
  """Stage 2: complexity-adaptive GRPO."""

  variant: Literal['grpo', 'dr_grpo', 'dapo', 'gspo']
  level: Literal[-1, 0, 1, 2]  # Of the grades; -1 is all of them.
  regrade: bool  # Skip questions that RL's own rollouts find easier,
  recheck_every: Positive  # for this many steps.
  call_cost: Share  # Of a right answer's reward, for each search.
  dynamic_sampling: bool  # Replace groups without variance.
  max_refills: Count
  steps: Positive
  n_prompts: Positive  # P, questions a step.
  # G, rollouts a question.
  group_size: Annotated[
      int, at_least(2, ' (one rollout has no group to be better than)')
  ]
  updates_per_batch: Positive
  micro_rows: Positive
  train_dead: bool  # Whether groups without variance feel the KL.
  # Steps between the sampler's new weights; it also gets them on a resume.
  sync_every: Positive
  shuffle_rewards: bool  # Within groups: a control, which cannot learn.
  advantage_eps: Annotated[
      float, above(0, ', or groups without variance divide by 0')
  ]
  checkpoint_every: Positive
  trajectories_every: Positive  # Steps between saved rollouts.
  optimizer: OptimizerConfig
  loss: LossConfig
  alarms: AlarmsConfig

  def __post_init__(self):
    if self.regrade and self.level < 1:
      raise FieldError(
          'regrade=True leaves out what is easier than config.rl.level, and '
          f'nothing is easier than {self.level}: choose level 1 or 2'
      )


@dataclasses.dataclass(frozen=True, kw_only=True)
class PhaseConfig:
  """A phase of pretraining.

  A share of its exchanges is about texts, `reading`; the others are about a
  scene, each kind of toy/grounding.py in proportion to its number here.
  """

  steps: int
  reading: Share
  # Scenes that hold twins: none while colours stand for places.
  twins: Finite
  survey: Finite
  list: Finite
  box: Finite
  look: Finite
  crop: Finite
  link: Finite
  switch: Finite
  confirm: Finite


@dataclasses.dataclass(frozen=True, kw_only=True)
class PretrainConfig:
  """The toy's base, from nothing."""

  batch_size: Positive  # Lessons a step.
  micro_rows: Positive
  n_exchanges: Positive  # In a lesson, as far as max_context holds them.
  # Each task builds on the one before.
  read: PhaseConfig
  look: PhaseConfig
  refer: PhaseConfig
  copying: Share  # Exchanges about texts that are random tokens.
  start_from: str  # A model folder to go on from; '' for a random model.
  checkpoint_every: Positive
  n_probes: Positive  # Tasks of each kind that measure the base.
  optimizer: OptimizerConfig
  architecture: Mapping[str, Any]  # Of config.json; token ids are added.

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
from gog_jax.storage.typed import Share


@dataclasses.dataclass(frozen=True, kw_only=True)
class OptimizerConfig:
  """AdamW or Muon with warm-up and, optionally, decay.

  Muon (Jordan, 2024) orthogonalises the momentum of the linear layers' kernels;
  all other parameters follow AdamW with Nesterov momentum.
  """

  name: Literal['adamw', 'muon']
  learning_rate: Amount  # At its peak; of Muon, all but kernels'.
  muon_learning_rate: Amount  # At its peak, of the kernels.
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

  n_candidates: Positive  # Questions that the expert is asked.
  n_demos: Positive  # Trajectories chosen of its answers:
  no_search: Share  # this share does not search,
  recovered: Share  # at least this share gazes wrong, then right.
  steps: Positive  # At most.
  eval_every: Positive
  n_validation: Count  # Training ends when their accuracy is flat.
  batch_size: Positive  # Trajectories a step.
  # Rows whose gradients are taken at once, more where shards do not divide
  # them; a step has as many of such micro-batches as it fills.
  micro_rows: Positive
  checkpoint_every: Positive
  # A user's own, in place of the expert's demos: a TFDS set of trajectories, a
  # folder with trajectories.jsonl, or a file of LLaMA-Factory's ShareGPT or
  # ms-swift's messages; '' is the demos.
  data: str
  epochs: Amount  # Over `data`; 0 is `steps` steps.
  data_workers: Count  # Processes that read it; 0 is a thread.
  optimizer: OptimizerConfig


@dataclasses.dataclass(frozen=True, kw_only=True)
class GradeConfig:
  """Pass rates of the SFT policy -> levels."""

  n_queries: Positive  # From the training questions, after the demos'.
  samples: Positive
  solved: Share  # Pass rate from here: Level 0.
  often_failed: Share  # Below: Level 2. Between: Level 1.
  # Share of samples that may fail because a tool failed: a query with more is
  # not graded, and where more of the latest fail, grading stops.
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
  max_importance_weight: Annotated[float, above(0)]


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
  regrade: bool  # Leave out what RL's own rollouts find to be easier,
  recheck_every: Positive  # for so many steps.
  call_cost: Share  # Of a right answer's reward, for each search.
  dynamic_sampling: bool  # Refill groups that have no variance.
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
  # Steps after which the sampler gets new weights; resuming gives it them too.
  sync_every: Positive
  shuffle_rewards: bool  # Within groups: a control that cannot learn.
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
  """Steps of pretraining in which `reading` of the exchanges are about texts.

  The others are about a scene, of each kind of toy/grounding.py in proportion
  to its number here.
  """

  steps: int
  reading: Share
  # Of scenes, those that hold twins: none while colours stand for places.
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
  # Of a lesson, or as many as max_context holds.
  n_exchanges: Positive
  # Each task is learnt by way of the one before.
  read: PhaseConfig
  look: PhaseConfig
  refer: PhaseConfig
  # Of exchanges about texts, those of random tokens.
  copying: Share
  start_from: str  # A model folder to go on from; '' is a random model.
  checkpoint_every: Positive
  n_probes: Positive  # Tasks of each kind that measure the base.
  optimizer: OptimizerConfig
  architecture: Mapping[str, Any]  # Of config.json; token ids are added.

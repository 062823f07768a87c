"""Sections about the model, how it samples and how it is trained."""

from __future__ import annotations

import dataclasses
from typing import Annotated, Any, Literal

from immutabledict import immutabledict

from gog_jax.storage import typed


@dataclasses.dataclass(frozen=True, kw_only=True)
class MeshConfig:
  """Devices along each axis; -1 for all that remain."""

  data: int
  fsdp: int
  tensor: int


@dataclasses.dataclass(frozen=True, kw_only=True)
class ModelConfig:
  """The backbone, what it is shown and how it computes."""

  path: str  # 'toy_base' ships with the package; or a folder, or a hub id.
  dtype: Literal['float32', 'bfloat16']
  dialect: str  # Prompts and wording: of chat/dialects/, or a .json file.
  # How it is told to work: part of a policy's name, see config/paradigms.py.
  paradigm: Literal['gog', 'direct', 'full_search', 'no_gaze']
  box: Literal['resized_pixels', 'thousandths']  # Its box frame, see boxes.py.
  box_step: typed.Positive  # Corners are written in multiples of this.
  # In original pixels; smaller boxes grow to this.
  min_box_side: typed.Positive
  # The image processor in the folder, or, for a model that runs elsewhere, one
  # like those of published models.
  processor: Literal['folder', 'general']
  max_image_tokens: typed.Positive  # Per image, in training and evaluation.
  scan: bool  # Scan over layers; a few are faster unrolled.
  remat: Literal['none', 'full', 'dots']
  # 'splash' is a Pallas kernel for TPUs; 'auto' takes what the platform has.
  attention: Literal['auto', 'xla', 'splash', 'splash_interpret']
  logprob_chunk: typed.Positive  # Positions whose logits exist at once.


@dataclasses.dataclass(frozen=True, kw_only=True)
class LoraConfig:
  """Adapters, where `trainable` is 'lora'."""

  rank: typed.Positive
  alpha: typed.Finite
  vision: bool  # Adapters on the vision tower too; else it stays frozen.


@dataclasses.dataclass(frozen=True, kw_only=True)
class RolloutConfig:
  """Limits of one conversation."""

  max_turns: typed.Positive
  max_turn_tokens: typed.Positive
  # A conversation ends where its context has less room than this, or than
  # max_turn_tokens if that is less; a turn may be as long as the rest of it.
  min_turn_tokens: typed.Positive
  max_context: typed.Positive
  # Calls of each tool; 0 is no limit, nor is there one for other tools. A
  # dialect may have tighter limits.
  max_calls: immutabledict[str, typed.Count]


@dataclasses.dataclass(frozen=True, kw_only=True)
class SamplerConfig:
  """The JAX policy's cache."""

  # Conversations at once, rounded up to a multiple of the devices.
  n_slots: typed.Positive
  chunk: typed.Positive  # Tokens of a conversation that are prefilled at once.


@dataclasses.dataclass(frozen=True, kw_only=True)
class PackingConfig:
  """Packed rows, see rollout/batching.py."""

  row_tokens: typed.Positive
  row_patches: typed.Positive


@dataclasses.dataclass(frozen=True, kw_only=True)
class OptimizerConfig:
  """AdamW or Muon with warm-up and, optionally, decay.

  Muon (Jordan, 2024) orthogonalises the momentum of the linear layers' kernels;
  all other parameters follow AdamW with Nesterov momentum.
  """

  name: Literal['adamw', 'muon']
  learning_rate: typed.Amount  # At its peak; with Muon, not that of kernels.
  muon_learning_rate: typed.Amount  # At its peak, of kernels.
  # Updates below the peak; the rate rises linearly from peak / (this + 1).
  warmup_steps: typed.Count
  decay: Literal['constant', 'cosine']  # Cosine reaches 0 at the last step.
  b1: typed.Share
  b2: typed.Share
  weight_decay: typed.Finite  # Decoupled.
  # Global norm that gradients are clipped to.
  max_grad_norm: Annotated[float, typed.above(0, ' (1e9 clips nothing)')]


@dataclasses.dataclass(frozen=True, kw_only=True)
class SFTConfig:
  """Stage 1: supervised fine-tuning."""

  n_candidates: typed.Positive  # Questions for the expert.
  n_demos: typed.Positive  # Trajectories chosen from its answers:
  no_search: typed.Share  # this share does not search,
  recovered: typed.Share  # at least this share gazes wrong, then right.
  steps: typed.Positive  # At most.
  eval_every: typed.Positive
  n_validation: typed.Count  # Training ends when their accuracy is flat.
  batch_size: typed.Positive  # Trajectories per step.
  # Rows of a micro-batch, rounded up to a multiple of the shards; a step has as
  # many micro-batches as its trajectories fill.
  micro_rows: typed.Positive
  checkpoint_every: typed.Positive
  # '' for the expert's demos, or a user's data: a TFDS set of conversations, a
  # folder with trajectories.jsonl, or a file of LLaMA-Factory's ShareGPT or
  # ms-swift's messages.
  data: str
  # What the boxes of its calls are in, if it has any and is none of our sets,
  # which say it: see boxes.py. 'original_pixels' are those of the image file,
  # 'resized_pixels' those of the image as this run's own model sees it.
  data_box: Literal['', 'thousandths', 'original_pixels', 'resized_pixels']
  epochs: typed.Amount  # Over `data`; 0 trains for `steps`.
  data_workers: typed.Count  # Processes that read it; 0 for a thread.
  optimizer: OptimizerConfig


@dataclasses.dataclass(frozen=True, kw_only=True)
class GradeConfig:
  """Pass rates of the SFT policy -> levels."""

  n_queries: typed.Positive  # From the training questions, after the demos'.
  samples: typed.Positive
  solved: typed.Share  # Pass rate from here: Level 0.
  often_failed: typed.Share  # Below: Level 2. Between: Level 1.
  # Share of samples that may fail because a tool failed: a query with more is
  # not graded; if more of the latest samples fail, grading stops.
  most_errors: typed.Share

  def __post_init__(self):
    if self.often_failed > self.solved:
      raise typed.FieldError(
          'often_failed is above config.grade.solved: Level 2 is what fails '
          'more often than Level 0'
      )


# (low, high); empty is as the variant was published.
Clip = Annotated[
    tuple[typed.Amount, ...],
    typed.Bound(
        '(low, high), e.g. (0.2, 0.28), or () as the variant was published',
        lambda value: len(value) in (0, 2),
    ),
]


@dataclasses.dataclass(frozen=True, kw_only=True)
class LossConfig:
  """GRPO's loss, see train/losses.py."""

  clip: Clip
  kl_coef: typed.Amount
  max_importance_weight: typed.PositiveFloat


@dataclasses.dataclass(frozen=True, kw_only=True)
class AlarmsConfig:
  """Bounds of RL's metrics, see train/alarms.py."""

  sampler_gap_p99: typed.Finite
  kl: typed.Finite
  entropy: typed.Finite
  live_groups: typed.Finite
  no_search: typed.Finite
  format: typed.Finite
  sampled_tokens: typed.Finite
  patience: typed.Positive  # Steps for which a sign has to last.
  stop: bool  # Stop the run; otherwise only say it.


@dataclasses.dataclass(frozen=True, kw_only=True)
class RLConfig:
  """Stage 2: complexity-adaptive GRPO."""

  # The policy that RL starts from, grading grades and the KL term keeps near:
  # 'sft', this workdir's; 'base', the model in model.path; or a folder of that
  # model's, with other weights or with adapters as peft saves them.
  init: typed.Given
  adapter_alone: bool  # Ignore other parameters in its folder.
  variant: Literal['grpo', 'dr_grpo', 'dapo', 'gspo']
  level: Literal[-1, 0, 1, 2]  # Of the grades; -1 is all of them.
  regrade: bool  # Skip questions that RL's own rollouts find easier,
  recheck_every: typed.Positive  # for this many steps.
  call_cost: typed.Share  # Of a right answer's reward, for each search.
  dynamic_sampling: bool  # Replace groups without variance.
  max_refills: typed.Count
  steps: typed.Positive
  epochs: typed.Amount  # Over the level's queries; 0 trains for `steps`.
  n_prompts: typed.Positive  # P, questions per step.
  # G, rollouts per question.
  group_size: Annotated[
      int, typed.at_least(2, ' (one rollout has no group to be better than)')
  ]
  updates_per_batch: typed.Positive
  micro_rows: typed.Positive
  train_dead: bool  # Whether groups without variance feel the KL.
  sync_every: typed.Positive  # Steps between the sampler's new weights.
  shuffle_rewards: bool  # Within groups: a control, which cannot learn.
  advantage_eps: Annotated[
      float, typed.above(0, ', or groups without variance divide by 0')
  ]
  eval_every: typed.Positive  # Steps between validations; the last has one.
  # Questions of a validation; 0 is none. The most accurate checkpoint is kept
  # in best/, beside the last one.
  n_validation: typed.Count
  checkpoint_every: typed.Positive
  trajectories_every: typed.Positive  # Steps between saved rollouts,
  trajectories_kept: typed.Positive  # of which so many are kept, the newest.
  optimizer: OptimizerConfig
  loss: LossConfig
  alarms: AlarmsConfig

  def __post_init__(self):
    if self.regrade and self.level < 1:
      raise typed.FieldError(
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
  reading: typed.Share
  # Scenes that hold twins: none while colours stand for places.
  twins: typed.Finite
  survey: typed.Finite
  list: typed.Finite
  box: typed.Finite
  look: typed.Finite
  crop: typed.Finite
  link: typed.Finite
  switch: typed.Finite
  confirm: typed.Finite


@dataclasses.dataclass(frozen=True, kw_only=True)
class PretrainConfig:
  """The toy's base, from nothing."""

  batch_size: typed.Positive  # Lessons per step.
  micro_rows: typed.Positive
  n_exchanges: typed.Positive  # In a lesson, as far as max_context holds them.
  # Each task builds on the one before.
  read: PhaseConfig
  look: PhaseConfig
  refer: PhaseConfig
  copying: typed.Share  # Exchanges about texts that are random tokens.
  start_from: str  # A model folder to go on from; '' for a random model.
  checkpoint_every: typed.Positive
  n_probes: typed.Positive  # Tasks of each kind that measure the base.
  optimizer: OptimizerConfig
  architecture: immutabledict[str, Any]  # Of config.json; token ids are added.

"""Sections about training."""

from __future__ import annotations

from collections.abc import Mapping
import dataclasses
from typing import Any, Literal

from gog_jax.config.fields import above
from gog_jax.config.fields import at_least
from gog_jax.config.fields import FieldError
from gog_jax.config.fields import Section
from gog_jax.config.fields import share


@dataclasses.dataclass(frozen=True, kw_only=True)
class Optimizer(Section):
  """AdamW or Muon with warm-up and, optionally, decay.

  Muon (Jordan, 2024) orthogonalises the momentum of the linear layers' kernels;
  all other parameters follow AdamW with Nesterov momentum.
  """

  name: Literal['adamw', 'muon']
  learning_rate: float = at_least(0)  # At its peak; of Muon, all but kernels'.
  muon_learning_rate: float = at_least(0)  # At its peak, of the kernels.
  warmup_steps: int = at_least(0)  # Linear from 0.
  decay: Literal['constant', 'cosine']  # Cosine reaches 0 at the last step.
  b1: float = share()
  b2: float = share()
  weight_decay: float  # Decoupled.
  # Global norm that gradients are clipped to.
  max_grad_norm: float = above(0, '; 1e9 clips nothing')


@dataclasses.dataclass(frozen=True, kw_only=True)
class SFT(Section):
  """Stage 1: supervised fine-tuning."""

  n_candidates: int = at_least(1)  # Questions that the expert is asked.
  n_demos: int = at_least(1)  # Trajectories chosen of its answers:
  no_search: float = share()  # this share does not search,
  recovered: float = share()  # at least this share gazes wrong, then right.
  steps: int = at_least(1)  # At most.
  eval_every: int = at_least(1)
  n_validation: int = at_least(0)  # Training ends when their accuracy is flat.
  batch_size: int = at_least(1)  # Trajectories a step.
  # Rows whose gradients are taken at once, more where shards do not divide
  # them; a step has as many of such micro-batches as it fills.
  micro_rows: int = at_least(1)
  checkpoint_every: int = at_least(1)
  # A user's own, in place of the expert's demos: a TFDS set of trajectories, a
  # folder with trajectories.jsonl, or a file of LLaMA-Factory's ShareGPT or
  # ms-swift's messages; '' is the demos.
  data: str
  epochs: float = at_least(0)  # Over `data`; 0 is `steps` steps.
  data_workers: int = at_least(0)  # Processes that read it; 0 is a thread.
  optimizer: Optimizer


@dataclasses.dataclass(frozen=True, kw_only=True)
class Grade(Section):
  """Pass rates of the SFT policy -> levels."""

  n_queries: int = at_least(1)  # From the training questions, after the demos'.
  samples: int = at_least(1)
  solved: float = share()  # Pass rate from here: Level 0.
  often_failed: float = share()  # Below: Level 2. Between: Level 1.
  # Share of samples that may fail because a tool failed: a query with more is
  # not graded, and where more of the latest fail, grading stops.
  most_errors: float = share()

  def __post_init__(self):
    super().__post_init__()
    if self.often_failed > self.solved:
      raise FieldError(
          'often_failed is above config.grade.solved: Level 2 is what fails '
          'more often than Level 0'
      )


@dataclasses.dataclass(frozen=True, kw_only=True)
class Loss(Section):
  """GRPO's loss, see train/losses.py."""

  clip: tuple[Any, ...]  # (low, high); empty is as the variant was published.
  kl_coef: float = at_least(0)
  max_importance_weight: float = above(0)

  def __post_init__(self):
    super().__post_init__()
    numbers = [type(x) in (int, float) and x >= 0 for x in self.clip]
    if self.clip and not (len(self.clip) == 2 and all(numbers)):
      raise FieldError(
          f'clip is {self.clip!r}: give (low, high), e.g. (0.2, 0.28), or () '
          'for what the variant was published with'
      )


@dataclasses.dataclass(frozen=True, kw_only=True)
class Alarms(Section):
  """Bounds of RL's metrics, see train/alarms.py."""

  sampler_gap_p99: float
  kl: float
  entropy: float
  live_groups: float
  no_search: float
  format: float
  sampled_tokens: float
  patience: int = at_least(1)  # Steps for which a sign has to last.
  stop: bool  # Stop the run; otherwise only say it.


@dataclasses.dataclass(frozen=True, kw_only=True)
class RL(Section):
  """Stage 2: complexity-adaptive GRPO."""

  variant: Literal['grpo', 'dr_grpo', 'dapo', 'gspo']
  level: Literal[-1, 0, 1, 2]  # Of the grades; -1 is all of them.
  regrade: bool  # Leave out what RL's own rollouts find to be easier,
  recheck_every: int = at_least(1)  # for so many steps.
  call_cost: float = share()  # Of a right answer's reward, for each search.
  dynamic_sampling: bool  # Refill groups that have no variance.
  max_refills: int = at_least(0)
  steps: int = at_least(1)
  n_prompts: int = at_least(1)  # P, questions a step.
  group_size: int = at_least(
      2, ': one rollout has no group to be better than'
  )  # G, rollouts a question.
  updates_per_batch: int = at_least(1)
  micro_rows: int = at_least(1)
  train_dead: bool  # Whether groups without variance feel the KL.
  # Steps after which the sampler gets new weights; resuming gives it them too.
  sync_every: int = at_least(1)
  shuffle_rewards: bool  # Within groups: a control that cannot learn.
  advantage_eps: float = above(0, ', or groups without variance divide by 0')
  checkpoint_every: int = at_least(1)
  trajectories_every: int = at_least(1)  # Steps between saved rollouts.
  optimizer: Optimizer
  loss: Loss
  alarms: Alarms

  def __post_init__(self):
    super().__post_init__()
    if self.regrade and self.level < 1:
      raise FieldError(
          'regrade=True leaves out what is easier than config.rl.level, and '
          f'nothing is easier than {self.level}: choose level 1 or 2'
      )


@dataclasses.dataclass(frozen=True, kw_only=True)
class Phase(Section):
  """Steps of pretraining in which `reading` of the exchanges are about texts.

  The others are about a scene, of each kind of toy/grounding.py in proportion
  to its number here.
  """

  steps: int
  reading: float = share()
  # Of scenes, those that hold twins: none while colours stand for places.
  twins: float
  survey: float
  list: float
  box: float
  look: float
  crop: float
  link: float
  switch: float
  confirm: float


@dataclasses.dataclass(frozen=True, kw_only=True)
class Pretrain(Section):
  """The toy's base, from nothing."""

  batch_size: int = at_least(1)  # Lessons a step.
  micro_rows: int = at_least(1)
  # Of a lesson, or as many as max_context holds.
  n_exchanges: int = at_least(1)
  # Each task is learnt by way of the one before.
  read: Phase
  look: Phase
  refer: Phase
  # Of exchanges about texts, those of random tokens.
  copying: float = share()
  start_from: str  # A model folder to go on from; '' is a random model.
  checkpoint_every: int = at_least(1)
  n_probes: int = at_least(1)  # Tasks of each kind that measure the base.
  optimizer: Optimizer
  architecture: Mapping[str, Any]  # Of config.json; token ids are added.

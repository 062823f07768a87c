"""Sections about questions, rewards and what is evaluated."""

from __future__ import annotations

import dataclasses
import functools
import importlib.util
import math
from typing import Annotated, Literal

from gog_jax.config.fields import Names
from gog_jax.errors import UserError
from gog_jax.storage.typed import between
from gog_jax.storage.typed import Count
from gog_jax.storage.typed import FieldError
from gog_jax.storage.typed import Finite
from gog_jax.storage.typed import Positive
from gog_jax.storage.typed import Share

# Beyond 16 million questions the scopes would be those of the next seed.
WorldSize = Annotated[int, between(1, 16_000_000)]


@dataclasses.dataclass(frozen=True, kw_only=True)
class DifficultyConfig:
  """What makes the embedded world's questions hard."""

  emblems: Annotated[int, between(3, 6)]  # The most in a scene.
  small: Share  # Of emblems, those that are tiny.
  # Of the questions that a gaze answers, those about one of two emblems that a
  # glance cannot tell apart.
  twins: Share
  aliased: Share  # Of facts, those filed under an alias only.
  # Of looks, those that image search does not know; documents describe them.
  unpictured: Share
  # Standard deviation of what is added to an image's similarities.
  noise: Share


@dataclasses.dataclass(frozen=True, kw_only=True)
class DataConfig:
  """The embedded world, a TFDS data set."""

  world_seed: Count
  n_train: WorldSize
  n_validation: WorldSize
  n_test: WorldSize
  n_hard: WorldSize  # Of the benchmark 'world_hard'.
  difficulty: DifficultyConfig
  hard: DifficultyConfig


@dataclasses.dataclass(frozen=True, kw_only=True)
class QuestionsConfig:
  """Where questions come from, see questions/sources.py.

  'world', the embedded world's split; KIND:PATH, as 'jsonl:FILE'; or a user's
  function, FILE.py:NAME. Several are taken in turn.
  """

  train: Names  # Graded, trained on by RL, and built from.
  validation: Names  # Tell SFT when to stop.
  test: Names  # Evaluated.

  def only_world(self, split: str) -> bool:
    """Whether a split's questions are the embedded world's alone."""
    return getattr(self, split) == ('world',)


@dataclasses.dataclass(frozen=True, kw_only=True)
class RewardConfig:
  """How a trajectory is scored, see rewards/score.py.

  Its parts are functions: one of rewards/parts.py by name ('exact_match',
  'token_f1', 'judge', 'format'), or a user's as FILE.py:NAME or MODULE:NAME.
  """

  accuracy: str  # The part that says what is right, from 0 to 1.
  format_weight: Share  # lambda of the paper.
  extra: tuple[str, ...]  # 'PART=WEIGHT', added to the reward.

  @functools.cached_property
  def weights(self) -> dict[str, float]:
    """Part to weight, of the extra ones.

    Raises:
      UserError: A part is named twice or has no weight.
    """
    found = {}
    for entry in self.extra:
      name, _, weight = entry.rpartition('=')
      if name in found:
        raise UserError(f'config.reward.extra names {name} twice')
      try:
        found[name] = float(weight)
        if not name or not math.isfinite(found[name]):
          raise ValueError(entry)
      except ValueError as error:
        raise UserError(
            f'config.reward.extra: {entry!r} is not PART=WEIGHT, e.g. '
            "'rewards.py:brevity=0.1'"
        ) from error
    return found

  @property
  def parts(self) -> tuple[str, ...]:
    """Every part that is measured; raises as `weights`."""
    return (self.accuracy, *self.weights)

  @property
  def asks_judge(self) -> bool:
    """Whether trajectories need a judge's verdict before they are scored."""
    return 'judge' in self.parts


@dataclasses.dataclass(frozen=True, kw_only=True)
class EvalConfig:
  """Who is evaluated, greedily, and on what."""

  # 'test', which is questions.test; 'world', 'world_hard', 'world_validation',
  # splits of the embedded world; 'fvqa_test', 'infoseek', 'simplevqa',
  # 'mmsearch', 'livevqa', 'dynvqa', as the section `benchmark` finds them; or a
  # function, FILE.py:NAME.
  benchmark: str
  # At most, of questions.test or the world's; benchmark.n is the others'.
  n_examples: Positive
  # PARADIGM@MODEL, or a short name: config/paradigms.py.
  policies: Names
  script: str  # MODULE:FUNCTION of the model `script`: evaluation/scripts.py.
  # Items that failed because a tool failed are asked again when the same
  # command is given again; else they are counted.
  retry_errors: bool


@dataclasses.dataclass(frozen=True, kw_only=True)
class BenchmarkConfig:
  """A published set of questions, see questions/benchmarks/."""

  name: str  # '' is none.
  path: str  # Its folder or file, or its id on the Hugging Face hub.
  ids: str  # A file of the ids that are wanted: one a line, or a JSON list.
  images: str  # A folder of images that it names or links to.
  n: Count  # So many of it, for a cheap run; 0 is all.
  seed: int  # Chooses, where some are to be chosen.
  fetch_images: bool  # Fetch images that it only links to.
  options: bool  # Show LiveVQA's options with the question.
  scope: str  # The world or corpus that its searches run in.
  date: str  # Its version, where there are several; '' is the paper's.


@dataclasses.dataclass(frozen=True, kw_only=True)
class ReportConfig:
  """The report's page."""

  n_trajectories: Count


@dataclasses.dataclass(frozen=True, kw_only=True)
class LogConfig:
  """Where metrics go beside metrics.jsonl and TensorBoard's events/."""

  # A project at Weights & Biases, if any; needs pip install wandb. Its own
  # variables hold: WANDB_MODE=offline, WANDB_ENTITY, WANDB_API_KEY.
  wandb: str

  def __post_init__(self):
    if self.wandb and importlib.util.find_spec('wandb') is None:
      raise FieldError(
          f'wandb={self.wandb} asks for Weights & Biases, which is not '
          'installed: pip install wandb, or leave config.log.wandb empty'
      )


@dataclasses.dataclass(frozen=True, kw_only=True)
class InstructConfig:
  """The GoG-Instruct builder, see instruct/."""

  # Who answers: 'remote', a model behind an endpoint; 'expert', the world's,
  # who knows its own questions only; 'model', the one in model.path as it is;
  # or what the run in --workdir has trained, as 'sft' and 'rl'.
  teacher: str
  n: Positive  # Samples of the set,
  no_search: Share  # of which this share does not search.
  fewer: bool  # Where a kind is short, a smaller set of the same shares.
  # Questions that are asked at most, in whole chunks: no more than it takes.
  n_queries: Positive
  # Questions asked before it is seen whether that is enough.
  chunk: Positive
  # The uncertainty filter: direct answers without tools. A question of which
  # all are right is too easy. 0 asks none.
  n_direct: Count
  direct_temperature: Finite  # Of a remote teacher's.
  easy: Literal['keep', 'drop']  # As samples that do not search; or not at all.
  samples: Positive  # Trajectories tried, until one passes.
  gold: Literal['any', 'each', 'off']  # How many gazes must hit a gold region.
  gold_iou: Share  # Overlap from which a gaze hits.
  evidence: bool  # Where it searched, the answer must stand in the results.
  repeats: bool  # Whether a call may be made twice.
  # How often a conversation that a tool's failure spoilt is begun anew, and the
  # share of a chunk that may stay spoilt.
  retries: Count
  most_errors: Share
  concurrency: Positive  # Conversations with a remote teacher at once.
  n_review: Count  # Samples on the review page.
  review: str  # The file which that page has exported.
  licence: str  # What the data card says of it.

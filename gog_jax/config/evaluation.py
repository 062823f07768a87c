"""Sections about questions, rewards and what is evaluated."""

from __future__ import annotations

import dataclasses
import fractions
import functools
import importlib.util
import ipaddress
import math
import re
from typing import Annotated, Any, Literal

from immutabledict import immutabledict

from gog_jax.storage import typed

# Beyond 16 million questions the scopes would be those of the next seed.
WorldSize = Annotated[int, typed.between(1, 16_000_000)]


@dataclasses.dataclass(frozen=True, kw_only=True)
class DifficultyConfig:
  """What makes the embedded world's questions hard."""

  emblems: Annotated[int, typed.between(3, 6)]  # At most, in a scene.
  small: typed.Share  # Emblems that are tiny.
  # Questions answered by a gaze in which a glance cannot tell the emblem asked
  # about from another.
  twins: typed.Share
  aliased: typed.Share  # Facts that are filed under an alias only.
  # Looks that image search does not find; documents describe them.
  unpictured: typed.Share
  # Standard deviation of the noise on an image's similarities.
  noise: typed.Share


@dataclasses.dataclass(frozen=True, kw_only=True)
class DataConfig:
  """The embedded world, a TFDS data set."""

  world_seed: typed.Count
  n_train: WorldSize
  n_validation: WorldSize
  n_test: WorldSize
  n_hard: WorldSize  # Of the benchmark 'world_hard'.
  difficulty: DifficultyConfig
  hard: DifficultyConfig


@dataclasses.dataclass(frozen=True, kw_only=True)
class FetchConfig:
  """How images are fetched that are known by their addresses."""

  folder: str  # Where they are kept, a local one; '' is in the workdir.
  # Networks that may be asked although they are not of the public internet, as
  # ('10.1.0.0/16', '127.0.0.1').
  private: tuple[str, ...]
  max_bytes: typed.Positive  # Of an image.
  timeout_s: typed.Seconds  # Per image, over all attempts.
  max_attempts: typed.Positive  # Where a failure may be transient.
  concurrency: typed.Positive  # Images at a time.

  def __post_init__(self):
    try:
      _ = self.networks
    except ValueError as error:
      raise typed.FieldError(f'private={self.private}: {error}') from error

  @functools.cached_property
  def networks(self) -> tuple[Any, ...]:
    return tuple(map(ipaddress.ip_network, self.private))


_SHARE = re.compile(r'train:(\d+(?:\.\d+)?)%')
_WEIGHED = re.compile(r'(.+)\*(\d+(?:\.\d+)?)')


@dataclasses.dataclass(frozen=True, kw_only=True)
class QuestionsConfig:
  """Where questions come from, see questions/sources.py.

  'world', the embedded world's split; KIND:PATH, as 'jsonl:FILE'; or a user's
  function, FILE.py:NAME. Several are taken in turn; those of train by weight,
  where one has any: ('jsonl:a.jsonl', 'verl:b.parquet*0.5') takes two of a for
  each of b. 'train:5%' alone, for validation or test, holds out the questions
  about 5 % of training's images.
  """

  train: typed.Names  # For grading, RL and the GoG-Instruct builder.
  validation: typed.Names  # By which SFT stops, and RL chooses its best.
  test: typed.Names  # For evaluation.
  # Sources whose images are left out of train and validation, whatever is asked
  # about them.
  exclude: tuple[str, ...]
  # A folder of images beside the source's own: paths must not lead out of
  # these. '/' allows any file.
  images: str
  fetch_images: bool  # Fetch images that are named by their addresses.
  fetch: FetchConfig
  n: typed.Count  # Draws as many of train, by the run's seed; 0 takes all.
  # What becomes of questions of train that are evaluated, too, and of those of
  # validation that are in test: questions/leaks.py.
  leaks: Literal['leave_out', 'keep']

  def __post_init__(self):
    for field in ('train', 'validation', 'test', 'exclude'):
      names = getattr(self, field)
      if field != 'train' and any(map(_WEIGHED.fullmatch, names)):
        raise typed.FieldError(f'{field}={names}: weights are for train')
      shares = [one for one in names if one.startswith('train:')]
      if shares and (len(names) > 1 or field not in self.shares):
        raise typed.FieldError(
            f"{field}={names}: a share of train is ('train:5%',), alone, and "
            'for validation or test'
        )
    if self.weights and not (len(self.train) > 1 and all(self.weights)):
      raise typed.FieldError(
          f'train={self.train}: a weight is more than 0, and for one of '
          'several sources (n draws from one)'
      )
    if not all(self.shares.values()) or sum(self.shares.values()) >= 1:
      raise typed.FieldError(
          f'validation={self.validation} and test={self.test} leave nothing '
          'for one of them, or for train'
      )
    if 'world' in self.exclude:
      raise typed.FieldError(
          f"exclude={self.exclude}: the embedded world's images are in no "
          'other source; leave it out'
      )
    if self.only_world('train') and (self.shares or self.exclude or self.n):
      raise typed.FieldError(
          'validation, test, exclude and n draw from questions of your own; '
          'train is the embedded world, which has splits and sizes in '
          'config.data'
      )

  @functools.cached_property
  def shares(self) -> immutabledict[str, float]:
    """What the splits that are held out of train take of its images."""
    found = {}
    for split in ('validation', 'test'):
      if match := _SHARE.fullmatch(getattr(self, split)[0]):
        found[split] = float(match[1]) / 100
    return immutabledict(found)

  @functools.cached_property
  def weights(self) -> tuple[fractions.Fraction, ...]:
    """Those of train's sources; none where all are taken in turn."""
    found = tuple(map(_WEIGHED.fullmatch, self.train))
    if not any(found):
      return ()
    return tuple(fractions.Fraction(one[2] if one else 1) for one in found)

  def sources(self, split: str) -> tuple[str, ...]:
    """What a split's questions are read from, without weights."""
    names = self.train if split in self.shares else getattr(self, split)
    return tuple(_WEIGHED.sub(r'\1', name) for name in names)

  def only_world(self, split: str) -> bool:
    """Whether a split's questions are the embedded world's alone."""
    return self.sources(split) == ('world',)

  def has_world(self, split: str) -> bool:
    return 'world' in self.sources(split)


def _is_extra_part(text: str) -> bool:
  part, _, weight = text.rpartition('=')
  try:
    return bool(part) and math.isfinite(float(weight))
  except ValueError:
    return False


ExtraPart = Annotated[
    str,
    typed.Bound("PART=WEIGHT, e.g. 'rewards.py:brevity=0.1'", _is_extra_part),
]


@dataclasses.dataclass(frozen=True, kw_only=True)
class RewardConfig:
  """How a trajectory is scored, see rewards/score.py.

  Its parts are functions: one of rewards/parts.py by name ('answer_match',
  SQuAD's 'exact_match', 'token_f1', 'judge', 'format'), or a user's as
  FILE.py:NAME or MODULE:NAME.
  """

  accuracy: str  # The part that says what is right, from 0 to 1.
  format_weight: typed.Share  # The paper's lambda.
  extra: tuple[ExtraPart, ...]  # Added to the reward.

  def __post_init__(self):
    if len(self.weights) < len(self.extra):
      raise typed.FieldError(f'extra={self.extra} names a part twice')

  @functools.cached_property
  def weights(self) -> immutabledict[str, float]:
    """The weight of each extra part."""
    pairs = (entry.rpartition('=') for entry in self.extra)
    return immutabledict({part: float(weight) for part, _, weight in pairs})

  @property
  def parts(self) -> tuple[str, ...]:
    """Every part that is measured."""
    return (self.accuracy, *self.weights)

  @property
  def asks_judge(self) -> bool:
    """Whether trajectories need a judge's verdict before they are scored."""
    return 'judge' in self.parts


@dataclasses.dataclass(frozen=True, kw_only=True)
class EvalConfig:
  """Who is evaluated, greedily, and on what."""

  # 'test' stands for questions.test; 'world', 'world_hard', 'world_validation'
  # for splits of the embedded world; 'fvqa_test', 'infoseek', 'simplevqa',
  # 'mmsearch', 'livevqa', 'dynvqa' for what the section `benchmark` names; or a
  # function, FILE.py:NAME.
  benchmark: str
  # The most that are taken of questions.test or the world; for other
  # benchmarks see benchmark.n.
  n_examples: typed.Positive
  # PARADIGM@MODEL, or a short name: config/paradigms.py.
  policies: typed.Names
  # FILE.py:NAME of the model `script`: evaluation/policies.py.
  script: str
  # Whether the same command, given again, asks items again that failed because
  # a tool failed; otherwise they are only counted.
  retry_errors: bool


@dataclasses.dataclass(frozen=True, kw_only=True)
class BenchmarkConfig:
  """A published set of questions, see questions/benchmarks/."""

  name: str  # '' for none.
  path: str  # Its folder or file, or its id on the Hugging Face hub.
  ids: str  # A file of the ids to take: one a line, or a JSON list.
  images: str  # A folder with the images that it names or links to.
  n: typed.Count  # Draws this many, for a cheap run; 0 takes all.
  seed: int  # Of the draw.
  fetch_images: bool  # Fetch images that it only links to.
  fetch: FetchConfig
  options: bool  # Show LiveVQA's options with the question.
  scope: str  # The world or corpus that its searches run in.
  date: str  # Its version, where there are several; '' for the paper's.


@dataclasses.dataclass(frozen=True, kw_only=True)
class ReportConfig:
  """The report's page."""

  n_trajectories: typed.Count


@dataclasses.dataclass(frozen=True, kw_only=True)
class ExportConfig:
  """What is written for others, and how."""

  # What trained it, 'rl_best' being RL's best in validation; or 'base', the
  # model that training began with.
  stage: str
  folder: typed.Given  # A local one, new or empty.
  format: Literal['merged', 'adapter']  # For transformers, or for peft.
  dtype: Literal['float32', 'bfloat16']  # Of merged weights.


@dataclasses.dataclass(frozen=True, kw_only=True)
class LogConfig:
  """Where metrics go beside metrics.jsonl and TensorBoard's events/."""

  # A project at Weights & Biases, if any; needs pip install wandb, which heeds
  # its own variables: WANDB_MODE=offline, WANDB_ENTITY, WANDB_API_KEY.
  wandb: str

  def __post_init__(self):
    if self.wandb and importlib.util.find_spec('wandb') is None:
      raise typed.FieldError(
          f'wandb={self.wandb} asks for Weights & Biases, which is not '
          'installed: pip install wandb, or leave config.log.wandb empty'
      )


ShareOrAsItComes = Annotated[
    float, typed.Bound('from 0 to 1, or -1', lambda x: x == -1 or 0 <= x <= 1)
]


@dataclasses.dataclass(frozen=True, kw_only=True)
class InstructConfig:
  """The GoG-Instruct builder, see instruct/."""

  # 'remote', a model behind an endpoint; 'expert', the embedded world's, who
  # knows its questions alone; 'model', the one in model.path; or one that the
  # run in --workdir has trained, as 'sft' and 'rl'.
  teacher: str
  n: typed.Positive  # Samples in the set,
  # of which this share does not search; -1 takes what passes as it comes.
  no_search: ShareOrAsItComes
  fewer: bool  # If a kind runs short, make a smaller set of the same shares.
  n_queries: typed.Positive  # Questions that are asked at most.
  chunk: typed.Positive  # Questions between checks for enough samples.
  # The uncertainty filter: direct answers without tools. If all are right, the
  # question is too easy. 0 turns it off.
  n_direct: typed.Count
  direct_temperature: typed.Finite  # Of a remote teacher.
  # What becomes of easy questions: samples that do not search, or nothing.
  easy: Literal['keep', 'drop']
  samples: typed.Positive  # The most attempts at a trajectory that passes.
  gold: Literal['any', 'each', 'off']  # How many gazes must hit a gold region.
  gold_iou: typed.Share  # The least overlap of a gaze that hits.
  evidence: bool  # After a search, the answer must stand in the results.
  repeats: bool  # Whether a call may be made twice.
  retries: typed.Count  # Of a conversation that failed because a tool failed.
  most_errors: typed.Share  # Of a chunk, that may fail for good.
  concurrency: typed.Positive  # Conversations with a remote teacher at once.
  n_review: typed.Count  # Samples on the review page.
  review: str  # The file exported by that page.
  licence: str  # For the data card.

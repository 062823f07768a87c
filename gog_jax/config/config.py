"""The whole config: its sections, and what has to fit across them."""

from __future__ import annotations

from collections.abc import Container, Mapping
import dataclasses
from typing import Any, Literal

from gog_jax import seams
from gog_jax.config import paradigms
from gog_jax.config.evaluation import Benchmark
from gog_jax.config.evaluation import Eval
from gog_jax.config.evaluation import Instruct
from gog_jax.config.evaluation import Log
from gog_jax.config.evaluation import Questions
from gog_jax.config.evaluation import Report
from gog_jax.config.evaluation import Reward
from gog_jax.config.evaluation import World
from gog_jax.config.fields import FieldError
from gog_jax.config.fields import Section
from gog_jax.config.model import Batch
from gog_jax.config.model import Lora
from gog_jax.config.model import Mesh
from gog_jax.config.model import Model
from gog_jax.config.model import Rollout
from gog_jax.config.model import Sampler
from gog_jax.config.tools import Judge
from gog_jax.config.tools import Remote
from gog_jax.config.tools import Tools
from gog_jax.config.training import Grade
from gog_jax.config.training import Pretrain
from gog_jax.config.training import RL
from gog_jax.config.training import SFT
from gog_jax.errors import UserError

MODEL = 'model'  # The one in model.path as it is, where policies are named.
WORLD = ('world',)  # The embedded world as the source of questions.


@dataclasses.dataclass(frozen=True, kw_only=True)
class General(Section):
  """Sections as a general model needs them where the page's are the toy's.

  For remote models, and scripts outside the embedded world.
  """

  model: Model
  tools: Tools
  rollout: Rollout
  batch: Batch


@dataclasses.dataclass(frozen=True, kw_only=True)
class Config(Section):
  """What a run is made from. Other values make another config, by `replace`."""

  stage: str  # What the page is for.
  profile: str  # A backbone with its sizes, see configs/common.py.
  seed: int
  seeds: tuple[int, ...]  # If any: a run for each, and a report over all.
  unasked: bool  # Make, unasked, what a stage needs and is missing.
  trainable: Literal['lora', 'full', 'full_no_vision']
  mesh: Mesh
  model: Model
  lora: Lora
  data: World
  tools: Tools
  rollout: Rollout
  sampler: Sampler
  batch: Batch
  questions: Questions
  reward: Reward
  judge: Judge
  sft: SFT
  grade: Grade
  rl: RL
  # More RL runs, by name: a policy of that name can be evaluated.
  arms: Mapping[str, RL]
  once: tuple[str, ...]  # Those that only the first of `seeds` has.
  eval: Eval
  benchmark: Benchmark
  report: Report
  log: Log
  remote: Remote
  general: General | None

  def __post_init__(self):
    super().__post_init__()
    if len(set(self.seeds)) < len(self.seeds):
      raise FieldError(f'seeds={self.seeds} names a seed twice')
    for stage in ('sft', 'rl'):
      optimizer = getattr(self, stage).optimizer
      if optimizer.name == 'muon' and self.trainable == 'lora':
        raise FieldError(
            f'{stage}.optimizer.name=muon trains kernels, and with '
            'config.trainable=lora none is trained: choose one or the other'
        )
    for name in self.arms:
      if not name.startswith('rl_'):
        raise FieldError(f'arms.{name}: give it a name that begins in rl_')
    later = [p for p in self.eval.policies if not self._is_once(p)]
    if len(self.seeds) > 1 and not later:
      raise FieldError(
          'eval.policies are all of config.once: nothing would be evaluated of '
          'the seeds after the first'
      )
    if unknown := [one for one in self.once if one not in self.arms]:
      raise FieldError(
          f'once has {", ".join(unknown)}; there are '
          f'{", ".join(self.arms) or "no arms"}'
      )
    if self.rollout.max_context > self.batch.row_tokens:
      raise FieldError(
          f'rollout.max_context={self.rollout.max_context} is more than '
          f'config.batch.row_tokens={self.batch.row_tokens}: training could '
          'not pack such a conversation'
      )
    if self.reward.asks_judge and not self.judge.url:
      raise FieldError(
          'judge.url is empty, but a judge needs an endpoint: pass '
          '--config.judge.url=, e.g. http://127.0.0.1:8080/v1, and '
          '--config.judge.model=NAME'
      )
    self._check_sizes()
    self._check_evaluation()

  def of_seed(self, seed: int) -> Config:
    """The config of one of `seeds`; `once` belongs to the first alone."""
    arms, policies = self.arms, self.eval.policies
    if seed != self.seeds[0]:
      arms = {name: rl for name, rl in arms.items() if name not in self.once}
      policies = tuple(p for p in policies if not self._is_once(p))
    return dataclasses.replace(
        self,
        seed=seed,
        seeds=(),
        arms=arms,
        once=(),
        eval=dataclasses.replace(self.eval, policies=policies),
    )

  def _is_once(self, policy: str) -> bool:
    return policy.rpartition('@')[-1] in self.once

  @property
  def world_split(self) -> str:
    """The embedded world's split that is evaluated; '' where it is another."""
    if self.eval.benchmark != paradigms.TEST:
      return paradigms.split_of(self.eval.benchmark)
    return 'test' if self.questions.test == WORLD else ''

  def _check_sizes(self) -> None:
    """Refuses stages that want more examples than there will be."""
    wanted: list[tuple[tuple[str, ...], str]] = [
        (('sft.n_demos',), 'sft.n_candidates')
    ]
    if self.questions.train == WORLD:
      wanted.append((('sft.n_candidates', 'grade.n_queries'), 'data.n_train'))
    if self.questions.validation == WORLD:
      wanted.append((('sft.n_validation',), 'data.n_validation'))
    if split := self.world_split:
      wanted.append((('eval.n_examples',), f'data.n_{split}'))
    for fields, limit in wanted:
      total, most = sum(map(self._at, fields)), self._at(limit)
      if total > most:
        names = ' + config.'.join(fields)
        raise FieldError(
            f'{names} = {total} is more than config.{limit}={most}'
        )

  def _at(self, name: str) -> Any:
    section, field = name.split('.')
    return getattr(getattr(self, section), field)

  def _check_evaluation(self) -> None:
    """Refuses policies that do not exist, or lack what they need."""
    e, benchmark = self.eval, self.benchmark
    for name in e.policies:
      try:
        model = paradigms.parse(name, self.arms).model
      except UserError as error:
        raise FieldError(f'eval.policies: {error}') from error
      if model == paradigms.REMOTE:
        self.check_remote()
      if model == paradigms.SCRIPT:
        # Which loads it, too: an evaluation is known by its source.
        seams.digest(e.script, {}, field='config.eval.script')
      if model == paradigms.EXPERT and not self.world_split:
        raise FieldError(
            f'eval.policies: {name} knows the embedded world alone, not what '
            f'config.eval.benchmark={e.benchmark} asks: leave it out'
        )
    if not self.world_split and benchmark.name not in ('', e.benchmark):
      raise FieldError(
          f'benchmark.name={benchmark.name}, but config.eval.benchmark='
          f'{e.benchmark} is what is evaluated: leave the former empty'
      )

  def check_remote(self) -> None:
    """Refuses a remote model that cannot be asked."""
    if not self.remote.url:
      raise FieldError(
          'remote.url is empty, but a remote model needs an endpoint: pass '
          '--config.remote.url=, e.g. http://127.0.0.1:8080/v1, and '
          '--config.remote.model=NAME'
      )
    if not self.remote.model:
      raise FieldError(
          'remote.model is empty: pass --config.remote.model=NAME, as the '
          'endpoint calls it'
      )


@dataclasses.dataclass(frozen=True, kw_only=True)
class PretrainConfig(Config):
  """Of configs/pretrain.py."""

  pretrain: Pretrain

  def _check_sizes(self) -> None:
    """No check: lessons are made as they are needed."""


@dataclasses.dataclass(frozen=True, kw_only=True)
class InstructConfig(Config):
  """Of configs/instruct.py."""

  instruct: Instruct

  def __post_init__(self):
    super().__post_init__()
    c = self.instruct
    # Those that have to answer at once have no trajectories to show.
    trained = [
        name
        for name in paradigms.SHORT
        if name not in (paradigms.DIRECT, paradigms.FULL_SEARCH)
    ]
    known = (paradigms.REMOTE, MODEL, *trained, *self.arms)
    if c.teacher not in known:
      raise FieldError(
          f'instruct.teacher is {c.teacher!r}, not one of {", ".join(known)}'
      )
    own = self.questions.train != WORLD
    if c.teacher == paradigms.EXPERT and own:
      raise FieldError(
          'instruct.teacher: the expert knows the questions of the embedded '
          'world only: pass --config.instruct.teacher=remote, or another that '
          'can read yours'
      )
    if c.teacher == paradigms.REMOTE:
      self.check_remote()
      if c.n_direct > 1 and not c.direct_temperature:
        raise FieldError(
            'instruct.direct_temperature=0 gives the same answer every time: '
            'raise it, or pass --config.instruct.n_direct=1'
        )
    if own and self.tools.backend == 'world' and self.tools.mode != 'replay':
      raise FieldError(
          'tools.backend: the embedded world knows nothing about your '
          'questions: pass --config.tools.backend=index or retriever'
      )

  def _check_sizes(self) -> None:
    """No check: only as many questions are asked as it takes."""


@dataclasses.dataclass(frozen=True, kw_only=True)
class AskConfig(Config):
  """Of configs/ask.py."""

  image: str  # A file: PNG, JPEG, WebP, ...
  question: str
  policy: str  # 'model' is the one in model.path as it is.
  scope: str  # Which world or corpus is searched; the backend says which.
  page: str  # Where the page goes, if not beside the record.

  def __post_init__(self):
    super().__post_init__()
    if not self.question.strip():
      raise FieldError('question is empty: pass --config.question="..."')
    if not self.image:
      raise FieldError('image is empty: pass --config.image=FILE')
    unknown = self.policy
    try:
      model = paradigms.parse(self.policy_name, self.arms).model
      if model not in (paradigms.EXPERT, paradigms.SCRIPT):
        unknown = ''
    except UserError:
      model = ''
    if unknown:
      short = [one for one in paradigms.SHORT if one != paradigms.EXPERT]
      raise FieldError(
          f'policy: there is no {unknown!r}; pass --config.policy=, one of '
          + ', '.join((paradigms.REMOTE, MODEL, *short, *self.arms))
          + f', or PARADIGM@MODEL with {", ".join(paradigms.PARADIGMS)}'
      )
    if model == paradigms.REMOTE:
      self.check_remote()
    # What is replayed comes from a recording, whatever was searched for it.
    if self.tools.backend == 'world' and self.tools.mode != 'replay':
      if not self.scope:
        raise FieldError(
            'scope is empty: the embedded world only knows its own pictures, '
            'so pass another --config.tools.backend, or the --config.scope of '
            'one of its questions'
        )

  @property
  def policy_name(self) -> str:
    """The policy's, as evaluations have it."""
    return 'gog@base' if self.policy == MODEL else self.policy

  def _check_sizes(self) -> None:
    """No check: one question is asked."""


@dataclasses.dataclass(frozen=True, kw_only=True)
class ConvertConfig(Config):
  """Of configs/convert.py."""

  input: str  # A file or a folder.
  output: str  # A .json or .jsonl file for sharegpt and swift; or a folder.
  format: Literal['sharegpt', 'swift', 'trajectories', 'tfds']
  split: str  # Of a TFDS set that is read.
  name: str  # Of a TFDS set that is written, and
  description: str  # what it is.

  def __post_init__(self):
    super().__post_init__()
    for field in ('input', 'output'):
      if not getattr(self, field):
        raise FieldError(f'{field} is empty: pass --config.{field}=FILE')


def arms_and_general(
    values: Mapping[str, Any], given: Container[str]
) -> dict[str, Any]:
  """A page's fields with `arms` and `general` as whole sections.

  Args:
    values: The page's; its arms and its `general` hold what differs.
    given: Dotted names of the fields that the command line set: these hold for
      general models, too, unless their own were set as well.
  """
  arms = {
      name: _with(values['rl'], fields)
      for name, fields in values['arms'].items()
  }
  general = {}
  for section, fields in values['general'].items():
    differing = {
        name: value
        for name, value in fields.items()
        if f'{section}.{name}' not in given
        or f'general.{section}.{name}' in given
    }
    general[section] = _with(values[section], differing)
  return {**values, 'arms': arms, 'general': general or None}


def _with(
    values: Mapping[str, Any], changes: Mapping[str, Any]
) -> dict[str, Any]:
  """Nested values with others in their place."""
  found = dict(values)
  for name, value in changes.items():
    old = found.get(name)
    if isinstance(old, Mapping) and isinstance(value, Mapping):
      value = _with(old, value)
    found[name] = value
  return found

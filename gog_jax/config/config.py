"""The whole config: its sections, and what has to fit across them."""

from __future__ import annotations

from collections.abc import Container, Iterable, Mapping
import dataclasses
import operator
from typing import Annotated, Any, Literal

from immutabledict import immutabledict

from gog_jax import seams
from gog_jax.config import evaluation
from gog_jax.config import paradigms
from gog_jax.config import tools as tools_lib
from gog_jax.config import training
from gog_jax.errors import UserError
from gog_jax.storage import typed

# Stages that ask only as many questions as it takes.
_UNSIZED = ('pretrain', 'instruct', 'ask')
# In place of the embedded world's questions.
_INSTEAD = {
    'questions.train': '',
    'questions.validation': (
        ', or ask none with --config.sft.n_validation=0 '
        '--config.rl.n_validation=0'
    ),
    'questions.test': (
        ', or evaluate --config.eval.benchmark=NAME '
        '--config.benchmark.path=FOLDER'
    ),
}


@dataclasses.dataclass(frozen=True, kw_only=True)
class GeneralConfig:
  """Sections for general models, where the page's own are sized for the toy.

  For remote models, and scripts outside the toy world.
  """

  model: training.ModelConfig
  tools: tools_lib.ToolsConfig
  rollout: training.RolloutConfig
  batch: training.PackingConfig


@dataclasses.dataclass(frozen=True, kw_only=True)
class Config:
  """What a run is made from. Other values make another config, by `replace`."""

  stage: str  # What the page is for.
  profile: str  # A backbone with its sizes, see configs/common.py.
  seed: int
  # If any: a run for each, and a report over all.
  seeds: Annotated[tuple[int, ...], typed.DIFFERENT]
  unasked: bool  # Whether stages that are missing are run automatically.
  trainable: Literal['lora', 'full', 'full_no_vision']
  mesh: training.MeshConfig
  model: training.ModelConfig
  lora: training.LoraConfig
  data: evaluation.DataConfig
  tools: tools_lib.ToolsConfig
  rollout: training.RolloutConfig
  sampler: training.SamplerConfig
  batch: training.PackingConfig
  questions: evaluation.QuestionsConfig
  reward: evaluation.RewardConfig
  judge: tools_lib.JudgeConfig
  sft: training.SFTConfig
  grade: training.GradeConfig
  rl: training.RLConfig
  # More RL runs, by name: a policy of that name can be evaluated.
  arms: immutabledict[str, training.RLConfig]
  once: tuple[str, ...]  # Those that only the first of `seeds` has.
  eval: evaluation.EvalConfig
  benchmark: evaluation.BenchmarkConfig
  report: evaluation.ReportConfig
  log: evaluation.LogConfig
  remote: tools_lib.RemoteConfig
  general: GeneralConfig | None
  # What the page and the command line have set, and the fields that the latter
  # has: settings.py.
  given: immutabledict[str, Any]
  flags: tuple[str, ...]

  def __post_init__(self):
    for stage in ('sft', 'rl'):
      section = getattr(self, stage)
      if section.optimizer.name == 'muon' and self.trainable == 'lora':
        raise typed.FieldError(
            f'{stage}.optimizer.name=muon trains kernels, and with '
            'config.trainable=lora none is trained: choose one or the other'
        )
      # The recipe imitates what it builds.
      counts = stage == 'rl' or self.sft.data or self.stage == 'gog'
      if counts and section.epochs and f'{stage}.steps' in self.given:
        raise typed.FieldError(
            f'{stage}.steps counts for nothing beside config.{stage}.epochs: '
            f'pass --config.{stage}.epochs=0, too'
        )
    for name in self.arms:
      if not name.startswith('rl_') or name.endswith(paradigms.BEST):
        raise typed.FieldError(
            f'arms.{name}: give it a name that begins in rl_ and does not end '
            f'in {paradigms.BEST}'
        )
    later = [p for p in self.eval.policies if not self._is_once(p)]
    if len(self.seeds) > 1 and not later:
      raise typed.FieldError(
          'eval.policies are all of config.once: nothing would be evaluated of '
          'the seeds after the first'
      )
    if unknown := [one for one in self.once if one not in self.arms]:
      raise typed.FieldError(
          f'once has {", ".join(unknown)}; there are '
          f'{", ".join(self.arms) or "no arms"}'
      )
    if self.rollout.max_context > self.batch.row_tokens:
      raise typed.FieldError(
          f'rollout.max_context={self.rollout.max_context} is more than '
          f'config.batch.row_tokens={self.batch.row_tokens}: training could '
          'not pack such a conversation'
      )
    if self.general:
      shared = self.tools.shared
      for name, value in self.general.tools.shared.items():
        if value != shared[name]:
          raise typed.FieldError(
              f'general.tools.{name}={value!r}: all policies of a run share '
              f'what config.tools.{name} says; set that in its place'
          )
    if self.reward.asks_judge:
      self.judge.check('judge')
    if self.stage not in _UNSIZED:
      self._check_sizes()
    self._check_evaluation()
    self._check_searches()

  def of_seed(self, seed: int) -> Config:
    """The config of one of `seeds`; `once` belongs to the first alone."""
    arms, policies = self.arms, self.eval.policies
    if seed != self.seeds[0]:
      kept = {name: rl for name, rl in arms.items() if name not in self.once}
      arms = immutabledict(kept)
      policies = tuple(p for p in policies if not self._is_once(p))
    return dataclasses.replace(
        self,
        seed=seed,
        seeds=(),
        arms=arms,
        once=(),
        given=self.given | {'seed': seed, 'seeds': ()},
        eval=dataclasses.replace(self.eval, policies=policies),
    )

  def picked(
      self, names: Iterable[str], *, without: Container[str]
  ) -> dict[str, Any]:
    """Fields or sections by their dotted names, as plain values.

    For manifests: 0 and 0.0 are one setting, written as 0.

    Args:
      names: Of what is wanted.
      without: Names of fields that are left out, wherever they stand.
    """

    def plain(value: Any) -> Any:
      if dataclasses.is_dataclass(value):
        # Not vars, which also holds what cached properties have derived.
        fields = dataclasses.fields(value)
        value = {field.name: getattr(value, field.name) for field in fields}
      if isinstance(value, Mapping):
        return {k: plain(v) for k, v in value.items() if k not in without}
      if isinstance(value, float) and value.is_integer():
        return int(value)
      return list(map(plain, value)) if isinstance(value, tuple) else value

    return {name: plain(operator.attrgetter(name)(self)) for name in names}

  def _is_once(self, policy: str) -> bool:
    stage = policy.rpartition('@')[-1].removesuffix(paradigms.BEST)
    return stage in self.once

  @property
  def world_split(self) -> str:
    """The embedded world's split that is evaluated; '' where it is another."""
    if self.eval.benchmark != paradigms.TEST:
      return paradigms.split_of(self.eval.benchmark)
    return 'test' if self.questions.only_world('test') else ''

  @property
  def foreign(self) -> evaluation.BenchmarkConfig | None:
    """What is evaluated, if neither questions.test nor of the world."""
    if self.eval.benchmark == paradigms.TEST or self.world_split:
      return None
    return dataclasses.replace(self.benchmark, name=self.eval.benchmark)

  def _check_sizes(self) -> None:
    """Refuses stages that want more examples than there will be."""
    wanted: list[tuple[tuple[str, ...], str]] = [
        (('sft.n_demos',), 'sft.n_candidates')
    ]
    if self.questions.only_world('train'):
      wanted.append((('sft.n_candidates', 'grade.n_queries'), 'data.n_train'))
    if self.questions.only_world('validation'):
      asking = ['sft']
      asking += ['rl'] if self.stage == 'rl' and self.validates_rl else []
      wanted += [
          ((f'{one}.n_validation',), 'data.n_validation') for one in asking
      ]
    if split := self.world_split:
      wanted.append((('eval.n_examples',), f'data.n_{split}'))
    for fields, limit in wanted:
      total = sum(operator.attrgetter(field)(self) for field in fields)
      most = operator.attrgetter(limit)(self)
      if total > most:
        names = ' + config.'.join(fields)
        raise typed.FieldError(
            f'{names} = {total} is more than config.{limit}={most}'
        )

  @property
  def validates_rl(self) -> bool:
    """Whether RL asks validation questions: of the world, as train does."""
    q = self.questions
    known = q.has_world('train') or not q.has_world('validation')
    return bool(self.rl.n_validation) and known

  @property
  def evaluates(self) -> bool:
    """Whether a policy is evaluated that may search."""
    return self.stage in ('rl', 'eval') and any(
        paradigms.parse(name, self.arms).paradigm != paradigms.DIRECT
        for name in self.eval.policies
    )

  def _check_searches(self) -> None:
    """Refuses questions about which nothing can be found.

    The world's over an index or a retriever, others over the world; and, over
    any backend, the world's in validation or evaluation where train has none.
    A backend of a user's own may know both. A benchmark that is not the world's
    is seen to by evaluate.check, which knows whether it exists.
    """
    tools, q, stage = self.tools, self.questions, self.stage
    trains = stage in ('grade', 'rl', 'instruct')
    asks = {
        'train': trains or (stage == 'sft' and not self.sft.data),
        'validation': self.sft.n_validation
        and (
            stage == 'sft'
            or stage in ('grade', 'rl')
            and self.rl.init == 'sft'
        )
        or stage == 'rl'
        and self.validates_rl,
        'test': self.evaluates and self.eval.benchmark == paradigms.TEST,
    }
    asked = {f'questions.{s}': q.has_world(s) for s in asks if asks[s]}
    if self.evaluates and not asks['test']:
      asked['eval.benchmark'] = bool(self.world_split)
    beside = ''
    foreign = {'index', 'retriever'} & {tools.text, tools.image}
    if tools.mode != 'replay' and foreign:
      beside = f'tools that search by {min(foreign)}, which has none of it'
    elif asks['train'] and not q.has_world('train'):
      beside = 'your own in config.questions.train'
    for field, world in asked.items():
      if world and beside:
        about = field if field in _INSTEAD else 'questions.test'
        flag = f"--config.{about}=\"('jsonl:FILE',)\""
        if field == 'eval.benchmark':
          flag = f'--config.eval.benchmark=test {flag}'
        raise typed.FieldError(
            f"{field} has the embedded world's questions, beside {beside}: "
            f'name your own with {flag}{_INSTEAD[about]}'
        )
      split = field.removeprefix('questions.')
      if split in asks and not q.only_world(split) and tools.searches_world:
        raise typed.FieldError(
            'tools.backend: the embedded world knows nothing about your '
            f'questions (config.{field}): {tools_lib.YOURS}'
        )

  def _check_evaluation(self) -> None:
    """Refuses policies that do not exist, or lack what they need."""
    e, benchmark = self.eval, self.benchmark
    for name in e.policies:
      try:
        model = paradigms.parse(name, self.arms).model
      except UserError as error:
        raise typed.FieldError(f'eval.policies: {error}') from error
      if model == paradigms.REMOTE:
        self.remote.check('remote')
      if model.endswith(paradigms.BEST) and not self.validates_rl:
        raise typed.FieldError(
            f'eval.policies: {name} is the best by validation, which needs '
            'config.rl.n_validation and config.questions.validation'
        )
      if model == paradigms.SCRIPT:
        # Which loads it, too: an evaluation is known by its source.
        seams.digest(e.script, {}, field='config.eval.script')
      if model == paradigms.EXPERT and not self.world_split:
        raise typed.FieldError(
            f'eval.policies: {name} knows the embedded world alone, not what '
            f'config.eval.benchmark={e.benchmark} asks: leave it out'
        )
    if not self.world_split and benchmark.name not in ('', e.benchmark):
      raise typed.FieldError(
          f'benchmark.name={benchmark.name}, but config.eval.benchmark='
          f'{e.benchmark} is what is evaluated: leave the former empty'
      )

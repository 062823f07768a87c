"""Pages of configs/, and the config that each of them is read into."""

from __future__ import annotations

from collections.abc import Collection, Mapping
import dataclasses
import importlib.util
import pathlib
from types import ModuleType
from typing import Any, Literal

from ml_collections import ConfigDict

from gog_jax.config import paradigms
from gog_jax.config import settings
from gog_jax.config.config import Config
from gog_jax.config.evaluation import BenchmarkConfig
from gog_jax.config.evaluation import ExportConfig
from gog_jax.config.evaluation import InstructConfig
from gog_jax.config.tools import JudgeConfig
from gog_jax.config.tools import ToolsConfig
from gog_jax.config.tools import YOURS
from gog_jax.config.training import PretrainConfig
from gog_jax.errors import UserError
from gog_jax.storage import typed


@dataclasses.dataclass(frozen=True, kw_only=True)
class PretrainPage(Config):
  """Of configs/pretrain.py."""

  pretrain: PretrainConfig


@dataclasses.dataclass(frozen=True, kw_only=True)
class InstructPage(Config):
  """Of configs/instruct.py."""

  instruct: InstructConfig

  def __post_init__(self):
    super().__post_init__()
    c = self.instruct
    # Those that have to answer at once have no trajectories to show.
    known = (*paradigms.TEACHERS, *self.arms)
    if c.teacher not in known:
      raise typed.FieldError(
          f'instruct.teacher is {c.teacher!r}, not one of {", ".join(known)}'
      )
    own = not self.questions.only_world('train')
    if c.teacher == paradigms.EXPERT and own:
      raise typed.FieldError(
          'instruct.teacher: the expert knows the questions of the embedded '
          'world only: pass --config.instruct.teacher=remote, or another that '
          'can read yours'
      )
    if c.teacher == paradigms.REMOTE:
      self.remote.check('remote')
      if c.n_direct > 1 and not c.direct_temperature:
        raise typed.FieldError(
            'instruct.direct_temperature=0 gives the same answer every time: '
            'raise it, or pass --config.instruct.n_direct=1'
        )


@dataclasses.dataclass(frozen=True, kw_only=True)
class GogPage(InstructPage):
  """Of configs/gog.py."""

  def __post_init__(self):
    searched = {self.tools.text, self.tools.image}
    given = {
        'model.path=FOLDER': self.model.path,
        'questions.train="(\'verl:FVQA_TRAIN.parquet\', '
        '\'infoseek:INFOSEEK_TRAIN.jsonl\')"': all(
            not name.endswith(':') for name in self.questions.train
        ),
        'tools.index=DIR (configs/index.py makes one)': (
            self.tools.index or 'index' not in searched
        ),
        'remote.url=URL of the teacher': self.remote.url or self.sft.data,
        'judge.url=URL of the judge': self.judge.url,
        'seed=N, a --workdir for each, in place of seeds': not self.seeds,
    }
    if missing := [f'--config.{flag}' for flag in given if not given[flag]]:
      raise UserError(f'the recipe still needs {", ".join(missing)}')
    # With data of one's own, nobody teaches.
    kind = Config if self.sft.data else InstructPage
    kind.__post_init__(self)


@dataclasses.dataclass(frozen=True, kw_only=True)
class AskPage(Config):
  """Of configs/ask.py."""

  image: typed.Given  # A file: PNG, JPEG, WebP, ...
  question: typed.Given
  policy: str  # As in eval.policies, but no expert and no script.
  scope: str  # Which world or corpus is searched; the backend says which.
  page: str  # Where the page goes, if not beside the record.

  def __post_init__(self):
    super().__post_init__()
    try:
      model = paradigms.parse(self.policy, self.arms).model
    except UserError as error:
      raise typed.FieldError(f'policy: {error}') from error
    if model in (paradigms.EXPERT, paradigms.SCRIPT):
      raise typed.FieldError(
          f'policy: {model} cannot answer questions of yours; pass '
          '--config.policy=remote, model, or what was trained in --workdir'
      )
    if model == paradigms.REMOTE:
      self.remote.check('remote')
    if self.tools.searches_world and not self.scope:
      raise typed.FieldError(
          'scope is empty: the embedded world only knows its own pictures, '
          'so pass the --config.scope of one of its questions; for yours, '
          f'{YOURS}'
      )


@dataclasses.dataclass(frozen=True, kw_only=True)
class ConvertPage(Config):
  """Of configs/convert.py."""

  input: typed.Given  # A file or a folder.
  # A .json or .jsonl file for sharegpt and swift; or a folder.
  output: typed.Given
  format: Literal['sharegpt', 'swift', 'tfds']
  split: str  # Of a TFDS set that is read.
  name: str  # Of a TFDS set that is written, and
  description: str  # what it is.


@dataclasses.dataclass(frozen=True, kw_only=True)
class CheckPage(Config):
  """Of configs/check.py."""

  image: str  # A file; '' is a picture that is drawn.


@dataclasses.dataclass(frozen=True, kw_only=True)
class ExportPage(Config):
  """Of configs/export.py."""

  export: ExportConfig

  def __post_init__(self):
    super().__post_init__()
    known = [paradigms.BASE, *paradigms.trained(self.arms)]
    if (stage := self.export.stage) not in known:
      raise typed.FieldError(
          f'export.stage is {stage!r}, not one of {", ".join(known)}; arms are '
          'those of the page: configs/export.py:full has the toy\'s'
      )


@dataclasses.dataclass(frozen=True, kw_only=True)
class Page:
  """What every page has."""

  stage: str
  profile: str


@dataclasses.dataclass(frozen=True, kw_only=True)
class IndexPage(Page):
  """Of configs/index.py."""

  docs: str  # A file of JSON lines.
  images: str  # A folder of image files.
  index: str  # Where the index goes.
  encoder: str  # A folder of CLIP or SigLIP weights; '' is none.


@dataclasses.dataclass(frozen=True, kw_only=True)
class RetrievePage(Page):
  """Of configs/retrieve.py."""

  tools: ToolsConfig  # What is searched; whoever asks has the limits.
  index: str  # As tools.index
  encoder: str  # and tools.encoder.
  host: str  # 127.0.0.1 is this machine alone; 0.0.0.0 is everyone.
  port: int

  def __post_init__(self):
    if self.tools.mode != 'live' or self.tools.cache:
      raise typed.FieldError(
          'tools.mode and tools.cache are for those who ask: every request is '
          'searched for'
      )


@dataclasses.dataclass(frozen=True, kw_only=True)
class BenchmarkPage(Page):
  """Of configs/benchmark.py."""

  benchmark: BenchmarkConfig


@dataclasses.dataclass(frozen=True, kw_only=True)
class JudgePage(Page):
  """Of configs/judge.py."""

  labels: typed.Given  # A file of JSON lines.
  judge: JudgeConfig

  def __post_init__(self):
    self.judge.check('judge')


@dataclasses.dataclass(frozen=True, kw_only=True)
class TableConfig:
  """The section `table`."""

  workdirs: tuple[str, ...]  # Of the runs to read; () is the --workdir.
  seed: int  # Of the bootstrap.


@dataclasses.dataclass(frozen=True, kw_only=True)
class TablePage(Page):
  """Of configs/table.py."""

  table: TableConfig


KINDS: dict[str, type[Any]] = {
    'rl': Config,
    'sft': Config,
    'grade': Config,
    'eval': Config,
    'inspect': Config,
    'pretrain': PretrainPage,
    'instruct': InstructPage,
    'gog': GogPage,
    'ask': AskPage,
    'convert': ConvertPage,
    'check': CheckPage,
    'export': ExportPage,
    'index': IndexPage,
    'retrieve': RetrievePage,
    'benchmark': BenchmarkPage,
    'judge': JudgePage,
    'table': TablePage,
}


def from_page(page: ConfigDict, given: Collection[str] = ()) -> Any:
  """The config that a page holds: one of KINDS, by its stage.

  Args:
    page: What `get_config` returns, with what the command line changed.
    given: Dotted names of what it changed.

  Raises:
    UserError: A value that a later stage would stumble over; names the field.
  """
  values = page.copy_and_resolve_references().to_dict()
  kind = KINDS.get(values['stage'])
  if kind is None:
    raise UserError(
        f'unknown stage {values["stage"]!r}; there are {", ".join(KINDS)}'
    )
  if issubclass(kind, Config):
    values = _arms_and_general(values, given)
    values['given'] = settings.given_by(page, given)
    values['flags'] = tuple(given)
  return typed.read(kind, values, 'config')


def _arms_and_general(
    values: Mapping[str, Any], given: Collection[str]
) -> dict[str, Any]:
  """A page's fields with `arms` and `general` as complete sections.

  Args:
    values: The page's; its arms and its `general` hold what differs.
      `untouched` has values of the profile: what a page sets holds for general
      models, too, unless it sets their own.
    given: Dotted names of the fields that the command line set: likewise,
      whatever their values.
  """
  values = dict(values)
  untouched = values.pop('untouched')
  arms = {
      name: _with(values['rl'], fields)
      for name, fields in values['arms'].items()
  }

  def is_set(*path: str) -> bool:
    now, before = values, untouched
    for name in path:
      if name not in before:
        return True
      now, before = now[name], before[name]
    return '.'.join(path) in given or now != before

  general = {}
  for section, fields in values['general'].items():
    differing = {
        name: value
        for name, value in fields.items()
        if is_set('general', section, name) or not is_set(section, name)
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


def sibling(page: str, name: str) -> ModuleType:
  """Another page of the same folder, wherever that folder is.

  Pages are loaded by their path and belong to no package.

  Args:
    page: The `__file__` of the one that asks.
    name: Of the other, without .py.
  """
  path = pathlib.Path(page).with_name(f'{name}.py')
  spec = importlib.util.spec_from_file_location(f'gog_jax_page_{name}', path)
  assert spec is not None and spec.loader is not None
  module = importlib.util.module_from_spec(spec)
  spec.loader.exec_module(module)
  return module

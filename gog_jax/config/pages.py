"""Pages of configs/, and the config that each of them is read into."""

from __future__ import annotations

from collections.abc import Container
import dataclasses
import importlib.util
import pathlib
from types import ModuleType
from typing import Any

from ml_collections import ConfigDict

from gog_jax.config import config as config_lib
from gog_jax.config.config import Config
from gog_jax.config.evaluation import Benchmark
from gog_jax.config.fields import read
from gog_jax.config.fields import Section
from gog_jax.config.tools import Judge
from gog_jax.errors import UserError


@dataclasses.dataclass(frozen=True, kw_only=True)
class Page(Section):
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

  index: str
  encoder: str  # A folder of weights, if the index was built with it.
  host: str  # 127.0.0.1 is this machine alone; 0.0.0.0 is everyone.
  port: int


@dataclasses.dataclass(frozen=True, kw_only=True)
class BenchmarkPage(Page):
  """Of configs/benchmark.py."""

  benchmark: Benchmark


@dataclasses.dataclass(frozen=True, kw_only=True)
class JudgePage(Page):
  """Of configs/judge.py."""

  labels: str  # A file of JSON lines.
  judge: Judge


@dataclasses.dataclass(frozen=True, kw_only=True)
class TableFields(Section):
  """The section `table`."""

  workdirs: tuple[str, ...]  # Of the runs to read; () is the --workdir.
  seed: int  # Of the bootstrap.


@dataclasses.dataclass(frozen=True, kw_only=True)
class TablePage(Page):
  """Of configs/table.py."""

  table: TableFields


KINDS: dict[str, type[Any]] = {
    'rl': Config,
    'sft': Config,
    'grade': Config,
    'eval': Config,
    'inspect': Config,
    'pretrain': config_lib.PretrainConfig,
    'instruct': config_lib.InstructConfig,
    'ask': config_lib.AskConfig,
    'convert': config_lib.ConvertConfig,
    'index': IndexPage,
    'retrieve': RetrievePage,
    'benchmark': BenchmarkPage,
    'judge': JudgePage,
    'table': TablePage,
}


def from_page(page: ConfigDict, given: Container[str] = ()) -> Any:
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
    values = config_lib.arms_and_general(values, given)
  return read(kind, values)


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

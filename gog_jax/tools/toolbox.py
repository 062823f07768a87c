"""What searches run on, made from `config.tools`: one for a whole run."""

from __future__ import annotations

from collections.abc import Callable, Collection, Sequence
import dataclasses
import functools
from typing import Any

from etils import epath

from gog_jax.boxes import BoxSpec
from gog_jax.errors import UserError
from gog_jax.index.backend import LocalIndex
from gog_jax.index.encoder import Encoder
from gog_jax.remote.ledger import Ledger
from gog_jax.tools.base import SearchBackend
from gog_jax.tools.base import Tool
from gog_jax.tools.cache import Cache
from gog_jax.tools.counts import ToolCounts
from gog_jax.tools.executor import ToolExecutor
from gog_jax.tools.gaze import Gaze
from gog_jax.tools.image_search import ImageSearch
from gog_jax.tools.recording import Played
from gog_jax.tools.recording import Recording
from gog_jax.tools.retriever import Retriever
from gog_jax.tools.searcher import Patience
from gog_jax.tools.searcher import Searcher
from gog_jax.tools.searcher import ToolLimits
from gog_jax.tools.text_search import TextSearch
from gog_jax.toy.backend import WorldBackend

MODES = ('live', 'record', 'replay')
BACKENDS = ('world', 'index', 'retriever')
# Whose limits may differ, see `config.tools`.
TOOLS = ('text_search', 'image_search', 'gaze')

_BYTES = 1e9  # Of a GB.


class Toolbox:
  """The backend, its limits, what is kept of its answers, and the counts."""

  def __init__(self, config: Any, workdir: epath.PathLike):
    """Opens what the config names.

    Args:
      config: The section `tools`.
      workdir: Where a recording goes if no other place is named, and what was
        spent is written down.

    Raises:
      UserError: The backend does not answer or is not there, the cache or the
        recording cannot be used.
    """
    self._config = config
    workdir = epath.Path(workdir)
    self.counts = ToolCounts()
    playing = config.mode == 'replay'
    backend = None if playing else _backend(config)
    self._recording = None
    if config.mode != 'live':
      self._recording = Recording(
          config.recording or workdir / 'recording',
          backend=None if backend is None else backend.version,
      )
    if backend is None:
      assert self._recording is not None
      backend = Played(self._recording.backend)
    limits = {tool: _limits(config, tool) for tool in TOOLS}
    if playing:  # Nothing is searched, and nothing costs.
      limits = {
          tool: dataclasses.replace(limit, price=0.0)
          for tool, limit in limits.items()
      }
    self._searcher = Searcher(
        backend,
        limits=limits,
        patience=Patience(
            max_attempts=config.max_attempts,
            backoff_s=config.backoff_s,
            failures=config.rest_after,
            rest_s=config.rest_s,
        ),
        counts=self.counts,
        ledger=_ledger(config, workdir),
    )

  @property
  def version(self) -> str:
    """Of what is searched, or was when it was recorded."""
    return self._searcher.version

  def executor(self, tools: Sequence[Tool]) -> ToolExecutor:
    """Runs calls of these tools; executors share all that is here."""
    return ToolExecutor(
        tools,
        self._searcher,
        cache=self._cache,
        recording=self._recording,
        playing=self._config.mode == 'replay',
        drain_s=self._config.drain_s,
        hit_characters=self._config.hit_characters,
    )

  @functools.cached_property
  def _cache(self) -> Cache | None:
    c = self._config
    if not c.cache or c.mode == 'replay':
      return None
    return Cache(c.cache, days=c.cache_days, max_bytes=c.cache_gb * _BYTES)


def _backend(config: Any) -> SearchBackend:
  if config.backend == 'world':
    return WorldBackend()
  if config.backend == 'index':
    if not config.index:
      raise UserError(
          'config.tools.backend=index needs --config.tools.index=DIR, which '
          'configs/index.py makes'
      )
    return open_index(config.index, encoder=config.encoder)
  if config.backend == 'retriever':
    return Retriever.connect(config.url, version=config.version)
  raise UserError(
      f'unknown tools.backend {config.backend!r}; there are '
      f'{", ".join(BACKENDS)}'
  )


def open_index(folder: str, *, encoder: str) -> LocalIndex:
  """Opens an index and, if it was built with one, its encoder's folder.

  Raises:
    UserError: Either cannot be used.
  """
  return LocalIndex(folder, load_encoder(encoder))


def load_encoder(folder: str) -> Encoder | None:
  """An encoder of images; None where no folder is named.

  Raises:
    UserError: The folder cannot be used.
  """
  return Encoder.from_folder(folder) if folder else None


def _limits(config: Any, tool: str) -> ToolLimits:
  own = config[tool]
  return ToolLimits(
      timeout_s=own.timeout_s or config.timeout_s,
      max_concurrency=own.max_concurrency or config.max_concurrency,
      price=own.price,
  )


def _ledger(config: Any, workdir: epath.Path) -> Ledger | None:
  if not any(config[tool].price for tool in TOOLS):
    return None
  path = config.ledger or workdir / 'spent.jsonl'
  return Ledger(path, cap=config.max_spend)


def make_tools(
    names: Collection[str],
    *,
    top_k: int,
    box_spec: BoxSpec,
    seen_size: Callable[[int, int], tuple[int, int]],
) -> list[Tool]:
  """The tools of these names, in the order of TOOLS.

  Args:
    names: Of TOOLS.
    top_k: Hits of a search.
    box_spec: How the policy writes boxes.
    seen_size: Of an image, as the policy sees it, by its original size.
  """
  tools: list[Tool] = [
      TextSearch(top_k=top_k),
      ImageSearch(top_k=top_k),
      Gaze(top_k=top_k, box_spec=box_spec, seen_size=seen_size),
  ]
  return [tool for tool in tools if tool.name in names]

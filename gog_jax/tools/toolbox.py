"""Makes what `config.tools` says: a run's services, and its executors."""

from __future__ import annotations

import collections
from collections.abc import Callable, Collection
import inspect
from typing import Any

from etils import epath

from gog_jax import seams
from gog_jax.boxes import BoxSpec
from gog_jax.config.tools import Tools
from gog_jax.errors import UserError
from gog_jax.remote.ledger import Ledger
from gog_jax.storage.store import Store
from gog_jax.tools import functions
from gog_jax.tools.base import SearchBackend
from gog_jax.tools.base import Tool
from gog_jax.tools.executor import ToolExecutor
from gog_jax.tools.functions import FunctionTool
from gog_jax.tools.limits import Limits
from gog_jax.tools.limits import Shared
from gog_jax.tools.record import Cache
from gog_jax.tools.recording import Recording
from gog_jax.types import ToolResult

# What `config.tools.backend` may name beside a user's own: a callable that
# returns a SearchBackend. It is given the section `tools` if it has a parameter
# without a default.
BACKENDS = {
    'world': 'gog_jax.toy.backend:WorldBackend',
    'index': 'gog_jax.index.backend:from_config',
    'retriever': 'gog_jax.tools.retriever:from_config',
}
# Tools that search, in the order in which policies are told of them.
TOOLS = {
    'text_search': 'gog_jax.tools.search:TextSearch',
    'image_search': 'gog_jax.tools.search:ImageSearch',
    'gaze': 'gog_jax.tools.gaze:Gaze',
}


class Toolbox:
  """What a whole run shares: backend, counts, cache, recording, ledger.

  Attributes:
    counts: Of all calls.
    functions: The names of the users' tools.
  """

  def __init__(self, config: Tools, workdir: epath.PathLike):
    """Opens what the config names.

    Args:
      config: What to offer and to search.
      workdir: Where the recording and the ledger go if nowhere else.

    Raises:
      UserError: The backend, a tool, the cache or the recording cannot be used.
    """
    self._workdir = epath.Path(workdir)
    self._replays = config.mode == 'replay'
    self._functions = {name: functions.load(name) for name in config.extra}
    named = collections.Counter(
        [*TOOLS, *(tool.name for tool in self._functions.values())]
    )
    if twice := [name for name, n in named.items() if n > 1]:
      raise UserError(
          f'config.tools.extra: another tool is called {twice[0]!r}; rename '
          'the function'
      )
    folder = config.recording or self._workdir / 'recording'
    recording = None
    if self._replays:
      recording = Recording(folder, backend=None)
      self._backend: Any = _Recorded(recording.backend, recording.kinds)
    else:
      self._backend = _backend(config)
    if config.mode == 'record':
      recording = Recording(
          folder, backend=self._backend.version, kinds=self._backend.kinds
      )
    self._shared = Shared(
        failures=config.rest_after,
        rest_s=config.rest_s,
        backend=self._backend,
        recording=recording,
        drain_s=config.drain_s,
    )
    self.counts = self._shared.counts

  @property
  def version(self) -> str:
    """Of what is searched, or was when it was recorded, and of users' tools."""
    return ', '.join(
        [
            self._backend.version,
            *(tool.version for tool in self._functions.values()),
        ]
    )

  def executor(
      self,
      config: Tools,
      can_call: Callable[[str], bool],
      *,
      box_spec: BoxSpec,
      seen_size: Callable[[int, int], tuple[int, int]],
  ) -> ToolExecutor:
    """Runs a policy's calls, within the limits of its own config.

    Args:
      config: The policy's own section `tools`, which names what it may call.
        What the backend cannot be searched with is left out.
      can_call: Whether its dialect has a way to call a tool.
      box_spec: How it writes boxes.
      seen_size: Of an image, as it sees it, by its original size.
    """
    tools: list[Any] = []
    for name in TOOLS:
      make = seams.load(name, TOOLS, field='config.tools')
      if name in config.offered and make.needs in (None, *self._backend.kinds):
        tools.append(
            make(
                self._backend,
                top_k=config.top_k,
                box_spec=box_spec,
                seen_size=seen_size,
            )
        )
    tools += [self._functions[name] for name in config.extra]
    tools = [tool for tool in tools if can_call(tool.name)]
    limits = {tool.name: self._limits(config, tool) for tool in tools}
    self._open(config, max((one.price for one in limits.values()), default=0))
    return ToolExecutor(
        tools, limits, self._shared, hit_characters=config.hit_characters
    )

  def _limits(self, config: Tools, tool: Tool) -> Limits:
    is_users = isinstance(tool, FunctionTool)
    # Zero, or missing, is inherited.
    own = tool.function if is_users else getattr(config, tool.name)
    return Limits(
        timeout_s=getattr(own, 'timeout_s', 0) or config.timeout_s,
        max_concurrency=getattr(own, 'max_concurrency', 0)
        or config.max_concurrency,
        price=0.0 if self._replays else getattr(own, 'price', 0.0),
        max_attempts=config.max_attempts,
        backoff_s=config.backoff_s,
    )

  def _open(self, config: Tools, price: float) -> None:
    """Opens the files that calls need.

    Raises:
      UserError: One cannot be used; or calls cost money without a cap.
    """
    shared = self._shared
    if config.cache and not self._replays and shared.cache is None:
      shared.cache = Cache(
          Store(
              config.cache,
              field='tools.cache',
              days=config.cache_days,
              max_bytes=config.cache_gb * 1e9,
          )
      )
    if price and not config.max_spend:
      raise UserError(
          f'calls cost up to ${price:g}: say how much the run may spend with '
          '--config.tools.max_spend=DOLLARS'
      )
    if price and shared.ledger is None:
      path = config.ledger or self._workdir / 'spent.jsonl'
      shared.ledger = Ledger(path, cap=config.max_spend)


class _Recorded:
  """Stands for the backend of a recording: it cannot be asked."""

  def __init__(self, version: str, kinds: Collection[str]):
    self.version, self.kinds = version, kinds

  async def search_text(self, *unused_args, **unused_kwargs) -> ToolResult:
    raise AssertionError('a replay does not search')

  search_image = search_text


def _backend(config: Tools) -> SearchBackend:
  """The backend that the config names, ours or a user's.

  Raises:
    UserError: It cannot be used.
  """
  name = config.backend
  make = seams.load(name, BACKENDS, field='config.tools.backend')
  try:
    parameters = inspect.signature(make).parameters.values()
    needs_config = any(
        p.default is p.empty
        and p.kind not in (p.VAR_POSITIONAL, p.VAR_KEYWORD)
        for p in parameters
    )
    backend = make(config) if needs_config else make()
    for attribute in ('version', *(f'search_{k}' for k in backend.kinds)):
      getattr(backend, attribute)
    return backend
  except Exception as error:
    if name in BACKENDS or isinstance(error, UserError):
      raise
    raise UserError(
        f'config.tools.backend={name} makes no search backend '
        f'({type(error).__name__}: {error})'
    ) from error

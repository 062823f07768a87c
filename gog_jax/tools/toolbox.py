"""Makes what `config.tools` says: a run's services, and a policy's tools."""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping
import dataclasses
import inspect

from etils import epath

from gog_jax import seams
from gog_jax.boxes import BoxSpec
from gog_jax.config.tools import SEARCHES
from gog_jax.config.tools import ToolsConfig
from gog_jax.errors import UserError
from gog_jax.remote.ledger import Ledger
from gog_jax.storage.store import Store
from gog_jax.tools import functions
from gog_jax.tools.base import SearchBackend
from gog_jax.tools.base import Tool
from gog_jax.tools.breaker import Breaker
from gog_jax.tools.counts import ToolCounts
from gog_jax.tools.recording import Recording
from gog_jax.tools.results import Cache
from gog_jax.types import ToolResult

# What `config.tools.backend` may name beside a user's own: a callable that
# returns a SearchBackend. It is given the section `tools` if it has a parameter
# without a default.
BACKENDS = {
    'world': 'gog_jax.toy.backend:WorldBackend',
    'index': 'gog_jax.index.backend:from_config',
    'retriever': 'gog_jax.tools.retriever:from_config',
}


@dataclasses.dataclass(frozen=True, kw_only=True, eq=False)
class Toolbox:
  """What all executors of a run share.

  Attributes:
    backend: What is searched; None if the tools search nothing.
    functions: Users' tools, by the names that the config gives them.
    counts: Of all calls.
    breakers: By the version of what is asked.
    ledger: Where spending is written down, if anything costs.
    cache: Results of this run and others.
    recording: Where calls are recorded, or replayed from: then none is made.
  """

  backend: SearchBackend | None = None
  functions: Mapping[str, Tool] = dataclasses.field(
      default_factory=dict
  )
  counts: ToolCounts = dataclasses.field(default_factory=ToolCounts)
  breakers: dict[str, Breaker] = dataclasses.field(default_factory=dict)
  ledger: Ledger | None = None
  cache: Cache | None = None
  recording: Recording | None = None

  @classmethod
  def open(cls, config: ToolsConfig, workdir: epath.PathLike) -> Toolbox:
    """Opens what a run's config names.

    Args:
      config: What to offer and to search.
      workdir: Where the recording and the ledger go if nowhere else.

    Raises:
      UserError: The backend, a tool or a file cannot be used; or calls cost
        money without a cap.
    """
    workdir = epath.Path(workdir)
    own = {name: functions.load(name) for name in config.extra}
    names = [*SEARCHES, *(tool.name for tool in own.values())]
    if twice := [name for name in names if names.count(name) > 1]:
      raise UserError(
          f'config.tools.extra: another tool is called {twice[0]!r}; rename '
          'the function'
      )
    folder = config.recording or workdir / 'recording'
    if config.mode == 'replay':
      recording = Recording(folder, backend=None)
      return cls(
          backend=_Recorded(recording.backend, recording.kinds),
          functions=own,
          recording=recording,
      )
    backend, recording, cache, ledger = _backend(config), None, None, None
    if config.mode == 'record':
      recording = Recording(
          folder, backend=backend.version, kinds=backend.kinds
      )
    if config.cache:
      store = Store(
          config.cache,
          field='tools.cache',
          days=config.cache_days,
          max_bytes=config.cache_gb * 1e9,
      )
      cache = Cache(store)
    limits = [tool.limits for tool in own.values()]
    prices = [one.price for one in (*limits, *config.limits.values())]
    price = max(prices, default=0.0)
    if price and not config.max_spend:
      raise UserError(
          f'calls cost up to ${price:g}: say how much the run may spend with '
          '--config.tools.max_spend=DOLLARS'
      )
    if price:
      path = config.ledger or workdir / 'spent.jsonl'
      ledger = Ledger(path, cap=config.max_spend)
    return cls(
        backend=backend,
        functions=own,
        ledger=ledger,
        cache=cache,
        recording=recording,
    )

  @property
  def version(self) -> str:
    """Of what is searched, or was when it was recorded, and of users' tools."""
    tools = [self.backend, *self.functions.values()]
    return ', '.join(one.version for one in tools if one is not None)

  def tools(
      self,
      config: ToolsConfig,
      can_call: Callable[[str], bool],
      *,
      box_spec: BoxSpec,
      seen_size: Callable[[int, int], tuple[int, int]],
  ) -> list[Tool]:
    """What a policy may call.

    Args:
      config: The policy's own section `tools`, which names what it is offered.
        What the backend cannot be searched with is left out.
      can_call: Whether its dialect has a way to call a tool.
      box_spec: How it writes boxes.
      seen_size: Of an image, as it sees it, by its original size.
    """
    places = {name: search.place for name, search in SEARCHES.items()}
    tools: list[Tool | None] = [
        seams.load(name, places, field='config.tools.offered')(
            self.backend,
            top_k=config.top_k,
            box_spec=box_spec,
            seen_size=seen_size,
        )
        for name in places
        if name in config.offered
    ]
    tools += [self.functions[name] for name in config.extra]
    return [tool for tool in tools if tool is not None and can_call(tool.name)]


@dataclasses.dataclass
class _Recorded:
  """Stands for the backend of a recording: it cannot be asked."""

  version: str
  kinds: Collection[str]

  async def search_text(self, *unused_args, **unused_kwargs) -> ToolResult:
    raise AssertionError('a replay does not search')

  search_image = search_text

  async def close(self) -> None:
    """Nothing is open."""


def _backend(config: ToolsConfig) -> SearchBackend:
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

"""Makes what `config.tools` says: a run's services, and a policy's tools."""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping
import dataclasses
import inspect

from etils import epath

from gog_jax import seams
from gog_jax.boxes import BoxSpec
from gog_jax.config.tools import IMAGE
from gog_jax.config.tools import SEARCHES
from gog_jax.config.tools import TEXT
from gog_jax.config.tools import ToolsConfig
from gog_jax.errors import UserError
from gog_jax.remote.ledger import Ledger
from gog_jax.storage import metrics
from gog_jax.storage.store import Store
from gog_jax.tools import functions
from gog_jax.tools.base import joined
from gog_jax.tools.base import SearchBackend
from gog_jax.tools.base import Tool
from gog_jax.tools.breaker import Breaker
from gog_jax.tools.counts import ToolCounts
from gog_jax.tools.recording import Recording
from gog_jax.tools.results import Cache
from gog_jax.types import ToolResult

# What `config.tools.text` and `image` may name beside a user's own: a callable
# that returns a SearchBackend. It is given the section `tools` if it has a
# parameter without a default.
BACKENDS = {
    'world': 'gog_jax.toy.backend:WorldBackend',
    'index': 'gog_jax.index.backend:from_config',
    'retriever': 'gog_jax.tools.retriever:from_config',
}
# What follows where a backend cannot be searched with one kind of query.
_LACKS = {
    TEXT: 'texts: text_search is not offered',
    IMAGE: 'images: image_search is not offered, gaze shows its crop alone',
}


@dataclasses.dataclass(frozen=True, kw_only=True, eq=False)
class Toolbox:
  """What all executors of a run share.

  Attributes:
    backends: What is searched with TEXT and with IMAGE, as far as anything is.
    functions: Users' tools, by the names that the config gives them.
    counts: Of all calls.
    breakers: By the version of what is asked.
    ledger: Where spending is written down, if anything costs.
    cache: Results of this run and others.
    recording: Where calls are recorded, or replayed from: then none is made.
  """

  backends: Mapping[str, SearchBackend] = dataclasses.field(
      default_factory=dict
  )
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
          backends={
              kind: _Recorded(version, (kind,))
              for kind, version in recording.versions.items()
          },
          functions=own,
          recording=recording,
      )
    backends = open_backends(config)
    recording = cache = ledger = None
    if config.mode == 'record':
      versions = {kind: one.version for kind, one in backends.items()}
      recording = Recording(
          folder, backend=joined(backends), versions=versions
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
        backends=backends,
        functions=own,
        ledger=ledger,
        cache=cache,
        recording=recording,
    )

  @property
  def version(self) -> str:
    """Of what is searched, or was when it was recorded, and of users' tools."""
    own = [one.version for one in self.functions.values()]
    return ', '.join(filter(None, [joined(self.backends), *own]))

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
        What nothing can be searched with is left out.
      can_call: Whether its dialect has a way to call a tool.
      box_spec: How it writes boxes.
      seen_size: Of an image, as it sees it, by its original size.
    """
    places = {name: search.place for name, search in SEARCHES.items()}
    tools: list[Tool | None] = [
        seams.load(name, places, field='config.tools.offered')(
            self.backends.get(search.kind),
            top_k=config.top_k,
            box_spec=box_spec,
            seen_size=seen_size,
        )
        for name, search in SEARCHES.items()
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


def open_backends(config: ToolsConfig) -> dict[str, SearchBackend]:
  """What the config chooses to search with TEXT and with IMAGE.

  A backend that stands for both is taken for what it can; the rest is said.

  Raises:
    UserError: One cannot be used, or not with what it was chosen for.
  """
  chosen = {kind: getattr(config, kind) for kind in (TEXT, IMAGE)}
  made, found = {}, {}
  for kind, name in chosen.items():
    if not name:
      continue
    field = 'backend' if name == config.backend else kind
    if name not in made:
      made[name] = _backend(config, field)
    if kind in made[name].kinds:
      found[kind] = made[name]
    elif field == kind:
      raise UserError(
          f'config.tools.{kind}={name} cannot be searched with {kind}: choose '
          f"another, or none with --config.tools.{kind}=''"
      )
    else:
      metrics.say(
          f'tools: {made[name].version} cannot be searched with {_LACKS[kind]}'
      )
  return found


def _backend(config: ToolsConfig, field: str) -> SearchBackend:
  """The backend that a field of the config names, ours or a user's.

  Raises:
    UserError: It cannot be used.
  """
  name = getattr(config, field)
  make = seams.load(name, BACKENDS, field=f'config.tools.{field}')
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
        f'config.tools.{field}={name} makes no search backend '
        f'({type(error).__name__}: {error})'
    ) from error

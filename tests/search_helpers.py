"""Tools that do as a test says, and a backend that asks them."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Mapping, Sequence
from typing import Any

from gog_jax.tools.base import Query
from gog_jax.tools.base import SearchBackend
from gog_jax.tools.base import Tool
from gog_jax.tools.base import ToolContext
from gog_jax.tools.counts import ToolCounts
from gog_jax.tools.executor import ToolExecutor
from gog_jax.tools.outcome import Outcome
from gog_jax.tools.searcher import Patience
from gog_jax.tools.searcher import Searcher
from gog_jax.tools.searcher import ToolLimits
from gog_jax.types import Hit
from gog_jax.types import Reply
from gog_jax.types import ToolCall
from gog_jax.types import ToolResult
from gog_jax.types import ToolStatus

CONTEXT = ToolContext(scope='s', views=(), caller='q/7/0')
Play = Callable[[Any, ToolContext], Awaitable[None]]


class Fake:
  """A tool whose searches do what `play(x, context)` does, and then find x.

  It knows how many of them there were, and how many ran at once.
  """

  description = 'A fake.'
  parameters = {
      'type': 'object',
      'properties': {'x': {'type': 'number'}},
      'required': ['x'],
      'additionalProperties': False,
  }

  def __init__(self, play: Play | None = None, *, name: str = 'fake'):
    self.name = name
    self.n_calls = 0
    self.running = 0
    self.most = 0
    self._play = play
    self._asked: dict[str, tuple[Any, ToolContext]] = {}

  async def query(
      self, arguments: Mapping[str, Any], context: ToolContext
  ) -> Query:
    x = arguments['x']
    text = f'{self.name} {x} {context.caller}'
    self._asked[text] = (x, context)
    return Query(text=text, scope=context.scope, top_k=1)

  def knows(self, text: str) -> bool:
    return text in self._asked

  async def search(self, text: str) -> Reply:
    x, context = self._asked[text]
    self.n_calls += 1
    self.running += 1
    self.most = max(self.most, self.running)
    try:
      if self._play is not None:
        await self._play(x, context)
    finally:
      self.running -= 1
    return Reply(hits=(Hit(title='', text=f'reply {x}', score=1.0),))


class Plain(Fake):
  """Asks the same whoever calls."""

  async def query(self, arguments, context):
    text = f'{self.name} {arguments["x"]}'
    self._asked[text] = (arguments['x'], context)
    return Query(text=text, scope=context.scope, top_k=1)


def call(x: float = 0, name: str = 'fake') -> ToolCall:
  return ToolCall(name=name, arguments={'x': x})


def run_turn(
    executor: ToolExecutor, *xs: float, context: ToolContext = CONTEXT
) -> tuple[ToolResult, ...]:
  """The results of calls that are made side by side."""
  calls = [call(x) for x in xs]
  return asyncio.run(executor.run_turn(calls, context))


def found(**fields: Any) -> Outcome:
  """A search that worked."""
  return Outcome(**{'status': ToolStatus.OK, **fields})


class Router:
  """A backend that asks the fake that a query is for, or else another."""

  version = 'router/1'

  def __init__(self, fakes: Sequence[Fake], backend: SearchBackend | None):
    self._fakes = fakes
    self._backend = backend
    self.n_closed = 0

  async def search_text(self, query: str, *, scope: str, top_k: int) -> Reply:
    for fake in self._fakes:
      if fake.knows(query):
        return await fake.search(query)
    assert self._backend is not None
    return await self._backend.search_text(query, scope=scope, top_k=top_k)

  async def search_image(
      self, data: bytes, *, scope: str, top_k: int
  ) -> Reply:
    assert self._backend is not None
    return await self._backend.search_image(data, scope=scope, top_k=top_k)

  async def close(self) -> None:
    self.n_closed += 1


def make_executor(
    *tools: Tool,
    backend: SearchBackend | None = None,
    timeout_s: float = 5.0,
    max_concurrency: int = 8,
    price: float = 0.0,
    ledger: Any = None,
    cache: Any = None,
    recording: Any = None,
    playing: bool = False,
    drain_s: float = 0.0,
    **retries: Any,
) -> ToolExecutor:
  """An executor of these tools; a call is tried once unless told otherwise."""
  fakes = [tool for tool in tools if isinstance(tool, Fake)]
  limits = ToolLimits(
      timeout_s=timeout_s, max_concurrency=max_concurrency, price=price
  )
  searcher = Searcher(
      Router(fakes, backend),
      limits={tool.name: limits for tool in tools},
      patience=Patience(**{'max_attempts': 1, 'backoff_s': 0.0, **retries}),
      counts=ToolCounts(),
      ledger=ledger,
  )
  return ToolExecutor(
      tools,
      searcher,
      hit_characters=2000,
      cache=cache,
      recording=recording,
      playing=playing,
      drain_s=drain_s,
  )

"""Tools that do as a test says, and a backend that asks them."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Iterable, Mapping
import contextlib
import dataclasses
import functools
import threading
from typing import Any

from aiohttp import web

from configs import sections
from gog_jax.chat import grammar
from gog_jax.config.tools import IMAGE
from gog_jax.config.tools import INHERITED
from gog_jax.config.tools import TEXT
from gog_jax.storage.store import Store
from gog_jax.tools import base
from gog_jax.tools.base import Query
from gog_jax.tools.base import SearchBackend
from gog_jax.tools.base import Tool
from gog_jax.tools.base import ToolContext
from gog_jax.tools.executor import ToolExecutor
from gog_jax.tools.results import Cache
from gog_jax.tools.retriever import Retriever
from gog_jax.tools.toolbox import Toolbox
from gog_jax.types import Hit
from gog_jax.types import ToolCall
from gog_jax.types import ToolResult

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

  version = 'router/1'
  limits = INHERITED

  def __init__(self, play: Play | None = None, *, name: str = 'fake'):
    self.name = name
    self.n_calls = 0
    self.running = 0
    self.most = 0
    self._play = play

  async def query(
      self, arguments: Mapping[str, Any], context: ToolContext
  ) -> Query:
    return Query(
        ask=functools.partial(self.search, arguments['x'], context),
        text=self.text(arguments['x'], context),
        scope=context.scope,
        top_k=1,
    )

  def text(self, x: Any, context: ToolContext) -> str:
    return f'{self.name} {x} {context.caller}'

  async def search(self, x: Any, context: ToolContext) -> ToolResult:
    self.n_calls += 1
    self.running += 1
    self.most = max(self.most, self.running)
    try:
      if self._play is not None:
        await self._play(x, context)
    finally:
      self.running -= 1
    return ToolResult(hits=(Hit(title='', text=f'reply {x}', score=1.0),))


class Plain(Fake):
  """Asks the same whoever calls."""

  def text(self, x, context):
    return f'{self.name} {x}'


def call(x: float = 0, name: str = 'fake') -> ToolCall:
  return ToolCall(name=name, arguments={'x': x})


def checked(tools: Iterable[Tool], name: str, arguments: Any) -> ToolCall:
  """A call as it comes out of a policy's message."""
  check = grammar.tool_checker([base.describe(tool) for tool in tools])
  error = check(name, arguments)
  return ToolCall(
      name=name,
      arguments=arguments,
      error=error and grammar._one_line(error),
  )


def run_turn(
    executor: ToolExecutor, *xs: float, context: ToolContext = CONTEXT
) -> tuple[ToolResult, ...]:
  """The results of calls that are made side by side."""
  calls = [call(x) for x in xs]
  return asyncio.run(executor.run_turn(calls, context))


def make_cache(path: Any, *, days: float = 1, max_bytes: float = 1e9) -> Cache:
  return Cache(Store(path, field='tools.cache', days=days, max_bytes=max_bytes))


def make_executor(
    *tools: Tool,
    backend: SearchBackend | None = None,
    timeout_s: float = 5.0,
    max_concurrency: int = 8,
    price: float = 0.0,
    ledger: Any = None,
    cache: Any = None,
    recording: Any = None,
    drain_s: float = 0.0,
    max_attempts: int = 1,
    backoff_s: float = 0.0,
    failures: int = 20,
    rest_s: float = 3.0,
) -> ToolExecutor:
  """An executor of these tools; a call is tried once unless told otherwise."""
  config = sections.tools().copy_and_resolve_references()
  config.update(
      timeout_s=timeout_s,
      max_concurrency=max_concurrency,
      drain_s=drain_s,
      max_attempts=max_attempts,
      backoff_s=backoff_s,
      rest_after=failures,
      rest_s=rest_s,
  )
  own = dataclasses.replace(INHERITED, price=price)
  with config.unlocked():
    config.limits = {tool.name: own for tool in tools}
  backends = {} if backend is None else {TEXT: backend, IMAGE: backend}
  toolbox = Toolbox(
      backends=backends, ledger=ledger, cache=cache, recording=recording
  )
  return ToolExecutor(tools, config, toolbox)


@contextlib.contextmanager
def served(routes):
  """A well-behaved server in a thread's own event loop; its address."""
  loop = asyncio.new_event_loop()
  app = web.Application()
  app.add_routes(routes)
  runner = web.AppRunner(app)

  async def start():
    await runner.setup()
    site = web.TCPSite(runner, '127.0.0.1', 0)
    await site.start()
    return site._server.sockets[0].getsockname()[1]

  port = loop.run_until_complete(start())
  thread = threading.Thread(target=loop.run_forever)
  thread.start()
  try:
    yield f'http://127.0.0.1:{port}'
  finally:
    loop.call_soon_threadsafe(loop.stop)
    thread.join()
    loop.run_until_complete(runner.cleanup())
    loop.close()


def ask(url, *, image=None, top_k=3, scope=''):
  async def scenario():
    client = Retriever(url, version='v')
    try:
      if image is not None:
        return await client.search_image(image, scope=scope, top_k=top_k)
      return await client.search_text('who', scope=scope, top_k=top_k)
    finally:
      await client.close()

  return asyncio.run(scenario())

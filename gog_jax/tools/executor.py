"""Runs tool calls on the host, side by side; every failure is data.

A result says whose fault a failure is. `model_error` is the policy's: a call
that was malformed, names no tool, breaks the tool's schema or makes no sense.
`infra_error` is everything else: the tool raised, or ran out of time.

A call is looked up, in this order: in a recording that is replayed, which
holds it or stops the run; in a recording that is made; in the cache; else it is
made, within the tool's limits. Where results are kept, equal calls that are
under way at the same time are one.
"""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
import dataclasses
import functools
import time

from gog_jax.config.tools import ToolsConfig
from gog_jax.errors import RunStopped
from gog_jax.tools.base import close
from gog_jax.tools.base import ModelError
from gog_jax.tools.base import one_line
from gog_jax.tools.base import Query
from gog_jax.tools.base import Tool
from gog_jax.tools.base import ToolContext
from gog_jax.tools.counts import UNKNOWN
from gog_jax.tools.excerpt import excerpts
from gog_jax.tools.limits import Limiter
from gog_jax.tools.results import call_key
from gog_jax.tools.toolbox import Toolbox
from gog_jax.types import ToolCall
from gog_jax.types import ToolResult
from gog_jax.types import ToolStatus

# Characters of a text that is cut to size in a thread.
_LONG = 50_000


class ToolExecutor:
  """Runs calls of a fixed set of tools and counts them.

  Attributes:
    tools: By name.
    counts: Shared with the run's other executors.
  """

  def __init__(
      self, tools: Sequence[Tool], config: ToolsConfig, toolbox: Toolbox
  ):
    """Initialises the executor.

    Args:
      tools: What the policy may call.
      config: With the limits of calls.
      toolbox: What is shared with other executors.
    """
    self.tools: dict[str, Tool] = {tool.name: tool for tool in tools}
    if len(self.tools) != len(tools):
      raise ValueError('two tools share a name')
    self.counts = toolbox.counts
    self._config, self._toolbox = config, toolbox
    self._recording = toolbox.recording
    self._kept = [
        kept for kept in (toolbox.recording, toolbox.cache) if kept is not None
    ]
    self._closing = False
    self._limiters = {
        tool.name: Limiter(
            tool, config, toolbox, stopped=lambda: self._closing
        )
        for tool in tools
    }
    self._flights: dict[str, asyncio.Task[ToolResult]] = {}

  @property
  def prices(self) -> list[float]:
    """What an attempt at a call costs, tool by tool, in US dollars."""
    return [limiter.limits.price for limiter in self._limiters.values()]

  async def run_turn(
      self, calls: Sequence[ToolCall], context: ToolContext
  ) -> tuple[ToolResult, ...]:
    """Runs the calls of one turn side by side; results in call order.

    Raises:
      RunStopped: No call may be made any more.
    """
    contexts = [
        dataclasses.replace(context, caller=f'{context.caller}/{number}')
        for number in range(len(calls))
    ]
    # Not gather: a group that is cancelled also ends the calls it holds.
    try:
      async with asyncio.TaskGroup() as group:
        tasks = [
            group.create_task(running)
            for running in map(self.run, calls, contexts)
        ]
    except* RunStopped as errors:
      raise errors.exceptions[0] from None
    return tuple(task.result() for task in tasks)

  async def run(self, call: ToolCall, context: ToolContext) -> ToolResult:
    """Runs one call that was checked; its failure is a result.

    Raises:
      RunStopped: No call may be made any more.
    """
    started = time.perf_counter()
    name = call.name if call.name in self.tools else UNKNOWN
    try:
      if call.error is not None:
        raise ModelError(call.error)
      tool = self.tools[name]
      query = await tool.query(call.arguments, context)
      if query.ask is None:
        result = ToolResult()
      elif self._kept:
        result = await self._known_or_made(tool, call, query, context.caller)
      else:
        result = await self._limiters[name].run(query.ask)
      result = await self._shown(result, query)
    except ModelError as error:
      result = ToolResult(
          status=ToolStatus.MODEL_ERROR, error=one_line(error)
      )
    except asyncio.CancelledError:
      self.counts.add(f'{name}/cancelled')
      raise
    except RunStopped:
      raise
    except Exception as error:
      result = self._limiters[name].failed(error)
    seconds = time.perf_counter() - started
    self.counts.add(f'{name}/{result.status}')
    self.counts.add(f'{name}/searches', result.n_searches)
    self.counts.add_latency(name, seconds)
    if self._recording is None:
      result = dataclasses.replace(result, latency_s=seconds)
    return result

  async def close(self) -> None:
    """Ends what is under way in this event loop, and loses nothing paid for.

    Calls that have been sent are waited for; none is sent any more.
    The executor may be used again, in another loop.
    """
    flights = list(self._flights.values())
    self._closing = True
    try:
      if flights:
        await asyncio.wait(flights, timeout=self._config.drain_s)
      for flight in flights:
        flight.cancel()
      await asyncio.gather(*flights, return_exceptions=True)
    finally:
      self._closing = False
      await close(self._toolbox.backends.values())

  async def _shown(self, result: ToolResult, query: Query) -> ToolResult:
    """What the policy gets of a result.

    What is kept is whole: how much is shown may change.
    """
    if result.status != ToolStatus.OK:
      return dataclasses.replace(result, raw=None, time='')
    cut = functools.partial(
        excerpts,
        result.hits,
        query.text,
        n_characters=self._config.hit_characters,
    )
    # Long texts take a moment, in which others go on.
    long = any(len(hit.text) > _LONG for hit in result.hits)
    return dataclasses.replace(
        result,
        hits=await asyncio.to_thread(cut) if long else cut(),
        view=query.view,
        n_searches=int(query.text is not None or query.image is not None),
        raw=None,
        time='',
    )

  async def _known_or_made(
      self, tool: Tool, call: ToolCall, query: Query, caller: str
  ) -> ToolResult:
    key = call_key(call, query, version=tool.version)
    recording = self._recording
    if recording is not None and recording.plays:
      self.counts.add(f'{call.name}/replayed')
      return await asyncio.to_thread(recording.play, key, call, query, caller)
    flight = self._flights.get(key)
    joined = flight is not None
    if flight is None:
      flight = asyncio.create_task(self._flight(key, call, query))
      self._flights[key] = flight
      flight.add_done_callback(lambda _: self._landed(key))
    # Whoever waits may be cancelled; the result is kept all the same.
    result = await asyncio.shield(flight)
    if recording is not None:
      await asyncio.to_thread(
          recording.put, key, call, query, result, caller
      )
    if joined and result.status != ToolStatus.INFRA_ERROR:
      self.counts.add(f'{call.name}/cached')
      return self._free(result)
    return result

  async def _flight(
      self, key: str, call: ToolCall, query: Query
  ) -> ToolResult:
    for number, kept in enumerate(self._kept):
      if result := await asyncio.to_thread(kept.get, key):
        self.counts.add(f'{call.name}/cached')
        result = self._free(result)
        missed = self._kept[:number]
        break
    else:
      assert query.ask is not None
      result = await self._limiters[call.name].run(query.ask)
      failed = result.status == ToolStatus.INFRA_ERROR
      missed = [] if failed else self._kept
    for kept in missed:
      await asyncio.to_thread(kept.put, key, call, query, result)
    return result

  def _free(self, result: ToolResult) -> ToolResult:
    """Nothing is paid for what is kept; a recording says what it cost then."""
    if self._recording is not None:
      return result
    return dataclasses.replace(result, price=0.0)

  def _landed(self, key: str) -> None:
    flight = self._flights.pop(key)
    if not flight.cancelled():
      flight.exception()  # Retrieved, lest asyncio complain if nobody waits.

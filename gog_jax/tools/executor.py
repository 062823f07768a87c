"""Runs tool calls on the host, side by side; every failure is data.

A result says whose fault a failure is. `model_error` is the policy's: a call
that was malformed, names no tool, breaks the tool's schema or makes no sense.
`infra_error` is everything else: the search raised, or ran out of time. What
may be gone soon is tried again, within the time that the call has.

A call is looked up, in this order: in a recording that is played, which holds
it or stops the run; in a recording that is made; in the cache; else it is
searched for. Equal calls that are under way at the same time are one search
where its answer is kept.
"""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
import dataclasses
import functools
import time

from absl import logging

from gog_jax.errors import RunStopped
from gog_jax.remote.secrets import redact
from gog_jax.remote.secrets import redact_traceback
from gog_jax.tools import recording as recording_lib
from gog_jax.tools.base import check_arguments
from gog_jax.tools.base import ModelError
from gog_jax.tools.base import one_line
from gog_jax.tools.base import Query
from gog_jax.tools.base import Tool
from gog_jax.tools.base import ToolContext
from gog_jax.tools.counts import ToolCounts
from gog_jax.tools.counts import UNKNOWN
from gog_jax.tools.excerpt import excerpts
from gog_jax.tools.outcome import call_key
from gog_jax.tools.outcome import Outcome
from gog_jax.tools.outcome import Store
from gog_jax.tools.recording import Recording
from gog_jax.tools.searcher import Charges
from gog_jax.tools.searcher import Searcher
from gog_jax.types import Reply
from gog_jax.types import ToolCall
from gog_jax.types import ToolResult
from gog_jax.types import ToolStatus

# Characters of a text that is cut to size in a thread.
_LONG = 50_000


class ToolExecutor:
  """Runs calls of a fixed set of tools and counts them."""

  def __init__(
      self,
      tools: Sequence[Tool],
      searcher: Searcher,
      *,
      hit_characters: int,
      cache: Store | None = None,
      recording: Recording | None = None,
      playing: bool = False,
      drain_s: float = 0.0,
  ):
    """Initialises the executor.

    Args:
      tools: What the policy may call, by their names.
      searcher: Makes the searches, within their limits; counts.
      hit_characters: How much of a document the policy is shown.
      cache: Answers of earlier runs.
      recording: Where searches are recorded, or
      playing: played from: then nothing is searched.
      drain_s: Seconds for which `close` waits for searches that are under way
        and whose answers are kept: they may have been paid for.
    """
    self.tools: dict[str, Tool] = {tool.name: tool for tool in tools}
    if len(self.tools) != len(tools):
      raise ValueError('two tools share a name')
    if playing and recording is None:
      raise ValueError('there is no recording to play')
    self.counts: ToolCounts = searcher.counts
    self.counts.expect([*self.tools, UNKNOWN])
    self._searcher = searcher
    self._recording = recording
    self._playing = playing
    self._stores = [one for one in (recording, cache) if one is not None]
    self._drain_s = drain_s
    self._hit_characters = hit_characters
    self._flights: dict[str, asyncio.Task[Outcome]] = {}
    self._warned: set[tuple[str, type]] = set()

  async def run_turn(
      self, calls: Sequence[ToolCall], context: ToolContext
  ) -> tuple[ToolResult, ...]:
    """Runs the calls of one turn side by side; results in call order.

    Raises:
      RunStopped: No call may be made any more.
    """
    # Not gather: a group that is cancelled also ends the calls it holds.
    try:
      async with asyncio.TaskGroup() as group:
        tasks = [
            group.create_task(
                self.run(
                    call,
                    dataclasses.replace(
                        context, caller=f'{context.caller}/{number}'
                    ),
                )
            )
            for number, call in enumerate(calls)
        ]
    except* RunStopped as errors:
      raise _first(errors) from None
    return tuple(task.result() for task in tasks)

  async def run(self, call: ToolCall, context: ToolContext) -> ToolResult:
    """Runs one call; its failure is a result.

    Raises:
      RunStopped: No call may be made any more.
    """
    started = time.perf_counter()
    name = call.name if call.name in self.tools else UNKNOWN
    try:
      result = await self._run(call, context)
    except asyncio.CancelledError:
      self.counts.add(name, 'cancelled')
      raise
    seconds = time.perf_counter() - started
    self.counts.add(name, result.status.value)
    self.counts.add(name, 'searches', result.n_searches)
    self.counts.add_latency(name, seconds)
    if self._recording is None:
      result = dataclasses.replace(result, latency_s=seconds)
    return result

  async def close(self) -> None:
    """Ends what is under way in this event loop, and loses nothing paid for.

    Searches that have been sent are waited for; none is sent any more.
    The executor may be used again, in another loop.
    """
    flights = list(self._flights.values())
    self._searcher.begin_to_close()
    try:
      if flights:
        await asyncio.wait(flights, timeout=self._drain_s)
      for flight in flights:
        flight.cancel()
      await asyncio.gather(*flights, return_exceptions=True)
    finally:
      await self._searcher.close()

  def metrics(self) -> dict[str, float]:
    """`ToolCounts.totals` since the executor's counts were made."""
    return self.counts.totals()

  async def _run(self, call: ToolCall, context: ToolContext) -> ToolResult:
    if call.error is not None:
      return _failed(ToolStatus.MODEL_ERROR, call.error)
    tool = self.tools.get(call.name)
    if tool is None:
      known = ', '.join(self.tools)
      return _failed(
          ToolStatus.MODEL_ERROR, f'no tool {call.name!r}, only {known}'
      )
    try:
      check_arguments(call.arguments, tool.parameters)
      query = await tool.query(call.arguments, context)
      outcome = await self._outcome(call, query, context.caller)
    except ModelError as error:
      return _failed(ToolStatus.MODEL_ERROR, error)
    except RunStopped:
      raise
    except Exception as error:
      self._warn_once(call.name, error)
      return _failed(ToolStatus.INFRA_ERROR, _words(call.name, error))
    result = outcome.result(query)
    # What is kept is whole: how much is shown may change. Long texts take a
    # moment, in which others go on.
    shown = functools.partial(
        excerpts, result.hits, query.text, n_characters=self._hit_characters
    )
    long = any(len(hit.text) > _LONG for hit in result.hits)
    hits = await asyncio.to_thread(shown) if long else shown()
    return dataclasses.replace(result, hits=hits)

  async def _outcome(
      self, call: ToolCall, query: Query, caller: str
  ) -> Outcome:
    """What is known of a call, or comes of a search."""
    if not self._stores:
      return await self._search(call, query)
    key = call_key(call, query, backend=self._searcher.version)
    if self._playing:
      assert self._recording is not None
      self.counts.add(call.name, 'replayed')
      return await asyncio.to_thread(
          self._recording.play, key, call, query, caller
      )
    flight = self._flights.get(key)
    joined = flight is not None
    if flight is None:
      flight = asyncio.create_task(self._known_or_found(key, call, query))
      self._flights[key] = flight
      flight.add_done_callback(lambda _: self._landed(key))
    # Whoever waits may be cancelled; the answer is kept all the same.
    outcome = await asyncio.shield(flight)
    if self._recording is not None:
      await asyncio.to_thread(
          self._recording.settle, key, call, query, outcome, caller
      )
    if joined and outcome.status == ToolStatus.OK:
      self.counts.add(call.name, 'cached')
      return self._free(outcome)
    return outcome

  def _free(self, outcome: Outcome) -> Outcome:
    """Of an answer that was there: now it costs nothing.

    But in a recording, which tells everyone what it cost then.
    """
    if self._recording is not None:
      return outcome
    return dataclasses.replace(outcome, price=0.0)

  def _landed(self, key: str) -> None:
    flight = self._flights.pop(key)
    if not flight.cancelled():
      flight.exception()  # Retrieved, lest asyncio complain if nobody waits.

  async def _known_or_found(
      self, key: str, call: ToolCall, query: Query
  ) -> Outcome:
    for number, store in enumerate(self._stores):
      outcome = await asyncio.to_thread(store.get, key)
      if outcome is not None:
        self.counts.add(call.name, 'cached')
        outcome = self._free(outcome)
        missed = self._stores[:number]
        break
    else:
      outcome = dataclasses.replace(
          await self._search(call, query), time=recording_lib.now()
      )
      missed = self._stores if outcome.status == ToolStatus.OK else []
    for store in missed:
      await asyncio.to_thread(store.put, key, call, query, outcome)
    return outcome

  async def _search(self, call: ToolCall, query: Query) -> Outcome:
    """One search, within its limits; its failure is an outcome.

    Raises:
      RunStopped: It must not be made.
    """
    started = time.perf_counter()
    spent = Charges()
    try:
      reply = await self._searcher.search(call.name, query, spent)
    except RunStopped:
      raise
    except Exception as error:
      self._warn_once(call.name, error)
      outcome = Outcome(
          status=ToolStatus.INFRA_ERROR, error=_words(call.name, error)
      )
    else:
      outcome = _without_secrets(reply)
    return dataclasses.replace(
        outcome,
        price=spent.price,
        latency_s=time.perf_counter() - started,
    )

  def _warn_once(self, name: str, error: Exception) -> None:
    """Keeps the traceback of the first failure of a kind: it may be a bug."""
    if (name, type(error)) not in self._warned:
      self._warned.add((name, type(error)))
      logging.warning('%s failed\n%s', name, redact_traceback(error))


def _without_secrets(reply: Reply) -> Outcome:
  """A server may repeat the key that it was sent: it goes no further."""
  return Outcome(
      status=ToolStatus.OK,
      hits=tuple(
          dataclasses.replace(
              hit, title=redact(hit.title), text=redact(hit.text)
          )
          for hit in reply.hits
      ),
      raw=None if reply.raw is None else redact(reply.raw),
  )


def _first(errors: BaseExceptionGroup) -> BaseException:
  error: BaseException = errors
  while isinstance(error, BaseExceptionGroup):
    error = error.exceptions[0]
  return error


def _words(name: str, error: Exception) -> str:
  what = f'{type(error).__name__}: {error}'.removesuffix(': ')
  return one_line(f'{name} failed: {what}')


def _failed(status: ToolStatus, error: object) -> ToolResult:
  return ToolResult(status=status, error=one_line(error))

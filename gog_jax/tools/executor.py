"""Runs tool calls on the host, side by side; every failure is data.

A result says whose fault a failure is. `model_error` is the policy's: a call
that was malformed, names no tool, breaks the tool's schema or makes no sense.
`infra_error` is everything else: the tool raised, or ran out of time. What may
be gone soon is tried again, within the time that the call has.
"""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
import dataclasses
import time

from absl import logging
import tenacity

from gog_jax.tools.base import check_arguments
from gog_jax.tools.base import ModelError
from gog_jax.tools.base import one_line
from gog_jax.tools.base import Tool
from gog_jax.tools.base import ToolContext
from gog_jax.tools.base import TransientError
from gog_jax.types import ToolCall
from gog_jax.types import ToolResult
from gog_jax.types import ToolStatus

# What calls to tools that do not exist are counted under: policies invent
# names without end.
_UNKNOWN = 'unknown'

# Failures after which a call is tried again.
_TRANSIENT = (TransientError, ConnectionError, TimeoutError)


class ToolExecutor:
  """Runs calls of a fixed set of tools and counts them."""

  def __init__(
      self,
      tools: Sequence[Tool],
      *,
      timeout_s: float,
      max_concurrency: int,
      max_attempts: int,
      backoff_s: float,
  ):
    """Initialises the executor.

    Args:
      tools: What the policy may call, by their names.
      timeout_s: Seconds one call may run, all its attempts and the waits
        between them, not counting its wait for a turn.
      max_concurrency: Calls of one tool that run at once.
      max_attempts: How often a call is tried whose failure may be gone soon.
      backoff_s: Before the n-th attempt after the first it waits between 0 and
        backoff_s * 2**(n - 1) seconds, at random, so that calls that failed
        together do not come back together; and as long as it was asked to.
    """
    self.tools: dict[str, Tool] = {tool.name: tool for tool in tools}
    if len(self.tools) != len(tools):
      raise ValueError('two tools share a name')
    if timeout_s <= 0 or max_concurrency < 1:
      raise ValueError('timeout_s and max_concurrency must be positive')
    if backoff_s < 0 or max_attempts < 1:
      raise ValueError('max_attempts must be positive, backoff_s not negative')
    self._timeout_s = timeout_s
    self._max_concurrency = max_concurrency
    self._max_attempts = max_attempts
    self._jitter = tenacity.wait_random_exponential(multiplier=backoff_s)
    self._counts: dict[str, dict[str, float]] = {
        name: dict.fromkeys(
            [status.value for status in ToolStatus]
            + ['cancelled', 'retries', 'searches', 'seconds', 'price'],
            0,
        )
        for name in [*self.tools, _UNKNOWN]
    }
    self._loop: asyncio.AbstractEventLoop | None = None
    self._slots: dict[str, asyncio.Semaphore] = {}
    self._warned: set[tuple[str, type]] = set()

  async def run_turn(
      self, calls: Sequence[ToolCall], context: ToolContext
  ) -> tuple[ToolResult, ...]:
    """Runs the calls of one turn side by side; results in call order."""
    # Not gather: a group that is cancelled also ends the calls it holds.
    async with asyncio.TaskGroup() as group:
      tasks = [group.create_task(self.run(call, context)) for call in calls]
    return tuple(task.result() for task in tasks)

  async def run(self, call: ToolCall, context: ToolContext) -> ToolResult:
    """Runs one call. Its failure is a result; only cancellation is raised."""
    started = time.perf_counter()
    counts = self._counts[call.name if call.name in self.tools else _UNKNOWN]
    try:
      result = await self._run(call, context)
    except asyncio.CancelledError:
      counts['cancelled'] += 1
      raise
    seconds = time.perf_counter() - started
    counts[result.status.value] += 1
    counts['searches'] += result.n_searches
    counts['seconds'] += seconds
    counts['price'] += result.price
    return dataclasses.replace(result, latency_s=seconds)

  def metrics(self) -> dict[str, float]:
    """Totals since the executor was made, as 'tool/what'.

    `ok`, `model_error`, `infra_error` and `cancelled` add up to the calls;
    `retries` are attempts after a call's first, `searches` sub-queries that
    came back, `seconds` wall time including the wait for a turn, `price` US
    dollars. Calls to tools that do not exist are those of 'unknown'.
    """
    return {
        f'{tool}/{what}': value
        for tool, counts in self._counts.items()
        for what, value in counts.items()
    }

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
      return await self._within_limits(tool, call, context)
    except ModelError as error:
      return _failed(ToolStatus.MODEL_ERROR, error)
    except Exception as error:
      self._warn_once(call.name, error)
      what = f'{type(error).__name__}: {error}'.removesuffix(': ')
      return _failed(ToolStatus.INFRA_ERROR, f'{call.name} failed: {what}')

  async def _within_limits(
      self, tool: Tool, call: ToolCall, context: ToolContext
  ) -> ToolResult:
    """Runs the tool in its turn and within its time.

    At the deadline the call is abandoned, not awaited: a backend that is slow
    to die must not hold up the rollout. It keeps its slot until it is really
    gone, so that no more than max_concurrency ever run.

    Raises:
      TimeoutError: The deadline has passed.
    """
    slots = self._slots_of(tool.name)
    await slots.acquire()
    task = asyncio.create_task(self._until_it_works(tool, call, context))

    def gone(task: asyncio.Task) -> None:
      slots.release()
      if not task.cancelled():
        task.exception()  # Retrieved, lest asyncio complain of abandoned ones.

    task.add_done_callback(gone)
    try:
      await asyncio.wait([task], timeout=self._timeout_s)
    finally:
      in_time = task.done()
      task.cancel()
    if not in_time:
      raise TimeoutError(f'no reply within {self._timeout_s:g} s')
    if task.cancelled():  # By the tool itself: nobody cancelled us.
      raise RuntimeError('the call was cancelled')
    return task.result()

  async def _until_it_works(
      self, tool: Tool, call: ToolCall, context: ToolContext
  ) -> ToolResult:
    """Tries again what may work soon, if there is time to wait for it.

    Raises:
      Exception: What the last attempt raised.
    """

    def wait(state: tenacity.RetryCallState) -> float:
      error = state.outcome.exception() if state.outcome else None
      asked = error.retry_after_s if isinstance(error, TransientError) else 0
      return asked + self._jitter(state)

    attempts = tenacity.AsyncRetrying(
        retry=tenacity.retry_if_exception_type(_TRANSIENT),
        stop=tenacity.stop_any(
            tenacity.stop_after_attempt(self._max_attempts),
            tenacity.stop_before_delay(self._timeout_s),
        ),
        wait=wait,
        reraise=True,
    )
    async for attempt in attempts:
      if attempt.retry_state.attempt_number > 1:
        self._counts[tool.name]['retries'] += 1
      with attempt:
        return await tool(call.arguments, context)
    raise AssertionError('tenacity reraises')  # For type checkers.

  def _slots_of(self, name: str) -> asyncio.Semaphore:
    # Semaphores belong to one event loop, and every rollout runs its own.
    loop = asyncio.get_running_loop()
    if loop is not self._loop:
      self._loop = loop
      self._slots = {
          tool: asyncio.Semaphore(self._max_concurrency) for tool in self.tools
      }
    return self._slots[name]

  def _warn_once(self, name: str, error: Exception) -> None:
    """Keeps the traceback of the first failure of a kind: it may be a bug."""
    if (name, type(error)) not in self._warned:
      self._warned.add((name, type(error)))
      logging.warning('%s failed', name, exc_info=error)


def _failed(status: ToolStatus, error: object) -> ToolResult:
  return ToolResult(status=status, error=one_line(error))

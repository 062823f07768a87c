"""Runs one tool's calls within limits: turns, time, attempts, rest, money."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
import dataclasses
import datetime
import functools
import time

from absl import logging

from gog_jax.config.tools import ToolLimits
from gog_jax.config.tools import ToolsConfig
from gog_jax.errors import RunStopped
from gog_jax.remote import retries
from gog_jax.remote.ledger import charged
from gog_jax.remote.secrets import redact_all
from gog_jax.remote.secrets import redact_traceback
from gog_jax.storage import heartbeat
from gog_jax.tools.base import one_line
from gog_jax.tools.base import SearchError
from gog_jax.tools.base import Tool
from gog_jax.tools.breaker import Breaker
from gog_jax.tools.toolbox import Toolbox
from gog_jax.types import ToolResult
from gog_jax.types import ToolStatus

Ask = Callable[[], Awaitable[ToolResult]]


def tool_limits(tool: Tool, config: ToolsConfig) -> ToolLimits:
  """The limits that hold for a tool."""
  own = config.limits.get(tool.name, tool.limits)
  return ToolLimits(
      timeout_s=own.timeout_s or config.timeout_s,
      max_concurrency=own.max_concurrency or config.max_concurrency,
      price=0.0 if config.mode == 'replay' else own.price,
  )


class Limiter:
  """Runs the calls of one tool.

  Attributes:
    limits: A call may take `timeout_s` with all its attempts and the waits
      between them, but without its wait for a slot.
  """

  def __init__(
      self,
      tool: Tool,
      config: ToolsConfig,
      toolbox: Toolbox,
      *,
      stopped: Callable[[], bool],
  ):
    """Initialises the limiter.

    Args:
      tool: Whose calls these are.
      config: With its limits.
      toolbox: Where calls are counted and charged, and services rest.
      stopped: Whether no attempt may be begun any more.
    """
    self.limits = tool_limits(tool, config)
    if toolbox.ledger is None and self.limits.price:
      raise ValueError('calls that cost money need a ledger')
    self._tool, self._config = tool.name, config
    self._toolbox = toolbox
    service = tool.version
    self._breaker = toolbox.breakers.setdefault(
        service,
        Breaker(service, failures=config.rest_after, rest_s=config.rest_s),
    )
    self._stopped = stopped
    # Semaphores belong to one event loop, and every rollout runs its own.
    self._slots_of = functools.lru_cache(maxsize=1)(
        lambda unused_loop: asyncio.Semaphore(self.limits.max_concurrency)
    )
    self._warned: set[type] = set()

  async def run(self, ask: Ask) -> ToolResult:
    """Asks in its turn and within its time; a failure is a result.

    At the deadline the call is abandoned, not awaited: a service that is slow
    to die must not hold up the rollout. It keeps its slot until it is really
    gone, so that no more than max_concurrency ever run.

    Raises:
      RunStopped: It would cost more than the run may spend.
    """
    started = time.perf_counter()
    spent = 0.0
    limits, counts = self.limits, self._toolbox.counts
    retrying = retries.retrying(
        max_attempts=self._config.max_attempts,
        timeout_s=limits.timeout_s,
        backoff_s=self._config.backoff_s,
        stopped=self._stopped,
    )

    def spend(dollars: float) -> None:
      nonlocal spent
      spent += dollars
      counts.add(f'{self._tool}/price', dollars)

    async def attempt() -> ToolResult:
      self._refuse_if_stopped()
      if retrying.statistics['attempt_number'] > 1:
        counts.add(f'{self._tool}/retries')
      await self._breaker.wait(ends)
      self._refuse_if_stopped()
      charge = charged(self._toolbox.ledger, self._tool, limits.price, spend)
      with charge, self._breaker.attempt():
        return await ask()

    slots = self._slots_of(asyncio.get_running_loop())
    await slots.acquire()
    ends = time.monotonic() + limits.timeout_s
    task = asyncio.create_task(retrying(attempt))

    def gone(task: asyncio.Task) -> None:
      slots.release()
      if not task.cancelled():
        task.exception()  # Retrieved, lest asyncio complain of abandoned ones.

    task.add_done_callback(gone)
    try:
      with heartbeat.doing(f'waiting for {self._tool}'):
        await asyncio.wait([task], timeout=limits.timeout_s)
    finally:
      in_time = task.done()
      task.cancel()
    try:
      if not in_time:
        raise TimeoutError(f'no reply within {limits.timeout_s:g} s')
      if task.cancelled():  # By the service itself: nobody cancelled us.
        raise RuntimeError('the call was cancelled')
      result = task.result()
      if not isinstance(result, ToolResult):
        raise TypeError(f'{type(result).__name__} in place of a ToolResult')
      result = redact_all(result)  # A server may repeat the key it was sent.
    except RunStopped:
      raise
    except Exception as error:
      result = self.failed(error)
    now = datetime.datetime.now(datetime.UTC)
    return dataclasses.replace(
        result,
        price=spent,
        latency_s=time.perf_counter() - started,
        time=now.isoformat(timespec='milliseconds'),
    )

  def failed(self, error: Exception) -> ToolResult:
    """The result of a call that the infrastructure failed."""
    if type(error) not in self._warned:  # The first of a kind may be a bug.
      self._warned.add(type(error))
      expected = isinstance(error, SearchError)  # Which says all there is.
      trace = one_line(error) if expected else redact_traceback(error)
      logging.warning('%s failed\n%s', self._tool, trace)
    what = f'{type(error).__name__}: {error}'.removesuffix(': ')
    return ToolResult(
        status=ToolStatus.INFRA_ERROR,
        error=one_line(f'{self._tool} failed: {what}'),
    )

  def _refuse_if_stopped(self) -> None:
    if self._stopped():
      raise SearchError('the run is ending', billed=False)

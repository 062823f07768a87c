"""Runs one tool's calls within limits: turns, time, attempts, rest, money."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Iterator
import contextlib
import dataclasses
import datetime
import functools
import itertools
import time

from absl import logging
import circuitbreaker

from gog_jax.errors import RunStopped
from gog_jax.remote import retries
from gog_jax.remote.ledger import charged
from gog_jax.remote.ledger import Ledger
from gog_jax.remote.secrets import redact
from gog_jax.remote.secrets import redact_traceback
from gog_jax.tools.base import one_line
from gog_jax.tools.base import SearchBackend
from gog_jax.tools.base import SearchError
from gog_jax.tools.base import Tool
from gog_jax.tools.counts import ToolCounts
from gog_jax.tools.record import Kept
from gog_jax.tools.recording import Recording
from gog_jax.types import ToolResult
from gog_jax.types import ToolStatus

Ask = Callable[[], Awaitable[ToolResult]]

# How often a call looks whether a resting service may be asked again.
_POLL_S = 0.1


@dataclasses.dataclass(frozen=True, kw_only=True)
class Limits:
  """Of one tool.

  Attributes:
    timeout_s: Seconds one call may run, with all its attempts and the waits
      between them, but without its wait for a turn.
    max_concurrency: Calls that run at once.
    price: Of one attempt, in US dollars.
    max_attempts: First one included; see `retries.retrying`.
    backoff_s: Likewise.
  """

  timeout_s: float
  max_concurrency: int
  price: float = 0.0
  max_attempts: int = 1
  backoff_s: float = 0.0


class Breaker:
  """Leaves a service alone after too many failed attempts in a row.

  Then one attempt probes whether the others may follow.
  """

  def __init__(self, service: str, *, failures: int, rest_s: float):
    """Initialises the breaker.

    Args:
      service: Its name, for messages.
      failures: In a row, that open the breaker.
      rest_s: Seconds before a probe.
    """
    self._service = service
    self._failures = failures
    self._breaker = circuitbreaker.CircuitBreaker(
        failure_threshold=failures,
        recovery_timeout=rest_s,  # type: ignore[arg-type]
        # A cancelled attempt has, except at a run's end, taken too long.
        expected_exception=lambda _, error: (
            retries.is_transient(error)
            or isinstance(error, asyncio.CancelledError)
        ),
        name=service,
    )
    self._probing = False

  async def wait(self, ends: float) -> None:
    """Waits while the service rests.

    Raises:
      SearchError: It rests beyond `ends`, by time.monotonic().
    """
    while self._breaker.opened or self._probing:
      rest_s = max(self._breaker.open_remaining, 0)  # Whole seconds.
      if time.monotonic() + rest_s > ends:
        raise SearchError(
            f'{self._service} rests after {self._failures} failures',
            billed=False,
        )
      await asyncio.sleep(_POLL_S)

  @contextlib.contextmanager
  def attempt(self) -> Iterator[None]:
    """Notes how the attempt inside comes out."""
    probes = self._breaker.state == circuitbreaker.STATE_HALF_OPEN
    self._probing |= probes
    try:
      with self._breaker:
        yield
    finally:
      if probes:
        self._probing = False


@dataclasses.dataclass(kw_only=True)
class Shared:
  """What all executors of a run share.

  Attributes:
    failures: Failed attempts in a row after which a service rests.
    rest_s: Seconds that it rests.
    backend: What is searched; None if the tools search nothing.
    counts: Of calls.
    ledger: Where spending is written down, if anything costs.
    cache: Results of earlier runs.
    recording: Where calls are recorded, or replayed from: then none is made.
    drain_s: Seconds for which `ToolExecutor.close` waits for calls that are
      under way and whose results are kept: they may have been paid for.
  """

  failures: int
  rest_s: float
  backend: SearchBackend | None = None
  counts: ToolCounts = dataclasses.field(default_factory=ToolCounts)
  ledger: Ledger | None = None
  cache: Kept | None = None
  recording: Recording | None = None
  drain_s: float = 0.0

  def __post_init__(self):
    self.breaker = functools.cache(  # The one of a service.
        functools.partial(Breaker, failures=self.failures, rest_s=self.rest_s)
    )


class Limiter:
  """Runs the calls of one tool.

  Attributes:
    closing: While it is True, no attempt is begun.
  """

  def __init__(self, tool: Tool, limits: Limits, shared: Shared):
    if shared.ledger is None and limits.price:
      raise ValueError('calls that cost money need a ledger')
    self.closing = False
    self._tool = tool.name
    self._limits = limits
    self._breaker = shared.breaker(tool.version)
    self._counts = shared.counts
    self._ledger = shared.ledger
    self._loop: asyncio.AbstractEventLoop | None = None
    self._slots = asyncio.Semaphore()
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

    def spend(dollars: float) -> None:
      nonlocal spent
      spent += dollars
      self._counts.add(f'{self._tool}/price', dollars)

    def refuse_at_end() -> None:
      if self.closing:
        raise SearchError('the run is ending', billed=False)

    async def attempt() -> ToolResult:
      refuse_at_end()
      if next(numbers) > 1:
        self._counts.add(f'{self._tool}/retries')
      await self._breaker.wait(ends)
      refuse_at_end()
      charge = charged(self._ledger, self._tool, c.price, spend)
      with charge, self._breaker.attempt():
        return await ask()

    c = self._limits
    attempts = retries.retrying(
        max_attempts=c.max_attempts,
        timeout_s=c.timeout_s,
        backoff_s=c.backoff_s,
        stopped=lambda: self.closing,
    )
    numbers = itertools.count(1)
    slots = self._slots_of_this_loop()
    await slots.acquire()
    ends = time.monotonic() + c.timeout_s
    task = asyncio.create_task(attempts(attempt))

    def gone(task: asyncio.Task) -> None:
      slots.release()
      if not task.cancelled():
        task.exception()  # Retrieved, lest asyncio complain of abandoned ones.

    task.add_done_callback(gone)
    try:
      await asyncio.wait([task], timeout=c.timeout_s)
    finally:
      in_time = task.done()
      task.cancel()
    try:
      if not in_time:
        raise TimeoutError(f'no reply within {c.timeout_s:g} s')
      if task.cancelled():  # By the service itself: nobody cancelled us.
        raise RuntimeError('the call was cancelled')
      result = _without_secrets(task.result())
    except RunStopped:
      raise
    except Exception as error:
      self.warn_once(error)
      result = failed(self._tool, error)
    now = datetime.datetime.now(datetime.UTC)
    return dataclasses.replace(
        result,
        price=spent,
        latency_s=time.perf_counter() - started,
        time=now.isoformat(timespec='milliseconds'),
    )

  def warn_once(self, error: Exception) -> None:
    """Keeps the traceback of the first failure of a kind: it may be a bug."""
    if type(error) not in self._warned:
      self._warned.add(type(error))
      logging.warning('%s failed\n%s', self._tool, redact_traceback(error))

  def _slots_of_this_loop(self) -> asyncio.Semaphore:
    # Semaphores belong to one event loop, and every rollout runs its own.
    loop = asyncio.get_running_loop()
    if loop is not self._loop:
      self._loop = loop
      self._slots = asyncio.Semaphore(self._limits.max_concurrency)
    return self._slots


def failed(tool: str, error: Exception) -> ToolResult:
  """The result of a call that failed because of the infrastructure."""
  what = f'{type(error).__name__}: {error}'.removesuffix(': ')
  return ToolResult(
      status=ToolStatus.INFRA_ERROR, error=one_line(f'{tool} failed: {what}')
  )


def _without_secrets(result: ToolResult) -> ToolResult:
  """A server may repeat the key that it was sent: it goes no further."""
  if not isinstance(result, ToolResult):
    raise TypeError(f'{type(result).__name__} in place of a ToolResult')
  return dataclasses.replace(
      result,
      hits=tuple(
          dataclasses.replace(
              hit, title=redact(hit.title), text=redact(hit.text)
          )
          for hit in result.hits
      ),
      parts=tuple(
          redact(part) if isinstance(part, str) else part
          for part in result.parts
      ),
      raw=None if result.raw is None else redact(result.raw),
  )

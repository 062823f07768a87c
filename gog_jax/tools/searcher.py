"""One backend, asked within limits: turns, time, attempts, rest and money."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping
import dataclasses
import time

import circuitbreaker

from gog_jax.remote import retries
from gog_jax.remote.ledger import Ledger
from gog_jax.tools.base import Query
from gog_jax.tools.base import SearchBackend
from gog_jax.tools.base import SearchError
from gog_jax.tools.base import TransientError
from gog_jax.tools.counts import ToolCounts
from gog_jax.types import Reply

# Failures after which a search is tried again.
_TRANSIENT = (TransientError, ConnectionError, TimeoutError)


# How often a call that waits for a resting backend looks after it.
_POLL_S = 0.1


@dataclasses.dataclass(frozen=True, kw_only=True)
class ToolLimits:
  """Of one tool.

  Attributes:
    timeout_s: Seconds one call may run, all its attempts and the waits
      between them, not counting its wait for a turn.
    max_concurrency: Calls that run at once.
    price: Of one attempt, in US dollars.
  """

  timeout_s: float
  max_concurrency: int
  price: float = 0.0

  def __post_init__(self):
    if self.timeout_s <= 0 or self.max_concurrency < 1 or self.price < 0:
      raise ValueError(
          'timeout_s and max_concurrency must be positive, price not negative'
      )


@dataclasses.dataclass(frozen=True, kw_only=True)
class Patience:
  """When a search is tried again, and when its backend is left alone.

  Attributes:
    max_attempts: How often a search is tried whose failure may be gone soon.
    backoff_s: Before the n-th attempt after the first it waits between 0 and
      backoff_s * 2**(n - 1) seconds, at random, so that calls that failed
      together do not come back together; and as long as it was asked to.
    failures: Failed attempts in a row after which the backend rests: nothing
      is asked of it
    rest_s: for so many seconds, and then one search, which says whether the
      others may follow. Calls wait as long, if they have the time.
  """

  max_attempts: int
  backoff_s: float
  failures: int = 20
  rest_s: float = 3.0

  def __post_init__(self):
    if self.max_attempts < 1 or self.failures < 1:
      raise ValueError('max_attempts and failures must be positive')
    if self.backoff_s < 0 or self.rest_s <= 0:
      raise ValueError('rest_s must be positive, backoff_s not negative')


@dataclasses.dataclass
class Charges:
  """What one search has cost so far, in US dollars: kept even if it fails."""

  price: float = 0.0


class Searcher:
  """Makes the searches of a run."""

  def __init__(
      self,
      backend: SearchBackend,
      *,
      limits: Mapping[str, ToolLimits],
      patience: Patience,
      counts: ToolCounts,
      ledger: Ledger | None = None,
  ):
    """Initialises the searcher.

    Args:
      backend: What is searched.
      limits: By the tool that asks.
      patience: How often it tries again, and when it rests.
      counts: Where attempts and dollars are counted.
      ledger: Where they are written down, if a search costs any.
    """
    if ledger is None and any(limit.price for limit in limits.values()):
      raise ValueError('searches that cost money need a ledger')
    self.counts = counts
    self._backend = backend
    self._limits = limits
    self._patience = patience
    self._ledger = ledger
    self._breaker = circuitbreaker.CircuitBreaker(
        failure_threshold=patience.failures,
        recovery_timeout=patience.rest_s,
        # Who is cancelled has, but for the end of a run, waited too long.
        expected_exception=(*_TRANSIENT, asyncio.CancelledError),
        name=backend.version,
    )
    self._probing = False
    self._closing = False
    self._loop: asyncio.AbstractEventLoop | None = None
    self._slots: dict[str, asyncio.Semaphore] = {}

  @property
  def version(self) -> str:
    return self._backend.version

  def begin_to_close(self) -> None:
    """Until `close` no search is begun and none is tried again."""
    self._closing = True

  async def close(self) -> None:
    """Gives back what belongs to this event loop; another may follow."""
    self._closing = False
    await self._backend.close()

  async def search(self, tool: str, query: Query, charges: Charges) -> Reply:
    """Searches in its turn and within its time, which begins with its turn.

    At the deadline the search is abandoned, not awaited: a backend that is slow
    to die must not hold up the rollout. It keeps its slot until it is really
    gone, so that no more than max_concurrency ever run.

    Raises:
      TimeoutError: The deadline has passed.
      SearchError: The run was ending before its turn came.
      RunStopped: It would cost more than the run may spend.
      Exception: What the last attempt raised.
    """
    slots = self._slots_of(tool)
    await slots.acquire()
    if self._closing:
      slots.release()
      raise SearchError('the run is ending', billed=False)
    task = asyncio.create_task(self._until_it_works(tool, query, charges))

    def gone(task: asyncio.Task) -> None:
      slots.release()
      if not task.cancelled():
        task.exception()  # Retrieved, lest asyncio complain of abandoned ones.

    task.add_done_callback(gone)
    timeout_s = self._limits[tool].timeout_s
    try:
      await asyncio.wait([task], timeout=timeout_s)
    finally:
      in_time = task.done()
      task.cancel()
    if not in_time:
      raise TimeoutError(f'no reply within {timeout_s:g} s')
    if task.cancelled():  # By the backend itself: nobody cancelled us.
      raise RuntimeError('the call was cancelled')
    return task.result()

  async def _until_it_works(
      self, tool: str, query: Query, charges: Charges
  ) -> Reply:
    """Tries again what may work soon, if there is time to wait for it."""
    timeout_s = self._limits[tool].timeout_s
    ends = time.monotonic() + timeout_s
    attempts = retries.attempts(
        _TRANSIENT,
        max_attempts=self._patience.max_attempts,
        timeout_s=timeout_s,
        backoff_s=self._patience.backoff_s,
        stopped=lambda: self._closing,
    )
    async for attempt in attempts:
      if attempt.retry_state.attempt_number > 1:
        self.counts.add(tool, 'retries')
      with attempt:
        await self._rested(ends)
        return await self._attempt(tool, query, charges)
    raise AssertionError('tenacity reraises')  # For type checkers.

  async def _rested(self, ends: float) -> None:
    """Waits while the backend is left alone.

    Raises:
      SearchError: That takes longer than there is time.
    """
    while self._breaker.opened or self._probing:
      rest_s = max(self._breaker.open_remaining, 0)  # Whole seconds.
      if time.monotonic() + rest_s > ends:
        raise SearchError(
            f'{self.version} rests after {self._patience.failures} failures',
            billed=False,
        )
      await asyncio.sleep(_POLL_S)

  async def _attempt(self, tool: str, query: Query, charges: Charges) -> Reply:
    self._charge(tool, charges)
    probes = self._breaker.state == circuitbreaker.STATE_HALF_OPEN
    self._probing |= probes
    try:
      with self._breaker:
        return await self._ask(query)
    except SearchError as error:
      if not error.billed:
        self._charge(tool, charges, back=True)
      raise
    finally:
      if probes:
        self._probing = False

  async def _ask(self, query: Query) -> Reply:
    if query.image is not None:
      return await self._backend.search_image(
          query.image, scope=query.scope, top_k=query.top_k
      )
    assert query.text is not None
    return await self._backend.search_text(
        query.text, scope=query.scope, top_k=query.top_k
    )

  def _charge(self, tool: str, charges: Charges, *, back: bool = False) -> None:
    price = self._limits[tool].price
    if not price or self._ledger is None:
      return
    if back:
      self._ledger.take_back(tool, price)
    else:
      self._ledger.charge(tool, price)
    signed = -price if back else price
    charges.price += signed
    self.counts.add(tool, 'price', signed)

  def _slots_of(self, tool: str) -> asyncio.Semaphore:
    # Semaphores belong to one event loop, and every rollout runs its own.
    loop = asyncio.get_running_loop()
    if loop is not self._loop:
      self._loop = loop
      self._slots = {
          name: asyncio.Semaphore(limit.max_concurrency)
          for name, limit in self._limits.items()
      }
    return self._slots[tool]

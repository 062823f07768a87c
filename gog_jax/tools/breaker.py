"""Leaves a service alone after too many failed attempts in a row."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator
import contextlib
import time

from gog_jax.remote import retries
from gog_jax.tools.base import SearchError

# How often a call looks whether a resting service may be asked again.
_POLL_S = 0.1


class Breaker:
  """After a rest, one attempt probes whether the others may follow."""

  def __init__(self, service: str, *, failures: int, rest_s: float):
    """Initialises the breaker.

    Args:
      service: Its name, for messages.
      failures: In a row, that open the breaker.
      rest_s: Seconds before a probe.
    """
    self._service = service
    self._failures, self._rest_s = failures, rest_s
    self._n_failed = 0  # In a row.
    self._rests_until = 0.0
    self._probing = False

  async def wait(self, ends: float) -> None:
    """Waits while the service rests.

    Raises:
      SearchError: It rests beyond `ends`, by time.monotonic().
    """
    while self._is_open:
      now = time.monotonic()
      if now >= self._rests_until and not self._probing:
        return
      if max(now, self._rests_until) > ends:
        raise SearchError(
            f'{self._service} rests after {self._failures} failures',
            billed=False,
        )
      await asyncio.sleep(_POLL_S)

  @contextlib.contextmanager
  def attempt(self) -> Iterator[None]:
    """Notes how the attempt inside comes out."""
    probes = self._is_open
    self._probing |= probes
    failed = False
    try:
      yield
    except BaseException as error:
      # A cancelled attempt has, except at a run's end, taken too long.
      cancelled = isinstance(error, asyncio.CancelledError)
      failed = cancelled or retries.is_transient(error)
      raise
    finally:
      self._n_failed = self._n_failed + 1 if failed else 0
      if failed:
        self._rests_until = time.monotonic() + self._rest_s
      if probes:
        self._probing = False

  @property
  def _is_open(self) -> bool:
    return self._n_failed >= self._failures

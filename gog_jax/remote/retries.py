"""How often, and after how long, what failed is tried again."""

from __future__ import annotations

from collections.abc import Callable

import tenacity


def attempts(
    transient: type[Exception] | tuple[type[Exception], ...],
    *,
    max_attempts: int,
    timeout_s: float,
    backoff_s: float,
    stopped: Callable[[], bool] = lambda: False,
) -> tenacity.AsyncRetrying:
  """Attempts, for `async for`; what the last one raises is raised.

  Args:
    transient: Failures after which it is tried again. One that has a
      `retry_after_s` is left alone for so many seconds.
    max_attempts: At most.
    timeout_s: It is not tried again where the wait would end after this.
    backoff_s: Before the n-th attempt after the first it waits between 0 and
      backoff_s * 2**(n - 1) seconds, at random, beside what it was asked to.
    stopped: Whether nothing is tried again any more.
  """
  jitter = tenacity.wait_random_exponential(multiplier=backoff_s)
  too_much = tenacity.stop_any(
      tenacity.stop_after_attempt(max_attempts),
      tenacity.stop_before_delay(timeout_s),
  )

  def wait(state: tenacity.RetryCallState) -> float:
    error = state.outcome.exception() if state.outcome else None
    return getattr(error, 'retry_after_s', 0.0) + jitter(state)

  return tenacity.AsyncRetrying(
      retry=tenacity.retry_if_exception_type(transient),
      stop=lambda state: stopped() or too_much(state),
      wait=wait,
      reraise=True,
  )

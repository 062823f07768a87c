"""How often, and after how long, a failed request is tried again."""

from __future__ import annotations

from collections.abc import Callable

import tenacity


def is_transient(error: BaseException) -> bool:
  """Whether the same request may work soon."""
  return getattr(error, 'transient', False) or isinstance(
      error, (ConnectionError, TimeoutError)
  )


def retrying(
    *,
    max_attempts: int,
    timeout_s: float,
    backoff_s: float,
    stopped: Callable[[], bool] = lambda: False,
) -> tenacity.AsyncRetrying:
  """Calls an async function until it works; raises what its last call raised.

  After a transient failure it waits for the error's `retry_after_s`, if it has
  any, and, before the n-th retry, for another 0 to backoff_s * 2**(n - 1)
  seconds, at random, so that requests that failed together do not come back
  together.

  Args:
    max_attempts: First call included.
    timeout_s: No retry starts later than this.
    backoff_s: See above.
    stopped: Whether to give up after the present attempt.
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
      retry=tenacity.retry_if_exception(is_transient),
      stop=lambda state: stopped() or too_much(state),
      wait=wait,
      reraise=True,
  )

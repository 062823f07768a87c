"""Requests side by side, until they are done or a signal comes."""

from __future__ import annotations

import asyncio
from collections.abc import Coroutine, Iterable
from typing import Any, TypeVar

from gog_jax import interrupt

T = TypeVar('T')

_POLL_S = 0.2  # How often a wait looks for a signal.


async def gather(coroutines: Iterable[Coroutine[Any, Any, T]]) -> list[T]:
  """Runs all of them; the others are cancelled when one raises.

  Raises:
    Interrupted: After a signal.
    Exception: What the first that failed raised.
  """
  tasks = [asyncio.create_task(coroutine) for coroutine in coroutines]
  try:
    waiting = set(tasks)
    while waiting:
      interrupt.check()
      done, waiting = await asyncio.wait(
          waiting, timeout=_POLL_S, return_when=asyncio.FIRST_EXCEPTION
      )
      for task in done:
        task.result()  # Raises what it raised.
  finally:
    for task in tasks:
      task.cancel()
    await asyncio.gather(*tasks, return_exceptions=True)
  return [task.result() for task in tasks]

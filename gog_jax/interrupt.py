"""Ctrl-C and SIGTERM, honoured where nothing is half done.

`install` turns the first signal into a request that `check` raises at the next
safe point: between steps, never inside one, so that a loop can save what it
has. A second signal does not wait, and nothing more is saved: it raises a
plain KeyboardInterrupt wherever the program stands.
"""

from __future__ import annotations

import signal

_requested: int | None = None


class Interrupted(KeyboardInterrupt):
  """Raised by `check`; `exit_code` is what a shell expects (128 + signal)."""

  def __init__(self, signum: int):
    super().__init__(signal.Signals(signum).name)
    self.exit_code = 128 + signum


def install() -> None:
  """Handles SIGINT and SIGTERM from now on. Main thread only."""
  global _requested
  _requested = None
  signal.signal(signal.SIGINT, _request)
  signal.signal(signal.SIGTERM, _request)


def check() -> None:
  """Raises Interrupted if a signal has come since `install`.

  The request stands: a second signal, while what there is is being saved,
  finds it and ends the program at once.
  """
  if _requested is not None:
    raise Interrupted(_requested)


def _request(signum: int, unused_frame) -> None:
  global _requested
  if _requested is not None:
    raise KeyboardInterrupt
  _requested = signum

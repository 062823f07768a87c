"""A sign of life: what is being done, when nothing has been printed for long.

`main` starts the heartbeat; `doing` names what it speaks of, and JAX says when
it compiles. How long a program took to compile is remembered in the user's
cache, by page, function and kind of device.
"""

from __future__ import annotations

from collections.abc import Iterator
import contextlib
import json
import os
import pathlib
import sys
import threading
import time
from typing import Any

import tqdm

# Seconds without output, at most: of a command's beginning, and later.
_FIRST_S, _EVERY_S = 1.5, 9.0
_COMPILE = '/jax/core/compile/'
_BACKEND = _COMPILE + 'backend_compile_duration'
# Programs that are compiled sooner, or come from JAX's cache, are not silent.
_LONG_S = 5.0

# (what, since when), in the order in which it began.
_doing: dict[Any, tuple[str, float]] = {}


@contextlib.contextmanager
def doing(what: str) -> Iterator[None]:
  """Names what is done inside, in any thread; of '' nothing is ever said."""
  key = object()
  _doing[key] = what, time.monotonic()
  try:
    yield
  finally:
    del _doing[key]


@contextlib.contextmanager
def beating(
    first_s: float = _FIRST_S, every_s: float = _EVERY_S
) -> Iterator[None]:
  """Says what is being done whenever no output has come for `every_s` seconds.

  Args:
    first_s: Seconds until the first line.
    every_s: Seconds later on.
  """
  last = time.monotonic() + first_s - every_s
  over = threading.Event()

  def noting(write):
    def noted(text: str) -> int:
      nonlocal last
      last = time.monotonic()
      return write(text)

    return noted

  def beat() -> None:
    nonlocal last
    # Who reads may have gone; the command itself finds out.
    with contextlib.suppress(OSError, ValueError):
      while not over.wait(last + every_s - time.monotonic()):
        if time.monotonic() >= last + every_s:
          last = time.monotonic()
          _say(*list(_doing.values())[-1])

  streams: set[Any] = {sys.stdout, sys.stderr}
  for stream in streams:
    stream.write = noting(stream.write)
  thread = threading.Thread(target=beat, name='heartbeat', daemon=True)
  with doing('starting'):
    thread.start()
    try:
      yield
    finally:
      over.set()
      thread.join()
      for stream in streams:
        del stream.write


def _say(what: str, since: float) -> None:
  """Beside the newest bar on a terminal, else on a line of its own."""
  if not what:
    return
  line = f'{what}: {duration(time.monotonic() - since)} so far'
  with tqdm.tqdm.get_lock():
    bars = list(tqdm.tqdm._instances)  # pyright: ignore
    # One may be in the making.
    bars = [bar for bar in bars if hasattr(bar, 'start_t')]
    if bars and sys.stderr.isatty():
      bar = max(bars, key=lambda bar: bar.start_t)
      kept, bar.postfix = bar.postfix, line
      bar.refresh()
      bar.postfix = kept
    else:
      tqdm.tqdm.write(line, file=sys.stderr)


def tell_compiles(page: str) -> None:
  """Has the heartbeat say what JAX compiles, and how long it took last time.

  Args:
    page: Tells apart functions of the same name.
  """
  import jax  # Slow.

  cache = os.environ.get('XDG_CACHE_HOME') or '~/.cache'
  path = pathlib.Path(cache, 'gog_jax', 'compile_seconds.json').expanduser()
  usual: dict[str, float] = {}
  with contextlib.suppress(OSError, TypeError, ValueError):
    usual |= json.loads(path.read_text())

  def key(name: object) -> str:
    return f'{page} {jax.default_backend()} {name}'

  def began(event: str, value: float, *, fun_name: object = '', **_) -> None:
    del value  # The time.
    if event.startswith(_COMPILE):
      what = f'compiling {fun_name}'
      if seconds := usual.get(key(fun_name)):
        what += f', usually about {duration(seconds)}'
      _doing[event, fun_name] = what, time.monotonic()

  def ended(
      event: str, duration_secs: float, *, fun_name: object = '', **_
  ) -> None:
    _doing.pop((event, fun_name), None)
    if event == _BACKEND and duration_secs >= _LONG_S:
      usual[key(fun_name)] = duration_secs
      with contextlib.suppress(OSError):
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(json.dumps(usual))

  jax.monitoring.register_scalar_listener(began)
  jax.monitoring.register_event_duration_secs_listener(ended)


def duration(seconds: float) -> str:
  """Seconds up to 100, then minutes."""
  return f'{seconds:.0f} s' if seconds < 100 else f'{seconds / 60:.0f} min'

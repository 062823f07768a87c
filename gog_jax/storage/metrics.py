"""What a run says while it runs: numbers on disk, a bar on the terminal."""

from __future__ import annotations

from collections.abc import Mapping
import json
import sys
import time
from typing import Any, Protocol

from etils import epath
import tqdm

from gog_jax.storage import files


class Tracker(Protocol):
  """Somewhere else that metrics go, see trackers.py."""

  def write(self, row: Mapping[str, Any]) -> None:
    """Takes the line of one step."""
    ...

  def close(self) -> None:
    """Lets go of it; nothing comes any more."""
    ...


class MetricsWriter:
  """One JSON object a line in `path`: {"step": 3, "loss": 0.7, ...}.

  A resumed run passes the step it restored: later lines, written by the run
  that died after its last checkpoint, are dropped and will be written again.
  """

  def __init__(self, path: epath.PathLike, *, resume_step: int):
    self._path = epath.Path(path)
    kept = []
    if self._path.exists():
      for line in self._path.read_text().split('\n'):
        try:
          row = json.loads(line)
        except json.JSONDecodeError:
          break  # The end, or a line cut off by a kill.
        if row['step'] <= resume_step:
          kept.append(row)
    self._rows = kept
    self._trackers: list[Tracker] = []
    self._flush()

  def __enter__(self) -> MetricsWriter:
    return self

  def __exit__(self, *unused_error) -> None:
    for tracker in self._trackers:
      tracker.close()

  def track(self, tracker: Tracker) -> None:
    """Sends it every line from now on, once the file has it."""
    self._trackers.append(tracker)

  def write(self, step: int, values: Mapping[str, Any]) -> None:
    """Appends the values of one step and flushes."""
    row = {'step': step}
    row.update({name: _plain(value) for name, value in values.items()})
    self._rows.append(row)
    if str(self._path).startswith('gs://'):  # Objects cannot be appended to.
      self._flush()
    else:
      with self._path.open('a') as f:
        f.write(files.dumps(row) + '\n')
    for tracker in self._trackers:
      tracker.write(row)

  @property
  def rows(self) -> list[dict[str, Any]]:
    return list(self._rows)

  def _flush(self) -> None:
    files.write_jsonl(self._path, self._rows)


def _plain(value: Any) -> Any:
  return value.item() if hasattr(value, 'item') else value


class Progress:
  """A bar with the time left; none is shown of what has no name."""

  def __init__(self, what: str, *, total: int, start: int = 0):
    on_terminal = sys.stderr.isatty()
    self._bar = tqdm.tqdm(
        desc=f'{what:<8}',
        total=total,
        initial=start,
        mininterval=0.5 if on_terminal else 15.0,
        dynamic_ncols=on_terminal,
        file=sys.stderr,
        disable=not what,
    )

  def __enter__(self) -> Progress:
    return self

  def __exit__(self, *unused_error) -> None:
    self._bar.close()

  def advance(self, n: int = 1, **shown: float) -> None:
    """Marks `n` more as done; `shown` values stand beside the bar."""
    if shown:
      self._bar.set_postfix(
          {name: f'{value:.3f}' for name, value in shown.items()},
          refresh=False,
      )
    self._bar.update(n)


class Stopwatch:
  """Seconds by part of a step, under `seconds_PART`."""

  def __init__(self):
    self.seconds: dict[str, float] = {}
    self._last = time.perf_counter()

  def lap(self, part: str) -> None:
    """Counts the time since the last lap as `part`'s."""
    now = time.perf_counter()
    self.seconds[f'seconds_{part}'] = now - self._last
    self._last = now


def say(line: str) -> None:
  """Prints one line without tearing a bar."""
  tqdm.tqdm.write(line, file=sys.stderr)


def shown(facts: Mapping[str, Any]) -> str:
  """Facts on one line, for people."""
  parts = []
  for name, value in facts.items():
    if isinstance(value, Mapping):
      parts.append(f'{name} ({shown(value) or "none"})')
    elif isinstance(value, float):
      parts.append(f'{name} {value:.3f}')
    else:
      parts.append(f'{name} {value}')
  return ', '.join(parts)

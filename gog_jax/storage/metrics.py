"""What a run says while it runs: numbers on disk, a bar on the terminal.

    STAGE/metrics.jsonl   the record
    STAGE/events/         TensorBoard's event files, always
    STAGE/wandb.json      the id of its run at Weights & Biases, where
                          config.log.wandb names a project

Only the record is ever read again. A resumed run shows no step twice: a new
event file begins by voiding later steps in the older ones, and W&B, which takes
no step twice, is not sent what it has.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
import contextlib
import dataclasses
import importlib
import json
import os
import resource
import sys
import time
from typing import Any
import uuid

from etils import epath
import tqdm

from gog_jax.errors import UserError
from gog_jax.storage import files


def open_log(
    config: Any, folder: epath.Path, *, resume_step: int
) -> MetricsWriter:
  """A stage's metrics.jsonl, and what else the config wants written.

  Args:
    config: The run's.
    folder: The stage's; its parent is the workdir.
    resume_step: See `MetricsWriter`.

  Raises:
    UserError: W&B did not start.
  """
  log = MetricsWriter(folder / 'metrics.jsonl', resume_step=resume_step)
  if '://' in str(folder):
    say(f'{folder.name}: no event files in a bucket; metrics.jsonl has all')
  else:
    log.track(
        EventFiles(folder / 'events', resume_step=resume_step, kept=log.rows)
    )
  if config.log.wandb:
    log.track(WandbRun(config, folder))
  return log


class MetricsWriter:
  """One JSON object a line in `path`: {"step": 3, "loss": 0.7, ...}.

  A resumed run passes the step it restored: later lines, written by the run
  that died after its last checkpoint, are dropped and will be written again.
  """

  def __init__(self, path: epath.PathLike, *, resume_step: int):
    self._path = epath.Path(path)
    self._rows = [
        row for row in read_rows(self._path) if row['step'] <= resume_step
    ]
    self._trackers: list[EventFiles | WandbRun] = []
    self._flush()

  def __enter__(self) -> MetricsWriter:
    return self

  def __exit__(self, *unused_error) -> None:
    for tracker in self._trackers:
      tracker.close()

  def track(self, tracker: EventFiles | WandbRun) -> None:
    """Sends it every line from now on, once the file has it."""
    self._trackers.append(tracker)

  def write(self, step: int, values: Mapping[str, Any]) -> None:
    """Appends the values of one step, or adds them to the last, and flushes.
    """
    row = {'step': step}
    for name, value in values.items():
      row[name] = value.item() if hasattr(value, 'item') else value
    adds = bool(self._rows) and self._rows[-1]['step'] == step
    if adds:
      self._rows[-1] |= row
    else:
      self._rows.append(row)
    if adds or '://' in str(self._path):  # Objects cannot be appended to.
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


def read_rows(path: epath.Path) -> list[dict[str, Any]]:
  """The lines of a metrics file that are whole; none where there is no file."""
  rows = []
  for line in path.read_text().split('\n') if path.exists() else ():
    try:
      rows.append(json.loads(line))
    except json.JSONDecodeError:
      break  # The end, or a line cut off by a kill.
  return rows


def scalars(row: Mapping[str, Any]) -> dict[str, float]:
  """The numbers among a row's values, but for its step."""
  return {
      name: value
      for name, value in row.items()
      if name != 'step'
      and isinstance(value, (int, float))
      and not isinstance(value, bool)
  }


class EventFiles:
  """TensorBoard's event files in a local folder.

  Every row is flushed, so that a kill loses no more of them than of the JSON
  lines; SummaryWriter would hold some back in a queue and a buffer.
  """

  def __init__(
      self,
      folder: epath.PathLike,
      *,
      resume_step: int,
      kept: Sequence[Mapping[str, Any]] = (),
  ):
    """Begins a file, which voids later steps in the older ones.

    Args:
      folder: Made if need be.
      resume_step: The last step that stands.
      kept: Rows up to that step; written if there are no event files yet.
    """
    with _no_torch():
      from tensorboardX import event_file_writer
      from tensorboardX.proto import event_pb2
      from tensorboardX.proto import summary_pb2

    # Protocol buffers make their classes when they are imported.
    events: Any = event_pb2
    summaries: Any = summary_pb2
    self._event, self._summary = events.Event, summaries.Summary
    folder = epath.Path(folder)
    folder.mkdir(parents=True, exist_ok=True)
    n_before = len(list(folder.glob('*.tfevents.*')))
    # Names hold the time in seconds; the counter sorts those of one second.
    self._writer = event_file_writer.EventsWriter(
        os.path.join(folder, 'events'), f'.{n_before:04d}'
    )
    log = events.SessionLog(status=events.SessionLog.START)
    self._write(step=resume_step + 1, session_log=log)
    if not n_before:
      for row in kept:
        self.write(row)

  def write(self, row: Mapping[str, Any]) -> None:
    """Adds a step's numbers."""
    values = [
        self._summary.Value(tag=name, simple_value=value)
        for name, value in scalars(row).items()
    ]
    self._write(step=row['step'], summary=self._summary(value=values))

  def _write(self, **fields: Any) -> None:
    self._writer.write_event(self._event(wall_time=time.time(), **fields))
    self._writer.flush()

  def close(self) -> None:
    self._writer.close()


@contextlib.contextmanager
def _no_torch() -> Iterator[None]:
  """Hides torch, which tensorboardX imports for seconds where it finds it."""
  hide = 'torch' not in sys.modules
  if hide:
    sys.modules['torch'] = None  # type: ignore
  try:
    yield
  finally:
    if hide:
      del sys.modules['torch']


class WandbRun:
  """A run at Weights & Biases, resumed by the id in the stage's folder.

  Its own variables say whether it is online (WANDB_MODE, WANDB_API_KEY).
  Offline, it cannot know what an earlier start has sent. If it fails during the
  stage, one line says so and the stage goes on without it.
  """

  def __init__(self, config: Any, folder: epath.Path):
    """Starts the run, or goes on with it.

    Raises:
      UserError: W&B could not; in its own words.
    """
    wandb: Any = importlib.import_module('wandb')
    # `given` has the same values by dotted names, addresses whole.
    names = [f.name for f in dataclasses.fields(config) if f.name != 'given']
    try:
      self._run = wandb.init(
          project=config.log.wandb,
          id=_run_id(folder),
          resume='allow',
          name=f'{folder.parent.name}/{folder.name}',
          group=folder.parent.name,
          job_type=folder.name,
          dir=None if '://' in str(folder) else str(folder),
          config=_shown(config.picked(names, without=())),
      )
    except Exception as error:
      raise UserError(
          f'Weights & Biases did not start: {error}; log in with wandb login, '
          'set WANDB_MODE=offline, or leave config.log.wandb empty'
      ) from error
    self._works = True

  def write(self, row: Mapping[str, Any]) -> None:
    """Sends a step's numbers, unless it has been sent."""
    if row['step'] >= self._run.step:
      self._try(
          lambda: self._run.log(scalars(row), step=row['step'], commit=True)
      )

  def summarise(self, values: Mapping[str, float]) -> None:
    """Sets numbers that belong to no step, in place of earlier ones."""
    self._try(lambda: self._run.summary.update(dict(values)))

  def close(self) -> None:
    self._try(self._run.finish)

  def _try(self, send) -> None:
    if not self._works:
      return
    try:
      send()
    except Exception as error:
      self._works = False
      say(f'Weights & Biases failed, nothing more is sent: {error}')


def _shown(config: dict[str, Any]) -> dict[str, Any]:
  """The config without the parts of addresses that may hold a key."""
  shown = {}
  for name, value in config.items():
    if isinstance(value, dict):
      value = _shown(value)
    elif name == 'url':
      value = value.partition('?')[0]
    shown[name] = value
  return shown


def _run_id(folder: epath.Path) -> str:
  path = folder / 'wandb.json'
  if not path.exists():
    files.write_json(path, {'id': uuid.uuid4().hex[:16]})
  advice = 'delete it to begin a new run at W&B'
  return files.read_json(path, _RunId, advice=advice).id


@dataclasses.dataclass(frozen=True)
class _RunId:
  """What wandb.json holds."""

  id: str


class Progress(tqdm.tqdm):
  """A bar with the time left; none is shown of what has no name."""

  def __init__(self, what: str, *, total: int, start: int = 0):
    on_terminal = sys.stderr.isatty()
    super().__init__(
        desc=f'{what:<8}',
        total=total,
        initial=start,
        mininterval=0.5 if on_terminal else 5.0,
        dynamic_ncols=on_terminal,
        file=sys.stderr,
        disable=not what,
    )

  def advance(self, n: int = 1, **shown: float) -> None:
    """Marks `n` more as done; `shown` values stand beside the bar."""
    if shown:
      self.set_postfix(
          {name: f'{value:.3f}' for name, value in shown.items()},
          refresh=False,
      )
    self.update(n)


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


def peak_memory() -> dict[str, float]:
  """The most so far, in GiB: `host_memory_gib` of this process, and of a device
  `device_memory_gib`, where that is counted.
  """
  import jax  # Slow.

  # In KiB; on macOS in bytes.
  unit = 1 if sys.platform == 'darwin' else 2**10
  own = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * unit
  device = max(
      (device.memory_stats() or {}).get('peak_bytes_in_use', 0)
      for device in jax.local_devices()
  )
  peaks = {'host_memory_gib': own, 'device_memory_gib': device}
  return {name: peak / 2**30 for name, peak in peaks.items() if peak}


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

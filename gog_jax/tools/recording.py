"""Every search of a run in plain files, to be published and played again.

    FOLDER/recording.json      {"backend": .., "format": 1}
    FOLDER/calls.jsonl         one search a line: tool, arguments, what was
                               searched with, status, raw response, hits, time
    FOLDER/images/SHA256.png   crops, images and thumbnails by their content

A search that worked is recorded once: whoever makes the same call again, in the
run that is recorded as in one that plays it, gets the same answer. A failure is
the failure of one call of one rollout, which `caller` names.

The folder may stand still at any instant: images are written before the line
that names them, and a line that a kill has cut off is taken away by the next
start.
"""

from __future__ import annotations

from collections.abc import Mapping
import datetime
import functools
import json
import os
import threading
from typing import Any

from etils import epath

from gog_jax import blobs
from gog_jax import files
from gog_jax.errors import UserError
from gog_jax.tools import outcome as outcome_lib
from gog_jax.tools.base import Query
from gog_jax.tools.base import RunStopped
from gog_jax.tools.outcome import Outcome
from gog_jax.types import Reply
from gog_jax.types import ToolCall
from gog_jax.types import ToolStatus

FORMAT = 1
_SHOWN = 200  # Characters of a call in a message.


class Recording:
  """A folder of recorded searches."""

  def __init__(self, folder: epath.PathLike, *, backend: str | None):
    """Opens a folder.

    Args:
      folder: On a local disk.
      backend: The version of what is searched, to go on recording; None to
        play what is there.

    Raises:
      UserError: The folder cannot be read or written, is damaged, was made by
        another version, of another backend; or there is nothing to play.
    """
    if '://' in os.fspath(folder):
      raise UserError(
          f'config.tools.recording={folder}: lines cannot be added to files '
          'there; choose a folder on a local disk'
      )
    self.folder = epath.Path(folder)
    self._calls = self.folder / 'calls.jsonl'
    self._lock = threading.Lock()
    self._records: dict[str, dict[str, Any]] = {}
    self._failures: dict[tuple[str, str], dict[str, Any]] = {}
    header = self.folder / 'recording.json'
    if header.exists():
      self.backend = self._read_header(header)
    elif backend is None:
      raise UserError(
          f'{folder} holds no recording: make one with '
          '--config.tools.mode=record --config.tools.recording=FOLDER'
      )
    else:
      self.backend = backend
      files.write_atomic(
          header, files.dumps({'backend': backend, 'format': FORMAT}) + '\n'
      )
    if backend not in (None, self.backend):
      raise UserError(
          f'{folder} is a recording of {self.backend}, not of {backend}; '
          'choose another --config.tools.recording'
      )
    self._read(repair=backend is not None)

  @property
  def n_calls(self) -> int:
    """How many searches are recorded, failed ones included."""
    return len(self._records) + len(self._failures)

  def get(self, key: str) -> Outcome | None:
    """The search that worked, of all who made this call."""
    record = self._records.get(key)
    return None if record is None else self._outcome(record)

  def play(
      self, key: str, call: ToolCall, query: Query, caller: str
  ) -> Outcome:
    """What was recorded of a call.

    Raises:
      RunStopped: Nothing was; names the call.
    """
    # A failure that this very call met, or else what worked for others.
    record = self._failures.get((key, caller)) or self._records.get(key)
    if record is None:
      image = query.image and f' with {blobs.name_of(query.image)}'
      shown = f'{call.name} {files.dumps(dict(call.arguments))}'
      raise RunStopped(
          f'the recording {self.folder} does not hold the call '
          f'{shown[:_SHOWN]}{image or ""} in scope {query.scope!r}: replay the '
          'run that was recorded, or record this one'
      )
    return self._outcome(record)

  def put(
      self, key: str, call: ToolCall, query: Query, outcome: Outcome
  ) -> None:
    """Records a search that worked; one that is recorded stays as it is."""
    if key not in self._records:
      self._records[key] = self._write(key, call, query, outcome, '')

  def put_failure(
      self,
      key: str,
      call: ToolCall,
      query: Query,
      outcome: Outcome,
      caller: str,
  ) -> None:
    """Records that a call failed."""
    if (key, caller) not in self._failures:
      self._failures[key, caller] = self._write(
          key, call, query, outcome, caller
      )

  def _write(
      self,
      key: str,
      call: ToolCall,
      query: Query,
      outcome: Outcome,
      caller: str,
  ) -> dict[str, Any]:
    try:
      return self._append(key, call, query, outcome, caller)
    except UserError as error:  # A full disk is no failure of the search.
      raise RunStopped(str(error)) from error

  def _append(
      self,
      key: str,
      call: ToolCall,
      query: Query,
      outcome: Outcome,
      caller: str,
  ) -> dict[str, Any]:
    store = functools.partial(blobs.put, self.folder)
    record = {
        'key': key,
        'tool': call.name,
        'arguments': dict(call.arguments),
        'text': query.text,
        'image': None if query.image is None else store(query.image),
        'scope': query.scope,
        'top_k': query.top_k,
        'backend': self.backend,
        'caller': caller,
        **outcome_lib.to_json(outcome, store),
    }
    with self._lock:
      files.append_line(self._calls, files.dumps(record))
    return record

  def _outcome(self, record: Mapping[str, Any]) -> Outcome:
    load = functools.partial(blobs.get, self.folder)
    try:
      return outcome_lib.from_json(record, load)
    except OSError as error:
      raise RunStopped(
          f'{self._calls} names {error.filename}, which is '
          f'{error.strerror}; copy the recording anew'
      ) from error
    except (KeyError, TypeError, ValueError) as error:
      raise RunStopped(
          f'{self._calls} has a damaged record of a {record.get("tool")} '
          f'({type(error).__name__}: {error}); copy the recording anew'
      ) from error

  def _read_header(self, path: epath.Path) -> str:
    try:
      header = json.loads(path.read_text())
      found, backend = header['format'], header['backend']
    except (OSError, ValueError, TypeError, KeyError) as error:
      raise UserError(
          f'{path} is damaged; copy the recording anew or delete '
          f'{self.folder}'
      ) from error
    if found != FORMAT:
      raise UserError(
          f'{path} is of format {found}, this gog_jax reads {FORMAT}'
      )
    return backend

  def _read(self, *, repair: bool) -> None:
    if not self._calls.exists():
      return
    *lines, tail = self._calls.read_bytes().split(b'\n')
    if _is_json(tail):
      lines.append(tail)
    if tail and repair:  # A kill cut it off; it was never served.
      text = b''.join(line + b'\n' for line in lines).decode()
      files.write_atomic(self._calls, text)
    for number, line in enumerate(lines, start=1):
      try:
        record = json.loads(line)
        key, caller = record['key'], record['caller']
        failed = record['status'] != ToolStatus.OK
      except (ValueError, TypeError, KeyError) as error:
        raise UserError(
            f'{self._calls}, line {number}, is damaged; delete that line'
        ) from error
      if failed:
        self._failures[key, caller] = record
      else:
        self._records.setdefault(key, record)


class Played:
  """Stands for the backend that was recorded: it cannot be asked."""

  def __init__(self, version: str):
    self.version = version

  async def search_text(
      self, query: str, *, scope: str, top_k: int
  ) -> Reply:
    raise AssertionError('a recording that is played is not searched')

  async def search_image(
      self, data: bytes, *, scope: str, top_k: int
  ) -> Reply:
    raise AssertionError('a recording that is played is not searched')

  async def close(self) -> None:
    """Nothing of it belongs to an event loop."""


def _is_json(line: bytes) -> bool:
  try:
    return bool(line) and isinstance(json.loads(line), dict)
  except ValueError:
    return False


def now() -> str:
  """ISO 8601 in UTC, to the millisecond."""
  return datetime.datetime.now(datetime.UTC).isoformat(timespec='milliseconds')

"""Every tool call of a run in plain files, to be published and replayed.

    FOLDER/recording.json      {"backend": .., "format": 1, "kinds": [..],
                               "versions": {..}}
    FOLDER/calls.jsonl         one call a line: tool, arguments, what was
                               searched with, status, raw response, hits, time
    FOLDER/images/SHA256.png   crops, images and thumbnails by their content

A call that worked is recorded once: the same call gets the same result wherever
it is made again, in the recorded run or in a replay. A failure belongs to one
call of one rollout, which `caller` names; if that very call is made again
(after a kill) and works, another line says so, and counts instead.

The run may be killed at any instant: images are written before the line that
names them, and the next start removes a line that was cut off.
"""

from __future__ import annotations

from collections.abc import Mapping
import dataclasses
import functools
import json
import os
import threading
from typing import Literal

from etils import epath

from gog_jax.config.tools import IMAGE
from gog_jax.config.tools import TEXT
from gog_jax.errors import RunStopped
from gog_jax.errors import UserError
from gog_jax.storage import blobs
from gog_jax.storage import files
from gog_jax.storage import typed
from gog_jax.tools import results
from gog_jax.tools.base import Query
from gog_jax.types import ToolCall
from gog_jax.types import ToolResult
from gog_jax.types import ToolStatus

FORMAT: Literal[1] = 1
_SHOWN = 200  # Characters of a call in a message.


@dataclasses.dataclass(frozen=True, kw_only=True)
class _Header:
  """Of recording.json."""

  backend: str
  format: Literal[1] = FORMAT
  kinds: tuple[str, ...] = (TEXT, IMAGE)
  versions: dict[str, str] = dataclasses.field(default_factory=dict)


@dataclasses.dataclass(frozen=True, kw_only=True)
class _Line:
  """What of a line says whose result it is."""

  key: str
  caller: str
  status: str  # Read as a ToolStatus with the result.


class Recording:
  """A folder of recorded calls. One process at a time adds to it.

  Only the offsets of lines are kept in memory.

  Attributes:
    folder: Where it is.
    plays: Whether it is replayed, and nothing added.
    backend: The version of what was searched.
    versions: Of that, the part that was searched with each kind of query.
  """

  def __init__(
      self,
      folder: epath.PathLike,
      *,
      backend: str | None,
      versions: Mapping[str, str] | None = None,
  ):
    """Opens a folder.

    Args:
      folder: On a local disk.
      backend: The version of what is searched, to go on recording; None to
        replay what is there.
      versions: Of what is searched with TEXT and with IMAGE, if not `backend`
        with both; a replay reads them.

    Raises:
      UserError: The folder cannot be read or written, is damaged, was made by
        another version, of another backend, or is recorded to by another
        process; or there is nothing to play.
    """
    if '://' in os.fspath(folder):
      raise UserError(
          f'config.tools.recording={folder}: lines cannot be added to files '
          'there; choose a folder on a local disk'
      )
    self.folder = epath.Path(folder)
    self.plays = backend is None
    self._calls = self.folder / 'calls.jsonl'
    self._guard = threading.Lock()
    # Where lines begin: of what worked, by key; of failures, by caller too.
    self._worked: dict[str, int] = {}
    self._failed: dict[tuple[str, str], int] = {}
    path = self.folder / 'recording.json'
    self._lock = None
    if backend is not None:
      self._lock = files.lock(
          self.folder / 'lock',
          taken=f'another process records to this folder, {folder}: wait until '
          'it is done, or choose another --config.tools.recording',
          unwritable='choose a folder on a local disk that you can write',
      )
    if path.exists():
      header = files.read_json(
          path,
          _Header,
          advice=f'copy the recording anew or delete {folder}',
      )
    elif backend is None:
      raise UserError(
          f'{folder} holds no recording: make one with '
          '--config.tools.mode=record --config.tools.recording=FOLDER'
      )
    else:
      parts = {TEXT: backend, IMAGE: backend} if versions is None else versions
      header = _Header(
          backend=backend, kinds=tuple(sorted(parts)), versions=dict(parts)
      )
      files.write_atomic(path, files.dumps(vars(header)) + '\n')
    self.backend = header.backend
    self.versions = header.versions or dict.fromkeys(header.kinds, self.backend)
    if backend not in (None, self.backend):
      raise UserError(
          f'{folder} is a recording of {self.backend}, not of {backend}; '
          'choose another --config.tools.recording'
      )
    if self._calls.exists():
      self._read(mend=backend is not None)

  @property
  def n_calls(self) -> int:
    """How many calls are recorded, failed ones included."""
    return len(self._worked) + len(self._failed)

  def close(self) -> None:
    """Lets another process record to the folder."""
    if self._lock is not None:
      self._lock.release()

  def get(self, key: str) -> ToolResult | None:
    """The result for whoever makes this call, if one worked."""
    start = self._worked.get(key)
    return None if start is None else self._result(start)

  def play(
      self, key: str, call: ToolCall, query: Query, caller: str
  ) -> ToolResult:
    """What was recorded of a call.

    Raises:
      RunStopped: Nothing was; names the call.
    """
    # A failure that this very call met, or else what worked for others.
    start = self._failed.get((key, caller), self._worked.get(key))
    if start is None:
      image = query.image and f' with {blobs.name_of(query.image)}'
      shown = f'{call.name} {files.dumps(dict(call.arguments))}'
      raise RunStopped(
          f'the recording {self.folder} does not hold the call '
          f'{shown[:_SHOWN]}{image or ""} in scope {query.scope!r}: replay the '
          'run that was recorded, or record this one'
      )
    return self._result(start)

  def put(
      self,
      key: str,
      call: ToolCall,
      query: Query,
      result: ToolResult,
      caller: str = '',
  ) -> None:
    """Records a result, unless it is recorded already.

    Args:
      key: Identifies the call.
      call: What was called.
      query: What it asked.
      result: What it brought back.
      caller: The only call that the result belongs to: one that failed, or that
        works where it had failed. '' for everyone who makes this call.

    Raises:
      RunStopped: The folder cannot be written.
    """
    failed = result.status == ToolStatus.INFRA_ERROR
    known = failed == ((key, caller) in self._failed)
    if known and (caller or key in self._worked):
      return
    store = functools.partial(blobs.put, self.folder)
    try:
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
          **results.to_json(result, store),
      }
      with self._guard:
        start = files.append_line(self._calls, files.dumps(record))
        line = _Line(key=key, caller=caller, status=result.status)
        self._remember(line, start)
    except UserError as error:  # A full disk is not the call's failure.
      raise RunStopped(str(error)) from error

  def _remember(self, line: _Line, start: int) -> None:
    key, caller = line.key, line.caller
    if line.status == ToolStatus.INFRA_ERROR:
      self._failed[key, caller] = start
      return
    self._failed.pop((key, caller), None)
    self._worked.setdefault(key, start)

  def _result(self, start: int) -> ToolResult:
    load = functools.partial(blobs.get, self.folder)
    try:
      with self._calls.open('rb') as f:
        f.seek(start)
        return results.from_json(json.loads(f.readline()), load)
    except OSError as error:
      raise RunStopped(
          f'{self._calls} needs {error.filename}, which is '
          f'{error.strerror}; copy the recording anew'
      ) from error
    except (ValueError, TypeError, RecursionError) as error:
      raise RunStopped(
          f'{self._calls} is damaged from byte {start} on '
          f'({error}); copy the recording anew'
      ) from error

  def _read(self, *, mend: bool) -> None:
    """Finds where each call's line begins.

    Args:
      mend: Removes the last line if a kill has cut it off: it was never served.

    Raises:
      UserError: A line is damaged.
    """
    start = 0
    with self._calls.open('rb') as f:
      for number, line in enumerate(f, start=1):
        record = _record(line)
        if record is not None:
          self._remember(record, start)
          start += len(line)
        elif line.endswith(b'\n'):
          raise UserError(
              f'{self._calls}, line {number}, is damaged; delete that line'
          )
    if mend:
      os.truncate(self._calls, start)


def _record(line: bytes) -> _Line | None:
  """What a line is about; None if it is no record."""
  try:
    return typed.read(_Line, json.loads(line), ignore_unknown=True)
  except (ValueError, RecursionError):
    return None

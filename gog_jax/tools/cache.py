"""Answers of searches on disk, for the next run that makes the same call.

One SQLite file, which several processes may share and which no kill can leave
half-written. It holds JSON, and only what worked.
"""

from __future__ import annotations

import json
import math
import os
import sqlite3
import threading
import time

from absl import logging
from etils import epath

from gog_jax.errors import UserError
from gog_jax.tools import outcome as outcome_lib
from gog_jax.tools.base import Query
from gog_jax.tools.outcome import Outcome
from gog_jax.types import ToolCall

_SCHEMA = """
CREATE TABLE IF NOT EXISTS answers (
  key TEXT PRIMARY KEY, time REAL NOT NULL, body TEXT NOT NULL
) WITHOUT ROWID
"""
# Seconds for which another process may hold the file: a call's time runs on,
# and what cannot be kept is not lost to it.
_BUSY_S = 1.0
_DAY_S = 86400.0
# Writes between two looks at the file's size.
_LOOK_EVERY = 64
_FULL = 0.9  # Of the largest size, after it was passed.


class Cache:
  """A `Store` on disk."""

  def __init__(self, path: epath.PathLike, *, days: float, max_bytes: float):
    """Opens the file, or makes it.

    Args:
      path: On a local disk.
      days: For which an answer is good.
      max_bytes: Of the file; the oldest answers go first.

    Raises:
      UserError: It cannot be written, or is no such file.
    """
    self._path = os.fspath(path)
    self._seconds = days * _DAY_S
    self._max_bytes = max_bytes
    self._n_writes = 0
    if '://' in self._path:
      raise UserError(
          f'config.tools.cache={path}: a database cannot be there; choose a '
          'file on a local disk'
      )
    try:
      os.makedirs(os.path.dirname(self._path) or '.', exist_ok=True)
      # Readers need not wait for writers.
      self._db, self._lock = self._connect(), threading.Lock()
      self._reader, self._read_lock = self._connect(), threading.Lock()
      # Before there is a table: so that what is deleted shrinks the file.
      self._db.execute('PRAGMA auto_vacuum = INCREMENTAL')
      self._db.execute('PRAGMA journal_mode = WAL')
      self._db.execute('PRAGMA synchronous = NORMAL')
      self._db.execute(_SCHEMA)
      self._db.execute('SELECT key, time, body FROM answers LIMIT 1')
    except (OSError, sqlite3.Error) as error:
      raise UserError(
          f'config.tools.cache={path} cannot be used ({error}): choose a file '
          'that is a cache, or that is not there yet'
      ) from error

  def get(self, key: str) -> Outcome | None:
    """A fresh answer, if there is one."""
    try:
      with self._read_lock:
        row = self._reader.execute(
            'SELECT body FROM answers WHERE key = ? AND time >= ?',
            (key, time.time() - self._seconds),
        ).fetchone()
      if row is None:
        return None
      return outcome_lib.from_json(json.loads(row[0]), outcome_lib.from_inline)
    except (sqlite3.Error, ValueError, KeyError, TypeError) as error:
      self._complain(error)
      return None  # Then it is asked anew.

  def put(
      self, key: str, call: ToolCall, query: Query, outcome: Outcome
  ) -> None:
    """Keeps an answer; on a full disk the run goes on without."""
    del call, query
    body = json.dumps(outcome_lib.to_json(outcome, outcome_lib.inline))
    try:
      with self._lock:
        self._db.execute(
            'INSERT OR REPLACE INTO answers VALUES (?, ?, ?)',
            (key, time.time(), body),
        )
        self._n_writes += 1
        if self._n_writes % _LOOK_EVERY == 0:
          self._shrink()
    except sqlite3.Error as error:
      self._complain(error)

  def close(self) -> None:
    """Writes everything into the one file."""
    with self._read_lock:
      self._reader.close()
    with self._lock:
      self._db.close()

  def _connect(self) -> sqlite3.Connection:
    return sqlite3.connect(
        self._path,
        timeout=_BUSY_S,
        isolation_level=None,  # Every statement is a transaction.
        check_same_thread=False,  # One at a time, by a lock.
    )

  def _shrink(self) -> None:
    """Deletes what is too old, and the oldest while the file is too big."""
    self._db.execute(
        'DELETE FROM answers WHERE time < ?', (time.time() - self._seconds,)
    )
    while (n_bytes := self._n_bytes()) > self._max_bytes:
      (n,) = self._db.execute('SELECT COUNT(*) FROM answers').fetchone()
      if not n:
        break
      share = 1 - _FULL * self._max_bytes / n_bytes
      self._db.execute(
          'DELETE FROM answers WHERE key IN '
          '(SELECT key FROM answers ORDER BY time LIMIT ?)',
          (math.ceil(n * share),),
      )
    # One page a row of its result: all are to be read.
    self._db.execute('PRAGMA incremental_vacuum').fetchall()

  def _n_bytes(self) -> int:
    """Of what is in use."""
    size, pages, free = (
        self._db.execute(f'PRAGMA {what}').fetchone()[0]
        for what in ('page_size', 'page_count', 'freelist_count')
    )
    return size * (pages - free)

  def _complain(self, error: Exception) -> None:
    logging.log_first_n(
        logging.WARNING, 'the cache %s: %s', 1, self._path, error
    )

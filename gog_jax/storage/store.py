"""JSON values by key in one SQLite file.

Several processes may share it, and no kill leaves it half-written.
"""

from __future__ import annotations

import json
import math
import os
import sqlite3
import threading
import time
from typing import Any

from absl import logging
from etils import epath

from gog_jax.errors import UserError

_SCHEMA = """
CREATE TABLE IF NOT EXISTS answers (
  key TEXT PRIMARY KEY, time REAL NOT NULL, body TEXT NOT NULL
) WITHOUT ROWID
"""
# Bytes in pages that are in use.
_N_BYTES = """
SELECT page_size * (page_count - freelist_count)
FROM pragma_page_size, pragma_page_count, pragma_freelist_count
"""
_DAY_S = 86400.0
_PRUNE_EVERY = 64  # Writes.
_FULL = 0.9  # Share of `max_bytes` that is left after it was exceeded.


class Store:
  """Values that may be lost: disk errors are logged, not raised.

  Attributes:
    path: The file.
  """

  def __init__(
      self,
      path: epath.PathLike,
      *,
      field: str,
      days: float = math.inf,
      max_bytes: float = math.inf,
      busy_s: float = 1.0,
  ):
    """Opens the file, or makes it.

    Args:
      path: On a local disk.
      field: The config field that names the file; for messages.
      days: Age at which a value expires.
      max_bytes: Size of the file above which the oldest values are deleted.
      busy_s: Seconds to wait while another process holds the file.

    Raises:
      UserError: The file cannot be written, or is not a store.
    """
    self.path = os.fspath(path)
    self._seconds = days * _DAY_S
    self._max_bytes = max_bytes
    self._busy_s = busy_s
    self._n_writes = 0
    try:
      if '://' in self.path:
        raise OSError('not a local disk')
      os.makedirs(os.path.dirname(self.path) or '.', exist_ok=True)
      # Readers need not wait for writers.
      self._db, self._lock = self._connect(), threading.Lock()
      self._reader, self._read_lock = self._connect(), threading.Lock()
      # Before there is a table, so that deleting rows shrinks the file.
      self._db.execute('PRAGMA auto_vacuum = INCREMENTAL')
      self._db.execute('PRAGMA journal_mode = WAL')
      self._db.execute('PRAGMA synchronous = NORMAL')
      self._db.execute(_SCHEMA)
      self._db.execute('SELECT key, time, body FROM answers LIMIT 1')
    except (OSError, sqlite3.Error) as error:
      raise UserError(
          f'--config.{field}={path} cannot be used ({error}): choose a local '
          'file that holds such a cache, or that does not exist yet'
      ) from error

  def get(self, key: str) -> Any:
    """The value of a key; None if it is missing, expired or damaged."""
    try:
      with self._read_lock:
        row = self._reader.execute(
            'SELECT body FROM answers WHERE key = ? AND time >= ?',
            (key, time.time() - self._seconds),
        ).fetchone()
      return None if row is None else json.loads(row[0])
    except (sqlite3.Error, ValueError) as error:
      self._complain(error)
      return None

  def put(self, key: str, value: Any) -> None:
    try:
      with self._lock:
        self._db.execute(
            'INSERT OR REPLACE INTO answers VALUES (?, ?, ?)',
            (key, time.time(), json.dumps(value)),
        )
        self._n_writes += 1
        if self._n_writes % _PRUNE_EVERY == 0:
          self._prune()
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
        self.path,
        timeout=self._busy_s,
        isolation_level=None,  # Every statement is a transaction.
        check_same_thread=False,  # One at a time, by a lock.
    )

  def _prune(self) -> None:
    """Deletes what is too old, and the oldest while the file is too big."""
    self._db.execute(
        'DELETE FROM answers WHERE time < ?', (time.time() - self._seconds,)
    )
    while (n_bytes := self._number(_N_BYTES)) > self._max_bytes:
      if not (n := self._number('SELECT COUNT(*) FROM answers')):
        break
      share = 1 - _FULL * self._max_bytes / n_bytes
      self._db.execute(
          'DELETE FROM answers WHERE key IN '
          '(SELECT key FROM answers ORDER BY time LIMIT ?)',
          (math.ceil(n * share),),
      )
    # It frees one page per row that is fetched.
    self._db.execute('PRAGMA incremental_vacuum').fetchall()

  def _number(self, query: str) -> int:
    return self._db.execute(query).fetchone()[0]

  def _complain(self, error: Exception) -> None:
    logging.log_first_n(logging.WARNING, '%s: %s', 1, self.path, error)

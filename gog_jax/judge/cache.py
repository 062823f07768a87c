"""Verdicts on disk, so that nobody is asked about the same answer again.

One SQLite file, which several processes may share and which no kill can leave
half-written. Failures are not kept.
"""

from __future__ import annotations

import os
import sqlite3
import time

from absl import logging
from etils import epath

from gog_jax.errors import UserError

_SCHEMA = """
CREATE TABLE IF NOT EXISTS verdicts (
  key TEXT PRIMARY KEY, correct INTEGER NOT NULL, by TEXT NOT NULL,
  time REAL NOT NULL
) WITHOUT ROWID
"""
_BUSY_S = 10.0  # For which another process may hold the file.


class VerdictCache:
  """Whether answers are right, by key."""

  def __init__(self, path: epath.PathLike):
    """Opens the file, or makes it.

    Args:
      path: On a local disk.

    Raises:
      UserError: It cannot be written, or is no such file.
    """
    self.path = os.fspath(path)
    if '://' in self.path:
      raise UserError(
          f'verdicts cannot be kept in {path}: choose a file on a local disk '
          'with --config.judge.cache=FILE'
      )
    self._known: dict[str, bool] = {}  # Whatever becomes of the disk.
    try:
      os.makedirs(os.path.dirname(self.path) or '.', exist_ok=True)
      self._db = sqlite3.connect(
          self.path,
          timeout=_BUSY_S,
          isolation_level=None,  # Every statement is a transaction.
          check_same_thread=False,  # The judge asks in one at a time.
      )
      self._db.execute('PRAGMA journal_mode = WAL')
      self._db.execute('PRAGMA synchronous = NORMAL')
      self._db.execute(_SCHEMA)
      self._db.execute('SELECT key, correct, by, time FROM verdicts LIMIT 1')
    except (OSError, sqlite3.Error) as error:
      raise UserError(
          f'the verdicts in {path} cannot be used ({error}): choose with '
          '--config.judge.cache a file that holds some, or that is not there '
          'yet'
      ) from error

  def get(self, key: str) -> bool | None:
    """Whether that answer is right; None if nobody has said."""
    if key not in self._known:
      try:
        row = self._db.execute(
            'SELECT correct FROM verdicts WHERE key = ?', (key,)
        ).fetchone()
      except sqlite3.Error as error:
        self._complain(error)
        return None
      if row is None or row[0] not in (0, 1):
        return None
      self._known[key] = bool(row[0])
    return self._known[key]

  def put(self, key: str, right: bool, *, by: str) -> None:
    """Keeps a verdict; on a full disk for this process alone."""
    self._known[key] = right
    try:
      self._db.execute(
          'INSERT OR REPLACE INTO verdicts VALUES (?, ?, ?, ?)',
          (key, int(right), by, time.time()),
      )
    except sqlite3.Error as error:
      self._complain(error)

  def close(self) -> None:
    """Writes everything into the one file."""
    self._db.close()

  def _complain(self, error: Exception) -> None:
    logging.log_first_n(
        logging.WARNING, 'the verdicts in %s: %s', 1, self.path, error
    )

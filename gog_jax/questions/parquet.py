"""Parquet files, read row by row, never whole into memory.

The length of a field is checked before it becomes a Python object: a field over
the cap is unpacked by Arrow, but never copied.
"""

from __future__ import annotations

import bisect
from collections.abc import Iterator, Sequence
import datetime
import decimal
import itertools
import re
import threading
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from gog_jax.errors import first_line
from gog_jax.errors import UserError
from gog_jax.questions import questions as q
from gog_jax.storage.records import TOO_LARGE
from gog_jax.storage.records import Unusable

# What pyarrow raises on files that are cut off or damaged.
ERRORS = (pa.ArrowException, OSError, EOFError, ValueError)

_BUFFER = 2**20  # Bytes of a column that are read ahead.
_BATCH = 8  # Rows; each may have images of megabytes.
_FLOATS = re.compile('float')  # Of 16 or 32 bits: one of 64 is a double.
_LFS = b'version https://git-lfs'


class Table:
  """An open file.

  Threads take turns reading it. Unpickled in another process, it opens the
  file again.
  """

  def __init__(self, path: str):
    """Reads only the footer.

    Raises:
      Unusable: It is truncated or not a parquet file.
    """
    self.path = path
    try:
      with open(path, 'rb') as f:
        start = f.read(len(_LFS))
      if start == _LFS:
        raise Unusable(
            q.UNREADABLE, 'a pointer of Git LFS: fetch the file, "git lfs pull"'
        )
      self._file = pq.ParquetFile(path, buffer_size=_BUFFER)
    except ERRORS as error:
      raise Unusable(
          q.UNREADABLE, f'cut off, or no parquet file ({first_line(error)})'
      ) from error
    self.schema = self._file.schema_arrow
    metadata = self._file.metadata
    groups = map(metadata.row_group, range(metadata.num_row_groups))
    sizes = [group.num_rows for group in groups]
    self._starts = [0, *itertools.accumulate(sizes)]
    self._lock = threading.Lock()
    self._at: tuple[str, int] | None = None  # Of the batches below,
    self._next = 0  # whose next has this row.
    self._batches: Iterator[pa.RecordBatch] = iter(())
    self._last: pa.Array | None = None

  def __reduce__(self):
    return Table, (self.path,)

  def _read(
      self, group: int, columns: Sequence[str], n_rows: int
  ) -> Iterator[pa.RecordBatch]:
    """Reads a row group in batches of `n_rows`."""
    return self._file.iter_batches(
        batch_size=n_rows,
        row_groups=[group],
        columns=list(columns),
        use_threads=False,
    )

  def rows(
      self, columns: Sequence[str]
  ) -> Iterator[tuple[int, dict[str, pa.Array] | Unusable]]:
    """Yields each row as arrays of length one, or why rows are missing.

    Where a row group is damaged, its remaining rows are lost; they are reported
    once, in place of the first.
    """
    for group, (start, end) in enumerate(itertools.pairwise(self._starts)):
      row = start
      try:
        for batch in self._read(group, columns, _BATCH):
          for i in range(batch.num_rows):
            yield row, {name: batch[name].slice(i, 1) for name in columns}
            row += 1
      except ERRORS as error:
        what = f'rows {row + 1} to {end} are damaged ({first_line(error)})'
        yield row, Unusable(q.DAMAGED, what)

  def cell(self, column: str, row: int) -> Any:
    """A field as a Python object.

    Ask for the rows of a row group in order: reaching one means passing over
    those before it.

    Raises:
      UserError: It can no longer be read.
    """
    group = bisect.bisect_right(self._starts, row) - 1
    with self._lock:
      try:
        if self._at != (column, group) or self._next > row + 1:
          self._at, self._next = (column, group), self._starts[group]
          self._batches = self._read(group, [column], 1)
        while self._next <= row:
          self._last = next(self._batches)[column]
          self._next += 1
      except (*ERRORS, StopIteration) as error:
        self._at = None
        raise UserError(
            f'{self.path}, row {row + 1}: {column} cannot be read '
            f'({first_line(error)}); download the file anew'
        ) from error
      assert self._last is not None
      return self._last[0].as_py()


def value(cell: pa.Array, *, column: str) -> Any:
  """A cell as a Python object.

  Raises:
    Unusable: It is too large; it has not been copied.
  """
  if cell.nbytes > (cap := q.MAX_FIELD_BYTES):
    detail = f'{column} has {cell.nbytes} bytes, over the {cap} that are read'
    raise Unusable(TOO_LARGE, detail)
  try:
    found = cell[0].as_py(maps_as_pydicts='lossy')
    return _short(found) if _FLOATS.search(str(cell.type)) else found
  except ERRORS as error:
    detail = f'{column} cannot be read ({first_line(error)})'
    raise Unusable(q.BAD, detail) from error


def _short(value: Any) -> Any:
  """Numbers of 32 bits or fewer as they were written: 0.1, without noise."""
  if isinstance(value, list):
    return [_short(one) for one in value]
  if isinstance(value, dict):
    return {key: _short(one) for key, one in value.items()}
  return float(str(np.float32(value))) if isinstance(value, float) else value


def plain(value: Any) -> Any:
  """What a cell means, in the types of JSON: text, whatever Arrow keeps it as.
  """
  if isinstance(value, list):
    return [plain(one) for one in value]
  if isinstance(value, dict):
    return {key: plain(one) for key, one in value.items()}
  if isinstance(value, bytes):
    try:
      return value.decode()
    except UnicodeDecodeError:
      return value
  if isinstance(value, datetime.datetime) and value.time() == datetime.time():
    value = value.date()
  if isinstance(value, decimal.Decimal | datetime.date | datetime.time):
    return str(value)
  return value

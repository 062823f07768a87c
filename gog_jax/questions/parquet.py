"""Parquet files of questions, row by row, without all of them in memory.

Of a field, its length is known before anything is made of it: one over the cap
is dropped, having been unpacked once by Arrow, never a second time into Python.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
import os
import threading
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from gog_jax.errors import UserError
from gog_jax.questions import questions as q
from gog_jax.storage.records import TOO_LARGE
from gog_jax.storage.records import Unusable

# What pyarrow raises on files that are cut off or damaged.
ERRORS = (pa.ArrowException, OSError, EOFError, ValueError)

_BUFFER = 2**20  # Bytes of a column that are read ahead.
_LFS = b'version https://git-lfs'


class Table:
  """A file, opened.

  One thread at a time reads it; others wait. A copy in another process opens
  the file anew.
  """

  def __init__(self, path: str):
    """Reads the footer alone.

    Raises:
      Unusable: It is cut off, or no parquet file.
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
          q.UNREADABLE, f'cut off, or no parquet file ({_line(error)})'
      ) from error
    self.schema = self._file.schema_arrow
    metadata = self._file.metadata
    sizes = [metadata.row_group(i).num_rows for i in range(self.n_groups)]
    self._starts = np.cumsum([0, *sizes])
    self._lock = threading.Lock()
    self._at: tuple[str, int] | None = None  # Of the batches below,
    self._next = 0  # whose next has this row.
    self._batches: Iterator[pa.RecordBatch] = iter(())
    self._last: pa.Array | None = None

  def __reduce__(self):
    return Table, (self.path,)

  @property
  def n_groups(self) -> int:
    return self._file.metadata.num_row_groups

  def rows(
      self, columns: Sequence[str], *, batch_size: int = 64
  ) -> Iterator[tuple[int, dict[str, pa.Array] | Unusable]]:
    """Yields each row as arrays of length one, or why rows are not there.

    A row group that is damaged costs the rows from there to its end, said once
    with the first of them.
    """
    for group in range(self.n_groups):
      row = int(self._starts[group])
      try:
        for batch in self._file.iter_batches(
            batch_size=batch_size,
            row_groups=[group],
            columns=list(columns),
            use_threads=False,
        ):
          for i in range(batch.num_rows):
            yield row, {name: batch[name].slice(i, 1) for name in columns}
            row += 1
      except ERRORS as error:
        end = int(self._starts[group + 1])
        yield row, Unusable(
            q.DAMAGED, f'rows {row + 1} to {end} are damaged ({_line(error)})'
        )

  def cell(self, column: str, row: int) -> pa.Array:
    """A field, as an array of length one.

    Rows of a row group are best asked for in order: what comes before one is
    passed over to reach it.

    Raises:
      UserError: It cannot be read any more.
    """
    group = int(np.searchsorted(self._starts, row, side='right')) - 1
    with self._lock:
      try:
        if self._at != (column, group) or self._next > row + 1:
          self._at, self._next = (column, group), int(self._starts[group])
          self._batches = self._file.iter_batches(
              batch_size=1,
              row_groups=[group],
              columns=[column],
              use_threads=False,
          )
        while self._next <= row:
          self._last = next(self._batches)[column]
          self._next += 1
      except (*ERRORS, StopIteration) as error:
        self._at = None
        raise UserError(
            f'{self.path}, row {row + 1}: {column} cannot be read '
            f'({_line(error)}); download the file anew'
        ) from error
      assert self._last is not None
      return self._last


def value(cell: pa.Array, *, column: str, cap: int) -> Any:
  """A cell as Python has it.

  Raises:
    Unusable: It has more bytes than `cap`; nothing of it has been copied.
  """
  check_size(size_of(cell), column=column, cap=cap)
  return cell[0].as_py()


def check_size(n_bytes: int, *, column: str, cap: int) -> None:
  """Refuses a field over the cap, as Unusable."""
  if n_bytes > cap:
    detail = f'{column} has {n_bytes} bytes, over the {cap} that are read'
    raise Unusable(TOO_LARGE, detail)


def size_of(array: pa.Array) -> int:
  """Bytes of text and binary data that an array holds, whatever its nesting."""
  kind = array.type
  if pa.types.is_struct(kind):
    return sum(size_of(child) for child in array.flatten())
  if is_list(kind):
    return size_of(array.flatten())  # pyright: ignore
  if is_text(kind) or is_binary(kind):
    return pc.sum(pc.binary_length(array)).as_py() or 0  # pyright: ignore
  return 0


def is_list(kind: pa.DataType) -> bool:
  return pa.types.is_list(kind) or pa.types.is_large_list(kind)


def is_text(kind: pa.DataType) -> bool:
  return pa.types.is_string(kind) or pa.types.is_large_string(kind)


def is_binary(kind: pa.DataType) -> bool:
  return pa.types.is_binary(kind) or pa.types.is_large_binary(kind)


def is_struct_with(kind: pa.DataType, *fields: str) -> bool:
  return pa.types.is_struct(kind) and all(
      kind.get_field_index(field) >= 0 for field in fields
  )


def files_of(path: str, *, prefer: Sequence[str] = ('',)) -> list[str]:
  """Parquet files below a folder, or the one given, in the order of names.

  Args:
    path: A folder or a file.
    prefer: Words; only files whose path has the first of them that any has.
  """
  if os.path.isfile(path):
    return [path]
  found = sorted(
      os.path.join(place, name)
      for place, _, names in os.walk(path)
      for name in names
      if name.endswith(('.parquet', '.pq')) and not name.startswith('.')
  )
  for word in prefer:
    chosen = [
        name for name in found if word in os.path.relpath(name, path).lower()
    ]
    if chosen:
      return chosen
  return []


def _line(error: BaseException) -> str:
  text = str(error).strip().splitlines()
  return text[0][:200] if text else type(error).__name__

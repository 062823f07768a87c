"""Questions in parquet files, one a row, and the images in their columns."""

from __future__ import annotations

from collections.abc import Callable, Sequence
import dataclasses
import os
from typing import Any

import pyarrow as pa

from gog_jax.errors import UserError
from gog_jax.questions import parquet
from gog_jax.questions import questions as q
from gog_jax.questions.image_folder import ImageFolder
from gog_jax.storage.records import Unusable

_BATCH = 8  # Rows; each may have images of megabytes.
_LONGEST_NAME = 4096

Row = dict[str, Any]
# Of columns: what they hold, in words, and whether a type fits.
Columns = dict[str, tuple[str, Callable[[pa.DataType], bool]]]


def is_name(kind: pa.DataType) -> bool:
  """Whether a column of that type can hold ids."""
  return parquet.is_text(kind) or pa.types.is_integer(kind)


def is_image(kind: pa.DataType) -> bool:
  """Whether a column of that type can hold images."""
  if parquet.is_list(kind):
    kind = kind.value_type
  return (
      parquet.is_text(kind)
      or parquet.is_binary(kind)
      or parquet.is_struct_with(kind, 'bytes')
      or pa.types.is_null(kind)
  )


IMAGE = (
    'a list of {bytes, path}, one of them, bytes, or base64 text', is_image
)  # fmt: skip


def read(
    path: str,
    *,
    name: str,
    needed: Columns,
    optional: Sequence[str] = (),
    image: str,
    question_of: Callable[[Row, str], q.Question | None],
    images: str = '',
    prefer: Sequence[str] = ('',),
    scope: str = '',
    cap: int = q.MAX_FIELD_BYTES,
) -> q.Found:
  """Reads a file, or the parquet files of a folder.

  Args:
    path: The file or folder.
    name: The data set's, for messages and `Example.source`.
    needed: Columns that have to be there.
    optional: Others that are read if they are there.
    image: The needed column that holds images.
    question_of: Makes a question, without images, of a row's other columns
      and an id for one that has none; None if the row is no part of the set.
    images: A folder of the images that rows name; beside the files if ''.
    prefer: As `parquet.files_of`.
    scope: For the examples.
    cap: Bytes that a field may have.

  Raises:
    UserError: There is no such file, none can be read, or a column is not what
      it should be.
  """
  found = q.QuestionSet(name)
  names = parquet.files_of(path, prefer=prefer)
  if not names:
    words = ' or '.join(word for word in prefer if word)
    raise UserError(
        f'{path} holds no parquet file'
        f'{f" with {words} in its name" if words else ""} of {name}'
    )
  tables = []
  for file in names:
    with found.record(file):
      tables.append(parquet.Table(file))
  for table in tables:
    _check_columns(table, needed, name=name)
    columns = [*needed, *(c for c in optional if c not in needed)]
    columns = [c for c in columns if c in table.schema.names]
    folder = ImageFolder(images, os.path.dirname(table.path))
    stem = os.path.splitext(os.path.basename(table.path))[0]
    for row, fields in table.rows(columns, batch_size=_BATCH):
      where = f'{table.path}, row {row + 1}'
      with found.record(where):
        if isinstance(fields, Unusable):
          raise fields
        record = {
            column: parquet.value(fields[column], column=column, cap=cap)
            for column in columns
            if column != image
        }
        question = question_of(record, f'{stem}/{row}')
        if question is not None:
          shown = _images(
              fields[image], table=table, column=image, row=row,
              folder=folder, cap=cap,
          )  # fmt: skip
          found.add(
              dataclasses.replace(question, images=shown, where=where)
          )
  return found.loaded(scope=scope)


def _check_columns(table: parquet.Table, needed: Columns, *, name: str) -> None:
  unknown = f'this is no version of {name} that is known'
  for column, (expected, fits) in needed.items():
    if column not in table.schema.names:
      raise UserError(
          f'{table.path} has no column {column!r} ({expected}); it has '
          f'{", ".join(table.schema.names)}: {unknown}'
      )
    kind = table.schema.field(column).type
    if not fits(kind):
      raise UserError(
          f'{table.path}: column {column!r} is {kind}, expected {expected}: '
          f'{unknown}'
      )


@dataclasses.dataclass(frozen=True, kw_only=True)
class _CellImage:
  """An image that is a field of a parquet file, or part of a list there."""

  table: parquet.Table
  column: str
  row: int
  index: int

  def read(self) -> bytes:
    entry = _entries(self.table.cell(self.column, self.row))[self.index]
    held = _bytes_of(entry)
    data = held[0].as_py() if held is not None else None
    if isinstance(data, str):
      return q.base64_bytes(data)
    if not data:
      raise UserError(
          f'{self.table.path}, row {self.row + 1}: {self.column} holds no '
          'image any more; download the file anew'
      )
    return data


def _images(
    cell: pa.Array,
    *,
    table: parquet.Table,
    column: str,
    row: int,
    folder: ImageFolder,
    cap: int,
) -> tuple[q.Image, ...]:
  """Where the images of a row are; no byte of them is copied."""
  found = []
  for index, entry in enumerate(_entries(cell)):
    held = _bytes_of(entry)
    n_bytes = parquet.size_of(held) if held is not None else 0
    parquet.check_size(n_bytes, column=column, cap=cap)
    name = _path_of(entry)
    if n_bytes and not (name and held is entry):
      found.append(
          _CellImage(table=table, column=column, row=row, index=index)
      )
    elif name:
      path = folder.by_name(name)
      if path is None:
        detail = f'its image {name!r} is not in {folder}'
        raise Unusable(q.MISSING_IMAGE, detail)
      found.append(q.FileImage(path=path))
  return tuple(found)


def _entries(cell: pa.Array) -> list[pa.Array]:
  """Each image of a cell, as an array of length one."""
  if parquet.is_list(cell.type):
    cell = cell.flatten()  # pyright: ignore
  return [cell.slice(i, 1) for i in range(len(cell))]


def _bytes_of(entry: pa.Array) -> pa.Array | None:
  if not entry.is_valid()[0].as_py():
    return None
  if pa.types.is_struct(entry.type):
    held = parquet.is_struct_with(entry.type, 'bytes')
    return entry.field('bytes') if held else None
  return entry


def _path_of(entry: pa.Array) -> str:
  if parquet.is_struct_with(entry.type, 'path'):
    return entry.field('path')[0].as_py() or ''
  if parquet.is_text(entry.type) and parquet.size_of(entry) <= _LONGEST_NAME:
    name = entry[0].as_py() or ''
    return name if '.' in name else ''  # No base64 has a full stop.
  return ''

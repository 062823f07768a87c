"""Images in columns of parquet files, in whichever form they are there."""

from __future__ import annotations

import base64
import binascii
from collections.abc import Callable
import dataclasses

import pyarrow as pa

from gog_jax.errors import UserError
from gog_jax.questions import parquet
from gog_jax.questions import questions as q
from gog_jax.questions.image_folder import ImageFolder

_LONGEST_NAME = 4096

EXPECTED = 'a list of {bytes, path}, one of them, bytes, or base64 text'


@dataclasses.dataclass(frozen=True, kw_only=True)
class CellImage:
  """An image that is a field of a parquet file.

  Attributes:
    table: The file.
    column: Holds it, or a list of it.
    row: From 0.
    index: Within the list.
  """

  table: parquet.Table
  column: str
  row: int
  index: int

  def read(self) -> bytes:
    entry = _entries(self.table.cell(self.column, self.row))[self.index]
    held = _bytes_of(entry)
    data = held[0].as_py() if held is not None else None
    if isinstance(data, str):
      return decode_base64(data, where=f'{self.table.path}, row {self.row + 1}')
    if not data:
      raise UserError(
          f'{self.table.path}, row {self.row + 1}: {self.column} holds no '
          'image any more; download the file anew'
      )
    return data


def decode_base64(text: str, *, where: str) -> bytes:
  """The bytes of base64 text, which may be a data URL.

  Raises:
    UserError: It is no base64.
  """
  if text.startswith('data:'):
    text = text.partition(',')[2]
  try:
    return base64.b64decode(''.join(text.split()), validate=True)
  except (binascii.Error, ValueError) as error:
    raise UserError(
        f'{where}: its image is no base64 ({error}); download the file anew'
    ) from error


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


def find(
    cell: pa.Array,
    *,
    table: parquet.Table,
    column: str,
    row: int,
    folder: ImageFolder,
    drop: Callable[[str, str], None],
    cap: int,
) -> tuple[q.Image, ...] | None:
  """Where the images of a row are; no byte of them is copied.

  Args:
    cell: The field, an array of length one.
    table: Its file.
    column: Its name.
    row: Its row, from 0.
    folder: Has those that are only named.
    drop: Takes a reason and a detail where one is of no use.
    cap: Bytes that an image may have.

  Returns:
    None where the record was dropped; () where it has no image.
  """
  found = []
  for index, entry in enumerate(_entries(cell)):
    held = _bytes_of(entry)
    n_bytes = parquet.size_of(held) if held is not None else 0
    if n_bytes > cap:
      drop(
          q.TOO_LARGE,
          f'{column} has {n_bytes} bytes, over the {cap} that are taken',
      )
      return None
    name = _path_of(entry)
    if n_bytes and not (name and held is entry):
      found.append(
          CellImage(table=table, column=column, row=row, index=index)
      )
      continue
    if not name:
      continue
    path = folder.by_name(name)
    if path is None:
      drop(q.MISSING_IMAGE, f'its image {name!r} is not in {folder}')
      return None
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
    return entry.field('bytes') if _has(entry.type, 'bytes') else None
  return entry


def _path_of(entry: pa.Array) -> str:
  if pa.types.is_struct(entry.type) and _has(entry.type, 'path'):
    return entry.field('path')[0].as_py() or ''
  if parquet.is_text(entry.type) and parquet.size_of(entry) <= _LONGEST_NAME:
    name = entry[0].as_py() or ''
    return name if '.' in name else ''  # No base64 has a full stop.
  return ''


def _has(kind: pa.DataType, field: str) -> bool:
  return kind.get_field_index(field) >= 0

"""Questions in parquet files, one a row, and the images in their columns."""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
import dataclasses
import functools
import os
from typing import Any

import pyarrow as pa

from gog_jax.errors import UserError
from gog_jax.questions import json_lines
from gog_jax.questions import parquet
from gog_jax.questions import questions as q
from gog_jax.questions.local_files import files_of
from gog_jax.questions.local_files import ImageFolder
from gog_jax.storage.records import Loaded
from gog_jax.storage.records import Unusable

_LONGEST_NAME = 4096
SUFFIXES = ('.parquet', '.pq')

Row = dict[str, Any]
# By name: what a column holds, in words, and a test of what is not null.
Columns = dict[str, tuple[str, Callable[[Any], bool]]]
# By what it is for: the columns one of which is needed.
Roles = Mapping[str, Columns]


def _any_of(*types: type) -> Callable[[Any], bool]:
  return lambda value: isinstance(value, types)


TEXT = ('text', _any_of(str))
TEXTS = ('a list of texts', _any_of(list, str))
ID = ('text or a number', _any_of(str, int))
IMAGE = (
    'a list of {bytes, path}, one of them, bytes, or base64 text',
    _any_of(list, dict, bytes, str),
)


def read(
    path: str,
    *,
    name: str,
    needed: Roles,
    optional: Sequence[str] = (),
    question_of: Callable[[Row, str], q.Question | None],
    images: str = '',
    prefer: Sequence[str] = ('',),
) -> Loaded[q.Question]:
  """Reads a file, or the parquet files of a folder.

  Args:
    path: The file or folder.
    name: The data set's, for messages and `Example.source`.
    needed: Required columns; those of the role `image` hold images.
    optional: Columns that are read if they exist.
    question_of: Turns a row and a default id into a question without images;
      returns None to skip a row that is not part of the set.
    images: The folder of images that rows name; the files' own if ''.
    prefer: See `files_of`.

  Raises:
    UserError: There is no such file, none can be read, or a column is missing,
      could be one of several or has the wrong type everywhere.
  """
  files = files_of(path, *SUFFIXES, prefer=prefer)
  if not files:
    words = ' or '.join(word for word in prefer if word)
    raise UserError(
        f'{path} holds no parquet file'
        f'{f" with {words} in its name" if words else ""} of {name}'
    )

  def rows() -> Iterator[tuple[str, Any]]:
    for file in files:
      try:
        table = parquet.Table(file)
      except Unusable as error:
        yield file, error
        continue
      names = dict.fromkeys(table.schema.names)
      try:
        chosen = {role: _chosen(role, needed[role], names) for role in needed}
      except Unusable as error:
        yield file, error
        continue
      columns = dict.fromkeys([*chosen.values(), *optional])
      columns = [column for column in columns if column in names]
      folder = ImageFolder(images, os.path.dirname(file))
      for row, cells in table.rows(columns):
        found = cells
        if not isinstance(cells, Unusable):
          found = table, folder, row, cells, chosen
        yield f'{file}, row {row + 1}', found

  def question(
      found: tuple[
          parquet.Table, ImageFolder, int, dict[str, pa.Array], dict[str, str]
      ],
  ) -> q.Question | None:
    table, folder, row, cells, chosen = found
    stem, _ = os.path.splitext(os.path.basename(table.path))
    values = {
        column: parquet.value(cell, column=column)
        for column, cell in cells.items()
    }
    shown, image = [], chosen['image']
    for column in values.keys() - {image}:
      values[column] = parquet.plain(values[column])
    for role, column in chosen.items():
      expected, fits = needed[role][column]
      if values[column] is not None and not fits(values[column]):
        raise q.Mismatch(column, expected, values)
    made = question_of(values, f'{stem}/{row}')
    if made is None:
      return None
    for index, (data, file) in enumerate(_entries(values[image])):
      if data:
        shown.append(functools.partial(_read, table, image, row, index))
      elif q.is_address(file):
        shown.append(q.Link(file))
      elif file:
        shown += q.found_image(folder.by_name(file), folder.absent(file))
    return json_lines.placed(dataclasses.replace(made, images=tuple(shown)))

  return q.load(name, rows(), question)


def _chosen(role: str, columns: Columns, names: Collection[str]) -> str:
  """The one of the columns that a file has.

  Raises:
    Unusable: It has none, or several.
  """
  found = [column for column in columns if column in names]
  if len(found) > 1:
    raise Unusable(
        q.BAD,
        f'has {" and ".join(found)}, each of which could be the {role}: leave '
        f'one of them; it has {", ".join(names)}',
    )
  if found:
    return found[0]
  first, *others = columns
  expected, _ = columns[first]
  words = f'{expected}; or {", ".join(others)}' if others else expected
  raise q.Mismatch(first, words, dict.fromkeys(names))


def _entries(value: Any) -> list[tuple[bytes | str | None, str]]:
  """The images in a field: of each its data, or base64 text, and its file."""
  entries = []
  if isinstance(value, list) and value and isinstance(value[0], int):
    value = bytes(value)  # As Arrow writes it from some arrays.
  for one in value if isinstance(value, list) else [value]:
    if isinstance(one, dict):
      entries.append((one.get('bytes'), one.get('path') or ''))
    elif isinstance(one, str) and _is_name(one):
      entries.append((None, one))
    else:
      entries.append((one, ''))
  return entries


def _is_name(text: str) -> bool:
  """Whether it is a path or an address; no base64 has a full stop."""
  return q.is_address(text) or len(text) <= _LONGEST_NAME and '.' in text


def _read(table: parquet.Table, column: str, row: int, index: int) -> bytes:
  """Reads an image that a parquet file holds."""
  data, _ = _entries(table.cell(column, row))[index]
  if isinstance(data, str):
    return q.base64_bytes(data)
  if not data:
    raise UserError(
        f'{table.path}, row {row + 1}: {column} holds no image any more; '
        'download the file anew'
    )
  return data

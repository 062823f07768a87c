"""Benchmarks that are parquet files with a question a row."""

from __future__ import annotations

from collections.abc import Callable, Sequence
import os
from typing import Any

import pyarrow as pa

from gog_jax.questions import cells
from gog_jax.questions import parquet
from gog_jax.questions import questions as q
from gog_jax.questions import verl
from gog_jax.questions.benchmarks import reading
from gog_jax.questions.image_folder import ImageFolder
from gog_jax.questions.records import Records
from gog_jax.types import Example

_BATCH = 8  # Rows; each may have an image of megabytes.

Row = dict[str, Any]


def is_name(kind: pa.DataType) -> bool:
  """Whether a column of that type can hold ids."""
  return parquet.is_text(kind) or pa.types.is_integer(kind)


def read(
    request: reading.Request,
    *,
    needed: verl.Columns,
    image: str,
    id_of: Callable[[Row], Any],
    text_of: Callable[[Row], str | None],
    answers_of: Callable[[Row], tuple[str, ...]],
    wanted: Callable[[Row], bool] = lambda row: True,
    prefer: Sequence[str] = ('',),
    cap: int = q.MAX_FIELD_BYTES,
) -> Records[Example]:
  """Reads a file, or the parquet files of a folder.

  Args:
    request: Says where.
    needed: Columns that have to be there; no others are read.
    image: The one of these that holds the image.
    id_of: The id of a row, which has every needed column but the image.
    text_of: Its question.
    answers_of: Its accepted answers.
    wanted: Whether it is part of the benchmark at all.
    prefer: As `parquet.files_of`.
    cap: Bytes that a field may have.

  Raises:
    UserError: There is no such file, none can be read, or a column is not what
      it should be.
  """
  name = request.spec.name
  found = q.Gathering(name)
  said = [column for column in needed if column != image]
  for table in verl.tables(request.path, found=found, prefer=prefer):
    verl.check_columns(table, needed, name=name)
    folder = ImageFolder(request.images, os.path.dirname(table.path))
    for row, fields in table.rows(list(needed), batch_size=_BATCH):
      where = f'{table.path}, row {row + 1}'

      def drop(reason: str, detail: str, where: str = where) -> None:
        found.drop(where, reason, detail)

      if isinstance(fields, parquet.Unreadable):
        drop(q.DAMAGED, str(fields))
        continue
      record = verl.values(fields, said, drop=drop, cap=cap)
      if record is None or not wanted(record):
        continue
      pictures = cells.find(
          fields[image],
          table=table,
          column=image,
          row=row,
          folder=folder,
          drop=drop,
          cap=cap,
      )
      if pictures is None:
        continue
      try:
        found.add(
            q.Question(
                id=str(id_of(record)),
                text=(text_of(record) or '').strip(),
                answers=answers_of(record),
                images=pictures,
                where=where,
            )
        )
      except q.Mismatch as error:
        found.mismatch(where, error)
  return found.records()

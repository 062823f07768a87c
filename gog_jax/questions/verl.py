"""Questions of verl's parquet files, as MMSearch-R1 and FVQA write them.

A row has `prompt` (a list of {role, content}), `images` (a list of {bytes,
path}, or files named), `reward_model` with `ground_truth` and
`candidate_answers` (a JSON list as text, or a list), and an id: `data_id`, or
`extra_info.index`, or else its place in the file. `category` says whether a
search is required, where it says anything. verl itself is not needed.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
import os
from typing import Any

import pyarrow as pa

from gog_jax.errors import UserError
from gog_jax.questions import answers
from gog_jax.questions import cells
from gog_jax.questions import parquet
from gog_jax.questions import questions as q
from gog_jax.questions.image_folder import ImageFolder
from gog_jax.questions.records import Records
from gog_jax.types import Example

_BATCH = 8  # Rows; each may have images of megabytes.

_SEARCH = {'search_required': True, 'search_free': False}


def _is_prompt(kind: pa.DataType) -> bool:
  return parquet.is_list(kind) and parquet.is_struct_with(
      kind.value_type, 'role', 'content'
  )


# Columns that every file has, what they hold, and how that is told.
Columns = dict[str, tuple[str, Callable[[pa.DataType], bool]]]
_NEEDED: Columns = {
    'prompt': ('a list of {role, content}', _is_prompt),
    'images': (cells.EXPECTED, cells.is_image),
    'reward_model': (
        'a struct with ground_truth',
        lambda kind: parquet.is_struct_with(kind, 'ground_truth'),
    ),
}
_OPTIONAL = ('data_id', 'extra_info', 'category')


def read(
    path: str,
    *,
    name: str,
    images: str = '',
    prefer: Sequence[str] = ('',),
    needed: Sequence[str] = (),
    scope: str = '',
    cap: int = q.MAX_FIELD_BYTES,
) -> Records[Example]:
  """Reads a file, or the parquet files of a folder.

  Args:
    path: The file or folder.
    name: The data set's, for messages and `Example.source`.
    images: A folder of the images that rows name; beside the files if ''.
    prefer: As `parquet.files_of`.
    needed: Columns that have to be there beside verl's own.
    scope: For the examples.
    cap: Bytes that a field may have.

  Raises:
    UserError: There is no such file, none can be read, or a column is not what
      it should be.
  """
  found = q.Gathering(name)
  required = _NEEDED | {
      column: ('text', parquet.is_text) for column in needed
  }
  for table in tables(path, found=found, prefer=prefer):
    check_columns(table, required, name=name)
    columns = [
        column
        for column in dict.fromkeys((*required, *_OPTIONAL))
        if column in table.schema.names
    ]
    folder = ImageFolder(images, os.path.dirname(table.path))
    for row, fields in table.rows(columns, batch_size=_BATCH):
      _take(
          row, fields, table=table, folder=folder, found=found, cap=cap
      )
  return found.records(scope=scope)


def tables(
    path: str, *, found: q.Gathering, prefer: Sequence[str] = ('',)
) -> list[parquet.Table]:
  """The files of a folder that can be read; those that cannot are dropped.

  Raises:
    UserError: There is none at all.
  """
  names = parquet.files_of(path, prefer=prefer)
  if not names:
    words = ' or '.join(word for word in prefer if word)
    raise UserError(
        f'{path} holds no parquet file'
        f'{f" with {words} in its name" if words else ""} of {found.name}'
    )
  opened = []
  for file in names:
    try:
      opened.append(parquet.Table(file))
    except parquet.Unreadable as error:
      found.drop(file, q.UNREADABLE, str(error))
  return opened


def check_columns(table: parquet.Table, needed: Columns, *, name: str) -> None:
  """Refuses a file whose columns are not those known.

  Raises:
    UserError: Names the column, what was found and what was expected.
  """
  for column, (expected, fits) in needed.items():
    if column not in table.schema.names:
      raise UserError(
          f'{table.path} has no column {column!r} ({expected}); it has '
          f'{", ".join(table.schema.names)}: this is no version of {name} that '
          'is known'
      )
    kind = table.schema.field(column).type
    if not fits(kind):
      raise UserError(
          f'{table.path}: column {column!r} is {kind}, expected {expected}: '
          f'this is no version of {name} that is known'
      )


def values(
    fields: dict[str, pa.Array],
    columns: Sequence[str],
    *,
    drop: Callable[[str, str], None],
    cap: int,
) -> dict[str, Any] | None:
  """Fields as Python has them; None where one was too large."""
  row = {}
  for column in columns:
    value = parquet.value(fields[column], cap=cap)
    if isinstance(value, parquet.TooLarge):
      drop(
          q.TOO_LARGE,
          f'{column} has {value.n_bytes} bytes, over the {cap} that are taken',
      )
      return None
    row[column] = value
  return row


def _take(
    row: int,
    fields: dict[str, pa.Array] | parquet.Unreadable,
    *,
    table: parquet.Table,
    folder: ImageFolder,
    found: q.Gathering,
    cap: int,
) -> None:
  where = f'{table.path}, row {row + 1}'

  def drop(reason: str, detail: str) -> None:
    found.drop(where, reason, detail)

  if isinstance(fields, parquet.Unreadable):
    drop(q.DAMAGED, str(fields))
    return
  said = [column for column in fields if column != 'images']
  record = values(fields, said, drop=drop, cap=cap)
  if record is None:
    return
  pictures = cells.find(
      fields['images'],
      table=table,
      column='images',
      row=row,
      folder=folder,
      drop=drop,
      cap=cap,
  )
  if pictures is None:
    return
  try:
    found.add(
        q.Question(
            id=_id_of(record, table=table, row=row),
            text=_question(record['prompt']),
            answers=_answers(record['reward_model'] or {}),
            images=pictures,
            where=where,
            search_required=_SEARCH.get(record.get('category') or ''),
        )
    )
  except q.Mismatch as error:
    found.mismatch(where, error)


def _id_of(record: dict[str, Any], *, table: parquet.Table, row: int) -> str:
  extra = record.get('extra_info')
  index = extra.get('index') if isinstance(extra, dict) else None
  for name in (record.get('data_id'), index):
    if name is not None and name != '':
      return str(name)
  stem = os.path.splitext(os.path.basename(table.path))[0]
  return f'{stem}/{row}'


def _question(prompt: Any) -> str:
  """What the user says last, without marks for images."""
  for message in reversed(prompt or []):
    if message and message.get('role') == 'user':
      return (message.get('content') or '').replace('<image>', '').strip()
  return ''


def _answers(reward: dict[str, Any]) -> tuple[str, ...]:
  candidates = answers.listed(
      reward.get('candidate_answers'), column='candidate_answers'
  )
  return answers.forms(reward.get('ground_truth'), candidates)

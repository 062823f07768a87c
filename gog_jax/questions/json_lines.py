"""JSON lines that others wrote: a line may be anything, and of any length."""

from __future__ import annotations

from collections.abc import Iterator
import json
from typing import Any

from gog_jax.errors import UserError
from gog_jax.questions import questions as q

_SKIP = 2**20


def rows(
    path: str, *, found: q.Gathering, cap: int = q.MAX_FIELD_BYTES
) -> Iterator[tuple[str, dict[str, Any]]]:
  """Yields where each object is and the object; the others are dropped.

  Of a line over the cap no more is held than the cap.

  Raises:
    UserError: The file cannot be read.
  """
  try:
    with open(path, 'rb') as f:
      number = 0
      while line := f.readline(cap + 1):
        number += 1
        where = f'{path}, line {number}'
        if len(line) > cap:
          n_bytes = len(line)
          while line and not line.endswith(b'\n'):
            line = f.readline(_SKIP)
            n_bytes += len(line)
          found.drop(
              where,
              q.TOO_LARGE,
              f'has {n_bytes} bytes, over the {cap} that are taken',
          )
          continue
        if number == 1:
          line = line.removeprefix(b'\xef\xbb\xbf')
        if not line.strip():
          continue
        try:
          row = json.loads(line.decode())
        except (ValueError, RecursionError) as error:
          found.drop(where, q.BAD, f'is not JSON ({error})')
          continue
        if isinstance(row, dict):
          yield where, row
        else:
          found.drop(where, q.BAD, 'is JSON, but no object')
  except OSError as error:
    raise UserError(
        f'{path} cannot be read ({error.strerror or error}); give a file that '
        'can'
    ) from error


def field(
    row: dict[str, Any],
    column: str,
    kinds: type | tuple[type, ...],
    expected: str,
) -> Any:
  """A field that has to be there, of one of these kinds.

  Raises:
    q.Mismatch: It is not; says what was found and expected.
  """
  if column not in row:
    raise q.Mismatch(
        column,
        f'has no column {column!r} ({expected}); it has '
        f'{", ".join(map(str, row)) or "none"}',
    )
  value = row[column]
  if not isinstance(value, kinds) or isinstance(value, bool):
    raise q.Mismatch(
        column,
        f'column {column!r} is {type(value).__name__}, expected {expected}',
    )
  return value

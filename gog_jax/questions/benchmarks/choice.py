"""Which questions of a set to use: those in a list, or a random draw."""

from __future__ import annotations

from collections.abc import Callable, Sequence
import hashlib
import json
import operator
from typing import TypeVar

from gog_jax.errors import UserError
from gog_jax.storage import files
from gog_jax.storage.records import Mapped

T = TypeVar('T')


def read_ids(path: str) -> tuple[str, ...]:
  """Reads ids from a file: one a line, or a JSON list of texts or numbers.

  Raises:
    UserError: The file cannot be read or holds no ids.
  """
  with files.readable(f'--config.benchmark.ids={path}'):
    with open(path, 'rb') as f:
      text = files.text_of(f.read()).strip()
    ids = json.loads(text) if text.startswith('[') else text.split('\n')
  ids = [id for id in ids if str(id).strip()]
  if not ids or not all(type(id) in (str, int) for id in ids):
    raise UserError(f'{path} holds no ids; it takes one a line')
  return tuple(dict.fromkeys(str(id).strip() for id in ids))


def draw(
    items: Sequence[T],
    *,
    n: int,
    seed: int,
    id_of: Callable[[T], str] = operator.attrgetter('id'),
) -> Sequence[T]:
  """Draws at most `n`; they stay in order, and are read on access.

  Items are ranked by a hash of the seed and their id, so a smaller draw is part
  of a larger one.
  """

  def rank(index: int) -> bytes:
    text = f'{seed}/{id_of(items[index])}'
    return hashlib.sha256(text.encode(errors='replace')).digest()

  drawn = sorted(sorted(range(len(items)), key=rank)[:n])
  return Mapped(drawn, items.__getitem__)

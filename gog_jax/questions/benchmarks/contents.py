"""What a benchmark held when it was first loaded, and whether it still does."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
import hashlib
import json
import re

from etils import epath

from gog_jax.errors import UserError
from gog_jax.storage import files

_SHORT = 16  # Hex digits of an item's hash that are kept.


def item_hash(
    id: str, question: str, answers: Sequence[str], images: Sequence[str]
) -> str:
  """Changes with any of an item's parts; `images` are their files' hashes."""
  parts = files.dumps([id, question, list(answers), list(images)])
  return hashlib.sha256(parts.encode()).hexdigest()[:_SHORT]


def digest(hashes: Mapping[str, str]) -> str:
  """64 hex digits over the items, in their order."""
  return hashlib.sha256(files.dumps(list(hashes.items())).encode()).hexdigest()


def check(
    folder: epath.PathLike,
    *,
    name: str,
    key: str,
    path: str,
    digest: str,
    hashes: Mapping[str, str],
) -> None:
  """Writes down what was found; the next time, compares.

  Args:
    folder: Of such records.
    name: The benchmark's.
    key: How its items were chosen; each choice has a record of its own.
    path: Where it was read.
    digest: Of the whole.
    hashes: By id, of each item.

  Raises:
    UserError: It is not what it was.
  """
  tag = hashlib.sha256(key.encode()).hexdigest()[:8]
  record = epath.Path(folder) / f'{name}-{tag}.json'
  if not record.exists():
    known = {
        'digest': digest, 'path': path, 'key': key, 'items': dict(hashes)
    }  # fmt: skip
    files.write_atomic(record, json.dumps(known, indent=1) + '\n')
    return
  try:
    known = json.loads(record.read_text())
    before, was, then = known['items'], known['digest'], known['path']
    if not re.fullmatch('[0-9a-f]{64}', was) or not isinstance(before, dict):
      raise ValueError
  except (ValueError, KeyError, TypeError) as error:
    raise UserError(
        f'{record} is no record of a benchmark; delete it to have it made again'
    ) from error
  if was == digest:
    return
  changed = [id for id in hashes if id in before and before[id] != hashes[id]]
  new = [id for id in hashes if id not in before]
  gone = [id for id in before if id not in hashes]
  said = [
      f'{len(ids)} {what} (first {ids[0]!r})'
      for ids, what in ((changed, 'changed'), (new, 'new'), (gone, 'gone'))
      if ids
  ] or ['the order changed']
  raise UserError(
      f'{name} in {path} is not what it was when it was first loaded from '
      f'{then}: {", ".join(said)}; numbers over both do not compare. Put it '
      f'back, or delete {record} to go on with this one'
  )

"""From one format to another, with all that one holds and another may not."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence

from etils import epath

from gog_jax.chat import Chat
from gog_jax.conversations import foreign
from gog_jax.conversations import own
from gog_jax.conversations import reader
from gog_jax.conversations import tfds_set
from gog_jax.conversations.conversation import Conversation
from gog_jax.conversations.conversation import Unusable
from gog_jax.conversations.layouts import LAYOUTS
from gog_jax.conversations.record import Record
from gog_jax.errors import UserError
from gog_jax.storage.records import Drop
from gog_jax.storage.records import Loaded

FORMATS = (*LAYOUTS, 'trajectories', 'tfds')


def convert(
    source: epath.PathLike,
    target: epath.PathLike,
    *,
    form: str,
    chat: Callable[[], Chat],
    split: str = 'train',
    name: str = 'gog_instruct',
    description: str = '',
) -> Loaded[str]:
  """Writes what one file or folder holds as another.

  From words to words nothing is encoded, and all is kept that the file says.

  Args:
    source: See `reader.read`.
    target: A .json or .jsonl file for formats in words; else a folder.
    form: Of FORMATS.
    chat: Between words and tokens; called only if that is asked.
    split: Of a TFDS set that is read.
    name: Of a TFDS set that is written.
    description: Of the same.

  Returns:
    The ids of what was written, and what was not.

  Raises:
    UserError: A path or the format will not do, or nothing is of use.
  """
  target = epath.Path(target)
  if form not in FORMATS:
    raise UserError(f'unknown format {form!r}; there are {", ".join(FORMATS)}')
  if (form in LAYOUTS) != (target.suffix in ('.json', '.jsonl')):
    raise UserError(
        f'--config.output={target}: format {form} is written to a '
        + ('.json or .jsonl file' if form in LAYOUTS else 'folder')
    )
  if epath.Path(source) == target:
    raise UserError(f'{target} would be written over itself; name another')
  if form in LAYOUTS and reader.kind_of(source) == 'foreign':
    told = foreign.read(source)
    drops = foreign.write(target, told.items, LAYOUTS[form])
    return _done(told.name, [c.id for c in told.items], (*told.drops, *drops))
  found = reader.read(source, chat=chat, split=split)
  drops: list[Drop] = []
  if form in LAYOUTS:
    drops += foreign.write(
        target, _told(found.items, chat(), drops), LAYOUTS[form]
    )
  elif form == 'trajectories':
    reader.write_trajectories(target, found.items)
  else:
    tfds_set.write(
        target,
        found.items,
        name=name,
        description=description or f'Converted from {epath.Path(source).name}.',
    )
  names = [record.example.id for record in found.items]
  return _done(found.name, names, (*found.drops, *drops))


def _told(
    records: Sequence[Record], chat: Chat, drops: list[Drop]
) -> Iterator[Conversation]:
  for record in records:
    try:
      yield own.of_record(record, chat)
    except Unusable as error:
      drops.append(
          Drop(
              where=record.example.id,
              reason=error.reason,
              detail=error.detail,
          )
      )


def _done(
    name: str, names: Sequence[str], drops: Sequence[Drop]
) -> Loaded[str]:
  failed = {drop.where for drop in drops}
  items = [one for one in names if one not in failed]
  if not items:
    first = f': {drops[0]}' if drops else ''
    raise UserError(f'{name} holds nothing of use{first}')
  return Loaded(name=name, items=items, drops=tuple(drops))

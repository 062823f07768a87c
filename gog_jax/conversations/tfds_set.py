"""Conversations as a TFDS data set, see storage/tfds_files.py.

A row holds the messages, what else is known of them, and their image files,
each once. All but the images is JSON, escaped to ASCII: a policy can write lone
surrogates, which UTF-8 cannot carry.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
import functools
import json
from typing import Any

from etils import epath
import tensorflow_datasets as tfds

from gog_jax.conversations.messages import Conversation
from gog_jax.conversations.messages import Message
from gog_jax.conversations.messages import Picture
from gog_jax.conversations.messages import Role
from gog_jax.errors import first_line
from gog_jax.errors import UserError
from gog_jax.storage import tfds_files
from gog_jax.storage.records import Mapped

# Of the layout of rows; 1.0.0 held one model's tokens.
VERSION = '2.0.0'


def write(
    folder: epath.PathLike,
    conversations: Sequence[Conversation],
    *,
    name: str = 'gog_instruct',
    description: str,
    card: str = '',
) -> epath.Path:
  """Writes a set whole, replacing one of that name; see `tfds_files.write`.

  Args:
    folder: On a local disk; other sets may lie beside it.
    conversations: Read one at a time; their order is kept.
    name: Lower case, digits and `_`.
    description: What the set is, in a sentence or two.
    card: Text of the data card, markdown; empty is `description`.

  Returns:
    The folder that holds the set.

  Raises:
    UserError: The folder cannot be written.
  """
  numbers = range(len(conversations))
  return tfds_files.write(
      folder,
      # Grain shuffles, each epoch anew.
      {'train': ((n, _to_row(conversations[n])) for n in numbers)},
      name=name,
      version=VERSION,
      features=_features(),
      description=description,
      card=card,
  )


def load(folder: epath.PathLike, split: str = 'train') -> Mapped[Conversation]:
  """Opens a split for reading, by random access.

  Grain's workers get it pickled, and open it again.

  Args:
    folder: As given to `write`, or the set's own.
    split: Its name.

  Raises:
    UserError: There is no such set or split, or another version wrote it.
  """
  path = find(folder)
  if path.name != VERSION:
    raise UserError(
        f'{path} has layout {path.name}, this gog_jax reads {VERSION}: make '
        'the set again, with the command that made it (configs/instruct.py '
        'asks no teacher again)'
    )
  rows = tfds_files.rows(path, split)
  return Mapped(range(len(rows)), functools.partial(_read, rows, path))


def find(folder: epath.PathLike) -> epath.Path:
  """The folder of the only set in `folder` or below.

  Raises:
    UserError: There is none, or there are several.
  """
  folder = epath.Path(folder)
  found = [
      path.parent
      for pattern in ('.', '*', '*/*')
      for path in sorted(folder.glob(f'{pattern}/features.json'))
      # Sets of the layout before are found, too, and `load` says what they are.
      if any(key in path.read_text() for key in ('"messages"', '"trajectory"'))
  ]
  if not found:
    raise UserError(
        f'{folder} holds no training data: name a .json or .jsonl file of '
        'conversations, a folder with trajectories.jsonl, or a TFDS set of '
        'conversations'
    )
  if len(found) > 1:
    raise UserError(
        f'{folder} holds {len(found)} sets of conversations, one is needed: '
        f'name one of {", ".join(map(str, found))}'
    )
  return found[0]


def _read(rows: Sequence[Any], path: epath.Path, index: int) -> Conversation:
  try:
    return _from_row(rows[index])
  # What array_record raises, and what a row that decodes to nonsense does.
  except (RuntimeError, ValueError, KeyError, TypeError, IndexError) as error:
    raise UserError(
        f'{path}, record {index} is damaged ({first_line(error)}); make the '
        'set again'
    ) from error


def _features() -> tfds.features.FeaturesDict:
  """The columns of a set."""
  text = tfds.features.Text
  return tfds.features.FeaturesDict({
      'id': text(),
      'messages': text(doc='JSON: role, text and other fields of each.'),
      'pictures': text(doc='JSON: for each <image>, its name and its index.'),
      'images': tfds.features.Sequence(tfds.features.Image()),
      'columns': text(doc='JSON: accepted answers, facts, and the like.'),
  })


def _to_row(conversation: Conversation) -> dict[str, Any]:
  """A conversation as a row with the columns of `_features`."""
  images: dict[bytes, int] = {}
  pictures = [
      (picture.name, images.setdefault(picture.read(), len(images)))
      for picture in conversation.pictures
  ]
  return {
      'id': conversation.id.encode('utf-8', 'replace').decode('utf-8'),
      'messages': json.dumps(list(map(vars, conversation.messages))),
      'pictures': json.dumps(pictures),
      'images': list(images),
      'columns': json.dumps(dict(conversation.columns)),
  }


def _from_row(row: Mapping[str, Any]) -> Conversation:
  """The inverse of `_to_row`; the row's images are encoded.

  Raises:
    KeyError, IndexError, TypeError, ValueError: It is damaged.
  """
  columns = json.loads(row['columns'])
  return Conversation(
      id=row['id'].decode() if columns.get('id') in (None, '') else str(
          columns['id']
      ),
      messages=tuple(
          Message(**one | {'role': Role(one['role'])})
          for one in json.loads(row['messages'])
      ),
      pictures=tuple(
          Picture(name=name, data=bytes(row['images'][index]))
          for name, index in json.loads(row['pictures'])
      ),
      columns=columns,
  )

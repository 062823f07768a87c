"""A conversation as one object of a JSON file, in either layout."""

from __future__ import annotations

from collections.abc import Mapping
import dataclasses
import hashlib
import json
from typing import Any

from etils import epath

from gog_jax import images as image_files
from gog_jax.conversations import conversation as conversation_lib
from gog_jax.conversations.conversation import Conversation
from gog_jax.conversations.conversation import IMAGE
from gog_jax.conversations.conversation import Message
from gog_jax.conversations.conversation import Picture
from gog_jax.conversations.conversation import Role
from gog_jax.conversations.conversation import Unusable
from gog_jax.conversations.layouts import Layout
from gog_jax.errors import UserError

# What the formats have no place for, as JSON in a text: a table of others has
# one type a column, and no use for what is in it.
COLUMN = 'gog_jax'


def read_row(
    row: Any, layout: Layout, *, folder: epath.Path, name: str
) -> Conversation:
  """Reads one object.

  Args:
    row: What the file holds.
    layout: How it is laid out.
    folder: What paths of images are relative to.
    name: Its id where it has none itself.

  Raises:
    UserError, Unusable: It is no conversation, or lacks what it shows.
  """
  if not isinstance(row, dict):
    raise Unusable('not a conversation', 'is not a JSON object')
  columns = dict(row)
  said = columns.pop(layout.messages, None)
  if not isinstance(said, list) or not said:
    raise Unusable('no messages', f'has no {layout.messages!r}')
  # Empty and null are kept as they are, to be written so.
  paths = columns.pop(layout.images) if columns.get(layout.images) else []
  paths = [paths] if isinstance(paths, str) else paths
  system = columns.get(layout.system) if layout.system else None
  if isinstance(system, str):
    del columns[layout.system]
  elif system is not None:
    raise Unusable('not text', f'its {layout.system!r} is not text')
  conversation = Conversation(
      id=str(row.get('id', name)),
      messages=tuple(_message(one, layout) for one in said),
      pictures=tuple(_picture(path, folder) for path in paths),
      merged=layout.merged,
      system=system,
      columns=columns,
      hidden=tuple(_picture(path, folder) for path in _hidden(columns)),
  )
  check(conversation)
  return conversation


def write_row(
    conversation: Conversation, layout: Layout, *, paths: Mapping[str, str]
) -> dict[str, Any]:
  """Returns the object; `read_row` of it is the conversation.

  Args:
    conversation: What to write.
    layout: How.
    paths: Name of each picture to the path it is written to.

  Raises:
    Unusable: It cannot be laid out so.
  """
  own = is_own(conversation)
  if layout.merged:
    conversation = conversation_lib.merge(conversation)
  else:
    conversation = conversation_lib.split(conversation)
  row = dict(conversation.columns)
  if own:
    row[COLUMN] = _with_digest(row[COLUMN], conversation)
  if conversation.system is not None:
    row[layout.system] = conversation.system
  row[layout.messages] = [
      {
          layout.role: layout.tags[one.role],
          layout.content: one.text,
          **one.extra,
      }
      for one in conversation.messages
  ]
  if conversation.pictures:
    row[layout.images] = [paths[one.name] for one in conversation.pictures]
  return row


def check(conversation: Conversation) -> None:
  """Refuses what cannot be used.

  Raises:
    Unusable: Says why.
  """
  said = conversation.messages
  if conversation.merged:
    start = 1 if said[0].role == Role.SYSTEM else 0
    for number, one in enumerate(said[start:], start=start):
      its_turn = one.role in (Role.ASSISTANT, Role.CALL)
      if its_turn != bool((number - start) % 2):
        raise Unusable(
            'turn order',
            f'message {number + 1} is {one.role.value} where '
            f'{"the user or a reply" if its_turn else "the agent"} has to be',
        )
  for _ in conversation_lib.exchanges(
      conversation_lib.split(conversation).messages
  ):
    pass
  n_shown = sum(one.text.count(IMAGE) for one in said)
  if n_shown != len(conversation.pictures):
    raise Unusable(
        'images differ',
        f'{n_shown} {IMAGE} in its texts, {len(conversation.pictures)} images',
    )
  for picture in (*conversation.pictures, *conversation.hidden):
    try:
      data = picture.read()
      if picture not in conversation.hidden:  # A hit's may be anything.
        image_files.size_of(data)
    except OSError as error:
      raise Unusable('no image', f'has no image {picture.name}') from error
    except UserError as error:
      raise Unusable('bad image', f'image {picture.name}: {error}') from error


def is_own(conversation: Conversation) -> bool:
  """Whether our column speaks of this very text, or that was changed since."""
  if COLUMN not in conversation.columns:
    return False
  return own_column(conversation.columns)['shown'] == _digest(conversation)


def own_column(columns: Mapping[str, Any]) -> dict[str, Any]:
  """What our column holds.

  Raises:
    Unusable: It is damaged.
  """
  try:
    own = json.loads(columns[COLUMN])
    if isinstance(own, dict) and {'shown', 'images'} <= own.keys():
      return own
  except (TypeError, ValueError):
    pass
  raise Unusable(
      f'bad {COLUMN}', f'its column {COLUMN} is damaged: delete the column'
  )


def with_column(
    conversation: Conversation, own: Mapping[str, Any]
) -> Conversation:
  """The conversation with our column, said to be of this very text."""
  columns = {**conversation.columns, COLUMN: json.dumps(dict(own))}
  columns[COLUMN] = _with_digest(columns[COLUMN], conversation)
  return dataclasses.replace(conversation, columns=columns)


def _with_digest(column: str, conversation: Conversation) -> str:
  own = json.loads(column) | {'shown': _digest(conversation)}
  return json.dumps(own, sort_keys=True, separators=(',', ':'))


def _digest(conversation: Conversation) -> str:
  """Of all that is shown, in this layout."""
  shown = [conversation.system or '']
  shown += [f'{one.role.value} {one.text}' for one in conversation.messages]
  shown += [one.name for one in conversation.pictures]
  return hashlib.sha256(json.dumps(shown).encode()).hexdigest()[:16]


def _hidden(columns: Mapping[str, Any]) -> list[Any]:
  return own_column(columns)['images'] if COLUMN in columns else []


def _message(said: Any, layout: Layout) -> Message:
  if not isinstance(said, dict):
    raise Unusable('not a message', 'a message is not a JSON object')
  extra = dict(said)
  word, text = extra.pop(layout.role, None), extra.pop(layout.content, None)
  role = layout.role_of(word) if isinstance(word, str) else None
  if role is None:
    raise Unusable(
        'unknown role',
        f'{layout.role!r} is {word!r}, not one of '
        + ', '.join(layout.tags.values()),
    )
  if not isinstance(text, str):
    raise Unusable('not text', f'the {layout.content!r} of {word} is not text')
  if word != layout.tags[role]:
    extra[layout.role] = word  # Its own word for it.
  return Message(role=role, text=text, extra=extra)


def _picture(path: Any, folder: epath.Path) -> Picture:
  if not isinstance(path, str) or path.startswith('data:'):
    raise Unusable('not a file', 'an image is no path; save it as a file')
  if '://' in path:
    raise Unusable('remote image', f'{path} is not a file; download it first')
  return Picture(name=path, data=folder / path)

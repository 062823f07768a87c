"""How the files of other projects lay a conversation out."""

from __future__ import annotations

from collections.abc import Mapping
import dataclasses
from typing import Any

from gog_jax.conversations.conversation import Role
from gog_jax.errors import UserError


@dataclasses.dataclass(frozen=True, kw_only=True)
class Layout:
  """Names of columns and words for roles.

  Attributes:
    merged: See conversation.py.
    messages: The column of messages, each an object with
    role: the key that says who speaks and
    content: the key that holds what.
    system: The column of the system message; '' where it is a message.
    images: The column of paths.
    tags: The word for each role.
    aliases: Other words that are read as a role.
  """

  merged: bool
  messages: str
  role: str
  content: str
  system: str
  images: str = 'images'
  tags: Mapping[Role, str]
  aliases: Mapping[str, Role] = dataclasses.field(default_factory=dict)

  def role_of(self, word: str) -> Role | None:
    """Whose word it is; None where nobody's."""
    for role, tag in self.tags.items():
      if tag == word:
        return role
    return self.aliases.get(word)


SHAREGPT = Layout(
    merged=True,
    messages='conversations',
    role='from',
    content='value',
    system='system',
    tags={
        Role.SYSTEM: 'system',
        Role.USER: 'human',
        Role.ASSISTANT: 'gpt',
        Role.CALL: 'function_call',
        Role.REPLY: 'observation',
    },
)
SWIFT = Layout(
    merged=False,
    messages='messages',
    role='role',
    content='content',
    system='',
    tags={
        Role.SYSTEM: 'system',
        Role.USER: 'user',
        Role.ASSISTANT: 'assistant',
        Role.CALL: 'tool_call',
        Role.REPLY: 'tool_response',
    },
    aliases={'tool': Role.REPLY},
)
LAYOUTS = {'sharegpt': SHAREGPT, 'swift': SWIFT}

# What an entry of LLaMA-Factory's dataset_info.json may call otherwise.
_COLUMNS = ('messages', 'system', 'images')
_TAGS = {
    'user_tag': Role.USER,
    'assistant_tag': Role.ASSISTANT,
    'observation_tag': Role.REPLY,
    'function_tag': Role.CALL,
    'system_tag': Role.SYSTEM,
}


def entry(file_name: str) -> dict[str, Any]:
  """What dataset_info.json says of a file that SHAREGPT describes."""
  return {
      'file_name': file_name,
      'formatting': 'sharegpt',
      'columns': {
          'messages': SHAREGPT.messages,
          'system': SHAREGPT.system,
          'tools': 'tools',
          'images': SHAREGPT.images,
      },
      'tags': {
          'role_tag': SHAREGPT.role,
          'content_tag': SHAREGPT.content,
          **{tag: SHAREGPT.tags[role] for tag, role in _TAGS.items()},
      },
  }


def of_entry(described: Mapping[str, Any]) -> Layout:
  """The layout that an entry of dataset_info.json describes.

  Raises:
    UserError: It is of another kind than conversations.
  """
  if described.get('formatting') != 'sharegpt' or described.get('ranking'):
    raise UserError(
        f'{described.get("file_name")} is not of formatting sharegpt, or holds '
        'preferences: only conversations can be read'
    )
  columns = described.get('columns', {})
  words = described.get('tags', {})
  return dataclasses.replace(
      SHAREGPT,
      role=words.get('role_tag', SHAREGPT.role),
      content=words.get('content_tag', SHAREGPT.content),
      tags={
          role: words.get(tag, SHAREGPT.tags[role])
          for tag, role in _TAGS.items()
      },
      **{name: columns[name] for name in _COLUMNS if name in columns},
  )


def layout_of(row: Mapping[str, Any]) -> Layout | None:
  """The layout of a record by its columns; None where it is no known one."""
  for layout in LAYOUTS.values():
    if layout.messages in row:
      return layout
  return None

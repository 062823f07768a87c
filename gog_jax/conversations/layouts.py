"""Conversations as JSON objects in the layouts of LLaMA-Factory and ms-swift.

LLaMA-Factory merges an agent's thought and calls into one message, and so the
replies to them; ms-swift has a message for each.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
import dataclasses
import json
from typing import Any

from etils import epath

from gog_jax.boxes import BoxSpec
from gog_jax.chat import protocol
from gog_jax.conversations import calls
from gog_jax.conversations import objects
from gog_jax.conversations import spellings
from gog_jax.conversations.messages import after_thought
from gog_jax.conversations.messages import BOX_FRAME
from gog_jax.conversations.messages import Conversation
from gog_jax.conversations.messages import Message
from gog_jax.conversations.messages import Picture
from gog_jax.conversations.messages import Role
from gog_jax.errors import UserError
from gog_jax.storage.records import Unusable

# Between two replies in one message: a template that wraps the message in
# <tool_response> tags then makes two of it.
JOINT = f'\n{protocol.END_RESPONSE}\n{protocol.RESPONSE}\n'


@dataclasses.dataclass(frozen=True, kw_only=True)
class Layout:
  """Names of columns and words for roles, as dataset_info.json gives them.

  Attributes:
    merged: Whether a turn is one message, as above.
    columns: The names of the columns `messages` and `images`, and of `system`
      if the system message has a column of its own.
    tags: `role_tag` and `content_tag` are a message's keys; ROLE_tag is the
      word for a role.
  """

  merged: bool
  columns: Mapping[str, str]
  tags: Mapping[str, str]


SHAREGPT = Layout(
    merged=True,
    columns={
        'messages': 'conversations',
        'system': 'system',
        'tools': 'tools',
        'images': 'images',
    },
    tags={
        'role_tag': 'from',
        'content_tag': 'value',
        'user_tag': 'human',
        'assistant_tag': 'gpt',
        'observation_tag': 'observation',
        'function_tag': 'function_call',
        'system_tag': 'system',
    },
)
SWIFT = Layout(
    merged=False,
    columns={'messages': 'messages', 'images': 'images'},
    tags={
        'role_tag': 'role',
        'content_tag': 'content',
        'user_tag': 'user',
        'assistant_tag': 'assistant',
        'observation_tag': 'tool_response',
        'function_tag': 'tool_call',
        'system_tag': 'system',
    },
)
LAYOUTS = {'sharegpt': SHAREGPT, 'swift': SWIFT}
_ANY_BOX = BoxSpec(kind='thousandths', min_side=1)

def entry(file_name: str) -> dict[str, Any]:
  """The entry of dataset_info.json for a file in the layout SHAREGPT."""
  return {
      'file_name': file_name,
      'formatting': 'sharegpt',
      'columns': SHAREGPT.columns,
      'tags': SHAREGPT.tags,
  }


def of_entry(described: Mapping[str, Any]) -> Layout:
  """The layout that an entry of dataset_info.json describes.

  Raises:
    UserError: It does not describe conversations.
  """
  columns = described.get('columns') or {}
  if (
      described.get('formatting') != 'sharegpt'
      or described.get('ranking')
      or columns.get('kto_tag')
  ):
    raise UserError(
        f'{described.get("file_name")} is not of formatting sharegpt, or holds '
        'preferences: only conversations can be read'
    )
  return dataclasses.replace(
      SHAREGPT,
      columns={**SHAREGPT.columns, **columns},
      tags={**SHAREGPT.tags, **(described.get('tags') or {})},
  )


def read_row(
    row: Any,
    layout: Layout | None,
    *,
    folder: epath.Path,
    name: str,
    data_box: str = '',
) -> Conversation:
  """Reads one object.

  Args:
    row: The object.
    layout: Its names, if they are said; others in use are known, see
      spellings.py.
    folder: The folder that paths of images are relative to.
    name: Its id if it has none.
    data_box: In what the boxes of its calls are, if it does not say it.

  Raises:
    Unusable: It is not a conversation, one of its images is missing, or a tool
      would refuse a call.
  """
  if not isinstance(row, dict):
    raise Unusable('not a conversation', 'is not a JSON object')
  if row.get('kto_tag', row.get('label')) is False:
    raise Unusable('rejected', 'is labelled as what an agent should not say')
  layout = layout or SHAREGPT
  rest, columns = dict(row), layout.columns
  names = dict.fromkeys([columns['messages'], *spellings.MESSAGES])
  if (column := spellings.column(row, *names)) is None:
    detail = f'has none of {", ".join(names)}; it has {", ".join(row)}'
    raise Unusable('not a conversation', detail)
  said = spellings.parsed(rest.pop(column))
  if not isinstance(said, list) or not said:
    raise Unusable('no messages', f'holds no list of messages in {column!r}')
  told = [spellings.read_message(one, layout.tags) for one in said]
  messages = _split(spellings.in_order(told))
  if (media := spellings.column(row, *spellings.MEDIA)) and row[media]:
    raise Unusable(media, f'has {media!r}: only images can be used')
  # Empty and null are kept as they are, to be written so.
  column = spellings.column(row, columns['images'], *spellings.IMAGES)
  paths = spellings.listed(rest.pop(column)) if column and row[column] else []
  paths = paths or [x for one in told for x in one.slots if x is not None]
  texts = spellings.with_images([one.text for one in messages], len(paths))
  messages = list(map(_replaced, messages, texts))
  column = columns.get('system', '')
  if rest.get(column) is not None and messages[0].role != Role.SYSTEM:
    system = rest.pop(column)
    if not isinstance(system, str):
      raise Unusable('not text', f'its {column!r} is not text')
    messages.insert(0, Message(role=Role.SYSTEM, text=system))
  conversation = Conversation(
      id=name if row.get('id') in (None, '') else str(row['id']),
      messages=tuple(messages),
      pictures=tuple(_picture(path, folder) for path in paths),
      columns=rest,
  )
  conversation.check()
  objects.filled(conversation, _ANY_BOX, lambda *size: size)
  calls.check(conversation, str(rest.get(BOX_FRAME) or data_box))
  return conversation


def write_row(
    conversation: Conversation, layout: Layout, *, paths: Mapping[str, str]
) -> dict[str, Any]:
  """The inverse of `read_row`; `paths` maps names of pictures to paths."""
  row, messages = dict(conversation.columns), list(conversation.messages)
  columns, tags = layout.columns, layout.tags
  if layout.merged:
    messages = _merge(messages)
  if 'system' in columns and messages[0].role == Role.SYSTEM:
    row[columns['system']] = messages.pop(0).text
  row[columns['messages']] = [
      {
          tags['role_tag']: tags[f'{one.role}_tag'],
          tags['content_tag']: one.text,
          **one.extra,
      }
      for one in messages
  ]
  if conversation.pictures:
    row[columns['images']] = [paths[one.name] for one in conversation.pictures]
  return row


def _replaced(message: Message, text: str) -> Message:
  return dataclasses.replace(message, text=text)


def _picture(path: Any, folder: epath.Path) -> Picture:
  for key in ('image_url', 'image', 'url', 'path'):
    path = path.get(key) or path if isinstance(path, dict) else path
  if not isinstance(path, str) or path.startswith('data:'):
    raise Unusable('not a file', 'an image is no path; save it as a file')
  path = path.removeprefix('file://')
  if '://' in path:
    raise Unusable('remote image', f'{path} is not a file; download it first')
  if '\\' in path and not (folder / path).exists():  # Of Windows.
    path = path.replace('\\', '/')
  return Picture(name=path, data=folder / path)


def _split(merged: Sequence[Message]) -> list[Message]:
  """Splits messages so that each thought, call and reply has its own."""
  messages: list[Message] = []
  n_calls = 0
  for message in merged:
    texts = [message.text]
    if message.role == Role.CALL:
      start = after_thought(message.text)
      texts = _calls(message.text[start:])
      n_calls = len(texts)
      if start:
        thought = message.text[:start]
        messages.append(
            dataclasses.replace(message, role=Role.ASSISTANT, text=thought)
        )
    elif message.role == Role.REPLY:
      replies = message.text.split(JOINT)
      if len(replies) == n_calls:  # Else the text itself spells JOINT.
        texts = replies
    messages += [_replaced(message, text) for text in texts]
  return messages


def _calls(text: str) -> list[str]:
  """The JSON of each call in a merged message without its thought."""
  try:
    calls = json.loads(text)
  except (ValueError, RecursionError) as error:
    raise Unusable(
        'bad call', f'the call {text[:60]!r} is not JSON ({error})'
    ) from error
  if not isinstance(calls, list):
    return [text]
  return [json.dumps(call, ensure_ascii=False) for call in calls]


def _merge(messages: Sequence[Message]) -> list[Message]:
  """Merges each turn into one message, and the replies to it into one."""
  merged: list[list[Message]] = []
  for message in messages:
    if merged and (merged[-1][-1].role, message.role) in (
        (Role.ASSISTANT, Role.CALL),
        (Role.CALL, Role.CALL),
        (Role.REPLY, Role.REPLY),
    ):
      merged[-1].append(message)
    else:
      merged.append([message])
  return [
      Message(
          role=run[-1].role,
          text=_joined(run),
          extra={key: value for one in run for key, value in one.extra.items()},
      )
      for run in merged
  ]


def _joined(run: Sequence[Message]) -> str:
  if run[-1].role != Role.CALL:
    return JOINT.join(one.text for one in run)
  calls = [one.text for one in run if one.role == Role.CALL]
  before = run[0].text if run[0].role == Role.ASSISTANT else ''
  if before.strip() and protocol.THINK not in before:
    # LLaMA-Factory allows only a thought before a call.
    before = f'{protocol.THINK}\n{before.strip()}\n{protocol.END_THINK}\n'
  return before + (calls[0] if len(calls) == 1 else f'[{", ".join(calls)}]')

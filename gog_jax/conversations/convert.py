"""Converts training data from one format to another.

`trajectories` and `tfds` hold all of a record; `sharegpt` and `swift` hold its
text and images, from which it is encoded again.
"""

from __future__ import annotations

from collections.abc import Callable
import dataclasses
import functools
from typing import Any

from etils import epath

from gog_jax.chat import Chat
from gog_jax.chat import protocol
from gog_jax.conversations import json_files
from gog_jax.conversations import reader
from gog_jax.conversations import tfds_set
from gog_jax.conversations.layouts import JOINT
from gog_jax.conversations.layouts import LAYOUTS
from gog_jax.conversations.messages import Conversation
from gog_jax.conversations.messages import escape
from gog_jax.conversations.messages import IMAGE
from gog_jax.conversations.messages import Message
from gog_jax.conversations.messages import Picture
from gog_jax.conversations.messages import Role
from gog_jax.conversations.record import Record
from gog_jax.errors import UserError
from gog_jax.storage import blobs
from gog_jax.storage.records import Loaded
from gog_jax.storage.records import Mapped
from gog_jax.storage.records import Unusable
from gog_jax.types import ParsedTurn
from gog_jax.types import TokenChunk
from gog_jax.types import View


def convert(
    source: epath.PathLike,
    target: epath.PathLike,
    *,
    form: str,
    chat: Callable[[], Chat],
    split: str = 'train',
    name: str = 'gog_instruct',
    description: str = '',
) -> Loaded[Any]:
  """Converts a file or folder.

  Between `sharegpt` and `swift` nothing is encoded and every column is kept.

  Args:
    source: See `reader.read`.
    target: A .json or .jsonl file for `sharegpt` and `swift`; else a folder.
    form: 'sharegpt', 'swift', 'trajectories' or 'tfds'.
    chat: Returns what encodes text; called only if that is needed.
    split: The split of a TFDS set to read.
    name: The name of a TFDS set to write.
    description: Its description.

  Returns:
    What was written, an item for each conversation, and what was dropped.

  Raises:
    UserError: `target` does not fit, or there is no usable record.
  """
  chat = functools.cache(chat)  # It reads a tokenizer.
  target, in_words = epath.Path(target), form in LAYOUTS
  if in_words != (target.suffix in ('.json', '.jsonl')):
    raise UserError(
        f'--config.output={target}: format {form} is written to a '
        + ('.json or .jsonl file' if in_words else 'folder')
    )
  if epath.Path(source) == target:
    raise UserError(f'{target} would be written over itself; name another')
  if in_words:
    if reader.kind_of(source) == 'words':
      found = json_files.read(source)
      told = found.items
    else:
      found = reader.read(source, chat=chat, split=split)
      told = Mapped(found.items, lambda record: export(record, chat()))
    written = json_files.write(target, told, LAYOUTS[form])
    drops = (*found.drops, *written.drops)
    return dataclasses.replace(written, name=found.name, drops=drops).required()
  found = reader.read(source, chat=chat, split=split)
  if form == 'trajectories':
    reader.write_trajectories(target, found.items)
  else:
    about = description or f'Converted from {epath.Path(source).name}.'
    tfds_set.write(target, found.items, name=name, description=about)
  return found


def export(record: Record, chat: Chat) -> Conversation:
  """Decodes a record's tokens: what the policy saw and said, as text.

  Token ids, logprobs, scores, lineage of crops, accepted answers and reward are
  lost.

  Args:
    record: Its tokens are those of `chat`.
    chat: Decodes them.

  Raises:
    Unusable: There are no messages in it.
  """
  trajectory = record.trajectory
  messages: list[Message] = []
  shown: list[View] = []
  turns, results = iter(trajectory.turns), ()
  for role, parts in chat.messages(
      TokenChunk(
          token_ids=tuple(trajectory.token_ids.tolist()),
          images=trajectory.images,
          placements=trajectory.placements,
      )
  ):
    shown += [part for part in parts if isinstance(part, View)]
    text = ''.join(
        IMAGE if isinstance(part, View) else escape(part) for part in parts
    )
    if role == 'assistant':
      turn = next(turns, None)
      results = turn.results if turn else ()
      messages += _said(text, turn.parsed if turn else None)
    elif role == 'user' and results:
      text = text.removeprefix(f'{protocol.RESPONSE}\n')
      text = text.removesuffix(f'\n{protocol.END_RESPONSE}')
      replies = text.split(JOINT)
      if len(replies) != len(results):  # The text itself spells it.
        replies = [text]
      messages += [Message(role=Role.REPLY, text=reply) for reply in replies]
    else:
      messages.append(Message(role=Role(role), text=text))
  if not messages:
    raise Unusable('no messages', 'its tokens hold no message of this chat')
  return Conversation(
      id=record.name,
      messages=tuple(messages),
      pictures=tuple(
          Picture(name=blobs.name_of(view.data), data=view.data)
          for view in shown
      ),
      columns={'id': record.name},
  )


def _said(text: str, parsed: ParsedTurn | None) -> list[Message]:
  """A turn of the policy: its calls if all are valid, else its text."""
  if (
      parsed is None
      or not parsed.calls
      or parsed.format_error
      or any(call.error for call in parsed.calls)
  ):
    return [Message(role=Role.ASSISTANT, text=text)]
  thought = f'{protocol.THINK}{escape(parsed.thought)}{protocol.END_THINK}\n'
  return [
      Message(role=Role.ASSISTANT, text=thought),
      *(
          Message(role=Role.CALL, text=escape(protocol.write_call(call)))
          for call in parsed.calls
      ),
  ]

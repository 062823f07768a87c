"""From one format of training data to another.

`trajectories` and `tfds` hold all of a record; `sharegpt` and `swift` hold its
words and images, from which it is encoded anew.
"""

from __future__ import annotations

from collections.abc import Callable
import dataclasses

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
) -> Loaded[str]:
  """Writes what one file or folder holds as another.

  From words to words nothing is encoded, and all is kept that the file says.

  Args:
    source: See `reader.read`.
    target: A .json or .jsonl file for formats in words; else a folder.
    form: 'sharegpt', 'swift', 'trajectories' or 'tfds'.
    chat: Between words and tokens; called only if that is asked.
    split: Of a TFDS set that is read.
    name: Of a TFDS set that is written.
    description: Of the same.

  Returns:
    The ids of what was written, and what was not.

  Raises:
    UserError: A path will not do, or nothing is of use.
  """
  target, in_words = epath.Path(target), form in LAYOUTS
  if in_words != (target.suffix in ('.json', '.jsonl')):
    raise UserError(
        f'--config.output={target}: format {form} is written to a '
        + ('.json or .jsonl file' if in_words else 'folder')
    )
  if epath.Path(source) == target:
    raise UserError(f'{target} would be written over itself; name another')
  if in_words and reader.kind_of(source) == 'words':
    found = json_files.read(source)
    written = json_files.write(target, found.items, LAYOUTS[form])
  else:
    found = reader.read(source, chat=chat, split=split)
    if in_words:
      told = Mapped(found.items, lambda one: export(one, chat()))
      written = json_files.write(target, told, LAYOUTS[form])
    else:
      ids = [record.example.id for record in found.items]
      written = Loaded(name=found.name, items=ids)
    if form == 'trajectories':
      reader.write_trajectories(target, found.items)
    elif form == 'tfds':
      about = description or f'Converted from {epath.Path(source).name}.'
      tfds_set.write(target, found.items, name=name, description=about)
  drops = (*found.drops, *written.drops)
  if not written.items:
    first = f': {drops[0]}' if drops else ''
    raise UserError(f'{found.name} holds nothing of use{first}')
  return dataclasses.replace(written, drops=drops)


def export(record: Record, chat: Chat) -> Conversation:
  """A record in words, read out of its tokens: what the policy saw and said.

  Ids, logprobs, scores, lineage of crops, accepted answers and reward are lost.

  Args:
    record: Its tokens are `chat`'s.
    chat: Reads them.

  Raises:
    Unusable: There is no message in it.
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
      if len(replies) != len(results):  # It is the text itself that spells it.
        replies = [text]
      messages += [Message(role=Role.REPLY, text=reply) for reply in replies]
    else:
      messages.append(Message(role=Role(role), text=text))
  if not messages:
    raise Unusable('no messages', 'its tokens hold no message of this chat')
  name = record.example.id
  if trajectory.sample:
    name += f'#{trajectory.sample}'
  return Conversation(
      id=name,
      messages=tuple(messages),
      pictures=tuple(
          Picture(name=blobs.name_of(view.data), data=view.data)
          for view in shown
      ),
      columns={'id': name},
  )


def _said(text: str, parsed: ParsedTurn | None) -> list[Message]:
  """A turn of the policy: its calls where all are sound, else its words."""
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

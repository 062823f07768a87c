"""What a rollout did, as a conversation in words, and back bit for bit.

Messages are read out of the tokens, so that what others train on is what the
policy saw. All that words cannot say (ids, logprobs, scores, lineage of crops,
accepted answers, reward) goes into one column, which says of which text it
speaks: who edits a message gets the edited message.
"""

from __future__ import annotations

import base64
import dataclasses
from typing import Any
import zlib

import numpy as np

from gog_jax.chat import Chat
from gog_jax.chat import protocol
from gog_jax.conversations import rows
from gog_jax.conversations.conversation import Conversation
from gog_jax.conversations.conversation import escape
from gog_jax.conversations.conversation import IMAGE
from gog_jax.conversations.conversation import Message
from gog_jax.conversations.conversation import Picture
from gog_jax.conversations.conversation import Role
from gog_jax.conversations.conversation import Unusable
from gog_jax.conversations.record import ARRAYS
from gog_jax.conversations.record import Record
from gog_jax.storage import blobs
from gog_jax.storage import trajectories as trajectories_lib
from gog_jax.types import ParsedTurn
from gog_jax.types import TokenChunk
from gog_jax.types import View


def of_record(record: Record, chat: Chat) -> Conversation:
  """Tells what happened in words; `to_record` is its inverse.

  Args:
    record: Its tokens are `chat`'s.
    chat: Reads them.

  Raises:
    Unusable: There is no message in it.
  """
  trajectory = record.trajectory
  told = chat.messages(
      TokenChunk(
          token_ids=tuple(trajectory.token_ids.tolist()),
          images=trajectory.images,
          placements=trajectory.placements,
      )
  )
  system, messages = None, []
  shown: list[View] = []
  turns = iter(trajectory.turns)
  turn = None
  for role, parts in told:
    shown += [part for part in parts if isinstance(part, View)]
    text = ''.join(
        IMAGE if isinstance(part, View) else escape(part) for part in parts
    )
    if role == 'system':
      system = text
    elif role == 'assistant':
      turn = next(turns, None)
      messages.append(_said(text, turn.parsed if turn else None))
    elif turn is not None and turn.results:
      text = text.removeprefix(f'{protocol.RESPONSE}\n')
      text = text.removesuffix(f'\n{protocol.END_RESPONSE}')
      messages.append(Message(role=Role.REPLY, text=text))
    else:
      messages.append(Message(role=Role.USER, text=text))
  if not messages:
    raise Unusable('no messages', 'its tokens hold no message of this chat')
  kept: dict[str, bytes] = {}

  def store(data: bytes) -> str:
    kept[blobs.name_of(data)] = data
    return blobs.name_of(data)

  pictures = [Picture(name=store(v.data), data=v.data) for v in shown]
  column = {
      'version': trajectories_lib.VERSION,
      'example': trajectories_lib.plain(record.example, store),
      'trajectory': trajectories_lib.plain(
          dataclasses.replace(
              trajectory, **{key: np.zeros(0) for key in ARRAYS}
          ),
          store,
      ),
      'arrays': {
          key: _packed(np.asarray(getattr(trajectory, key), dtype))
          for key, dtype in ARRAYS.items()
      },
      'facts': dict(record.facts),
  }
  names = {picture.name for picture in pictures}
  hidden = [
      Picture(name=name, data=data)
      for name, data in sorted(kept.items())
      if name not in names
  ]
  name = record.example.id
  if trajectory.sample:
    name += f'#{trajectory.sample}'
  return rows.with_column(
      Conversation(
          id=name,
          messages=tuple(messages),
          pictures=tuple(pictures),
          system=system,
          columns={'id': name},
          hidden=tuple(hidden),
      ),
      column | {'images': [picture.name for picture in hidden]},
  )


def to_record(conversation: Conversation) -> Record:
  """Returns what `of_record` was given, bit for bit.

  Args:
    conversation: One of which `rows.is_own` is true.

  Raises:
    Unusable: Its column is damaged, or of another version.
  """
  own = rows.own_column(conversation.columns)
  pictures = {
      picture.name: picture
      for picture in (*conversation.pictures, *conversation.hidden)
  }
  if own.get('version') != trajectories_lib.VERSION:
    raise Unusable(
        f'bad {rows.COLUMN}',
        f'its column {rows.COLUMN} has version {own.get("version")}, this '
        f'gog_jax reads {trajectories_lib.VERSION}',
    )
  try:
    load = lambda name: pictures[name].read()
    arrays = {
        key: _unpacked(own['arrays'][key], dtype)
        for key, dtype in ARRAYS.items()
    }
    return Record(
        example=trajectories_lib.example_of(own['example'], load),
        trajectory=trajectories_lib.trajectory_of(
            {**own['trajectory'], **arrays}, load
        ),
        facts=own['facts'],
    )
  except (KeyError, TypeError, ValueError, OSError, zlib.error) as error:
    raise Unusable(
        f'bad {rows.COLUMN}',
        f'its column {rows.COLUMN} is damaged ({error!r}): delete the column',
    ) from error


def _said(text: str, parsed: ParsedTurn | None) -> Message:
  """A turn of the policy: calls in JSON where they are such, or its words."""
  if (
      parsed is None
      or not parsed.calls
      or parsed.format_error
      or any(call.error for call in parsed.calls)
  ):
    return Message(role=Role.ASSISTANT, text=text)
  calls = [escape(protocol.write_call(call)) for call in parsed.calls]
  thought = f'{protocol.THINK}{escape(parsed.thought)}{protocol.END_THINK}\n'
  return Message(
      role=Role.CALL,
      text=thought + (calls[0] if len(calls) == 1 else f'[{", ".join(calls)}]'),
  )


def _packed(array: np.ndarray) -> str:
  little = array.astype(array.dtype.newbyteorder('<'))
  return base64.b64encode(zlib.compress(little.tobytes())).decode()


def _unpacked(text: str, dtype: Any) -> np.ndarray:
  data = zlib.decompress(base64.b64decode(text, validate=True))
  return np.frombuffer(data, np.dtype(dtype).newbyteorder('<')).astype(dtype)

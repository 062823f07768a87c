"""Trajectories as conversations: what was asked, said and answered, in words.

Nothing remains of the model that made them. Boxes are in original pixels of
their root image, one that was given or that a user's tool brought back: a box
in a crop, however deep, is one in the image it was cut from.
"""

from __future__ import annotations

from collections.abc import Iterable

from gog_jax.boxes import BoxSpec
from gog_jax.chat import Chat
from gog_jax.chat import protocol
from gog_jax.chat.render import Piece
from gog_jax.chat.render import tool_result
from gog_jax.conversations.messages import BOX_FRAME
from gog_jax.conversations.messages import Conversation
from gog_jax.conversations.messages import escape
from gog_jax.conversations.messages import IMAGE
from gog_jax.conversations.messages import Message
from gog_jax.conversations.messages import Picture
from gog_jax.conversations.messages import Role
from gog_jax.conversations.messages import ROOT_PIXELS
from gog_jax.conversations.record import Record
from gog_jax.images import size_of
from gog_jax.storage import blobs
from gog_jax.storage import trajectories as trajectories_lib
from gog_jax.storage.records import Unusable
from gog_jax.tools import gaze
from gog_jax.tools.base import ModelError
from gog_jax.types import ToolCall
from gog_jax.types import Trajectory
from gog_jax.types import Turn
from gog_jax.types import View

# A thousandth of a pixel: finer than any model writes.
_DIGITS = 3


def decode(record: Record, chat: Chat, box_spec: BoxSpec) -> Conversation:
  """Turns a trajectory into a conversation; tokens and rewards are left out.

  Its columns are the other fields of the question, and the record's facts.

  Args:
    record: What was asked, and a trajectory of it.
    chat: That of the trajectory.
    box_spec: How its policy wrote boxes.

  Raises:
    Unusable: Its chat was another, or a turn or a box is not to be imitated.
  """
  trajectory, example = record.trajectory, record.example
  _check(trajectory, chat)
  asked = f'{IMAGE * len(example.images)}\n' if example.images else ''
  asked += escape(example.question)
  if example.image_places:
    parts = example.in_place(example.images)
    asked = ''.join(IMAGE if isinstance(x, bytes) else escape(x) for x in parts)
  messages = [Message(role=Role.USER, text=asked)]
  for turn in trajectory.turns:
    messages += _said(turn, trajectory.images, chat, box_spec)
    messages += [
        Message(role=Role.REPLY, text=_text(tool_result(chat.dialect, result)))
        for result in turn.results
    ]
  while messages[-1].role == Role.REPLY:  # Nobody has read the last ones.
    messages.pop()
  if len(messages) == 1:
    raise Unusable('no messages', 'nothing is said in it')
  n_shown = sum(one.text.count(IMAGE) for one in messages)
  about = trajectories_lib.plain(example, lambda data: '')
  for name in ('id', 'images', 'question', 'image_places'):
    del about[name]
  return Conversation(
      id=record.name,
      messages=tuple(messages),
      pictures=tuple(
          Picture(name=blobs.name_of(view.data), data=view.data)
          for view in trajectory.images[:n_shown]
      ),
      columns={
          'id': record.name,
          BOX_FRAME: ROOT_PIXELS,
          **about,
          **({'facts': dict(record.facts)} if record.facts else {}),
      },
  )


def _check(trajectory: Trajectory, chat: Chat) -> None:
  """Refuses what another chat has made: its boxes could not be read."""
  n = len(chat.head)
  if tuple(trajectory.token_ids[:n].tolist()) != chat.head or any(
      chat.processor.grid(*size_of(trajectory.images[placement.image].data))
      != placement.grid
      for placement in trajectory.placements
  ):
    raise Unusable(
        'other model',
        'its tokens are for another model, dialect, set of tools or '
        'model.max_image_tokens than this profile has: give configs/convert.py '
        'those that made it, and train on what that writes',
    )


def _said(
    turn: Turn, views: tuple[View, ...], chat: Chat, box_spec: BoxSpec
) -> list[Message]:
  """A turn of the policy: a thought and calls, or a thought and an answer."""
  parsed = turn.parsed
  errors = [parsed.format_error, *(call.error for call in parsed.calls)]
  if error := next(filter(None, errors), None):
    raise Unusable('bad turn', error)
  thought = f'{protocol.THINK}{escape(parsed.thought)}{protocol.END_THINK}\n'
  if parsed.answer is not None:
    answer = escape(parsed.answer).join((protocol.ANSWER, protocol.END_ANSWER))
    return [Message(role=Role.ASSISTANT, text=thought + answer)]
  calls = [_in_root(call, views, chat, box_spec) for call in parsed.calls]
  return [
      Message(role=Role.ASSISTANT, text=thought),
      *(
          Message(role=Role.CALL, text=escape(protocol.write_call(call)))
          for call in calls
      ),
  ]


def _in_root(
    call: ToolCall, views: tuple[View, ...], chat: Chat, box_spec: BoxSpec
) -> ToolCall:
  """The call with its box, if it has one, in pixels of the root image."""
  if call.name != gaze.NAME:
    return call
  try:
    view, box = gaze.region(
        call.arguments,
        views,
        box_spec=box_spec,
        seen_size=chat.processor.seen_size,
        exact=True,
    )
  except ModelError as error:
    raise Unusable('bad box', str(error)) from error
  edges = [round(edge, _DIGITS) for edge in gaze.shifted(box, view.box)]
  return ToolCall(
      name=call.name, arguments={**call.arguments, gaze.BOX: edges}
  )


def _text(pieces: Iterable[Piece]) -> str:
  return ''.join(
      IMAGE if isinstance(piece, View) else escape(piece) for piece in pieces
  )

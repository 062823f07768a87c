"""Tokens back into messages: who said what, and where the images stand."""

from __future__ import annotations

from collections.abc import Callable
import dataclasses

from gog_jax.types import TokenChunk
from gog_jax.types import View


@dataclasses.dataclass(frozen=True, kw_only=True)
class Frame:
  """The control tokens of a conversation, by id."""

  start: int  # Of a message.
  end: int
  vision_start: int
  vision_end: int
  image_pad: int


# Who speaks, and what: texts and images in order.
Message = tuple[str, list[str | View]]


def read_messages(
    chunk: TokenChunk, *, frame: Frame, decode: Callable[[list[int]], str]
) -> list[Message]:
  """Returns the messages that a chunk holds, the last of which may be open.

  Only ids are looked at: text that spells a control token stays text. What
  stands between two messages is no one's and left out, as are empty parts.

  Args:
    chunk: Begins at a message or between two.
    frame: The control tokens.
    decode: Token ids -> text.
  """
  messages: list[Message] = []
  images = {placement.start: placement for placement in chunk.placements}
  pending: list[int] = []
  parts: list[str | View] | None = None  # None between messages.

  def flush() -> None:
    if parts is not None and pending:
      parts.append(decode(pending))
    pending.clear()

  for position, index in enumerate(chunk.token_ids):
    if index == frame.start:
      pending.clear()
      parts = []
    elif index == frame.end:
      flush()
      _add(messages, parts)
      parts = None
    elif index in (frame.vision_start, frame.vision_end, frame.image_pad):
      flush()
      if parts is not None and position in images:
        parts.append(chunk.images[images[position].image])
    else:
      pending.append(index)
  flush()
  _add(messages, parts)
  return messages


def _add(messages: list[Message], parts: list[str | View] | None) -> None:
  """Adds a message, whose first line names its role."""
  if not parts or not isinstance(parts[0], str):
    return
  role, _, text = parts[0].partition('\n')
  messages.append((role, [*([text] if text else []), *parts[1:]]))

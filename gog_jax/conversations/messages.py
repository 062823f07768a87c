"""A conversation with an agent as text: typed messages and pictures.

`<image>` in a text stands for an image: the n-th is the n-th picture. A text
that merely spells `<image>` is written with a zero-width space in it (`escape`)
that is removed when it is read (`unescape`).
"""

from __future__ import annotations

import collections
from collections.abc import Iterator, Mapping, Sequence
import dataclasses
import enum
import re
from typing import Any

from etils import epath

from gog_jax import images as image_files
from gog_jax.chat import protocol
from gog_jax.errors import UserError
from gog_jax.storage.records import Unusable

IMAGE = '<image>'
# The column that says in what the boxes of calls are: one of boxes.KINDS, of
# the image that the call names; or, in sets of ours, original pixels of that
# image's root, and each gaze was answered by the tool's own crop.
BOX_FRAME = 'box_frame'
ROOT_PIXELS = 'root_pixels'

_SPELLED = re.compile(
    '<(image|video|audio|bbox|ref-object)(\u200b*)>'
)
_THOUGHT = re.compile(
    f'{protocol.THINK}(.*?){protocol.END_THINK}\\s*', re.DOTALL
)


class Role(enum.StrEnum):
  """Who speaks, in the words of LLaMA-Factory's dataset_info.json."""

  SYSTEM = 'system'
  USER = 'user'
  ASSISTANT = 'assistant'  # A thought or an answer; or anything it said.
  CALL = 'function'  # JSON of one call.
  REPLY = 'observation'  # What a tool answered.


@dataclasses.dataclass(frozen=True, kw_only=True)
class Message:
  """A message; `text` is as in the file, `extra` holds its other fields."""

  role: Role
  text: str
  extra: Mapping[str, Any] = dataclasses.field(default_factory=dict)


@dataclasses.dataclass(frozen=True, kw_only=True)
class Picture:
  """An image file.

  Attributes:
    name: Its path in the conversation, e.g. 'images/a.png'.
    data: Its content, or where to read it.
  """

  name: str
  data: bytes | epath.Path

  def read(self) -> bytes:
    """The file's bytes.

    Raises:
      Unusable: It cannot be read or is not an image.
    """
    try:
      data = self.data if isinstance(self.data, bytes) else (
          self.data.read_bytes()
      )
      image_files.size_of(data)
      return data
    except OSError as error:
      raise Unusable('no image', f'has no image {self.name}') from error
    except UserError as error:
      raise Unusable('bad image', f'image {self.name}: {error}') from error


@dataclasses.dataclass(frozen=True, kw_only=True)
class Conversation:
  """A conversation.

  Attributes:
    id: Unique in its file; defaults to the file's name and a number.
    messages: In order. A turn is a thought, if any, and a message for each
      call, or an answer.
    pictures: One for each `<image>`, in order.
    columns: Its other columns in the file, e.g. its tools.
  """

  id: str
  messages: tuple[Message, ...]
  pictures: tuple[Picture, ...] = ()
  columns: Mapping[str, Any] = dataclasses.field(default_factory=dict)

  def check(self) -> None:
    """Raises Unusable if messages or pictures do not match."""
    for _ in exchanges(self.messages):
      pass
    n_shown = sum(one.text.count(IMAGE) for one in self.messages)
    if n_shown != len(self.pictures):
      raise Unusable(
          'images differ',
          f'{n_shown} {IMAGE} in its texts, {len(self.pictures)} images; its '
          f'other columns are {", ".join(self.columns) or "none"}',
      )
    for picture in self.pictures:
      picture.read()


def escape(text: str) -> str:
  """Text in which no `<image>` stands for an image."""
  return _SPELLED.sub('<\\1\\2\u200b>', text)


def unescape(text: str) -> str:
  """The inverse of `escape`."""
  return _SPELLED.sub(lambda m: f'<{m[1]}{m[2][1:]}>', text)


def split_thought(text: str) -> tuple[str | None, str]:
  """The text in the first `<think>`, stripped, or None; and the rest."""
  match = _THOUGHT.search(text)
  if match is None:
    return None, text
  return match[1].strip(), text[: match.start()] + text[match.end() :]


def after_thought(text: str) -> int:
  """Where a thought at the start of a text ends; 0 if there is none."""
  match = _THOUGHT.match(text, len(text) - len(text.lstrip()))
  return match.end() if match else 0


def exchanges(
    messages: Sequence[Message],
) -> Iterator[tuple[list[Message], list[Message]]]:
  """Yields pairs of what the agent is told and what it says.

  Raises:
    Unusable: The messages are out of order: the user speaks first, then the
      agent, then the user or replies to its calls, and so on, the agent last.
  """
  rest = collections.deque(messages)

  def take(role: Role, most: int = len(rest)) -> list[Message]:
    taken = []
    while rest and rest[0].role == role and len(taken) < most:
      taken.append(rest.popleft())
    return taken

  take(Role.SYSTEM, 1)
  called = False
  while True:
    asked = take(Role.USER, 1) or take(Role.REPLY)
    said = take(Role.ASSISTANT, 1) + take(Role.CALL) if asked else []
    if not said:
      found = f'is of the {rest[0].role.value}' if rest else 'is missing'
      wanted = 'the agent' if asked else 'the user or a reply'
      raise Unusable(
          'turn order',
          f'message {len(messages) - len(rest) + 1} {found}, where {wanted} '
          'has to speak',
      )
    replied = asked[0].role == Role.REPLY or (called and _is_reply(asked[0]))
    if replied != called:
      raise Unusable(
          'turn order',
          f'message {len(messages) - len(rest)} comes after '
          + ('a call without a reply' if called else 'a reply without a call'),
      )
    called = said[-1].role == Role.CALL or protocol.CALL in said[-1].text
    yield asked, said
    if not rest:
      return


def _is_reply(message: Message) -> bool:
  """Whether it is a user message with replies, as in Hermes' format."""
  text = message.text.strip()
  return text.startswith(protocol.RESPONSE) and text.endswith(
      protocol.END_RESPONSE
  )

"""One conversation with an agent, as files of other projects tell it.

It is kept word for word, so that writing it back changes nothing. An image
stands in a text as `<image>`; the n-th of these is the n-th picture. A text of
ours that merely spells `<image>` is written with an invisible zero-width space
in it (`escape`), and read back without (`unescape`).

Files differ in what a message is. LLaMA-Factory's turns are `merged`: a turn of
the agent is one message, its thought and all its calls, and what answers them
is one as well. ms-swift has a message for the thought, for each call and for
each reply. `merge` and `split` lead from one to the other.
"""

from __future__ import annotations

import collections
from collections.abc import Iterator, Mapping, Sequence
import dataclasses
import enum
import json
import re
from typing import Any

from etils import epath

from gog_jax.chat import protocol

IMAGE = '<image>'
# Between two replies of one message: what a template that puts the whole into
# <tool_response> tags makes of it are two.
JOINT = f'\n{protocol.END_RESPONSE}\n{protocol.RESPONSE}\n'

_SPELLED = re.compile('<(image|video|audio)(\u200b*)>')
_THOUGHT = re.compile(
    f'{protocol.THINK}(.*?){protocol.END_THINK}\\s*', re.DOTALL
)


class Unusable(Exception):
  """A conversation that nothing can be made of.

  Attributes:
    reason: The few words under which it is counted, see `data.records.Drop`.
    detail: One line for people.
  """

  def __init__(self, reason: str, detail: str = ''):
    super().__init__(detail or reason)
    self.reason, self.detail = reason, detail or reason


class Role(enum.StrEnum):
  """Who speaks."""

  SYSTEM = 'system'
  USER = 'user'
  ASSISTANT = 'assistant'  # A thought or an answer; or anything it said.
  CALL = 'call'  # JSON of one call or, merged, of several, after a thought.
  REPLY = 'reply'  # What a tool answered.


@dataclasses.dataclass(frozen=True, kw_only=True)
class Message:
  """Attributes: role, text as the file has it, and what else it says of it."""

  role: Role
  text: str
  extra: Mapping[str, Any] = dataclasses.field(default_factory=dict)


@dataclasses.dataclass(frozen=True, kw_only=True)
class Picture:
  """An image file.

  Attributes:
    name: Its path as the conversation names it, e.g. 'images/a.png'.
    data: Its bytes, or where they are.
  """

  name: str
  data: bytes | epath.Path

  def read(self) -> bytes:
    """Returns the file's bytes.

    Raises:
      OSError: It cannot be read.
    """
    return self.data if isinstance(self.data, bytes) else self.data.read_bytes()


@dataclasses.dataclass(frozen=True, kw_only=True)
class Conversation:
  """A conversation.

  Attributes:
    id: Unique in its file; where that gives none, file and number.
    messages: In order.
    pictures: One for each `<image>`, in order.
    merged: Which of the two kinds of messages it has, see above.
    system: What `messages` does not begin with but a column of its own holds.
    columns: All else that the file says of it, its tools included.
    hidden: Pictures that nothing shows but `columns` speaks of.
  """

  id: str
  messages: tuple[Message, ...]
  pictures: tuple[Picture, ...] = ()
  merged: bool = True
  system: str | None = None
  columns: Mapping[str, Any] = dataclasses.field(default_factory=dict)
  hidden: tuple[Picture, ...] = ()


def escape(text: str) -> str:
  """Text in which nothing stands for an image."""
  return _SPELLED.sub('<\\1\\2\u200b>', text)


def unescape(text: str) -> str:
  """What `escape` was given."""
  return _SPELLED.sub(lambda m: f'<{m[1]}{m[2][1:]}>', text)


def split_thought(text: str) -> tuple[str | None, str]:
  """What stands within the first `<think>`, stripped, and all around it."""
  match = _THOUGHT.search(text)
  if match is None:
    return None, text
  return match[1].strip(), text[: match.start()] + text[match.end() :]


def split_calls(text: str) -> tuple[str, list[str]]:
  """Cuts a merged message of calls: what comes before, JSON of each call.

  Raises:
    Unusable: What follows the thought is no JSON of calls.
  """
  match = _THOUGHT.match(text.lstrip())
  start = len(text) - len(text.lstrip()) + match.end() if match else 0
  before, body = text[:start], text[start:]
  try:
    calls = json.loads(body)
  except (ValueError, RecursionError) as error:
    raise Unusable(
        'bad call', f'the call {body[:60]!r} is not JSON ({error})'
    ) from error
  if not isinstance(calls, list):
    return before, [body]
  return before, [json.dumps(call, ensure_ascii=False) for call in calls]


def exchanges(
    messages: Sequence[Message],
) -> Iterator[tuple[list[Message], list[Message]]]:
  """Yields what is said to the agent, and its turn, of `split` messages.

  Raises:
    Unusable: They do not follow one another so: user, then the agent, then
      the user or replies to its calls, ..., the agent last.
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
    replied = asked[0].role == Role.REPLY or (called and is_reply(asked[0]))
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


def is_reply(message: Message) -> bool:
  """Whether it is one, or looks like Hermes' message of the user with some."""
  text = message.text.strip()
  return message.role == Role.REPLY or text.startswith(
      protocol.RESPONSE
  ) and text.endswith(protocol.END_RESPONSE)


def split(conversation: Conversation) -> Conversation:
  """The same with a message for each thought, call and reply.

  Raises:
    Unusable: A call is no JSON.
  """
  if not conversation.merged:
    return conversation
  messages: list[Message] = []
  if conversation.system is not None:
    messages.append(Message(role=Role.SYSTEM, text=conversation.system))
  n_calls = 0
  for message in conversation.messages:
    same = dict(extra=message.extra)
    if message.role == Role.CALL:
      before, calls = split_calls(message.text)
      n_calls = len(calls)
      if before:
        messages.append(Message(role=Role.ASSISTANT, text=before, **same))
      messages += [Message(role=Role.CALL, text=one, **same) for one in calls]
    elif message.role == Role.REPLY:
      replies = message.text.split(JOINT)
      if len(replies) != n_calls:  # It is the text itself that spells it.
        replies = [message.text]
      messages += [
          Message(role=Role.REPLY, text=one, **same) for one in replies
      ]
    else:
      messages.append(message)
  return dataclasses.replace(
      conversation, messages=tuple(messages), merged=False, system=None
  )


def merge(conversation: Conversation) -> Conversation:
  """The same with one message for each turn."""
  if conversation.merged:
    return conversation
  messages = list(conversation.messages)
  system = None
  if messages and messages[0].role == Role.SYSTEM:
    system = messages.pop(0).text
  merged: list[Message] = []
  while messages:
    run = [messages.pop(0)]
    while messages and (run[-1].role, messages[0].role) in (
        (Role.ASSISTANT, Role.CALL),
        (Role.CALL, Role.CALL),
        (Role.REPLY, Role.REPLY),
    ):
      run.append(messages.pop(0))
    extra = {key: value for one in run for key, value in one.extra.items()}
    merged.append(
        Message(role=run[-1].role, text=_joined(run), extra=extra)
    )
  return dataclasses.replace(
      conversation, messages=tuple(merged), merged=True, system=system
  )


def _joined(run: Sequence[Message]) -> str:
  if run[-1].role != Role.CALL:
    return JOINT.join(one.text for one in run)
  calls = [one.text for one in run if one.role == Role.CALL]
  before = ''.join(one.text for one in run if one.role != Role.CALL)
  if before.strip() and protocol.THINK not in before:
    # LLaMA-Factory takes nothing but a thought to stand before a call.
    before = f'{protocol.THINK}\n{before.strip()}\n{protocol.END_THINK}\n'
  return before + (calls[0] if len(calls) == 1 else f'[{", ".join(calls)}]')

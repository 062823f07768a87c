"""Encodes conversations as trajectories with tokens, for fine-tuning.

System message and tools are the chat's own, so that a policy is trained on what
it will be shown. Other notations become ours: a call's JSON goes into
`<tool_call>`, a plain answer into `<answer>`, a box into the frame in which the
policy writes boxes. Targets are the agent's messages, except those whose `loss`
is false.

Boxes and the crops they bring are in regions.py.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
import dataclasses
import re

from gog_jax.boxes import BoxSpec
from gog_jax.chat import Chat
from gog_jax.chat import protocol
from gog_jax.chat.render import Piece
from gog_jax.chat.render import whole
from gog_jax.conversations import calls as calls_lib
from gog_jax.conversations import messages as messages_lib
from gog_jax.conversations import objects
from gog_jax.conversations.messages import BOX_FRAME
from gog_jax.conversations.messages import Conversation
from gog_jax.conversations.messages import IMAGE
from gog_jax.conversations.messages import Message
from gog_jax.conversations.messages import Role
from gog_jax.conversations.regions import Regions
from gog_jax.rollout.transcript import Transcript
from gog_jax.storage.records import Unusable
from gog_jax.tools import gaze
from gog_jax.tools.base import ModelError
from gog_jax.types import NO_ROOT
from gog_jax.types import ParsedTurn
from gog_jax.types import StopReason
from gog_jax.types import TokenChunk
from gog_jax.types import ToolCall
from gog_jax.types import Trajectory
from gog_jax.types import Turn
from gog_jax.types import View

_ANSWER = re.compile(f'{protocol.ANSWER}(.*?){protocol.END_ANSWER}', re.DOTALL)
_REPLIES = re.compile(
    f'{protocol.RESPONSE}\n?(.*?)\n?{protocol.END_RESPONSE}', re.DOTALL
)
# Fields of a message that say whether its words are a target.
_FLAGS, _NO = ('loss', 'train', 'training', 'weight'), ('false', '0', '0.0')
# Images before any text, and the line end after them.
_LEADING = re.compile(f'(?:\\s*{IMAGE})+\n?')


def encode(
    conversation: Conversation,
    chat: Chat,
    box_spec: BoxSpec,
    *,
    data_box: str = '',
) -> Trajectory:
  """Encodes a conversation; logprobs are 0, and turns have no results.

  A conversation with calls that the chat's tools do not take cannot be used: no
  policy could make them.

  Args:
    conversation: Its calls name images by numbers, from 1 in order.
    chat: That of the policy.
    box_spec: How the policy writes boxes.
    data_box: What the boxes of calls are in, one of boxes.KINDS, where the
      conversation does not say it.

  Raises:
    FrameError: There are boxes, and `data_box` is needed.
    Unusable: The conversation cannot be encoded.
  """
  frame = str(conversation.columns.get(BOX_FRAME) or data_box)
  regions = Regions(frame, box_spec, chat.processor.seen_size)
  conversation = objects.filled(
      conversation, box_spec, chat.processor.seen_size
  )
  encoder = _Encoder(conversation, chat, regions)
  for asked, said in messages_lib.exchanges(conversation.messages):
    encoder.ask(asked)
    encoder.say(said)
  return encoder.trajectory()


class _Encoder:
  """A conversation that is being encoded."""

  def __init__(self, conversation: Conversation, chat: Chat, regions: Regions):
    self._id = conversation.id
    self._chat, self._regions = chat, regions
    self._pictures = iter(conversation.pictures)
    self._transcript = Transcript()
    self._question = ''
    self._n_given = 0  # Images so far.

  def ask(self, asked: Sequence[Message]) -> None:
    """Appends what the agent is told: a question, or replies to its calls."""
    turns = self._transcript.turns
    first = not turns
    if not first and (last := turns[-1]).parsed.calls:
      texts = [one.text for one in asked]
      if asked[0].role != Role.REPLY:
        texts = _REPLIES.findall(asked[0].text)
      contents = [list(self._pieces(text)) for text in texts]
      contents = self._regions.shown(
          last.parsed.calls, contents, self._transcript.chunk.images
      )
      replies = self._chat.replies(contents, question=self._question)
      self._transcript.append(replies)
      return
    (message,) = asked
    leading = _LEADING.match(message.text)
    end = leading.end() if leading else 0
    before = list(self._pieces(message.text[:end]))
    question = list(self._pieces(message.text[end:]))
    if first:
      self._question = ''.join(p for p in question if isinstance(p, str))
      self._refuse_prompt()
    images = [piece for piece in before if isinstance(piece, View)]
    self._transcript.append(self._chat.ask(images, question, first=first))

  def _refuse_prompt(self) -> None:
    """Refuses a whole prompt of this dialect where a question belongs.

    It would appear twice, the second time with its tags broken up.
    """
    grammar = self._chat.grammar
    explained = (*grammar.think, *grammar.reply)
    if grammar.defuses and all(tag in self._question for tag in explained):
      raise Unusable(
          'other format',
          'its first message is a prompt in the dialect '
          f'{self._chat.dialect.name} already, where a question has to stand',
      )

  def say(self, said: Sequence[Message]) -> None:
    """Appends a turn of the agent."""
    try:
      token_ids, parsed = self._turn(said)
      _check(parsed)
      for call in parsed.calls:
        calls_lib.check_search(call, self._transcript.chunk.images)
      if any(call.name == gaze.NAME for call in parsed.calls):
        views = self._transcript.chunk.images
        calls = [self._regions.written(call, views) for call in parsed.calls]
        token_ids, parsed = self._encoded(parsed.thought, calls)
    except ModelError as error:
      raise Unusable('bad box', _line(error)) from error
    except ValueError as error:  # What the chat cannot write.
      raise Unusable('bad turn', _line(error)) from error
    trained = all(map(_trained, said))
    chunk = TokenChunk(token_ids=tuple(token_ids))
    self._transcript.append(chunk, target=trained)
    turn = Turn(parsed=parsed, n_sampled=len(token_ids))
    self._transcript.turns.append(turn)

  def trajectory(self) -> Trajectory:
    """The trajectory of what was appended."""
    answered = self._transcript.turns[-1].parsed.answer is not None
    return self._transcript.trajectory(
        self._id, StopReason.ANSWER if answered else StopReason.TURNS
    )

  def _pieces(self, text: str) -> Iterator[Piece]:
    """Splits a text into its text and pictures."""
    for number, part in enumerate(text.split(IMAGE)):
      if number:
        (view,) = whole([next(self._pictures).read()])
        # Of the images that come later, files do not say where they are from.
        root = NO_ROOT if self._transcript.turns else self._n_given
        self._n_given += 1
        yield dataclasses.replace(view, root=root)
      if part:
        yield messages_lib.unescape(part)

  def _turn(self, said: Sequence[Message]) -> tuple[list[int], ParsedTurn]:
    """Encodes a turn as it is written if that is valid, else in our notation.
    """
    text = ''.join(
        messages_lib.unescape(one.text)
        for one in said
        if one.role == Role.ASSISTANT
    )
    calls = [calls_lib.read(x.text) for x in said if x.role == Role.CALL]
    if not calls:
      token_ids = self._chat.encode_written(text)
      parsed = self._chat.parse(token_ids, truncated=False)
      if not parsed.format_error:
        return token_ids, parsed
    thought, rest = messages_lib.split_thought(text)
    answer = None
    if not calls:
      calls = [calls_lib.read(block) for block in calls_lib.BLOCK.findall(rest)]
      rest = calls_lib.BLOCK.sub('', rest)
    if not calls:
      found = _ANSWER.search(rest)
      answer = found[1] if found else rest
      rest = _ANSWER.sub('', rest) if found else ''
    if thought is None:  # Words outside of all tags.
      thought, rest = rest, ''
    if rest.strip():
      raise ValueError(f'{rest.strip()[:60]!r} stands outside of all tags')
    return self._encoded(thought, calls, answer)

  def _encoded(
      self, thought: str, calls: Sequence[ToolCall], answer: str | None = None
  ) -> tuple[list[int], ParsedTurn]:
    token_ids = self._chat.encode_turn(
        thought=thought, calls=calls, answer=answer
    )
    return token_ids, self._chat.parse(token_ids, truncated=False)


def _check(parsed: ParsedTurn) -> None:
  """Refuses a turn that no policy should make."""
  if parsed.format_error:
    raise Unusable('bad turn', _line(parsed.format_error))
  for call in parsed.calls:
    if call.error:
      raise Unusable('bad call', f'the call of {call.name!r}: {call.error}')


def _trained(message: Message) -> bool:
  """Whether its words are a target, by any of the flags in use."""
  said = {name: str(message.extra.get(name, True)).lower() for name in _FLAGS}
  for name, value in said.items():
    if value not in (*_NO, 'true', '1', '1.0', 'none'):
      raise Unusable('bad flag', f'{name!r} is {value!r}, not true or false')
  return not any(value in _NO for value in said.values())


def _line(text: object) -> str:
  return ' '.join(str(text).split())

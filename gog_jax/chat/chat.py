"""Renders prompts and observations as tokens; reads what the policy sampled.

Tokens are truth: only what the policy did not sample is ever encoded here, the
prompt once and each observation once, to be appended. Sampled ids are decoded
for reading and never encoded again.

The frame is Qwen's: `<|im_start|>role\n...<|im_end|>\n`. An image is
`<|vision_start|>`, one `<|image_pad|>` per merged patch and `<|vision_end|>`;
tool replies are blocks in a user message. The dialect's grammar defines the
tags of these blocks and of the parts of the policy's messages. The system
message is the dialect's. If the dialect has `instructions` and the model
folder's own chat template supports tools, the template writes it from both.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
import dataclasses
import itertools
from typing import Any

from etils import epath

from gog_jax.chat import protocol
from gog_jax.chat.codec import Codec
from gog_jax.chat.codec import END
from gog_jax.chat.codec import END_OF_TEXT
from gog_jax.chat.codec import IMAGE_PAD
from gog_jax.chat.codec import NEEDED
from gog_jax.chat.codec import START
from gog_jax.chat.codec import VISION_END
from gog_jax.chat.codec import VISION_START
from gog_jax.chat.dialect import Dialect
from gog_jax.chat.dialect import GRAMMARS
from gog_jax.chat.grammar import Grammar
from gog_jax.chat.grammar import tool_checker
from gog_jax.chat.render import fill
from gog_jax.chat.render import Markup
from gog_jax.chat.render import Piece
from gog_jax.chat.render import system_message
from gog_jax.chat.render import tool_result
from gog_jax.chat.render import whole
from gog_jax.chat.template import load_template
from gog_jax.images import ImageProcessor
from gog_jax.images import size_of
from gog_jax.types import Example
from gog_jax.types import ParsedTurn
from gog_jax.types import Placement
from gog_jax.types import TokenChunk
from gog_jax.types import ToolCall
from gog_jax.types import ToolResult
from gog_jax.types import View

# What a message of the policy may not contain. An `<|image_pad|>` in it would
# stand for an image that does not exist.
_FORBIDDEN = NEEDED + (
    '<|vision_pad|>',
    '<|video_pad|>',
    protocol.RESPONSE,
    protocol.END_RESPONSE,
)


class Chat:
  """The chat format of one tokenizer, dialect and set of tools.

  Attributes:
    codec: The tokenizer.
    stop_ids: Tokens that end a turn; the first is `<|im_end|>`.
    head: Tokens before the user's first message: the system message, if any.
    image_pad_id: The placeholder of an image's features.
    dialect: The wording of prompts and observations.
    grammar: How the dialect's messages mark their parts.
    processor: Determines how many tokens an image takes.
  """

  def __init__(
      self,
      tokenizer_folder: epath.PathLike,
      *,
      dialect: Dialect,
      processor: ImageProcessor,
      tools: Sequence[Mapping[str, Any]],
  ):
    """Loads the tokenizer.

    Args:
      tokenizer_folder: Holds tokenizer.json.
      dialect: The wording of prompts and observations.
      processor: Determines how many tokens an image takes.
      tools: `{'name', 'description', 'parameters'}` each, the last a JSON
        schema that calls are checked against.

    Raises:
      UserError: The tokenizer is missing, damaged, or lacks a control token;
        or the folder's chat template and the dialect contradict each other.
    """
    self.codec = Codec(tokenizer_folder)
    self.codec.check()
    self._ids = self.codec.ids_of(NEEDED)
    self.dialect = dialect
    self.grammar: Grammar = GRAMMARS[dialect.grammar]
    self.processor = processor
    self.image_pad_id: int = self._ids[IMAGE_PAD]
    self.stop_ids = (self._ids[END], self._ids[END_OF_TEXT])
    forbidden = self.codec.ids_of((*_FORBIDDEN, *self.grammar.reply))
    self._forbidden = {index: token for token, index in forbidden.items()}
    self._check = tool_checker(tools)
    template = None
    if dialect.instructions:
      template = load_template(tokenizer_folder)
    system = system_message(dialect, tools, template)
    self.head = self._encode(system).token_ids

  @property
  def content_ids(self) -> tuple[int, ...]:
    """Tokens that a message of the policy may hold, tags included."""
    n = self.codec.vocab_size
    return tuple(i for i in range(n) if i not in self._forbidden)

  @property
  def call_ids(self) -> tuple[int, ...]:
    """The tokens that open calls: without them no call can be made.

    Empty if the grammar's tags are not tokens of this tokenizer: the tokens
    that spell an opening tag occur elsewhere too. A policy that must answer at
    once is then only told so, and given one turn.
    """
    opening = [form.tags[0] for form in self.grammar.forms]
    found = self.codec.ids_of(opening)
    return tuple(found.values()) if len(found) == len(opening) else ()

  def prompt(self, example: Example) -> TokenChunk:
    """Encodes everything before the policy's first token.

    The system message with the tools, if the dialect has one; the user's
    message with images and question; the opening of the policy's message.

    Raises:
      UserError: An image cannot be read.
    """
    views = whole(example.images)
    if example.image_places:
      return self.ask((), example.in_place(views), first=True)
    return self.ask(views, (example.question,), first=True)

  def ask(
      self, images: Sequence[View], question: Sequence[Piece], *, first: bool
  ) -> TokenChunk:
    """Encodes a question of the user, in the dialect's words.

    Args:
      images: Shown where the dialect has its images.
      question: Text, and images within it.
      first: Whether it opens the conversation, see `user`.
    """
    message = fill(self.dialect.user, images=images, question=question)
    return self.user(message, first=first, opening=self.dialect.opening)

  def observation(
      self,
      turn_calls: Sequence[ToolCall],
      results: Sequence[ToolResult],
      *,
      question: str = '',
  ) -> TokenChunk:
    """Encodes everything between the policy's `<|im_end|>` and its next turn.

    There is one reply per call, in call order.

    Args:
      turn_calls: The calls of the turn before.
      results: The result of each.
      question: The user's question, for dialects that repeat it.
    """
    if not results or len(turn_calls) != len(results):
      raise ValueError(f'{len(turn_calls)} calls, {len(results)} results')
    replies = [tool_result(self.dialect, result) for result in results]
    return self.replies(replies, question=question)

  def replies(
      self, contents: Sequence[Sequence[Piece]], *, question: str = ''
  ) -> TokenChunk:
    """Encodes an observation from the content of its replies."""
    opening, closing = self.grammar.reply
    responses: list[Piece] = []
    for index, content in enumerate(contents):
      before = f'\n{opening}\n' if index else f'{opening}\n'
      responses += [Markup(before), *content, Markup(f'\n{closing}')]
    message = fill(
        self.dialect.observation, responses=responses, question=question
    )
    return self.user(message, first=False, opening=self.dialect.opening)

  def user(
      self, message: Sequence[Piece], *, first: bool, opening: str = ''
  ) -> TokenChunk:
    """Encodes a message of the user, up to the policy's first token after it.

    Args:
      message: Its content.
      first: Whether it opens the conversation, after the system message, or
        follows a message of the policy.
      opening: The beginning of the policy's message.
    """
    before = f'{START}user\n' if first else f'\n{START}user\n'
    after = f'{END}\n{START}assistant\n{opening}'
    chunk = self._encode([Markup(before), *message, Markup(after)])
    return TokenChunk(token_ids=self.head) + chunk if first else chunk

  def encode_turn(
      self,
      *,
      thought: str,
      calls: Sequence[ToolCall] = (),
      answer: str | None = None,
  ) -> list[int]:
    """Encodes a message as a policy would sample it, `<|im_end|>` included.

    The dialect's opening is left out: it belongs to the prompt or observation.
    For experts and fine-tuning data only. `parse` reads it back; text that the
    tokenizer normalises (Qwen's: to NFC) comes back normalised.

    Raises:
      ValueError: As `Grammar.write_message`.
    """
    text = self.grammar.write_message(
        thought=thought,
        calls=calls,
        answer=answer,
        around=self.dialect.around_thought,
    )
    return self.encode_written(text)

  def encode_written(self, text: str) -> list[int]:
    """Encodes the text of a message, such as `encode_turn` writes.

    The grammar's tags become control tokens; everything else is text.
    """
    text = text.removeprefix(self.dialect.opening)
    # Only the grammar's own tags, which write_message keeps out of contents:
    # `<|im_end|>` in a query stays text, and so does a tag that is not a token
    # of this tokenizer.
    pieces = [
        Markup(part) if part in self.grammar.tags else part
        for part in self.grammar.tag.split(text)
    ]
    return list(self._encode([*pieces, Markup(END)]).token_ids)

  def parse(
      self, sampled_ids: Sequence[int], *, truncated: bool
  ) -> ParsedTurn:
    """Reads a message of the policy.

    Args:
      sampled_ids: The turn's tokens, closing token included unless truncated.
      truncated: The length limit cut it off: its calls are neither executed nor
        repaired.
    """
    token_ids = [int(index) for index in sampled_ids]
    end = token_ids[-1] if token_ids else None
    closed = end in self.stop_ids
    body = token_ids[:-1] if closed else token_ids
    turn = self.grammar.read_message(
        self.dialect.opening + self.codec.decode(body),
        check=self._check,
        truncated=truncated or not closed,
    )
    errors = [turn.format_error] if turn.format_error else []
    if closed and end != self.stop_ids[0]:
      errors.append(f'the message ends in {END_OF_TEXT} instead of {END}')
    for index in dict.fromkeys(body):
      if index in self._forbidden:
        errors.append(f'{self._forbidden[index]} inside the message')
      elif not 0 <= index < self.codec.vocab_size:
        errors.append(f'token {index} has no text')
    return dataclasses.replace(turn, format_error='; '.join(errors) or None)

  def encode_untrusted(self, text: str) -> list[int]:
    """Encodes text; no spelling in it becomes a control token."""
    return list(self.codec.encode_text(text))

  def decode(self, token_ids: Sequence[int]) -> str:
    """Returns the text of any tokens, control tokens spelled out."""
    return self.codec.decode([int(index) for index in token_ids])

  def messages(self, chunk: TokenChunk) -> list[tuple[str, list[str | View]]]:
    """The messages of a prompt, or of a conversation; the last may be open.

    Each is a role with its texts and images in order. Only ids count: text that
    spells a control token stays text. Whatever stands between two messages is
    left out.
    """
    ids, token_ids = self._ids, chunk.token_ids
    spans: list[tuple[int, int]] = []
    start: int | None = None  # Of the message that is open, if one is.
    for position, index in enumerate(token_ids):
      if index == ids[START]:
        start = position + 1
      elif index == ids[END] and start is not None:
        spans.append((start, position))
        start = None
    if start is not None:
      spans.append((start, len(token_ids)))

    images = {p.start: chunk.images[p.image] for p in chunk.placements}
    vision = (ids[VISION_START], ids[VISION_END], ids[IMAGE_PAD])
    messages: list[tuple[str, list[str | View]]] = []
    for span in spans:
      parts: list[str | View] = []
      for is_image, run in itertools.groupby(
          range(*span), key=lambda position: token_ids[position] in vision
      ):
        if is_image:
          parts += [images[position] for position in run if position in images]
        else:
          parts.append(self.decode([token_ids[position] for position in run]))
      if parts and isinstance(parts[0], str):  # The first line is the role.
        role, _, text = parts[0].partition('\n')
        messages.append((role, [*([text] if text else []), *parts[1:]]))
    return messages

  def _encode(self, pieces: Iterable[Piece]) -> TokenChunk:
    """Encodes pieces; an image becomes its frame and a token per merged patch.

    All text between two control tokens is encoded in one go, across pieces, as
    a tokenizer does that reads the whole rendered message: models were trained
    on the result.

    Raises:
      UserError: An image cannot be read.
    """
    token_ids: list[int] = []
    placements: list[Placement] = []
    images: list[View] = []
    text = ''
    for part in itertools.chain.from_iterable(map(self._parts, pieces)):
      if isinstance(part, str):
        text += part
        continue
      token_ids += self.codec.encode_text(text)
      text = ''
      if isinstance(part, int):
        token_ids.append(part)
        continue
      size = size_of(part.data)
      n_tokens = self.processor.n_tokens(*size)
      placements.append(
          Placement(
              start=len(token_ids),
              image=len(images),
              grid=self.processor.grid(*size),
              n_tokens=n_tokens,
          )
      )
      images.append(part)
      token_ids += [self.image_pad_id] * n_tokens
    token_ids += self.codec.encode_text(text)
    return TokenChunk(
        token_ids=tuple(token_ids),
        images=tuple(images),
        placements=tuple(placements),
    )

  def _parts(self, piece: Piece) -> Iterable[str | int | View]:
    """A piece as text, ids of control tokens, and images."""
    if isinstance(piece, Markup):
      return self.codec.split(piece)
    if isinstance(piece, str):
      return [self.grammar.defuse(piece)]
    return [self._ids[VISION_START], piece, self._ids[VISION_END]]

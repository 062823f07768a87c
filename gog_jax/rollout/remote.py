"""A policy that asks a remote model, in messages.

The loop speaks in tokens, an endpoint in messages: the conversation's tokens
are read back into messages, images included, and what the endpoint says is
encoded as plain text with our own tokenizer. So whatever reads trajectories
works on these too. But the tokens are ours, not those the model sampled, and
their logprobs are 0: such trajectories can be shown, evaluated and imitated,
but not used for training with importance ratios.
"""

from __future__ import annotations

import asyncio
import base64
from collections.abc import Sequence
import dataclasses
import functools
import json
import re
from typing import Any

import aiohttp
from PIL import Image

from gog_jax import images
from gog_jax.chat import Chat
from gog_jax.chat import protocol
from gog_jax.config import paradigms
from gog_jax.images import ImageProcessor
from gog_jax.remote import tasks
from gog_jax.remote.completion import Completion
from gog_jax.remote.endpoint import Endpoint
from gog_jax.remote.endpoint import EndpointError
from gog_jax.remote.endpoint import MisconfiguredError
from gog_jax.rollout.policy import Conversation
from gog_jax.rollout.policy import said
from gog_jax.rollout.policy import SampledTurn
from gog_jax.types import TokenChunk
from gog_jax.types import ToolCall
from gog_jax.types import View

# Where a page spells a control token, the endpoint's tokenizer may turn it into
# one. A zero-width space, which nobody sees, prevents that.
_CONTROL = re.compile(r'<(?=\|[^<>|\s]{1,40}\|>)')
_DEFUSED = '<\u200b'


@dataclasses.dataclass(frozen=True, kw_only=True)
class RemotePolicy:
  """Asks an endpoint for every turn. Logprobs are 0, see above.

  Attributes:
    endpoint: The model.
    chat: Reads conversations and encodes replies.
    capacity: Turns that are asked for at once.
    max_turn_tokens: Tokens of a message; longer ones are cut off.
    exact_size: Whether images are sent at exactly the size that the processor
      gives them, which boxes in resized pixels need; else only no larger.
    tolerant: Whether a failed turn ends its own conversation only; else it
      stops the run.
  """

  endpoint: Endpoint
  chat: Chat
  capacity: int
  max_turn_tokens: int
  exact_size: bool
  tolerant: bool = False

  def sample(
      self, conversations: Sequence[Conversation]
  ) -> list[SampledTurn]:
    """Asks for all turns at once.

    Raises:
      Interrupted: After a signal.
      UserError: The endpoint fails, unless only some turns do and `tolerant` is
        set; an image cannot be read; or the cap on spending is reached.
    """
    return asyncio.run(self._sample(conversations))

  async def _sample(
      self, conversations: Sequence[Conversation]
  ) -> list[SampledTurn]:
    async with self.endpoint.session() as session:
      return await tasks.gather(
          self._ask(session, self._messages(c.chunk), c.request.seed)
          for c in conversations
      )

  async def _ask(
      self,
      session: aiohttp.ClientSession,
      messages: list[dict[str, Any]],
      seed: int,
  ) -> SampledTurn:
    try:
      return await self.endpoint.ask(
          session, lambda attempt: messages, self._sampled, seed=seed
      )
    except EndpointError as error:
      if self.tolerant and not isinstance(error, MisconfiguredError):
        return dataclasses.replace(said(()), error=str(error))
      raise

  def _sampled(self, reply: Completion) -> SampledTurn:
    text = self._written(reply)
    token_ids = self.chat.encode_untrusted(text)
    truncated = reply.truncated or len(token_ids) >= self.max_turn_tokens
    if truncated:
      token_ids = token_ids[: self.max_turn_tokens]
    else:
      token_ids.append(self.chat.stop_ids[0])
    return dataclasses.replace(
        said(token_ids),
        truncated=truncated,
        usage=reply.usage,
        # Some servers take all for the thought.
        untagged=self._untagged(
            text if reply.content.strip() else reply.reasoning
        ),
    )

  def _untagged(self, text: str) -> str:
    """The answer of a model that answers at once, but without the tags."""
    if self.chat.dialect.paradigm != paradigms.DIRECT:
      return ''
    grammar = self.chat.grammar
    answer = text.rpartition(grammar.think[1])[2].strip()
    return '' if grammar.tag.search(answer) else answer

  def _written(self, reply: Completion) -> str:
    """The message as the model wrote it, before the server parsed it."""
    dialect, grammar = self.chat.dialect, self.chat.grammar
    text, thought = reply.content, reply.reasoning.strip()
    opening, closing = grammar.think
    # Some parsers take all for the thought, or leave the tag that closes it.
    blocks = (grammar.answer, *(form.tags for form in grammar.forms))
    said = (closing, *(tags[0] for tags in blocks))
    if not (text.strip() or reply.tool_calls) and any(
        tag in thought for tag in said
    ):
      text, thought = thought, ''
    if thought and opening not in text:
      text = text.lstrip().removeprefix(closing).lstrip()
      text = thought.join(dialect.around_thought) + text
    if opening not in text.partition(closing)[0] and closing in text:
      text = opening + text  # It was a part of the server's own prompt.
    if reply.tool_calls and protocol.CALL not in text:
      blocks = [_block(*call) for call in reply.tool_calls]
      text = '\n'.join([*([text.rstrip()] if text.strip() else []), *blocks])
    # The opening belongs to the prompt, but some servers send it along.
    opening = dialect.opening.strip()
    if opening and text.lstrip().startswith(opening):
      text = text.lstrip().removeprefix(opening).removeprefix('\n')
    return text

  def _messages(self, conversation: TokenChunk) -> list[dict[str, Any]]:
    """The conversation in the endpoint's form, up to its own next message."""
    *messages, unfinished = self.chat.messages(conversation)
    assert unfinished[0] == 'assistant'
    return [
        {'role': role, 'content': self._content(parts)}
        for role, parts in messages
    ]

  def _content(self, parts: Sequence[str | View]) -> Any:
    content: list[dict[str, Any]] = []
    for part in parts:
      if isinstance(part, str):
        text = _CONTROL.sub(_DEFUSED, part)
        content.append({'type': 'text', 'text': text})
      else:
        url = image_url(
            part.data, self.chat.processor, exact_size=self.exact_size
        )
        content.append({'type': 'image_url', 'image_url': {'url': url}})
    if all('text' in item for item in content):
      # Some servers accept a system message in no other form.
      return ''.join(item['text'] for item in content)
    return content


# A conversation sends its images again with every turn.
@functools.lru_cache(maxsize=32)
def image_url(
    data: bytes, processor: ImageProcessor, *, exact_size: bool
) -> str:
  """An image file as a data: URL, no larger than the processor shows it.

  PNG and JPEG files that are small enough are sent as they are, anything else
  as a PNG, or as a JPEG if it was one.

  Raises:
    UserError: It cannot be read, or is too long and thin.
  """
  width, height = images.size_of(data)
  seen = processor.seen_size(width, height)
  too_large = width * height > processor.max_pixels
  resized = seen != (width, height) and (exact_size or too_large)
  kind = images.kind_of(data)
  if resized or kind is None:
    image = images.decode(data)
    if resized:
      image = image.resize(seen, Image.Resampling.BICUBIC)
    data = (images.encode_jpeg if kind == 'jpeg' else images.encode_png)(image)
  encoded = base64.b64encode(data).decode('ascii')
  return f'data:image/{kind or "png"};base64,{encoded}'


def _block(name: str, arguments: str) -> str:
  """A call that a server's tool parser extracted, as the model wrote it.

  Arguments that are not a JSON object stay as they are, and `protocol` says
  what is wrong with them.
  """
  try:
    call = ToolCall(name=name, arguments=json.loads(arguments or '{}'))
    text = protocol.write_call(call)
  except (RecursionError, TypeError, ValueError):
    text = f'{{"name":{json.dumps(name)},"arguments":{arguments}}}'
  return f'{protocol.CALL}\n{text}\n{protocol.END_CALL}'

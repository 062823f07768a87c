"""A policy that is a remote model, asked in messages.

The loop speaks in tokens, an endpoint in messages: the chunks that the loop
gives are read back into messages, images included, and what the endpoint says
is encoded with our own tokenizer, as plain text. So everything that reads
trajectories works on these as well. But the tokens are ours, not those that
the model sampled, and their logprobs are 0: such trajectories serve to be
looked at, evaluated and imitated, never for training with importance ratios.
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
from gog_jax.images import ImageProcessor
from gog_jax.remote import tasks
from gog_jax.remote.endpoint import Completion
from gog_jax.remote.endpoint import Endpoint
from gog_jax.remote.endpoint import EndpointError
from gog_jax.remote.endpoint import MisconfiguredError
from gog_jax.rollout.policy import Conversation
from gog_jax.rollout.policy import said
from gog_jax.rollout.policy import SampledTurn
from gog_jax.types import TokenChunk
from gog_jax.types import ToolCall
from gog_jax.types import View

# Where a page spells a control token, the endpoint's tokenizer may well make
# one of it. Nobody misses what cannot be seen: a space without width.
_CONTROL = re.compile(r'<(?=\|[^<>|\s]{1,40}\|>)')
_DEFUSED = '<\u200b'


class RemotePolicy:
  """Asks an endpoint for every turn. Logprobs are 0, see above."""

  def __init__(
      self,
      endpoint: Endpoint,
      chat: Chat,
      *,
      capacity: int,
      max_context: int,
      max_turn_tokens: int,
      exact_size: bool,
      tolerant: bool = False,
  ):
    """Initialises the policy.

    Args:
      endpoint: Whom to ask.
      chat: Reads chunks and encodes replies.
      capacity: Conversations that are held, and asked about, at once.
      max_context: Tokens of a conversation, by our tokenizer.
      max_turn_tokens: Tokens of a message; what is longer is cut off.
      exact_size: Whether images are sent in the very size that the processor
        gives them, which boxes in resized pixels need; or only no larger.
      tolerant: Whether a conversation for which there is no message ends,
        and the others go on; or else all of them stop.
    """
    self.capacity = capacity
    self.max_context = max_context
    self._endpoint = endpoint
    self._chat = chat
    self._max_turn_tokens = max_turn_tokens
    self._exact_size = exact_size
    self._tolerant = tolerant

  def sample(
      self, conversations: Sequence[Conversation]
  ) -> list[SampledTurn]:
    """Asks about all of them at once.

    Raises:
      Interrupted: After a signal.
      UserError: The endpoint fails, if not only for some of them and this is
        tolerated; or an image cannot be read, or the cap is reached.
    """
    return asyncio.run(self._sample(conversations))

  async def _sample(
      self, conversations: Sequence[Conversation]
  ) -> list[SampledTurn]:
    async with self._endpoint.session() as session:
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
      return await self._endpoint.ask(
          session, lambda attempt: messages, self._sampled, seed=seed
      )
    except EndpointError as error:
      if self._tolerant and not isinstance(error, MisconfiguredError):
        return dataclasses.replace(said(()), error=str(error))
      raise

  def _sampled(self, reply: Completion) -> SampledTurn:
    token_ids = self._chat.encode_untrusted(self._written(reply))
    truncated = reply.truncated or len(token_ids) >= self._max_turn_tokens
    if truncated:
      token_ids = token_ids[: self._max_turn_tokens]
    else:
      token_ids.append(self._chat.stop_ids[0])
    return dataclasses.replace(
        said(token_ids), truncated=truncated, usage=reply.usage
    )

  def _written(self, reply: Completion) -> str:
    """The message as the model wrote it, before the server took it apart."""
    dialect, text = self._chat.dialect, reply.content
    thinks = self._chat.grammar.think[0] in text
    if reply.reasoning.strip() and not thinks:
      thought = reply.reasoning.strip().join(dialect.around_thought)
      text = thought + text.lstrip()
    if reply.tool_calls and protocol.CALL not in text:
      blocks = [_block(*call) for call in reply.tool_calls]
      text = '\n'.join([*([text.rstrip()] if text.strip() else []), *blocks])
    # An opening is the prompt's; some servers send it along.
    opening = dialect.opening.strip()
    if opening and text.lstrip().startswith(opening):
      text = text.lstrip().removeprefix(opening).removeprefix('\n')
    return text

  def _messages(self, conversation: TokenChunk) -> list[dict[str, Any]]:
    """The conversation as the endpoint wants it, up to its own next message."""
    *messages, unfinished = self._chat.messages(conversation)
    assert unfinished[0] == 'assistant'
    return [
        {'role': role, 'content': self._content(parts)}
        for role, parts in messages
    ]

  def _content(self, parts: Sequence[str | View]) -> Any:
    texts = [part for part in parts if isinstance(part, str)]
    if len(texts) == len(parts):
      # Some servers take a system message in no other form.
      return _defused(''.join(texts))
    return [
        {'type': 'text', 'text': _defused(part)}
        if isinstance(part, str)
        else {'type': 'image_url', 'image_url': {'url': self._url(part)}}
        for part in parts
    ]

  def _url(self, view: View) -> str:
    return image_url(
        view.data, self._chat.processor, exact_size=self._exact_size
    )


# Few: a conversation sends its images again with every turn.
@functools.lru_cache(maxsize=32)
def image_url(
    data: bytes, processor: ImageProcessor, *, exact_size: bool
) -> str:
  """An image file as a data: address, no larger than the processor shows it.

  Plain PNG and JPEG files that are small enough go as they are, anything else
  as a PNG, or as a JPEG where it was one.

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


def _defused(text: str) -> str:
  return _CONTROL.sub(_DEFUSED, text)


def _block(name: str, arguments: str) -> str:
  """A call that a server's tool parser took apart, as the model wrote it.

  Arguments that are no JSON object stay as they are: what is wrong with them
  is for `protocol` to say.
  """
  try:
    call = ToolCall(name=name, arguments=json.loads(arguments or '{}'))
    text = protocol.write_call(call)
  except (RecursionError, TypeError, ValueError):
    text = f'{{"name":{json.dumps(name)},"arguments":{arguments}}}'
  return f'{protocol.CALL}\n{text}\n{protocol.END_CALL}'

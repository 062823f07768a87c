"""Calls in conversations: read, and held against what their tools refuse."""

from __future__ import annotations

from collections.abc import Sequence
import json
import re

from gog_jax.boxes import BoxSpec
from gog_jax.chat import protocol
from gog_jax.chat.grammar import tool_checker
from gog_jax.conversations.messages import Conversation
from gog_jax.conversations.messages import IMAGE
from gog_jax.conversations.messages import Role
from gog_jax.conversations.messages import ROOT_PIXELS
from gog_jax.conversations.messages import unescape
from gog_jax.conversations.spellings import column
from gog_jax.images import size_of
from gog_jax.storage.records import Unusable
from gog_jax.tools import gaze
from gog_jax.tools import search
from gog_jax.tools.base import ModelError
from gog_jax.types import ToolCall
from gog_jax.types import View

BLOCK = re.compile(f'{protocol.CALL}(.*?){protocol.END_CALL}', re.DOTALL)
_ARGUMENTS = ('arguments', 'parameters', 'args', 'input')
_PIXELS = BoxSpec(kind='resized_pixels', min_side=1)
_TOOLS = {**search.PARAMETERS, gaze.NAME: gaze.parameters(_PIXELS)}
_schema = tool_checker(
    [{'name': name, 'parameters': each} for name, each in _TOOLS.items()]
)


def read(text: str) -> ToolCall:
  """Reads a call's JSON, ours or OpenAI's.

  Its arguments may be JSON text themselves; without any there are none.

  Raises:
    Unusable: It is no call.
  """
  try:
    call = json.loads(unescape(text))
    call = call['function'] if isinstance(call.get('function'), dict) else call
    name, key = call['name'], column(call, *_ARGUMENTS)
    arguments = call[key] or {} if key else {}
    if isinstance(arguments, str):
      arguments = json.loads(arguments)
    known = key or not call.keys() - {'name', 'id', 'type', *_ARGUMENTS}
    if isinstance(name, str) and isinstance(arguments, dict) and known:
      # Arrow fills up what other calls have with null.
      given = {k: x for k, x in arguments.items() if x is not None}
      return ToolCall(name=name, arguments=given)
  except (ValueError, LookupError, AttributeError, TypeError, RecursionError):
    pass
  line = ' '.join(text[:80].split())
  raise Unusable(
      'bad call', f'{line!r} is no {{"name":..,"arguments":{{..}}}}'
  )


def check_search(call: ToolCall, views: Sequence[View]) -> None:
  """Raises Unusable for a search that its tool refuses."""
  try:
    if call.name == 'text_search':
      search.query_of(call.arguments)
    elif call.name == 'image_search':
      search.first(views)
  except ModelError as error:
    detail = f'the call of {call.name!r}: {error}'
    raise Unusable('bad call', detail) from error


def check(conversation: Conversation, frame: str) -> None:
  """Refuses calls that no tool of ours would take, whatever the model.

  Args:
    conversation: Its pictures can be read.
    frame: In what its boxes are; '' if nobody has said it.

  Raises:
    Unusable: A call breaks its tool's schema, or the tool refuses it.
  """
  n_shown, views = 0, list[View]()
  for message in conversation.messages:
    n_shown += message.text.count(IMAGE)
    texts = [message.text] if message.role == Role.CALL else []
    if message.role == Role.ASSISTANT:
      texts = BLOCK.findall(message.text)
    for call in map(read, texts):
      # Pictures are read where a call is, and once.
      for picture in conversation.pictures[len(views) : n_shown]:
        data = picture.read()
        views.append(View(data=data, root=0, box=(0, 0, *size_of(data))))
      error = call.name in _TOOLS and _schema(call.name, call.arguments)
      if error:
        raise Unusable('bad call', f'the call of {call.name!r}: {error}')
      check_search(call, views)
      if call.name == gaze.NAME and frame != ROOT_PIXELS:
        _check_box(call, views, frame)


def _check_box(call: ToolCall, views: Sequence[View], frame: str) -> None:
  known = frame in ('thousandths', 'original_pixels')
  try:
    gaze.region(
        call.arguments,
        views,
        box_spec=BoxSpec(kind=frame, min_side=1) if known else _PIXELS,  # pyright: ignore
        # Only a model knows how large it sees an image; no frame is larger.
        seen_size=lambda *size: (max(size[0], 1000), max(size[1], 1000)),
        exact=True,
    )
  except ModelError as error:
    raise Unusable('bad box', str(error)) from error

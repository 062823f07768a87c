"""One message in the words of others: whose it is, its text and its images.

Names differ (`from` or `role`, `human` or `user`), and so do shapes: a content
may be a list of parts, a thought or calls may have fields of their own, as
OpenAI's `tool_calls`. Null is as if absent.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
import json
import re
from typing import Any, NamedTuple

from gog_jax.chat import protocol
from gog_jax.conversations.messages import IMAGE
from gog_jax.conversations.messages import Message
from gog_jax.conversations.messages import Role
from gog_jax.conversations.messages import split_thought
from gog_jax.storage.records import Unusable

# Columns and fields, the commonest name first.
MESSAGES = (
    'conversations messages conversation dialog dialogs dialogue turns chat'
).split()
IMAGES = (
    'images image imgs img image_path image_paths image_file picture pictures '
    'image_url image_urls'
).split()
MEDIA = ('videos', 'video', 'audios', 'audio')
_ROLES = ('role', 'from', 'speaker', 'sender')
_CONTENTS = ('content', 'value', 'text')
_THOUGHTS = (
    'reasoning_content reasoning thinking thought thoughts think rationale cot'
).split()
_CALLS = ('tool_calls', 'tool_call', 'function_call', 'function_calls')
# Fields of an agent's message that say nothing of what it says.
_PLAIN = (
    'id name type role_name model source metadata time timestamp created_at '
    'finish_reason loss train training weight lang language uuid model_name '
    'logprobs turn_id hash timestamp_ms toxic redacted country state'
).split()
_WORDS = {
    word: role
    for role, words in {
        Role.SYSTEM: 'system developer',
        Role.USER: 'user human question prompter',
        Role.ASSISTANT: 'assistant gpt bot model ai chatgpt',
        Role.CALL: ' '.join(_CALLS),
        Role.REPLY: 'observation tool tool_response function tool_result',
    }.items()
    for word in words.split()
}
# Stands for an image in the texts of others.
_IMAGES = re.compile(
    r'<\|vision_start\|><\|image_pad\|><\|vision_end\|>'
    r'|<\|?(?:image|img)(?:_pad|here)?[ _-]?(\d*)\|?>',
    re.IGNORECASE,
)
_AROUND = re.compile(r'<(image|img)>[^<]*</\1>')
_THINK = re.compile(
    r'<(/?)(?:think|thinking|thought|thoughts|reasoning)>', re.IGNORECASE
)
_ANSWER = re.compile(r'<(/?)answer>', re.IGNORECASE)
# Stands for what has to be held elsewhere in the file, and is not.
_UNFILLED = re.compile(
    r'<(?:video|audio|speech|quad|point|cot-process|start-image)>'
    r'|<img>.*?</img>|<(?:image|img)[ _-]?\d+>|<\|(?:box|quad|object_ref)_start'
    r'|<\|(?:image|video|audio)(?:_pad|_bos|_\d+)?\|>'
    r'|<\|channel\|>|◁think▷|\[THINK\]|<\|begin_of_thought\|>'
    r'|(?!(?-i:<bbox>|<ref-object>))<(?:bbox|ref-object)>',
    re.DOTALL | re.IGNORECASE,
)


class Told(NamedTuple):
  """What a message of others holds.

  Attributes:
    messages: In order: a thought or answer, and its calls.
    slots: For each `<image>` in them, the image that the message itself names,
      or None.
    ids: Of its calls, or of the call that it replies to.
  """

  messages: list[Message]
  slots: list[Any]
  ids: list[Any]


def parsed(value: Any) -> Any:
  """A list or an object that may be JSON text."""
  try:
    found = json.loads(value) if isinstance(value, str) else value
    return found if isinstance(found, list | dict) else value
  except (ValueError, RecursionError):
    return value


def listed(value: Any) -> list[Any]:
  """A list that may be JSON text, or its only item; without nulls."""
  value = parsed(value)
  items = value if isinstance(value, list) else [value]
  return [one for one in items if one not in (None, '')]


def column(row: Mapping[str, Any], *names: str) -> str | None:
  """The first of the columns that is not empty, else the first that is there.
  """
  held = [name for name in names if row.get(name) is not None]
  return next((name for name in held if row[name] not in ('', [])), None) or (
      next(iter(held), None)
  )


def read_message(said: Any, tags: Mapping[str, str]) -> Told:
  """Reads a message.

  Args:
    said: The object.
    tags: The words of its layout, which come first.

  Raises:
    Unusable: Its role or its content has no known name, or holds what cannot be
      used; names it.
  """
  if not isinstance(said, dict):
    raise Unusable('not a message', 'a message is not a JSON object')
  extra = {key: value for key, value in said.items() if value is not None}

  def take(*names: str) -> tuple[str, Any]:
    name = column(extra, *names)
    return name or '/'.join(names[:3]), extra.pop(name, None)

  held = f'the message has {", ".join(map(str, said))}'
  key, word = take(tags['role_tag'], *_ROLES)
  known = _WORDS | {tags[f'{role}_tag']: role for role in Role}
  role = known.get(word := str(word)) or known.get(word.lower())
  if role is None:
    detail = f'{key!r} is {word!r}, not one of {", ".join(known)}; {held}'
    raise Unusable('unknown role', detail)
  if name := column(extra, *MEDIA):
    raise Unusable(name, f'a message of {word} has {name!r}: only images can')
  key, content = take(tags['content_tag'], *_CONTENTS)
  if role == Role.CALL and isinstance(content, dict | list):
    content = json.dumps(content, ensure_ascii=False)
  text, slots = _text(content, role, f'the {key!r} of {word}')
  _, pictures = take(*IMAGES)
  if len(named := listed(pictures)) >= len(slots) and named:
    text, slots = IMAGE * (len(named) - len(slots)) + text, named
  called, ids = [], [extra.pop('tool_call_id', None)]
  if role == Role.ASSISTANT:
    text = _with_thought(_tagged(text), *take(*_THOUGHTS))
    called = listed(take(*_CALLS)[1])
    ids = [one.get('id') if isinstance(one, dict) else None for one in called]
    for name, value in extra.items():
      if value and isinstance(value, str | list | dict) and name not in _PLAIN:
        raise Unusable('unknown field', f'{name!r} of {word} is not known')
  if content in (None, [], {}) and not text and not called:
    raise Unusable('not text', f'{word} has no {key!r}: {held}')
  texts = [(role, text)] if text or not called else []
  texts += [(Role.CALL, json.dumps(x, ensure_ascii=False)) for x in called]
  made = [Message(role=who, text=text, extra=extra) for who, text in texts]
  return Told(made, slots, ids)


def _text(content: Any, role: Role, where: str) -> tuple[str, list[Any]]:
  """A content as text, and what it names for each `<image>` in it."""
  if isinstance(content, int | float) and content is not bool(content):
    content = json.dumps(content)
  if isinstance(content, str | None):
    return content or '', [None] * (content or '').count(IMAGE)
  parts: list[Any] = content if isinstance(content, list) else [content]
  if not all(
      isinstance(part, dict) and column(part, 'type', 'text', *IMAGES)
      for part in parts
  ):
    if role != Role.REPLY:
      raise Unusable('not text', f'{where} is not text, nor a list of parts')
    return json.dumps(content, ensure_ascii=False), []
  texts, slots = [], []
  for part in parts:
    name = column(part, *IMAGES)
    if name or 'image' in str(part.get('type')):
      texts.append(IMAGE)
      slots.append(part[name] if name else part.get('url') or part.get('path'))
    elif isinstance(part.get('text'), str):
      texts.append(part['text'])
      slots += [None] * part['text'].count(IMAGE)
    else:
      kind = str(part.get('type') or ', '.join(part))
      raise Unusable(kind, f'{where} has a part {kind!r}: only text and images')
  return ''.join(texts), slots


def _tagged(text: str) -> str:
  """An agent's text with our tags where a thought or an answer has others."""
  if _THINK.match(text.lstrip()):
    text = _THINK.sub(r'<\1think>', text)
  elif text.count(protocol.END_THINK) == 1 and protocol.THINK not in text:
    text = protocol.THINK + text  # A template wrote the opening tag.
  return _ANSWER.sub(r'<\1answer>', text)


def _with_thought(text: str, name: str, thought: Any) -> str:
  """An agent's text with the thought that has a field of its own."""
  if not isinstance(thought, str | None):
    raise Unusable('not text', f'its {name!r} is not text')
  thought, (inside, rest) = (thought or '').strip(), split_thought(text)
  if inside and thought not in ('', inside):
    raise Unusable('two thoughts', f'it thinks in its text and in {name!r}')
  if inside or not thought:
    return text
  return f'{protocol.THINK}{thought}{protocol.END_THINK}\n{rest}'


def in_order(told: Iterable[Told]) -> list[Message]:
  """All messages; replies that name their calls in the order of these.

  Raises:
    Unusable: A reply names a call that was not made.
  """
  placed: list[tuple[int, int, Message]] = []
  called, turn = [], 0
  for one in told:
    place = 0
    if one.messages[0].role != Role.REPLY:
      called, turn = one.ids, turn + 1
    elif any(called) and (one.ids[0] is not None or len(called) > 1):
      if one.ids[0] not in called:
        detail = f'tool_call_id {one.ids[0]!r} names no call before it'
        raise Unusable('turn order', detail)
      place = 1 + called.index(one.ids[0])
    placed += [(turn, place, message) for message in one.messages]
  return [message for *_, message in sorted(placed, key=lambda x: x[:2])]


def with_images(texts: Sequence[str], n: int) -> Sequence[str]:
  """Texts in which `<image>` stands for `n` images, however they spell it.

  They stay as they are if they name images by numbers out of order.
  """
  for told in ([_AROUND.sub(IMAGE, text) for text in texts], texts):
    if sum(text.count(IMAGE) for text in told) == n:
      return told
  found = [m for text in texts for m in _IMAGES.finditer(text)]
  numbers = [int(m[1] or 0) for m in found]
  if len(found) != n or numbers != sorted(numbers):
    return texts
  return [_IMAGES.sub(IMAGE, text) for text in texts]


def unfilled(text: str) -> str:
  """What stands in a text for something that is not there; '' if nothing."""
  found = _UNFILLED.search(text)
  return found[0] if found else ''

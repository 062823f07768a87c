"""Reads a chat completion as OpenAI-compatible servers spell it.

Each adds to the format, leaves out some of it or has names of its own. What is
known is read; what is needed but not found is an error that names the field;
and a provider's failure is never a message of the model.
"""

from __future__ import annotations

import collections
from collections.abc import Mapping
import contextlib
import dataclasses
import json
import re
from typing import Any

from gog_jax.remote import secrets
from gog_jax.remote.fields import field
from gog_jax.remote.fields import shown
from gog_jax.remote.http import Failed
from gog_jax.remote.http import failure
from gog_jax.remote.http import Garbled

_AROUND = ('data', 'response', 'result', 'output', 'body')
_CONTENT = ('content', 'text', 'output_text', 'parts')
_REASONING = (
    'reasoning_content', 'reasoning', 'thinking', 'thought',
    'reasoning_details',
)  # fmt: skip
_CALLS = ('tool_calls', 'function_call', 'function_calls', 'tool_call')
_ARGUMENTS = ('arguments', 'parameters', 'input', 'args')
_ABOUT = ('role', 'name', 'id', 'type', 'model', 'refusal', 'finish_reason')
_INSIDE = (*_CONTENT, *_REASONING, 'refusal', 'summary', 'value')
# What a part's type says of it.
_KINDS = {
    'think|thought|reason': 'reasoning',
    'refus': 'refusal',
    'text|content|message|summary': '',
}
# Why a message ended. Whatever else is given is a failure.
_CUT_OFF = re.compile('length|max|token.?limit|window|truncat|incomplete')
_DONE = re.compile(
    '|null|stop.*|(message_|model_)?end.*|eos.*|completed?|finish(ed)?|done'
    '|(tool|function)_?(calls?|use)'
)
_SPELLED_CALL = re.compile('<[a-z_]*(tool|call|search|function)')


@dataclasses.dataclass(frozen=True, kw_only=True)
class Completion:
  """A message of the remote model.

  Attributes:
    content: Its text; may be empty.
    reasoning: What a server's reasoning parser took out of it.
    tool_calls: (name, arguments as JSON text) that a tool parser took out.
    truncated: Whether its token limit cut it off.
    usage: The `prompt_tokens` and `completion_tokens` that it took and their
      `price` in US dollars; empty where the endpoint does not say.
  """

  content: str
  reasoning: str
  tool_calls: tuple[tuple[str, str], ...]
  truncated: bool
  usage: Mapping[str, float] = dataclasses.field(default_factory=dict)


def tokens(value: Any) -> tuple[int, int]:
  """Tokens of prompt and message, as far as a response counts them."""
  usage = field(value, 'usage')
  counts = (
      field(usage, 'prompt_tokens', 'input_tokens'),
      field(usage, 'completion_tokens', 'output_tokens'),
  )
  n_in, n_out = (n if type(n) is int and n > 0 else 0 for n in counts)
  return n_in, n_out


def read(value: Any) -> Completion:
  """Reads the JSON of a response, without its usage.

  Raises:
    Failed: It says that the provider failed, or there is nothing in it.
    Garbled: It is no chat completion; names the field.
  """
  value, choice = _only(value), _choice(_only(value))
  if choice is None:
    if error := failure(value, alone=True):
      error.billed = any(tokens(value))
      raise error
    if isinstance(value, dict) and 'choices' in value:
      raise Failed('its "choices" is empty')
    raise Garbled(f'it is {shown(value)}, with no "choices"')
  message = _only(field(choice, 'message', 'delta'))
  if isinstance(message, str):
    message = {'content': message}
  message = choice if message is None else message
  reason = field(choice, 'finish_reason') or field(message, 'finish_reason')
  # Of vLLM's stop_reason, a number is the token that ended it.
  reason = reason or str(field(choice, 'stop_reason', 'done_reason') or '')
  reason = field(reason, 'type') or reason
  reason = json.dumps(reason).strip('" ').lower()[:80]
  for part in (value, choice):
    if error := failure(part, alone=False):
      raise error
  truncated = bool(_CUT_OFF.search(reason))
  if not truncated and not _DONE.fullmatch(reason):
    raise Failed(f'finish_reason is {reason}')
  if not isinstance(message, dict):
    raise Garbled(f'choices[0].message is {shown(message)}')
  said = collections.defaultdict(str)
  calls: list[tuple[str, str]] = []
  where = 'choices[0].message'
  _gather(field(message, *_CONTENT), 'content', f'{where}.content', said, calls)
  for name in (*_REASONING, 'refusal'):
    kind = 'refusal' if name == 'refusal' else 'reasoning'
    if not said[kind].strip():
      _gather(field(message, name), kind, f'{where}.{name}', said, calls)
  found = field(message, 'tool_calls') or field(message, *_CALLS)
  for index, call in enumerate(found if isinstance(found, list) else [found]):
    if call and not (isinstance(call, dict) and not any(call.values())):
      calls.append(_call(call, f'{where}.tool_calls[{index}]'))
  if not said['content'].strip():
    said['content'] = said['refusal']  # The model's own words, no filter's.
  if not calls and not truncated:
    counted = any(tokens(value)[1:])
    _check_said(message, reason, said['content'], said['reasoning'], counted)
  return Completion(
      content=secrets.redact(said['content']),
      reasoning=secrets.redact(said['reasoning']),
      tool_calls=tuple(calls),
      truncated=truncated,
  )


def _only(value: Any) -> Any:
  """What a list of one holds, anything else itself."""
  while isinstance(value, list) and len(value) == 1:
    value = value[0]
  return value


def _choice(value: Any) -> Mapping[str, Any] | None:
  """The first choice, or what stands for it; None if there is none."""
  inside = (_only(field(value, name)) for name in _AROUND)
  for one in (value, *inside):
    found = field(one, 'choices', 'candidates')
    while isinstance(found, list) and found:
      found = found[0]
    if isinstance(found, (dict, str)):
      return found if isinstance(found, dict) else {'message': found}
    # Ollama's and Anthropic's own.
    if isinstance(field(one, 'message'), dict) or field(one, 'role'):
      return one
  return None


def _check_said(
    message: Mapping[str, Any],
    reason: str,
    text: str,
    thought: str,
    counted: bool,
) -> None:
  """Refuses a message without calls if something is missing.

  Raises:
    Failed: It is empty, though no tokens were counted.
    Garbled: There may be more in it, under names that are not known.
  """
  where = 'choices[0].message has no "content" or "tool_calls"'
  where = f'{where}: it is {shown(message)}'
  spelled = _SPELLED_CALL.search(text + thought)
  if re.search('tool|function', reason) and not spelled:
    raise Garbled(where)
  if text.strip():
    return
  if not thought.strip() and not counted:
    raise Failed(f'it says nothing: {where}')
  # A thought that closes tags may hold the answer, too. And some models think,
  # and say nothing.
  known = (*_CONTENT, *_REASONING, *_CALLS, *_ABOUT)
  unknown = any(
      isinstance(value, (dict, list, str)) and value
      for key, value in message.items()
      if field({key: value}, *known) is None
  )
  absent = field(dict.fromkeys(message, True), *_CONTENT) is None
  if '</' not in thought and (absent or unknown):
    raise Garbled(where)


def _gather(
    value: Any,
    kind: str,
    where: str,
    said: dict[str, str],
    calls: list[tuple[str, str]],
) -> None:
  """Adds what a field says, text or parts, to texts by kind and to calls.

  Raises:
    Garbled: It is neither; names the field.
  """
  if isinstance(value, list):
    for index, part in enumerate(value):
      _gather(part, kind, f'{where}[{index}]', said, calls)
  elif isinstance(value, dict):
    of = str(field(value, 'type') or 'text').lower()
    if re.search('tool|function', of):
      calls.append(_call(value, where))
    elif not re.search('encrypted|redacted|signature', of):
      kinds = [k or kind for known, k in _KINDS.items() if re.search(known, of)]
      inner = field(value, *_INSIDE)
      if not kinds or inner is None:
        raise Garbled(f'{where} of type {of[:20]!a} has no "text"')
      _gather(inner, kinds[0], where, said, calls)
  elif isinstance(value, str):
    said[kind] += value
  elif value is not None:
    raise Garbled(f'{where} is {shown(value)}, no text')


def _call(call: Any, where: str) -> tuple[str, str]:
  """The name and the arguments, as JSON, of a call.

  Raises:
    Garbled: It has no name, or arguments under no known name.
  """
  inner = field(call, 'function')
  function = inner if isinstance(inner, dict) else call
  name, arguments = field(function, 'name'), field(function, *_ARGUMENTS)
  if not isinstance(name, str) or not name.strip():
    raise Garbled(f'{where} has no "name": it is {shown(function)}')
  for _ in range(2):  # Some are packed twice.
    with contextlib.suppress(TypeError, ValueError, RecursionError):
      arguments = json.loads(arguments)
  arguments = _only(arguments) or {}
  others = [
      other
      for key, other in function.items()
      if other and 'extra' not in key and key not in ('function', *_ARGUMENTS)
  ]
  if isinstance(arguments, (bool, int, float)) or (
      not arguments and any(str(other).startswith('{') for other in others)
  ):
    raise Garbled(f'{where} has no "arguments": it is {shown(function)}')
  if not isinstance(arguments, str):
    arguments = json.dumps(arguments)
  return secrets.redact(name.strip()), secrets.redact(arguments)

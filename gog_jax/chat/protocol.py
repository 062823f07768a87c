r"""The grammar of our own policies: Hermes calls, as Qwen's models write them.

    message = think ( calls | answer ) end
    think   = <think> thought </think>
    calls   = ( <tool_call> {"name":..,"arguments":{..}} </tool_call> )+
    answer  = <answer> text </answer>
    end     = <|im_end|>

Inside a call's JSON the `<` of a tag is written `\u003c`.
"""

from __future__ import annotations

import json
from typing import Any

from gog_jax.chat.grammar import CallError
from gog_jax.chat.grammar import CallForm
from gog_jax.chat.grammar import Grammar
from gog_jax.types import ToolCall

THINK, END_THINK = '<think>', '</think>'
ANSWER, END_ANSWER = '<answer>', '</answer>'
CALL, END_CALL = '<tool_call>', '</tool_call>'
RESPONSE, END_RESPONSE = '<tool_response>', '</tool_response>'


def _read_call(text: str) -> tuple[str, dict[str, Any]]:
  try:
    value = json.loads(text, parse_constant=_refuse_constant)
  except (ValueError, RecursionError) as error:
    reason = getattr(error, 'msg', None) or str(error)
    raise CallError(f'the call is not JSON: {reason}') from None
  if not isinstance(value, dict) or set(value) != {'name', 'arguments'}:
    raise CallError('a call must be {"name":..,"arguments":{..}}')
  name, arguments = value['name'], value['arguments']
  if not isinstance(name, str) or not isinstance(arguments, dict):
    raise CallError('name must be text and arguments a JSON object')
  return name, arguments


HERMES = Grammar(
    think=(THINK, END_THINK),
    answer=(ANSWER, END_ANSWER),
    reply=(RESPONSE, END_RESPONSE),
    forms=(
        CallForm(
            tags=(CALL, END_CALL),
            shown=f'{CALL}{{"name":..,"arguments":{{..}}}}{END_CALL}',
            read=_read_call,
            write=lambda call: f'\n{write_call(call)}\n',
        ),
    ),
)
TAGS = HERMES.tags


def write_call(call: ToolCall) -> str:
  """Returns the call as canonical JSON: compact, sorted, not escaped to ASCII.

  Raises:
    ValueError: An argument is not JSON (a NaN, an object).
  """
  name, arguments = _dumps(call.name), _dumps(dict(call.arguments))
  text = f'{{"name":{name},"arguments":{arguments}}}'
  # In JSON a `<` only occurs inside strings, where it may be escaped.
  return HERMES.tag.sub(lambda tag: '\\u003c' + tag.group()[1:], text)


def _refuse_constant(name: str) -> None:
  raise ValueError(f'{name} is not a JSON number')


def _dumps(value: Any) -> str:
  return json.dumps(
      value,
      ensure_ascii=False,
      allow_nan=False,
      sort_keys=True,
      separators=(',', ':'),
  )

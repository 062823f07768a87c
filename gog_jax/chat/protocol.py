r"""What a policy message is: its grammar, read and written.

    message = think ( calls | answer ) end
    think   = <think> thought </think>
    calls   = ( <tool_call> {"name":..,"arguments":{..}} </tool_call> )+
    answer  = <answer> text </answer>
    end     = <|im_end|>

White space between the parts is free, anything else there is not. No tag of
the protocol may stand inside a thought or an answer; inside a call's JSON its
`<` is written `\u003c`.

Reading goes on after a mistake as far as the meaning is clear, so that a call
without a thought is still answered: `format_error` says that the message
breaks the grammar, and `ToolCall.error` that a call cannot be executed.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
import json
import re
from typing import Any

from jsonschema import Draft202012Validator
from jsonschema.exceptions import best_match

from gog_jax.types import ParsedTurn
from gog_jax.types import ToolCall

THINK, END_THINK = '<think>', '</think>'
CALL, END_CALL = '<tool_call>', '</tool_call>'
ANSWER, END_ANSWER = '<answer>', '</answer>'
RESPONSE, END_RESPONSE = '<tool_response>', '</tool_response>'
TAGS = (
    THINK,
    END_THINK,
    CALL,
    END_CALL,
    ANSWER,
    END_ANSWER,
    RESPONSE,
    END_RESPONSE,
)

_THOUGHT = re.compile(f'\\s*{THINK}(.*?){END_THINK}', re.DOTALL)
_BLOCK = re.compile(
    f'{CALL}(.*?){END_CALL}|{ANSWER}(.*?){END_ANSWER}', re.DOTALL
)
_TAG = re.compile(f'({"|".join(TAGS)})')
# Characters of an error that the policy is shown.
_ERROR_LENGTH = 120


class Calls:
  """Writes calls, and reads them against the tools there are."""

  def __init__(self, tools: Sequence[Mapping[str, Any]]):
    """Initialises with `{'name', 'description', 'parameters'}` per tool."""
    self._validators = {
        tool['name']: Draft202012Validator(tool['parameters'])
        for tool in tools
    }

  def read(self, text: str) -> ToolCall:
    """Reads the JSON of one call; what is wrong with it becomes its error."""
    try:
      value = json.loads(text, parse_constant=_refuse_constant)
    except (ValueError, RecursionError) as error:
      reason = getattr(error, 'msg', None) or str(error)
      return _bad_call(f'the call is not JSON: {reason}')
    if not isinstance(value, dict) or set(value) != {'name', 'arguments'}:
      return _bad_call('a call must be {"name":..,"arguments":{..}}')
    name, arguments = value['name'], value['arguments']
    if not isinstance(name, str) or not isinstance(arguments, dict):
      return _bad_call('name must be text and arguments a JSON object')
    return ToolCall(
        name=name, arguments=arguments, error=self._error(name, arguments)
    )

  def _error(self, name: str, arguments: Mapping[str, Any]) -> str | None:
    validator = self._validators.get(name)
    if validator is None:
      known = ', '.join(self._validators)
      return _one_line(f'no tool {name!r}, only {known}')
    error = best_match(validator.iter_errors(arguments))
    if error is None:
      return None
    where = '.'.join(map(str, error.absolute_path))
    return _one_line(f'{where}: {error.message}' if where else error.message)


def write_call(call: ToolCall) -> str:
  """Returns the call as canonical JSON: compact, sorted, not escaped to ASCII.

  Raises:
    ValueError: An argument is not JSON (a NaN, an object).
  """
  name, arguments = _dumps(call.name), _dumps(dict(call.arguments))
  text = f'{{"name":{name},"arguments":{arguments}}}'
  # In JSON a `<` only occurs inside strings, where it may be escaped.
  return _TAG.sub(lambda tag: '\\u003c' + tag.group()[1:], text)


def write_message(
    *,
    thought: str,
    calls: Sequence[ToolCall],
    answer: str | None,
    around: tuple[str, str] = (THINK, f'{END_THINK}\n'),
) -> str:
  """Returns a message without its end; thought and answer are stripped.

  Args:
    thought: May be empty.
    calls: In order.
    answer: None where there are calls.
    around: What stands before and after the thought.

  Raises:
    ValueError: There are calls and an answer, or neither; or the message
      would not read back as what it was made of.
  """
  if bool(calls) == (answer is not None):
    raise ValueError('a message holds either calls or an answer')
  if answer is not None and not answer.strip():
    raise ValueError('the answer is empty')
  for text in (thought, answer or ''):
    if tag := _TAG.search(text):
      raise ValueError(f'{tag.group()} inside the thought or answer {text!r}')
  lines = [f'{CALL}\n{write_call(call)}\n{END_CALL}' for call in calls]
  if answer is not None:
    lines.append(f'{ANSWER}{answer.strip()}{END_ANSWER}')
  before, after = around
  return f'{before}{thought.strip()}{after}' + '\n'.join(lines)


def split_tags(text: str) -> list[str]:
  """Returns the text cut before and after each tag of the protocol."""
  return _TAG.split(text)


def read_message(text: str, *, calls: Calls, truncated: bool) -> ParsedTurn:
  """Reads a message without its end.

  Args:
    text: What the policy wrote.
    calls: Reads the calls.
    truncated: The length limit cut it off. What was cut off is neither
      executed nor repaired, and no more are the calls before it.
  """
  thought, body, errors = '', text, []
  if match := _THOUGHT.match(text):
    thought, body = match.group(1).strip(), text[match.end() :]
  else:
    errors.append(f'the message does not begin with one {THINK} block')
  if truncated:
    return ParsedTurn(
        text=text, thought=thought, format_error='cut off by the length limit'
    )
  found: list[ToolCall] = []
  answers: list[str] = []
  between, end = [], 0
  for block in _BLOCK.finditer(body):
    between.append(body[end : block.start()])
    end = block.end()
    if block.group(1) is not None:
      found.append(calls.read(block.group(1)))
    else:
      answers.append(block.group(2).strip())
  between.append(body[end:])
  if CALL in between[-1]:
    found.append(_bad_call(f'the call is not closed by {END_CALL}'))
  if any(part.strip() for part in between):
    errors.append('text outside the blocks')
  if any(_TAG.search(part) for part in (thought, *answers)):
    errors.append('a tag inside the thought or answer')
  if bool(found) == bool(answers):
    errors.append(
        'both calls and an answer' if found else 'neither calls nor an answer'
    )
  if len(answers) > 1:
    errors.append('more than one answer')
  if '' in answers:
    errors.append('the answer is empty')
  return ParsedTurn(
      text=text,
      thought=thought,
      calls=tuple(found),
      answer=answers[0] if answers else None,
      format_error='; '.join(errors) or None,
  )


def _bad_call(error: str) -> ToolCall:
  return ToolCall(name='', arguments={}, error=_one_line(error))


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


def _one_line(text: str) -> str:
  line = ' '.join(text.split())
  if len(line) > _ERROR_LENGTH:
    line = line[: _ERROR_LENGTH - 3] + '...'
  return line

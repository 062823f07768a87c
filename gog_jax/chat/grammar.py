"""Grammars: how a message of the policy marks its parts, read and written.

    message = think ( calls | answer ) end

A grammar defines the tags around each part and how a call is spelled. Between
the parts there may be white space and nothing else. No tag of the grammar may
occur inside a thought or an answer.

Reading goes on after a mistake as far as the meaning is clear, so that a call
without a thought is still answered: `format_error` says that the message
breaks the grammar, `ToolCall.error` that a call cannot be executed.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
import dataclasses
import functools
import re
from typing import Any

from jsonschema import Draft202012Validator
from jsonschema.exceptions import best_match

from gog_jax.types import ParsedTurn
from gog_jax.types import ToolCall

# An opening and a closing tag.
Tags = tuple[str, str]
# The tags of a block, whatever its name.
_OPENING, _CLOSING = re.compile(r'<([A-Za-z_]\w*)>'), re.compile(r'</(\w+)>')
_UNSEEN = '\u200b'  # A zero-width space.
_ERROR_LENGTH = 120  # Characters of an error that the policy is shown.


class CallError(ValueError):
  """A call that cannot be read; the message is for the policy."""


# A call's name and arguments -> what is wrong with them, or None.
Check = Callable[[str, Mapping[str, Any]], str | None]


def tool_checker(tools: Sequence[Mapping[str, Any]]) -> Check:
  """Checks calls against the schemas of tools, `{'name', 'parameters'}` each.

  This is the only check of arguments: calls without an error obey the schema.
  """
  validators = {
      tool['name']: Draft202012Validator(tool['parameters']) for tool in tools
  }

  def check(name: str, arguments: Mapping[str, Any]) -> str | None:
    if name not in validators:
      return f'no tool {name!r}, only {", ".join(validators)}'
    error = best_match(validators[name].iter_errors(arguments))
    if error is None:
      return None
    where = '.'.join(map(str, error.absolute_path))
    return f'{where}: {error.message}' if where else error.message

  return check


@dataclasses.dataclass(frozen=True, kw_only=True)
class CallForm:
  """One way of spelling calls.

  Attributes:
    tags: Around a call.
    shown: What the form looks like, for error messages.
    read: The text between the tags -> the call's name and arguments. Raises
      CallError.
    write: The call -> the text between the tags. Raises ValueError if the call
      cannot be spelled so that it reads back.
    tools: The tools it calls; empty for any.
  """

  tags: Tags
  shown: str
  read: Callable[[str], tuple[str, Mapping[str, Any]]]
  write: Callable[[ToolCall], str]
  tools: tuple[str, ...] = ()


@dataclasses.dataclass(frozen=True, kw_only=True)
class Grammar:
  """Tags, and the forms of calls.

  Attributes:
    think: Around the thought.
    answer: Around the answer.
    reply: Around the result of a call, in messages to the policy.
    forms: The ways of spelling calls.
    one_call: Whether a message holds one call at most.
    names_calls: Whether a block with other tags counts as a call of something
      that does not exist, and is answered; else it is stray text.
    defuses: Whether its tags are ordinary text to the backbone's tokenizer:
      tags that occur in content are then broken up by a zero-width space.
  """

  think: Tags
  answer: Tags
  reply: Tags
  forms: tuple[CallForm, ...]
  one_call: bool = False
  names_calls: bool = False
  defuses: bool = False

  @functools.cached_property
  def tags(self) -> tuple[str, ...]:
    """All tags."""
    around_calls = [tag for form in self.forms for tag in form.tags]
    return (*self.think, *around_calls, *self.answer, *self.reply)

  @functools.cached_property
  def tag(self) -> re.Pattern[str]:
    """Matches a tag, as its only group."""
    return re.compile(f'({"|".join(map(re.escape, self.tags))})')

  @functools.cached_property
  def _thought(self) -> re.Pattern[str]:
    return re.compile(f'\\s*{_between(self.think)}', re.DOTALL)

  @functools.cached_property
  def _block(self) -> re.Pattern[str]:
    """Matches a call, in the group numbered as its form from 1, or an answer.
    """
    blocks = [form.tags for form in self.forms] + [self.answer]
    return re.compile('|'.join(map(_between, blocks)), re.DOTALL)

  def can_call(self, tool: str) -> bool:
    """Whether a tool can be called at all."""
    return any(not form.tools or tool in form.tools for form in self.forms)

  def defuse(self, text: str) -> str:
    """Content without tags, where the tokenizer could not tell them apart."""
    if not self.defuses:
      return text
    return self.tag.sub(lambda tag: f'<{_UNSEEN}{tag.group()[1:]}', text)

  def write_message(
      self,
      *,
      thought: str,
      calls: Sequence[ToolCall],
      answer: str | None,
      around: Tags,
  ) -> str:
    """Returns a message without `<|im_end|>`; thought and answer are stripped.

    Args:
      thought: May be empty.
      calls: In order.
      answer: None where there are calls.
      around: The text before and after the thought.

    Raises:
      ValueError: There are calls and an answer, or neither; or the message
        would not read back as what it was made of.
    """
    if bool(calls) == (answer is not None):
      raise ValueError('a message holds either calls or an answer')
    if self.one_call and len(calls) > 1:
      raise ValueError(f'{len(calls)} calls, where a message holds one')
    if answer is not None and not answer.strip():
      raise ValueError('the answer is empty')
    for text in (thought, answer or ''):
      if tag := self.tag.search(text):
        raise ValueError(f'{tag.group()} inside the thought or answer {text!r}')
    lines = [self._write_call(call) for call in calls]
    if answer is not None:
      lines.append(answer.strip().join(self.answer))
    return thought.strip().join(around) + '\n'.join(lines)

  def _write_call(self, call: ToolCall) -> str:
    for form in self.forms:
      if not form.tools or call.name in form.tools:
        text = form.write(call)
        if tag := self.tag.search(text):
          raise ValueError(f'{tag.group()} inside the call {text!r}')
        return text.join(form.tags)
    raise ValueError(f'this grammar has no way to call {call.name!r}')

  def read_message(
      self, text: str, *, check: Check, truncated: bool
  ) -> ParsedTurn:
    """Reads a message without `<|im_end|>`.

    Args:
      text: What the policy wrote.
      check: Checks the calls.
      truncated: The length limit cut it off: neither the call that was cut off
        nor those before it are executed or repaired.
    """
    thought, body, errors = '', text, []
    if match := self._thought.match(text):
      thought, body = match.group(1).strip(), text[match.end() :]
    else:
      errors.append(
          f'the message does not begin with one {self.think[0]} block'
      )
    if truncated:
      return ParsedTurn(
          text=text, thought=thought, format_error='cut off by the length limit'
      )
    found: list[ToolCall] = []
    answers: list[str] = []
    between, end = [], 0
    for block in self._block.finditer(body):
      between.append(body[end : block.start()])
      end = block.end()
      number = block.lastindex or 0
      if number <= len(self.forms):
        form = self.forms[number - 1]
        found.append(_read_call(form, block.group(number), check))
      else:
        answers.append(block.group(number).strip())
    between.append(body[end:])
    if error := self._broken(between[-1], alone=not found and not answers):
      found.append(_bad_call(error))
    if any(part.strip() for part in between):
      errors.append('text outside the blocks')
    if any(self.tag.search(part) for part in (thought, *answers)):
      errors.append('a tag inside the thought or answer')
    if bool(found) == bool(answers):
      errors.append(
          'both calls and an answer' if found else 'neither calls nor an answer'
      )
    if self.one_call and len(found) > 1:
      errors.append('more than one call')
      error = 'a message holds one call: the first was made'
      found[1:] = [
          dataclasses.replace(call, error=call.error or error)
          for call in found[1:]
      ]
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

  def _broken(self, rest: str, *, alone: bool) -> str | None:
    """What is wrong with a call in no known form; None if there is none.

    Args:
      rest: The text after the last block.
      alone: Whether there are no blocks.
    """
    for form in self.forms:
      opening, closing = form.tags
      if opening in rest:
        return f'the call is not closed by {closing}'
    if self.names_calls and alone:
      closed = set(_CLOSING.findall(rest))
      for name in _OPENING.findall(rest):
        if name in closed:
          known = ' and '.join(form.shown for form in self.forms)
          return f'there is no <{name}>, only {known}'
    return None


def _between(tags: Tags) -> str:
  opening, closing = map(re.escape, tags)
  return f'{opening}(.*?){closing}'


def _read_call(form: CallForm, text: str, check: Check) -> ToolCall:
  """A call, with an error if it cannot be read or breaks a tool's schema."""
  try:
    name, arguments = form.read(text)
  except CallError as error:
    return _bad_call(str(error))
  error = check(name, arguments)
  return ToolCall(
      name=name, arguments=arguments, error=error and _one_line(error)
  )


def _bad_call(error: str) -> ToolCall:
  """A call that could not be read."""
  return ToolCall(name='', arguments={}, error=_one_line(error))


def _one_line(text: str) -> str:
  line = ' '.join(text.split())
  if len(line) <= _ERROR_LENGTH:
    return line
  return line[: _ERROR_LENGTH - 3] + '...'

"""Reads calls against the tools there are; what is wrong becomes an error."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from jsonschema import Draft202012Validator
from jsonschema.exceptions import best_match

from gog_jax.types import ToolCall

# Characters of an error that the policy is shown.
_ERROR_LENGTH = 120


class Calls:
  """The tools that calls are read against."""

  def __init__(self, tools: Sequence[Mapping[str, Any]]):
    """Initialises with `{'name', 'description', 'parameters'}` per tool."""
    self._validators = {
        tool['name']: Draft202012Validator(tool['parameters'])
        for tool in tools
    }

  def call(self, name: str, arguments: Mapping[str, Any]) -> ToolCall:
    """A call that was spelled right; it may still make no sense."""
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


def bad_call(error: str) -> ToolCall:
  """A call that cannot be read."""
  return ToolCall(name='', arguments={}, error=_one_line(error))


def _one_line(text: str) -> str:
  line = ' '.join(text.split())
  if len(line) > _ERROR_LENGTH:
    line = line[: _ERROR_LENGTH - 3] + '...'
  return line

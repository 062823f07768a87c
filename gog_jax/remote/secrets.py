"""Keys come from the environment alone, and never out again.

What was read here is known from then on: whatever is shown or written passes
through `redact` where others may have put a key, as servers do that quote in
their error what they were sent.
"""

from __future__ import annotations

import dataclasses
import os
import traceback
from typing import Any

_HIDDEN = '[secret]'
# Shorter values ('none', 'EMPTY') fill a variable that wants one: they are no
# secrets, and hiding them would riddle ordinary text.
_SHORTEST = 8

_known: set[str] = set()


def from_environment(name: str) -> str | None:
  """The value of a variable, stripped; None where there is none, or no name."""
  value = os.environ.get(name, '').strip() if name else ''
  if len(value) >= _SHORTEST:
    _known.add(value)
  return value or None


def redact(text: str) -> str:
  """The text with every secret read so far replaced by '[secret]'."""
  for secret in sorted(_known, key=len, reverse=True):
    text = text.replace(secret, _HIDDEN)
  return text


def redact_all(value: Any) -> Any:
  """A JSON value, or a record, with every text in it redacted."""
  if type(value) is str:
    return redact(value)
  if isinstance(value, (list, tuple)):
    return type(value)(map(redact_all, value))
  if isinstance(value, dict):
    return {redact(key): redact_all(item) for key, item in value.items()}
  if dataclasses.is_dataclass(value) and not isinstance(value, type):
    return dataclasses.replace(value, **redact_all(vars(value)))
  return value


def redact_traceback(error: BaseException) -> str:
  """The traceback of an error and of its causes, which may quote a secret."""
  return redact(''.join(traceback.format_exception(error)).rstrip())

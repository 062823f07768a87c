"""Reads JSON that others' servers write: fields go by any of their names.

A name is known however it is spelled: `finishReason` is `finish_reason`. A
field that is null is not there.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
import contextlib
import functools
import json
import re
from typing import Any

_DEEPEST = 8  # Levels of an error that are looked into.
# Where servers say what kind an error is, and what they say about it.
CODES = (
    'status_code', 'code', 'http_status', 'error_code', 'status', 'type',
    'error_type', 'block_reason',
)  # fmt: skip
WORDS = (
    'error', 'errors', 'message', 'msg', 'detail', 'error_message', 'error_msg',
    'status_msg', 'reason', 'description', 'title', 'exception', 'base_resp',
    'prompt_feedback', 'metadata', 'raw',
)  # fmt: skip


@functools.lru_cache
def _plain(name: str) -> str:
  return re.sub('[^a-z0-9]', '', name.lower())


def field(value: Any, *names: str) -> Any:
  """The first of these fields that there is; None if there is none."""
  found = {}
  for key, inner in value.items() if isinstance(value, Mapping) else ():
    if inner is not None:
      found.setdefault(_plain(key), inner)
  return next((found[key] for key in map(_plain, names) if key in found), None)


def shown(value: Any) -> str:
  """What a value is, for messages: the names of an object's fields."""
  if isinstance(value, Mapping):
    return f'an object with {json.dumps(list(value)[:8])[1:-1][:120] or "none"}'
  return json.dumps(value)[:40]


def leaves(
    value: Any, name: str = '', depth: int = _DEEPEST
) -> Iterator[tuple[str, Any]]:
  """The codes and words of an error, with their fields, the outermost first."""
  if isinstance(value, str) and value.lstrip().startswith(('{', '[')):
    with contextlib.suppress(ValueError, RecursionError):
      value = json.loads(value)
  if isinstance(value, Mapping):
    inside = [(field(value, inner), inner) for inner in (*CODES, *WORDS)]
  elif isinstance(value, list):
    inside = [(one, name) for one in value]
  else:
    inside = []
    if value is not None:
      yield name, value
  for one, inner in inside if depth else ():
    yield from leaves(one, inner, depth - 1)

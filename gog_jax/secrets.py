"""Keys come from the environment, and leave it for nowhere but a request."""

from __future__ import annotations

import os

_REPLACEMENT = '[secret]'
# Shorter ones would be found in ordinary words.
_SHORTEST = 4
_known: set[str] = set()


def from_environment(name: str) -> str | None:
  """The variable's value, which `redact` knows from now on; None if empty."""
  value = os.environ.get(name, '').strip()
  if not value:
    return None
  _known.add(value)
  return value


def redact(text: str) -> str:
  """`text` without any secret that was read from the environment."""
  for value in sorted(_known, key=len, reverse=True):
    if len(value) >= _SHORTEST:
      text = text.replace(value, _REPLACEMENT)
  return text

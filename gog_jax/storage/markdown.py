"""Tables in Markdown, whatever stands in their cells."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any


def table(headings: Sequence[str], rows: Iterable[Sequence[Any]]) -> str:
  """A table; untrusted text in its cells has been through `inline`."""
  first, *others = (
      '| ' + ' | '.join(map(str, row)) + ' |' for row in (headings, *rows)
  )
  return '\n'.join([first, '|' + '---|' * len(headings), *others])


def inline(text: str) -> str:
  """Keeps text on its line and in its cell, and from being HTML or code."""
  for mark, safe in (('&', '&amp;'), ('<', '&lt;'), ('|', '\\|'), ('`', "'")):
    text = text.replace(mark, safe)
  return ' '.join(text.split())

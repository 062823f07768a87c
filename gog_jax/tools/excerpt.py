"""What a policy is shown of a long document."""

from __future__ import annotations

import collections
from collections.abc import Sequence
import dataclasses
import re

from gog_jax.types import Hit

_WORD = re.compile(r'\w+')
_TITLE = 200  # Characters of a title.
_GAP = '...'
_SEARCHED = 2**20  # Characters of a text that are looked at.


def excerpts(
    hits: Sequence[Hit], query: str | None, *, n_characters: int
) -> tuple[Hit, ...]:
  """The hits, none of whose texts is longer than `n_characters`.

  Args:
    hits: As a backend found them.
    query: The words that were searched for; None for an image, of whose hits
      the beginnings are shown.
    n_characters: Of a text.
  """
  return tuple(
      dataclasses.replace(
          hit,
          title=excerpt(hit.title, None, n_characters=_TITLE),
          text=excerpt(hit.text, query, n_characters=n_characters),
          document={},  # Which may hold all of the text.
      )
      for hit in hits
  )


def excerpt(text: str, query: str | None, *, n_characters: int) -> str:
  """The part of a text that holds the most different words of a query.

  Of several such parts, the first; it begins and ends at words, and '...' says
  where something was left out. A text that is short enough stays as it is.
  """
  if len(text) <= n_characters:
    return text
  room = max(n_characters - 2 * len(_GAP), 1)
  start = _best_start(text, query or '', room)
  end = start + room
  part = text[start:end]
  if end < len(text) and text[end].isalnum():
    part = part[: part.rfind(' ')] if ' ' in part else part
  before = _GAP if start else ''
  after = _GAP if start + len(part) < len(text) else ''
  return before + part.strip() + after


def _best_start(text: str, query: str, room: int) -> int:
  """Where a window of `room` characters holds most words of the query."""
  wanted = {word.casefold() for word in _WORD.findall(query)}
  found = [
      (match.start(), match.end(), word)
      for match in _WORD.finditer(text, 0, _SEARCHED)
      if (word := match.group().casefold()) in wanted
  ]
  best, best_start, last = 0, 0, 0
  inside: collections.Counter[str] = collections.Counter()
  n_words = 0  # Different ones that are inside.
  # Windows that begin at a word of the query, by two ends that move right.
  for number, (start, _, word) in enumerate(found):
    while last < len(found) and found[last][1] <= start + room:
      inside[found[last][2]] += 1
      n_words += inside[found[last][2]] == 1
      last += 1
    if n_words > best:
      best, best_start = n_words, start
    if number < last:  # Else it is longer than the window.
      inside[word] -= 1
      n_words -= inside[word] == 0
    else:
      last = number + 1
  if best_start + room >= len(text):
    return _at_word(text, max(len(text) - room, 0))
  # What stands before a word says whom it is about.
  return _at_word(text, max(best_start - room // 4, 0)) if best else 0


def _at_word(text: str, start: int) -> int:
  """The next place at which a word begins, if one is near."""
  if start == 0:
    return 0
  space = text.find(' ', start, start + 40)
  return start if space < 0 else space + 1

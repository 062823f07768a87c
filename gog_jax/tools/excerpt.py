"""What a policy is shown of a long document."""

from __future__ import annotations

import collections
from collections.abc import Sequence
import dataclasses

import regex

from gog_jax.language import words
from gog_jax.types import Hit

_TITLE = 200  # Characters of a title.
_GAP = '...'
_NEAR = 40  # Characters within which it looks for a space.
_MARK = regex.compile(r'\p{M}')
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
  start, shown = _best_window(text, query or '', room)
  end = start + room
  if end < len(text):
    space = text.rfind(' ', max(end - min(room // 2, _NEAR), shown), end)
    if text[end].isalnum() and space >= 0:
      end = space
    while end > start + 1 and _MARK.match(text, end):  # Its letter goes, too.
      end -= 1
  before = _GAP if start else ''
  after = _GAP if end < len(text) else ''
  return before + text[start:end].strip() + after


def _best_window(text: str, query: str, room: int) -> tuple[int, int]:
  """Where a window of `room` characters holds most words of the query.

  Returns:
    Where it begins, and where the last of these words ends.
  """
  wanted = {term for _, _, term in words.terms(query, single=False)}
  found = [
      one
      for one in words.terms(text[:_SEARCHED], single=True)
      if one[2] in wanted
  ]
  best, best_start, best_end, last = 0, 0, 0, 0
  inside: collections.Counter[str] = collections.Counter()
  n_words = 0  # Different ones that are inside.
  # Windows that begin at a word of the query, by two ends that move right.
  for number, (start, _, word) in enumerate(found):
    while last < len(found) and found[last][1] <= start + room:
      inside[found[last][2]] += 1
      n_words += inside[found[last][2]] == 1
      last += 1
    if n_words > best:
      best, best_start, best_end = n_words, start, found[last - 1][1]
    if number < last:  # Else it is longer than the window.
      inside[word] -= 1
      n_words -= inside[word] == 0
    else:
      last = number + 1
  # What stands before a word says whom it is about.
  context = min(room // 4, max(best_start + room - best_end, 0))
  start = min(best_start - context, len(text) - room)
  return _at_word(text, max(start, 0), best_start), best_end


def _at_word(text: str, start: int, latest: int) -> int:
  """The next place at which a word begins, if one is near."""
  if start == 0:
    return 0
  space = text.find(' ', start, min(start + _NEAR, latest))
  start = start if space < 0 else space + 1
  while start < latest and _MARK.match(text, start):
    start += 1
  return start

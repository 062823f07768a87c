"""BM25 over documents; their texts stay on disk.

A folder holds `documents.jsonl`, `offsets.npy` (where each line begins, and the
end) and bm25s's own arrays and vocabulary.
"""

from __future__ import annotations

import json
import logging
import mmap
import pathlib
from typing import Any

import numpy as np

from gog_jax import interrupt
from gog_jax.language.words import terms
from gog_jax.language.words import VERSION as _WORDS
from gog_jax.storage import metrics

# Change it with how documents are found.
VERSION = f'bm25-2 {_WORDS}'
DOCUMENTS = 'documents.jsonl'
# Longer ones are cut.
_MAX_WORD = 64
_MAX_QUERY_WORDS = 512


def words(text: str, *, single: bool) -> list[str]:
  """What a text is searched by, see `language.words.terms`."""
  return [one[:_MAX_WORD] for _, _, one in terms(text, single=single)]


def build(folder: pathlib.Path, n: int) -> None:
  """Adds an index of the `n` documents in a folder's `documents.jsonl`."""
  # Keeps the vocabulary from being empty; no word is ''.
  vocabulary = {'': 0}
  ids, offsets = [], [0]
  with (
      (folder / DOCUMENTS).open('rb') as f,
      metrics.Progress('texts', total=n) as progress,
  ):
    for line in f:
      interrupt.check()
      document = json.loads(line)
      offsets.append(offsets[-1] + len(line))
      found = words(f'{document["title"]}\n{document["text"]}', single=True)
      ids.append([vocabulary.setdefault(w, len(vocabulary)) for w in found])
      progress.advance()
  np.save(folder / 'offsets.npy', np.asarray(offsets, np.int64))
  retriever = _bm25s().BM25(backend='numpy')
  retriever.index(
      (ids, vocabulary), create_empty_token=False, show_progress=False
  )
  retriever.save(folder, show_progress=False)


def _bm25s() -> Any:
  # Imported late: it starts jax where it finds it.
  import bm25s

  logging.getLogger('bm25s').setLevel(logging.WARNING)
  return bm25s


class TextIndex:
  """What `build` wrote, opened; safe to use from several threads."""

  def __init__(self, folder: pathlib.Path):
    self._bm25 = _bm25s().BM25.load(
        folder, mmap=True, show_progress=False
    )
    self._offsets = np.load(folder / 'offsets.npy', allow_pickle=False)
    with (folder / DOCUMENTS).open('rb') as f:
      self._lines = mmap.mmap(f.fileno(), 0, access=mmap.ACCESS_READ)

  def __len__(self) -> int:
    return len(self._offsets) - 1

  def search(
      self, query: str, top_k: int
  ) -> list[tuple[dict[str, Any], float]]:
    """At most `top_k` documents {id, title, text, contents} that share a word.

    With their scores, best first; of equal scores, the earlier document.
    """
    known = self._bm25.vocab_dict
    ids = [
        known[word]
        for word in words(query, single=False)[:_MAX_QUERY_WORDS]
        if word in known
    ]
    if not ids or top_k < 1:
      return []
    scores = self._bm25.get_scores_from_ids(ids)
    found = np.flatnonzero(scores > 0)
    if len(found) > top_k:
      # Ties at the last place are kept until the order decides.
      last = np.partition(scores[found], -top_k)[-top_k]
      found = found[scores[found] >= last]
    order = np.lexsort((found, -scores[found]))[:top_k]
    return [(self._document(i), float(scores[i])) for i in found[order]]

  def _document(self, number: int) -> dict[str, Any]:
    start, end = self._offsets[number : number + 2]
    return json.loads(self._lines[start:end])

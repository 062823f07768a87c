"""Finds pictures: many candidates by their vectors, the best by `verify`.

A folder holds `pictures.jsonl` (of each what a server shows, the text of a hit,
and the key of its features), `local.faiss` over all local descriptors in the
order of the pictures, `colour.faiss` over small colour vectors and, with an
encoder, `encoded.faiss` over its vectors.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
import pathlib
from typing import Any

import cv2
import numpy as np
from PIL import Image

from gog_jax.index import chunks
from gog_jax.index import descriptor
from gog_jax.index import features
from gog_jax.index import vectors
from gog_jax.index.descriptor import Features
from gog_jax.index.encoder import Encoder
from gog_jax.index.verify import verify
from gog_jax.storage import files
from gog_jax.types import Hit

# Change it with how the same features are searched.
VERSION = 'images-2'

# Fields of a picture that a server shows.
_SHOWN = ('id', 'title', 'caption', 'image', 'link')

# Candidates to verify, by what proposes them: colours find pictures without
# keypoints, the encoder other pictures of a like thing.
_BY_VOTES = 25
_BY_COLOUR = 8
_BY_MEANING = 8
# Neighbours of each local descriptor; enough for every version of a picture
# that a collection holds.
_NEIGHBOURS = 100
# Pictures with at most this share of the most votes are no candidates.
_LEAST_VOTES = 0.05
# Distance, for descriptors of length 1, from which a neighbour has no vote.
_VOTE_LIMIT = 0.6
# Weight of the encoder's cosine; a verified picture scores higher.
_MEANING_WEIGHT = 0.3
_COLOUR_SIDE = 8  # Of the thumbnail that is the colour vector, in pixels.

# A query has hundreds of local descriptors, but one vector of a whole picture.
_LOCAL = vectors.Settings(flat_limit=10_000, code='PQ32x4fs', n_probe=4)
_GLOBAL = vectors.Settings(flat_limit=100_000, code='SQ8', n_probe=16)


def build(
    folder: pathlib.Path,
    pictures: Sequence[Mapping[str, str]],
    found: features.Extracted,
) -> None:
  """Writes an index of pictures, as in `pictures.jsonl`, into a new folder."""
  local, encoded = found.local, found.encoded
  folder.mkdir()
  files.write_jsonl(folder / 'pictures.jsonl', pictures)
  keys = [picture['key'] for picture in pictures]
  vectors.build(
      folder / 'local.faiss',
      lambda: (local.get(key, 'descriptors') for key in keys),
      _LOCAL,
  )
  vectors.build(
      folder / 'colour.faiss',
      lambda: (_colour_vector(local.get(key, 'colours')) for key in keys),
      _GLOBAL,
  )
  if encoded is not None:
    vectors.build(
        folder / 'encoded.faiss',
        lambda: (encoded.get(key, 'vector')[None] for key in keys),
        _GLOBAL,
    )


def _colour_vector(colours: np.ndarray) -> np.ndarray:
  """uint8[1, 3 * _COLOUR_SIDE ** 2]: the picture as very few pixels."""
  small = cv2.resize(
      colours, (_COLOUR_SIDE, _COLOUR_SIDE), interpolation=cv2.INTER_AREA
  )
  return small.reshape(1, -1)


class ImageIndex:
  """What `build` wrote, opened; safe to use from several threads."""

  def __init__(
      self,
      index: pathlib.Path,
      folder: pathlib.Path,
      encoder: Encoder | None,
  ):
    self._pictures = list(files.read_jsonl(folder / 'pictures.jsonl'))
    keys = [picture['key'] for picture in self._pictures]
    self._features = chunks.Chunks(index, descriptor.VERSION, set(keys))
    self._local = vectors.load(folder / 'local.faiss')
    self._colour = vectors.load(folder / 'colour.faiss')
    self._encoder = encoder
    self._encoded = vectors.load(folder / 'encoded.faiss') if encoder else None
    counts = [self._features.n_rows(key, 'descriptors') for key in keys]
    # int32[all descriptors]: the picture of each.
    self._owner = np.repeat(np.arange(len(counts), dtype=np.int32), counts)

  def __len__(self) -> int:
    return len(self._pictures)

  def search(
      self, image: Image.Image, top_k: int
  ) -> list[tuple[dict[str, Any], Hit]]:
    """At most `top_k` pictures {id, title, caption, image, link}, as hits too.

    Best first; of equal scores, the earlier picture.
    """
    query = descriptor.extract(image)
    meaning = self._meaning(image)
    candidates = sorted(
        {*self._by_votes(query), *self._by_colour(query), *meaning}
    )
    rows = [self._pictures[number] for number in candidates]
    agreements = verify(
        query, [features.load(self._features, row['key']) for row in rows]
    )
    scores = [
        max(a.score, _MEANING_WEIGHT * meaning.get(number, 0.0))
        for number, a in zip(candidates, agreements, strict=True)
    ]
    # The sort is stable: ties stay in the order of the pictures.
    best = sorted(range(len(rows)), key=lambda i: -scores[i])[:top_k]
    return [self._found(rows[i], scores[i]) for i in best if scores[i] > 0]

  def _found(
      self, row: Mapping[str, str], score: float
  ) -> tuple[dict[str, Any], Hit]:
    picture = {name: row[name] for name in _SHOWN}
    thumbnail = self._features.get(row['key'], 'thumbnail').tobytes()
    hit = Hit(
        title=row['title'],
        text=row['text'],
        score=score,
        image=thumbnail,
        document=picture,
    )
    return picture, hit

  def _by_votes(self, query: Features) -> list[int]:
    """The pictures whose local descriptors are nearest to the query's."""
    if not len(query.descriptors) or not self._local.ntotal:
      return []
    distances, found = vectors.search(
        self._local, query.descriptors, _NEIGHBOURS
    )
    limit = (_VOTE_LIMIT * descriptor.SCALE) ** 2
    weights = np.clip(1 - distances / limit, 0, 1) * (found >= 0)
    owners = self._owner[found]
    # Only the nearest of a picture's descriptors votes for it.
    n = len(self._pictures)
    ballot = owners + n * np.arange(len(owners), dtype=np.int64)[:, None]
    _, first = np.unique(ballot.ravel(), return_index=True)
    votes = np.bincount(
        owners.ravel()[first], weights.ravel()[first], minlength=n
    )
    best = np.argsort(-votes, kind='stable')[:_BY_VOTES]
    least = _LEAST_VOTES * votes[best[0]]
    return [int(number) for number in best if votes[number] > least]

  def _by_colour(self, query: Features) -> list[int]:
    _, found = vectors.search(
        self._colour, _colour_vector(query.colours), _BY_COLOUR
    )
    return [int(number) for number in found[0] if number >= 0]

  def _meaning(self, image: Image.Image) -> dict[int, float]:
    """Cosines of the pictures nearest by the encoder; {} without one."""
    if self._encoder is None or self._encoded is None:
      return {}
    distances, found = vectors.search(
        self._encoded, self._encoder.encode([image]), _BY_MEANING
    )
    return {
        int(number): float(1 - distance / 2)  # Of vectors of length 1.
        for number, distance in zip(found[0], distances[0], strict=True)
        if number >= 0
    }

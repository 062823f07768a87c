"""Finds pictures: many candidates by their vectors, the best by `verify`.

A folder holds `pictures.jsonl`, `rows.npy` (of each picture: number of its
chunk and row there), `local.faiss` over all local descriptors in the order of
the pictures, `colour.faiss` over small colour vectors and, with an encoder,
`encoded.faiss` over its vectors.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
import dataclasses
import pathlib
from typing import Any

import cv2
import numpy as np
from PIL import Image

from gog_jax.index import chunks
from gog_jax.index import descriptor
from gog_jax.index import features
from gog_jax.index import vectors
from gog_jax.index.corpora import Picture
from gog_jax.index.descriptor import Features
from gog_jax.index.verify import verify
from gog_jax.storage import files
from gog_jax.types import Hit

# Change it with how the same features are searched.
VERSION = 'images-1'

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

_LOCAL_FLAT = 10_000  # A query has hundreds of local descriptors.
_GLOBAL_FLAT = 100_000
_LOCAL_PROBES = 4
_GLOBAL_PROBES = 16


def build(
    folder: pathlib.Path,
    pictures: Sequence[Picture],
    stores: Mapping[str, chunks.ChunkStore],
) -> dict[str, list[str]]:
  """Writes an index of pictures whose features are in the stores.

  Returns:
    The chunks it needs, by kind, in the order that `rows.npy` counts them.
  """
  folder.mkdir()
  rows: list[list[int]] = []
  named: dict[str, list[str]] = {}
  for kind, store in stores.items():
    found = [store.find(picture.key) for picture in pictures]
    names = sorted({chunk.path.name for chunk, _ in found})
    number = {name: i for i, name in enumerate(names)}
    named[kind] = [f'{chunks.FOLDER}/{name}' for name in names]
    rows += [[number[chunk.path.name] for chunk, _ in found]]
    rows += [[row for _, row in found]]
  np.save(folder / 'rows.npy', np.array(rows, np.int32).T)
  files.write_jsonl(
      folder / 'pictures.jsonl', map(dataclasses.asdict, pictures)
  )

  def blocks(kind: str, tensor: str) -> Iterator[np.ndarray]:
    for picture in pictures:
      chunk, row = stores[kind].find(picture.key)
      yield chunk.rows(tensor, row)

  vectors.build(
      folder / 'local.faiss',
      lambda: blocks(features.LOCAL, 'descriptors'),
      width=descriptor.WIDTH,
      flat_limit=_LOCAL_FLAT,
      code='PQ32x4fs',
  )
  vectors.build(
      folder / 'colour.faiss',
      lambda: map(_colour_vector, blocks(features.LOCAL, 'colours')),
      width=3 * _COLOUR_SIDE**2,
      flat_limit=_GLOBAL_FLAT,
      code='SQ8',
  )
  if features.ENCODED in stores:
    vectors.build(
        folder / 'encoded.faiss',
        lambda: (row[None] for row in blocks(features.ENCODED, 'vectors')),
        width=len(next(blocks(features.ENCODED, 'vectors'))),
        flat_limit=_GLOBAL_FLAT,
        code='SQ8',
    )
  return named


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
      named: Mapping[str, Sequence[str]],
      encoder: features.ImageEncoder | None,
  ):
    self._pictures = list(files.read_jsonl(folder / 'pictures.jsonl'))
    self._number = {p['id']: i for i, p in enumerate(self._pictures)}
    self._rows = np.load(folder / 'rows.npy', allow_pickle=False)
    self._chunks = [chunks.Chunk(index / n) for n in named[features.LOCAL]]
    self._local = vectors.load(folder / 'local.faiss')
    self._colour = vectors.load(folder / 'colour.faiss')
    self._encoder = encoder
    self._encoded = None
    if encoder is not None:
      self._encoded = vectors.load(folder / 'encoded.faiss')
    places = map(self._place, range(len(self._pictures)))
    counts = [len(chunk.rows('keypoints', row)) for chunk, row in places]
    # int32[all descriptors]: the picture of each.
    self._owner = np.repeat(np.arange(len(counts), dtype=np.int32), counts)

  def picture(self, number: int) -> dict[str, Any]:
    """{id, title, caption, image, link} of a picture by its number."""
    found = self._pictures[number]
    shown = {name: found[name] for name in ('id', 'title', 'caption', 'link')}
    return {**shown, 'image': found['id']}

  def hit(self, number: int, score: float) -> Hit:
    """A picture as a search shows it, with a thumbnail.

    Its text is the caption, and how the linked document begins if that is
    another.
    """
    found = self._pictures[number]
    parts = dict.fromkeys((found['caption'], found['beginning']))
    return Hit(
        title=found['title'],
        text='\n'.join(filter(None, parts)),
        score=score,
        image=self.thumbnail(number),
    )

  def number_of(self, name: str) -> int:
    """The number of the picture of an id; KeyError if there is none."""
    return self._number[name]

  def thumbnail(self, number: int) -> bytes:
    chunk, row = self._place(number)
    return chunk.rows('thumbnails', row).tobytes()

  def search(self, image: Image.Image, top_k: int) -> list[tuple[int, float]]:
    """Numbers and scores of at most `top_k` pictures, best first.

    Of equal scores, the earlier picture.
    """
    query = descriptor.extract(image)
    meaning = self._meaning(image)
    candidates = sorted(
        {*self._by_votes(query), *self._by_colour(query), *meaning}
    )
    verdicts = verify(
        query, [features.load(*self._place(number)) for number in candidates]
    )
    scored = [
        (number, max(v.score, _MEANING_WEIGHT * meaning.get(number, 0.0)))
        for number, v in zip(candidates, verdicts, strict=True)
    ]
    scored = [pair for pair in scored if pair[1] > 0]
    return sorted(scored, key=lambda pair: (-pair[1], pair[0]))[:top_k]

  def _by_votes(self, query: Features) -> list[int]:
    """The pictures whose local descriptors are nearest to the query's."""
    if not len(query.descriptors) or not self._local.ntotal:
      return []
    distances, found = vectors.search(
        self._local, query.descriptors, _NEIGHBOURS, n_probe=_LOCAL_PROBES
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
        self._colour,
        _colour_vector(query.colours),
        _BY_COLOUR,
        n_probe=_GLOBAL_PROBES,
    )
    return [int(number) for number in found[0] if number >= 0]

  def _meaning(self, image: Image.Image) -> dict[int, float]:
    """Cosines of the pictures nearest by the encoder; {} without one."""
    if self._encoder is None or self._encoded is None:
      return {}
    distances, found = vectors.search(
        self._encoded,
        self._encoder.encode([image]),
        _BY_MEANING,
        n_probe=_GLOBAL_PROBES,
    )
    return {
        int(number): float(1 - distance / 2)  # Of vectors of length 1.
        for number, distance in zip(found[0], distances[0], strict=True)
        if number >= 0
    }

  def _place(self, number: int) -> tuple[chunks.Chunk, int]:
    chunk, row = self._rows[number, :2]
    return self._chunks[chunk], int(row)

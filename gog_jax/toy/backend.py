"""Search in the embedded world: emblems by their looks, documents by BM25.

Nothing is looked up by gold data. An image query is compared with rendered
gallery views of every emblem the scope knows, so a tight crop finds its
emblem, and a loose one or a whole scene finds what it happens to resemble.
"""

from __future__ import annotations

import functools
import hashlib
import io
import logging
import re
from typing import TYPE_CHECKING

import numpy as np
from PIL import Image

from gog_jax.config.tools import IMAGE
from gog_jax.config.tools import TEXT
from gog_jax.toy import scenes
from gog_jax.toy import vocabulary
from gog_jax.toy.knowledge import rng_of
from gog_jax.toy.knowledge import VERSION
from gog_jax.toy.knowledge import world_of
from gog_jax.types import Box
from gog_jax.types import Hit
from gog_jax.types import ToolResult

if TYPE_CHECKING:
  import bm25s

_SIDE = 12  # Side of a thumbnail, in pixels.
_PICTURES = 4  # Gallery pictures with an emblem of usual size.
_FRAMES = 8  # Crops of each of these.
_BIG_PICTURES = 8  # Gallery pictures with a big emblem, used whole.
# Colour differences below the first value are grey in coloured light; those
# above the second count in full.
_PALE, _VIVID = 90.0, 140.0
_LIGHTNESS, _TEXTURE = 0.7, 0.9  # Weights beside colour.
STRONG_COSINE = 0.92


def _thumbnail(image: Image.Image, box: Box | None = None) -> np.ndarray:
  """Returns float32[side, side, 5] of an image or of a box in it.

  Colours, then how finely the picture is lined along either axis, measured at
  full size: fine lines do not survive shrinking.
  """
  if box:
    x1, y1, x2, y2 = (round(side) for side in box)
    image = image.crop((x1, y1, x2, y2))
  size = (_SIDE, _SIDE)
  small = image.resize(size, Image.Resampling.BOX)
  light = np.asarray(image.convert('L'), np.float32)
  light = np.pad(light, 1, mode='edge')
  middle = light[1:-1, 1:-1]
  lines = []
  for low, high in (
      (light[:-2, 1:-1], light[2:, 1:-1]),
      (light[1:-1, :-2], light[1:-1, 2:]),
  ):
    # Both neighbours of a line one pixel wide are darker, or both lighter.
    fine = np.minimum(np.abs(middle - low), np.abs(middle - high))
    fine *= (middle > low) == (middle > high)
    lines.append(
        np.asarray(Image.fromarray(fine).resize(size, Image.Resampling.BOX))
    )
  return np.dstack([np.asarray(small, np.float32), *lines])


def _describe(thumbnails: np.ndarray) -> np.ndarray:
  """Turns float32[..., side, side, 5] into float32[..., 5 * side * side].

  Two colour differences, centred lightness and lines, of length 1. Nearly grey
  pixels add nothing to the colours, so that the emblem decides.
  """
  r, g, b, *lines = np.moveaxis(thumbnails, -1, 0)
  colours = np.stack([r - g, (r + g) / 2 - b], axis=-3)
  strength = np.linalg.norm(colours, axis=-3, keepdims=True)
  colours *= np.clip((strength - _PALE) / (_VIVID - _PALE), 0.0, 1.0)
  light = (r + g + b) / 3
  light -= light.mean(axis=(-2, -1), keepdims=True)
  vectors = np.concatenate(
      [
          colours,
          _LIGHTNESS * light[..., None, :, :],
          _TEXTURE * np.stack(lines, axis=-3),
      ],
      axis=-3,
  )
  vectors = vectors.reshape(*vectors.shape[:-3], -1)
  norms = np.linalg.norm(vectors, axis=-1, keepdims=True)
  return vectors / np.maximum(norms, 1e-6)


@functools.lru_cache(maxsize=1)
def _gallery() -> np.ndarray:
  """Returns float32[identities, views, features], made once per process.

  Pictures are scenes of one emblem. A view crops every identity alike, so that
  none is favoured: tightly, then with even margins, then with random margins
  that may cut a little off; the last views are whole pictures.
  """
  rng = rng_of('world', VERSION, 'gallery')
  views = [[] for _ in scenes.IDENTITIES]
  for number in range(_PICTURES + _BIG_PICTURES):
    canvas = scenes.backdrop(rng)
    big = number >= _PICTURES
    side = scenes.BIG_SIDE if big else scenes.SIDES[number % len(scenes.SIDES)]
    x, y = (2 * int(rng.integers((scenes.SIZE - side) // 2 + 1)) for _ in 'xy')
    margins = side * rng.uniform(-0.13, 0.28, size=(_FRAMES, 4))
    margins[0], margins[1] = 0.0, (0.05 + 0.03 * number) * side
    for identity, found in zip(scenes.IDENTITIES, views, strict=True):
      image = canvas.copy()
      x1, y1, x2, y2 = scenes.draw_emblem(image, identity, x, y, side)
      if big:
        found.append(_thumbnail(image))
        continue
      for left, top, right, bottom in margins:
        sides = (x1 - left, y1 - top, x2 + right, y2 + bottom)
        low_x, low_y, high_x, high_y = np.clip(sides, 0, scenes.SIZE)
        found.append(_thumbnail(image, (low_x, low_y, high_x, high_y)))
  return _describe(np.array(views))


def _words(text: str) -> list[str]:
  return re.findall(r'\w+', text.lower())


@functools.lru_cache(maxsize=1024)
def _text_index(scope: str) -> bm25s.BM25:
  # Imported here because it runs a JAX operation: devices must not start
  # before `main` has configured them.
  import bm25s

  # It logs "Building index" for every scope.
  logging.getLogger('bm25s').setLevel(logging.WARNING)
  index = bm25s.BM25()
  index.index(
      [_words(text) for _, text in world_of(scope).documents],
      show_progress=False,
  )
  return index


@functools.lru_cache(maxsize=1024)
def _rows(scope: str) -> tuple[int, ...]:
  """Returns the gallery index of each of a scope's entities."""
  entities = world_of(scope).entities
  return tuple(scenes.IDENTITIES.index(e.identity) for e in entities)


class WorldBackend:
  """Answers searches in the embedded world (a `SearchBackend`).

  A hit's `title` is the owner's name; its `text` says everything in at most
  five words, the name included. Scores are cosines (with the scope's noise) or
  BM25 weights.
  """

  version = f'world/{VERSION}'
  kinds = (TEXT, IMAGE)

  def prepare(self) -> None:
    """Draws the gallery: seconds, in which others' searches would time out."""
    _gallery()

  async def search_text(
      self, query: str, *, scope: str, top_k: int
  ) -> ToolResult:
    """Finds documents that share words with a query.

    Args:
      query: Any text; case and punctuation do not matter.
      scope: The scope whose documents are searched.
      top_k: The most hits to return.

    Returns:
      Hits, best first; none when no document shares a word.

    Raises:
      UserError: When the scope is of another world.
    """
    world = world_of(scope)
    # Repeating a word does not give it more weight.
    words = list(dict.fromkeys(_words(query)))
    index = _text_index(scope)
    known = [word for word in words if word in index.vocab_dict]
    if not known:
      return ToolResult(hits=())
    scores = index.get_scores(known)
    hits = []
    for i in np.argsort(-scores, kind='stable')[:top_k]:
      if scores[i] > 0:
        title, text = world.documents[i]
        hits.append(Hit(title=title, text=text, score=float(scores[i])))
    return ToolResult(hits=tuple(hits))

  async def search_image(
      self, data: bytes, *, scope: str, top_k: int
  ) -> ToolResult:
    """Finds the emblems that look most like an image.

    Args:
      data: An encoded image.
      scope: The scope whose emblems are compared.
      top_k: The most hits to return.

    Returns:
      Hits, best first. There is always a nearest one; its text says whether
      the match is strong or weak.

    Raises:
      UserError: When the scope is of another world.
    """
    world = world_of(scope)
    with Image.open(io.BytesIO(data)) as image:
      query = _describe(_thumbnail(image.convert('RGB')))
    gallery = _gallery()
    cosines = np.array([(gallery[i] @ query).max() for i in _rows(scope)])
    if noise := world.difficulty.noise:
      # The noise is a function of the picture.
      rng = rng_of(scope, hashlib.sha256(data).hexdigest())
      cosines += rng.normal(0, noise, len(cosines))
    pictured = [entity.pictured for entity in world.entities]
    cosines = np.where(pictured, cosines, -np.inf)
    best = np.argsort(-cosines, kind='stable')[: min(top_k, sum(pictured))]
    hits = []
    for i in best:
      entity, cosine = world.entities[i], float(cosines[i])
      match = vocabulary.STRONG if cosine >= STRONG_COSINE else vocabulary.WEAK
      text = entity.identity.hit(entity.name, match)
      hits.append(Hit(title=entity.name, text=text, score=cosine))
    return ToolResult(hits=tuple(hits))

  async def close(self) -> None:
    """Nothing needs to be closed."""

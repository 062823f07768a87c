"""Search over a scope: pictures by their looks, documents by BM25.

Nothing is looked up by gold data. An image query is compared with rendered
gallery views of every emblem the scope knows, so a tight crop finds its
emblem, and a loose one or a whole scene finds what it happens to resemble.
"""

from __future__ import annotations

import functools
import io
import logging
import re
from typing import TYPE_CHECKING

import numpy as np
from PIL import Image

from gog_jax.types import Box
from gog_jax.types import Hit
from gog_jax.world import scenes
from gog_jax.world import vocabulary
from gog_jax.world.knowledge import rng_of
from gog_jax.world.knowledge import VERSION
from gog_jax.world.knowledge import World
from gog_jax.world.knowledge import world_of

if TYPE_CHECKING:
  import bm25s

_SIDE = 12  # Pixels of a thumbnail's side.
_PICTURES = 4  # Gallery pictures of an emblem,
_FRAMES = 20  # each framed this often,
_CLOSE = 12  # of which closely; else as a whole scene frames a big emblem.
# Differences of colour up to the first are grey in coloured light; from the
# second on they count in full.
_PALE, _VIVID = 90.0, 140.0
STRONG_COSINE = 0.84


def _thumbnail(image: Image.Image, box: Box | None = None) -> np.ndarray:
  """Returns uint8[side, side, 3]: the image, or a box of it, made tiny."""
  return np.asarray(
      image.resize((_SIDE, _SIDE), Image.Resampling.BOX, box=box)
  )


def _describe(thumbnails: np.ndarray) -> np.ndarray:
  """Turns uint8[..., side, side, 3] into float32[..., 3 * side * side].

  Two colour differences and centred lightness, of length 1. What is nearly
  grey adds nothing to the colours, however it is lit, so the emblem decides.
  """
  r, g, b = np.moveaxis(thumbnails.astype(np.float32), -1, 0)
  colours = np.stack([r - g, (r + g) / 2 - b], axis=-3)
  strength = np.linalg.norm(colours, axis=-3, keepdims=True)
  colours *= np.clip((strength - _PALE) / (_VIVID - _PALE), 0.0, 1.0)
  light = (r + g + b) / 3
  light -= light.mean(axis=(-2, -1), keepdims=True)
  vectors = np.concatenate([colours, 0.7 * light[..., None, :, :]], axis=-3)
  vectors = vectors.reshape(*vectors.shape[:-3], -1)
  norms = np.linalg.norm(vectors, axis=-1, keepdims=True)
  return vectors / np.maximum(norms, 1e-6)


@functools.lru_cache(maxsize=1)
def _gallery() -> np.ndarray:
  """Returns float32[identities, views, features], made once per process.

  Every identity is framed alike in a view, so that none is favoured: first
  tightly and with even margins, then with margins that differ by side and
  may cut a little off, last with room around.
  """
  rng = rng_of('world', VERSION, 'gallery')
  thumbnails = np.empty(
      (len(scenes.IDENTITIES), _PICTURES * _FRAMES, _SIDE, _SIDE, 3), np.uint8
  )
  for picture in range(_PICTURES):
    side = 38 + 4 * picture
    rim = side * 2 // 3
    canvas = scenes.background(rng, side + 2 * rim, side + 2 * rim)
    margins = rng.uniform(-0.13, 0.28, size=(_FRAMES, 4))
    margins[0], margins[1] = 0.0, 0.05 + 0.03 * picture
    slack = rng.uniform(0.3, 0.6, size=(_FRAMES - _CLOSE, 2))
    share = rng.random((_FRAMES - _CLOSE, 2))
    margins[_CLOSE:] = np.hstack([slack * share, slack * (1 - share)])
    margins *= side
    for index, identity in enumerate(scenes.IDENTITIES):
      image = canvas.copy()
      x1, y1, x2, y2 = scenes.draw_emblem(image, identity, rim, rim, side)
      for frame, (left, top, right, bottom) in enumerate(margins):
        box = (x1 - left, y1 - top, x2 + right, y2 + bottom)
        thumbnails[index, picture * _FRAMES + frame] = _thumbnail(image, box)
  return _describe(thumbnails)


def _words(text: str) -> list[str]:
  return re.findall(r'\w+', text.lower())


@functools.lru_cache(maxsize=1024)
def _text_index(scope: str) -> bm25s.BM25:
  # Here, since importing it runs a JAX operation: devices must not start
  # before `main` has had its say about them.
  import bm25s

  # It says "Building index" for each of them.
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
  order = {identity: i for i, identity in enumerate(scenes.IDENTITIES)}
  return tuple(order[e.identity] for e in world_of(scope).entities)


class WorldBackend:
  """Answers searches in the embedded world (a `SearchBackend`).

  A hit's `title` is whose it is; its `text` says everything in at most five
  words, the name included. Scores are cosines or BM25 weights.
  """

  version = f'world/{VERSION}'

  async def search_text(
      self, query: str, *, scope: str, top_k: int
  ) -> tuple[Hit, ...]:
    """Finds documents that share words with a query.

    Args:
      query: Any text; case and punctuation do not matter.
      scope: Whose documents.
      top_k: How many hits at most.

    Returns:
      Hits, best first; none when no document shares a word.

    Raises:
      UserError: When the scope is of another world.
    """
    world = world_of(scope)
    # A repeated word says no more than a single one.
    words = list(dict.fromkeys(_words(query)))
    index = _text_index(scope)
    known = [word for word in words if word in index.vocab_dict]
    if not known:
      return ()
    scores = index.get_scores(known)
    best = np.argsort(-scores, kind='stable')[:top_k]
    return tuple(
        Hit(
            title=world.documents[i][0],
            text=world.documents[i][1],
            score=float(scores[i]),
        )
        for i in best
        if scores[i] > 0
    )

  async def search_image(
      self, data: bytes, *, scope: str, top_k: int
  ) -> tuple[Hit, ...]:
    """Finds the emblems that look most like an image.

    Args:
      data: An encoded image.
      scope: Whose emblems.
      top_k: How many hits at most.

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
    best = np.argsort(-cosines, kind='stable')[:top_k]
    return tuple(_image_hit(world, int(i), float(cosines[i])) for i in best)


def _image_hit(world: World, index: int, cosine: float) -> Hit:
  entity = world.entities[index]
  strong = cosine >= STRONG_COSINE
  text = vocabulary.IMAGE_HIT.format(
      name=entity.name,
      colour=entity.identity.colour,
      shape=entity.identity.shape,
      match=vocabulary.STRONG if strong else vocabulary.WEAK,
  )
  return Hit(title=entity.name, text=text, score=cosine)

"""Whether a question is also in another set, as one that is evaluated.

It is, if a question there is the same but for punctuation, spaces and the
spelling of words (language/words.py), and about the same image. Not by the
image alone: of one picture much can be asked. Nor by the question alone: some
sets ask one question of thousands of pictures.

Images are the same if their bytes are. If not, 8 x 8 pixels of both, a
perceptual hash, must be near; then it is verified as the index verifies: one
has to map onto the other, whole and with its colours. Nowhere may these be far
apart, as they are in a crop, another view, or a chart of other numbers.
"""

from __future__ import annotations

import collections
from collections.abc import Iterable, Sequence
import hashlib
from typing import Any

import cv2
import numpy as np
from PIL import Image

from gog_jax import images
from gog_jax import interrupt
from gog_jax.errors import UserError
from gog_jax.index import descriptor
from gog_jax.index.verify import verify
from gog_jax.language import words
from gog_jax.types import Example

# Chosen between photographs of 128 to 1,200 pixels at half to one and a half
# times their size and JPEG quality 30 to 95, and crops of 98 % of their sides.
_HASH_LIMIT = 3.0  # Mean difference of the small pixels, of 255; at most 1.5.
_LEAST_SHARE = 0.88  # Of pixels whose colours agree; at least 0.907.
_LEAST_COVER = 0.97  # At least 0.977; of the crops at most 0.962.
# Difference of a part of the picture, of 255; at most 9.0 of the same, and of
# charts with other digits 12 and more.
_FAR = 11.0
_SIDE = 8


class Held:
  """The questions of sets, to be looked up."""

  def __init__(
      self, sets: Iterable[Sequence[Example]], *, any_question: bool = False
  ):
    """Reads them once.

    Args:
      sets: Their images are read again to be verified.
      any_question: Whether the image alone decides.
    """
    self._any = any_question
    # By what is asked: set and index, and the hash of the first image.
    self._items = collections.defaultdict[str, list[Any]](list)
    hashes = collections.defaultdict[str, list[np.ndarray]](list)
    for one in sets:
      for index, example in enumerate(one):
        interrupt.check()
        try:
          first = _hash(example.images[0])
        except UserError:  # An image that nobody can be asked about.
          continue
        key = self._key(example)
        self._items[key].append((one, index))
        hashes[key].append(first)
    self._hashes = {key: np.stack(found) for key, found in hashes.items()}

  def find(self, example: Example) -> Example | None:
    """The question there that this one repeats, if any."""
    key = self._key(example)
    if key not in self._hashes:
      return None
    mine = [_hash(data) for data in example.images]
    near = [
        np.abs(self._hashes[key] - one).mean(axis=1) <= _HASH_LIMIT
        for one in mine
    ]
    for number in np.flatnonzero(np.any(near, axis=0)):
      held, index = self._items[key][number]
      found = held[index]
      if all(
          any(same_image(ours, theirs) for ours in example.images)
          for theirs in found.images
      ):
        return found
    return None

  def _key(self, example: Example) -> str:
    return '' if self._any else words.same(example.question)


def same_image(one: bytes, other: bytes) -> bool:
  """Whether two image files show the same, however they were encoded."""
  if one == other:
    return True
  if np.abs(_hash(one) - _hash(other)).mean() > _HASH_LIMIT:
    return False
  ours, theirs = images.decode(one), images.decode(other)
  (found,) = verify(descriptor.extract(ours), [descriptor.extract(theirs)])
  if found.share < _LEAST_SHARE or found.cover < _LEAST_COVER:
    return False
  # Of small pictures the finest parts are what encoders made of them.
  side = min(64, max(_SIDE, min(*ours.size, *theirs.size) // 4))
  first, second = (
      cv2.resize(
          np.asarray(p, np.float32), (side, side), interpolation=cv2.INTER_AREA
      )
      for p in (ours, theirs)
  )
  return np.abs(cv2.blur(first - second, (3, 3))).max() <= _FAR


def _hash(data: bytes) -> np.ndarray:
  """int16[_SIDE ** 2 * 3]: the picture as very few pixels."""
  small = images.decode(data).resize((_SIDE, _SIDE), Image.Resampling.BOX)
  return np.asarray(small, np.int16).ravel()


def image_key(data: bytes) -> float:
  """A number in [0, 1) that only the bytes of an image decide."""
  return int.from_bytes(hashlib.sha256(data).digest()[:6]) / 2**48

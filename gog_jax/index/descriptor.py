"""The features of one image: local descriptors and colours.

Local descriptors (SIFT, square-rooted) find a picture again after scaling,
cropping, rotation and recompression, and say where each part of it went; a
small colour thumbnail then tells the picture from those that share its shapes.
"""

from __future__ import annotations

import dataclasses
import functools

import cv2
import numpy as np
from PIL import Image

from gog_jax import images

# Change it with the features of the same picture.
VERSION = 'rootsift-1'
SIDE = 320  # The longest side, in pixels, of the frame of the keypoints.
MAX_KEYPOINTS = 300
WIDTH = 128
GRID = 64  # Side of the colour thumbnail, the picture stretched to a square.
THUMBNAIL_SIDE = 256  # The longest side, in pixels, of the image of a hit.

# Lower, and most keypoints are artefacts of JPEG blocks.
_CONTRAST = 0.02
_MAX_DETECTED = 700
# Keypoints are chosen in turn from a grid of this many cells a side.
_CELLS = 6
# A descriptor of length 1 is stored as uint8, times this; the rare values above
# one half are cut.
SCALE = 512


@dataclasses.dataclass(frozen=True, kw_only=True, eq=False)
class Features:
  """One image, as the index knows it.

  Attributes:
    frame: int32[2], width and height in pixels of the frame of the keypoints.
    keypoints: float32[n, 2], x and y in the frame; n <= MAX_KEYPOINTS.
    descriptors: uint8[n, WIDTH].
    colours: uint8[GRID, GRID, 3], RGB.
  """

  frame: np.ndarray
  keypoints: np.ndarray
  descriptors: np.ndarray
  colours: np.ndarray

  @functools.cached_property
  def smooth(self) -> np.ndarray:
    """float32 colours, blurred by what a small error of a map may shift them.
    """
    return cv2.GaussianBlur(self.colours.astype(np.float32), (0, 0), 0.7)


def extract(image: Image.Image) -> Features:
  """Returns the features of an RGB picture; equal pixels, equal features."""
  pixels = np.asarray(image)
  shrink = SIDE / max(image.size)
  # A line of one pixel has no keypoints; the detector wants some height.
  frame = (
      max(16, round(image.width * shrink)),
      max(16, round(image.height * shrink)),
  )
  method = cv2.INTER_AREA if shrink < 1 else cv2.INTER_CUBIC
  grey = cv2.cvtColor(
      cv2.resize(pixels, frame, interpolation=method), cv2.COLOR_RGB2GRAY
  )
  keypoints, descriptors = _local(grey)
  return Features(
      frame=np.array(frame, np.int32),
      keypoints=keypoints,
      descriptors=descriptors,
      colours=cv2.resize(pixels, (GRID, GRID), interpolation=cv2.INTER_AREA),
  )


def _local(grey: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
  """float32[n, 2] places and uint8[n, WIDTH] descriptors of a grey picture."""
  detector = cv2.SIFT.create(
      nfeatures=_MAX_DETECTED, contrastThreshold=_CONTRAST
  )
  found, values = detector.detectAndCompute(grey, None)  # pyright: ignore
  if values is None:
    return np.zeros((0, 2), np.float32), np.zeros((0, WIDTH), np.uint8)
  places = np.array([point.pt for point in found], np.float32)
  response = np.array([point.response for point in found])
  chosen = _spread(places, response, grey.shape)
  values = values[chosen]
  # Hellinger's distance: that of the square roots of shares.
  values = values / np.maximum(values.sum(axis=1, keepdims=True), 1e-6)
  values = np.minimum(np.rint(np.sqrt(values) * SCALE), 255).astype(np.uint8)
  return places[chosen], values


def _spread(
    places: np.ndarray, response: np.ndarray, shape: tuple[int, ...]
) -> np.ndarray:
  """The keypoints to keep: the strongest of each cell, cell by cell in turn.

  The strongest of all would often sit in one corner, and a crop of another
  corner would find nothing.
  """
  rows, columns = shape
  cell = np.minimum(places[:, 1] * _CELLS // rows, _CELLS - 1) * _CELLS
  cell = cell + np.minimum(places[:, 0] * _CELLS // columns, _CELLS - 1)
  order = np.lexsort((-response, cell))
  by_cell = cell[order]
  starts = np.searchsorted(by_cell, by_cell)
  rank = np.arange(len(order)) - starts  # Within its cell.
  turn = np.lexsort((-response[order], rank))
  return np.sort(order[turn[:MAX_KEYPOINTS]])


def thumbnail(image: Image.Image) -> bytes:
  """A JPEG of at most THUMBNAIL_SIDE pixels a side."""
  small = image.copy()
  small.thumbnail((THUMBNAIL_SIDE, THUMBNAIL_SIDE), Image.Resampling.BICUBIC)
  return images.encode_jpeg(small, quality=85)

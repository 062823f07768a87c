"""How well a picture explains a query: geometry first, then colours.

Local matches between the two are fitted by a similarity or affine map; through
it the picture's colours are laid over the query. The score is the share of the
query's pixels whose colours agree, so that a photo beats its recolourings and
its own crops; it is weakened where little of the picture is used, so that the
photo also beats a composite that contains it.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
import dataclasses
import math

import cv2
import numpy as np

from gog_jax.index.descriptor import Features
from gog_jax.index.descriptor import GRID
from gog_jax.index.descriptor import SCALE

# A match counts if its distance is below this share of the second best's.
_RATIO = 0.9
# Pixels of the frame within which a match obeys the map.
_TOLERANCE = 5.0
_MIN_INLIERS = 5
# With this share of the matches on the similarity, no other map is tried.
_ENOUGH = 0.8
# Mean difference of the three channels, of 255, from which colours disagree.
_COLOUR_LIMIT = 40.0
# Largest ratio of the two aspect ratios for comparing whole pictures, which is
# done where no keypoints match.
_ASPECT_LIMIT = 1.25
# Shares of the score that a low cover or few inliers can take away.
_COVER_WEIGHT = 0.2
_INLIER_WEIGHT = 0.1
_HALF_INLIERS = 8.0


@dataclasses.dataclass(frozen=True, kw_only=True)
class Agreement:
  """How a picture explains a query.

  Attributes:
    score: In [0, 1].
    share: Of the query's pixels that agree with the picture's, in [0, 1].
    cover: Share of the picture that lies within the query, in [0, 1].
    inliers: Local matches that obey the map.
  """

  score: float = 0.0
  share: float = 0.0
  cover: float = 0.0
  inliers: int = 0


def verify(query: Features, pictures: Sequence[Features]) -> list[Agreement]:
  """Judges every picture against the query."""
  return [
      _agreement(query, picture, theirs, ours)
      for picture, (theirs, ours) in zip(
          pictures, _matches(query, pictures), strict=True
      )
  ]


def _agreement(
    query: Features, picture: Features, theirs: np.ndarray, ours: np.ndarray
) -> Agreement:
  """The agreement of the best map between picture and query."""
  maps = _fit(theirs, ours) or _whole(query, picture)
  found = [_explain(query, picture, *fitted) for fitted in maps]
  return max(found, key=lambda one: one.score, default=Agreement())


def _matches(
    query: Features, pictures: Sequence[Features]
) -> Iterator[tuple[np.ndarray, np.ndarray]]:
  """Per picture, float32[m, 2] places in it and in the query that match.

  Matches are mutual nearest neighbours, and clearly nearer than the second.
  """
  if not pictures:
    return
  ours = query.descriptors.astype(np.float32) / SCALE
  theirs = np.concatenate([picture.descriptors for picture in pictures])
  ends = np.cumsum([len(picture.descriptors) for picture in pictures])
  # All at once: one large product is many times faster than small ones.
  near = np.split((theirs.astype(np.float32) / SCALE) @ ours.T, ends[:-1])
  for picture, block in zip(pictures, near, strict=True):
    if min(block.shape) < 2:
      yield np.zeros((0, 2), np.float32), np.zeros((0, 2), np.float32)
      continue
    best = block.argmax(axis=0)
    mutual = block.argmax(axis=1)[best] == np.arange(len(ours))
    columns = np.flatnonzero(mutual)
    rest = block[:, columns]
    rows, own = best[columns], np.arange(len(columns))
    first = rest[rows, own].copy()
    rest[rows, own] = -np.inf
    # Squared distances of vectors of about unit length.
    clear = (1 - first) <= _RATIO**2 * (1 - rest.max(axis=0))
    yield picture.keypoints[rows[clear]], query.keypoints[columns[clear]]


def _fit(
    theirs: np.ndarray, ours: np.ndarray
) -> list[tuple[np.ndarray, int]]:
  """Maps of the picture's frame to the query's, and how many matches obey.

  A similarity; and, as pictures in a composite may be stretched, an affine map
  if the similarity leaves many matches out and there are enough to tell.
  """
  if len(theirs) < _MIN_INLIERS:
    return []
  maps = []
  for estimate, least in (
      (cv2.estimateAffinePartial2D, _MIN_INLIERS),
      (cv2.estimateAffine2D, 2 * _MIN_INLIERS),
  ):
    if len(theirs) < least or (maps and maps[0][1] > _ENOUGH * len(theirs)):
      continue
    matrix, obey = estimate(
        theirs,
        ours,
        method=cv2.RANSAC,
        ransacReprojThreshold=_TOLERANCE,
        maxIters=500,
        confidence=0.99,
    )
    if matrix is None or obey.sum() < least:
      continue
    # Neither collapsed to a line, nor turned over, nor grown beyond reason.
    area = float(np.linalg.det(matrix[:, :2]))
    if 1e-3 < area < 1e3:
      maps.append((matrix, int(obey.sum())))
  return maps


def _whole(
    query: Features, picture: Features
) -> list[tuple[np.ndarray, int]]:
  """The map of the whole picture to the whole query, if their shapes are near.
  """
  x, y = query.frame / picture.frame
  if not 1 / _ASPECT_LIMIT < x / y < _ASPECT_LIMIT:
    return []
  return [(np.array([[x, 0.0, 0.0], [0.0, y, 0.0]]), 0)]


def _explain(
    query: Features, picture: Features, matrix: np.ndarray, inliers: int
) -> Agreement:
  """What the map of the picture's frame to the query's explains."""
  grid = _to_grid(matrix, picture.frame, query.frame)
  share = _share(query.smooth, picture.smooth, grid)
  cover = _cover(matrix, picture.frame, query.frame)
  doubt = 1 - inliers / (inliers + _HALF_INLIERS)
  score = share * (1 - _COVER_WEIGHT * (1 - cover) - _INLIER_WEIGHT * doubt)
  return Agreement(score=score, share=share, cover=cover, inliers=inliers)


def _to_grid(
    matrix: np.ndarray, theirs: np.ndarray, ours: np.ndarray
) -> np.ndarray:
  """The map between the two colour grids.

  Centres of pixels are at whole numbers, in the frames as in the grids.
  """
  size = theirs / GRID  # Of the picture's cells, in its frame.
  per_cell = GRID / ours
  linear = per_cell[:, None] * matrix[:, :2] * size
  shift = matrix[:, :2] @ ((size - 1) / 2) + matrix[:, 2] + 0.5
  return np.column_stack([linear, per_cell * shift - 0.5])


def _share(
    seen: np.ndarray, colours: np.ndarray, matrix: np.ndarray
) -> float:
  """Share of the query's pixels whose colours agree; 0 where not covered."""
  # A picture that shrinks is averaged, or single pixels of it would be compared
  # with averages.
  shrink = math.sqrt(abs(np.linalg.det(matrix[:, :2])))
  if shrink < 0.75:
    colours = cv2.GaussianBlur(colours, (0, 0), 0.5 / shrink)
  size = (GRID, GRID)
  laid = cv2.warpAffine(
      colours, matrix, size, borderMode=cv2.BORDER_REPLICATE
  )
  covered = cv2.warpAffine(np.ones(size, np.float32), matrix, size)
  apart = cv2.transform(cv2.absdiff(laid, seen), np.ones((1, 3)))
  agree = np.maximum(1 - apart / (3 * _COLOUR_LIMIT), 0)
  return float((agree * covered).mean())


def _cover(
    matrix: np.ndarray, theirs: np.ndarray, ours: np.ndarray
) -> float:
  """Share of the picture's area that lies within the query."""

  def corners(frame: np.ndarray) -> np.ndarray:
    w, h = frame
    return np.array([[0, 0], [w, 0], [w, h], [0, h]], np.float32)

  placed = corners(theirs) @ matrix[:, :2].T + matrix[:, 2]
  placed = placed.astype(np.float32)
  area, _ = cv2.intersectConvexConvex(placed, corners(ours))
  return min(1.0, area / max(cv2.contourArea(placed), 1e-6))

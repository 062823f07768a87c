"""gaze: crop a region of an image and search with the crop.

A crop holds the very pixels of its image, so that a crop of a crop is as sharp
as the same region cut directly. Its view says where it lies in the root image,
however deep the chain of gazes. Where the backend cannot be searched with
images, a gaze shows the crop alone.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Mapping
import math
from typing import Any

from gog_jax import images
from gog_jax.boxes import BoxError
from gog_jax.boxes import BoxSpec
from gog_jax.tools.base import IMAGE
from gog_jax.tools.base import ModelError
from gog_jax.tools.base import Query
from gog_jax.tools.base import SearchBackend
from gog_jax.tools.base import ToolContext
from gog_jax.tools.search import image_query
from gog_jax.types import Box
from gog_jax.types import View


class Gaze:
  """Crops a box of any image in the conversation and searches with it."""

  name = 'gaze'
  needs = None
  description = (
      'Crop a region of an image, see it enlarged and search with it.'
  )
  parameters = {
      'type': 'object',
      'properties': {
          'bbox_2d': {
              'type': 'array',
              'items': {'type': 'number'},
              'minItems': 4,
              'maxItems': 4,
              'description': 'The region: [x1, y1, x2, y2].',
          },
          'image': {
              'type': 'integer',
              'minimum': 1,
              'default': 1,
              'description': (
                  'Which image, numbered from 1 in order of appearance.'
              ),
          },
      },
      'required': ['bbox_2d'],
      'additionalProperties': False,
  }

  def __init__(
      self,
      backend: SearchBackend,
      *,
      top_k: int,
      box_spec: BoxSpec,
      seen_size: Callable[[int, int], tuple[int, int]],
  ):
    """Initialises the tool.

    Args:
      backend: What is searched.
      top_k: Hits per search.
      box_spec: What the numbers in `bbox_2d` mean to this policy.
      seen_size: (width, height) of an image file -> of what the model sees.
    """
    self.version = backend.version
    self.searches = IMAGE in backend.kinds
    if not self.searches:
      self.description = 'Crop a region of an image and see it enlarged.'
    self._backend, self._top_k = backend, top_k
    self._box_spec = box_spec
    self._seen_size = seen_size

  async def query(
      self, arguments: Mapping[str, Any], context: ToolContext
  ) -> Query:
    """Crops; the query's view is the crop, in original pixels.

    Raises:
      ModelError: No such image, or a box that BoxSpec refuses.
    """
    view = await asyncio.to_thread(self._crop, arguments, context)
    if not self.searches:
      return Query(view=view)
    return image_query(
        self._backend, view.data, context.scope, self._top_k, view
    )

  def _crop(
      self, arguments: Mapping[str, Any], context: ToolContext
  ) -> View:
    number = int(arguments.get('image', 1))
    n_views = len(context.views)
    if not 1 <= number <= n_views:
      raise ModelError(f'there is no image {number}, only 1 to {n_views}')
    view = context.views[number - 1]
    size = images.size_of(view.data)
    try:
      box_in_view = self._box_spec.to_original(
          arguments['bbox_2d'],
          original_size=size,
          seen_size=self._seen_size(*size),
      )
    except BoxError as error:
      raise ModelError(str(error)) from error
    box = _whole_pixels(box_in_view, size)
    crop = images.encode_png(images.decode(view.data).crop(box))
    return View(data=crop, root=view.root, box=_shift(box, view.box))


def _whole_pixels(box: Box, size: tuple[int, int]) -> Box:
  """The nearest box of whole pixels that lies in the image and is not empty.

  Rounding half up moves both edges of a box alike, so that a box at least one
  pixel wide stays so.
  """
  edges = []
  for low, high, limit in zip(box[:2], box[2:], size, strict=True):
    low = min(max(math.floor(low + 0.5), 0), limit - 1)
    high = max(min(math.floor(high + 0.5), limit), low + 1)
    edges.append((low, high))
  (x1, x2), (y1, y2) = edges
  return x1, y1, x2, y2


def _shift(box: Box, frame: Box) -> Box:
  """`box` in pixels of a crop -> in pixels of the image it was cut from."""
  x, y = round(frame[0]), round(frame[1])
  return box[0] + x, box[1] + y, box[2] + x, box[3] + y

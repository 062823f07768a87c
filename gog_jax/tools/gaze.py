"""gaze: crop a region of an image and search with the crop.

A crop holds the very pixels of its image, so that a crop of a crop is as sharp
as the same region cut directly. Its view says where it lies in the root image,
however deep the chain of gazes. Where nothing can be searched with images, a
gaze shows the crop alone.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Mapping
import math
from typing import Any

from gog_jax import images
from gog_jax.boxes import BoxError
from gog_jax.boxes import BoxSpec
from gog_jax.tools.base import ModelError
from gog_jax.tools.base import Query
from gog_jax.tools.base import SearchBackend
from gog_jax.tools.base import Tool
from gog_jax.tools.base import ToolContext
from gog_jax.tools.search import image_query
from gog_jax.types import Box
from gog_jax.types import View

_PARAMETERS = {
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
_SEARCHES = 'Crop a region of an image, see it enlarged and search with it.'
_SHOWS = 'Crop a region of an image and see it enlarged.'


def gaze(
    backend: SearchBackend | None,
    *,
    top_k: int,
    box_spec: BoxSpec,
    seen_size: Callable[[int, int], tuple[int, int]],
) -> Tool:
  """Crops a box of any image in the conversation and searches with it.

  The query's view is the crop, in original pixels.

  Args:
    backend: What is searched, if anything.
    top_k: Hits per search.
    box_spec: What the numbers in `bbox_2d` mean to this policy.
    seen_size: (width, height) of an image file -> of what the model sees.
  """

  def crop(arguments: Mapping[str, Any], context: ToolContext) -> View:
    number = int(arguments.get('image', 1))
    n_views = len(context.views)
    if not 1 <= number <= n_views:
      raise ModelError(f'there is no image {number}, only 1 to {n_views}')
    view = context.views[number - 1]
    size = images.size_of(view.data)
    try:
      box_in_view = box_spec.to_original(
          arguments['bbox_2d'], original_size=size, seen_size=seen_size(*size)
      )
    except BoxError as error:
      raise ModelError(str(error)) from error
    box = _whole_pixels(box_in_view, size)
    data = images.encode_png(images.decode(view.data).crop(box))
    return View(data=data, root=view.root, box=_shift(box, view.box))

  async def query(arguments: Mapping[str, Any], context: ToolContext) -> Query:
    view = await asyncio.to_thread(crop, arguments, context)
    if backend is None:
      return Query(view=view)
    return image_query(backend, view.data, context.scope, top_k, view)

  return Tool(
      name='gaze',
      description=_SHOWS if backend is None else _SEARCHES,
      parameters=_PARAMETERS,
      version='' if backend is None else backend.version,
      query=query,
  )


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

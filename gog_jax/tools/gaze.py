"""gaze: crop a region of an image and search with the crop.

A crop holds the very pixels of its image, so that a crop of a crop is as sharp
as the same region cut directly. Its view says where it lies in the root image,
however deep the chain of gazes. Where nothing can be searched with images, a
gaze shows the crop alone.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Mapping, Sequence
import math
from typing import Any

from gog_jax import images
from gog_jax.boxes import BoxError
from gog_jax.boxes import BoxSpec
from gog_jax.boxes import KINDS
from gog_jax.tools.base import ModelError
from gog_jax.tools.base import Query
from gog_jax.tools.base import SearchBackend
from gog_jax.tools.base import Tool
from gog_jax.tools.base import ToolContext
from gog_jax.tools.search import image_query
from gog_jax.types import Box
from gog_jax.types import View

NAME, BOX = 'gaze', 'bbox_2d'
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
    named = region(
        arguments, context.views, box_spec=box_spec, seen_size=seen_size
    )
    return cut(*named)

  async def query(arguments: Mapping[str, Any], context: ToolContext) -> Query:
    view = await asyncio.to_thread(crop, arguments, context)
    if backend is None:
      return Query(view=view)
    return image_query(backend, view.data, context.scope, top_k, view)

  return Tool(
      name=NAME,
      description=_SHOWS if backend is None else _SEARCHES,
      parameters=parameters(box_spec),
      version='' if backend is None else backend.version,
      query=query,
  )


def region(
    arguments: Mapping[str, Any],
    views: Sequence[View],
    *,
    box_spec: BoxSpec,
    seen_size: Callable[[int, int], tuple[int, int]],
    exact: bool = False,
) -> tuple[View, Box]:
  """The image that a call names, and the region of it, in the file's pixels.

  Args:
    arguments: Of the call; they obey the tool's schema.
    views: All images before the call, in order.
    box_spec: As `gaze`.
    seen_size: As `gaze`.
    exact: See `BoxSpec.to_original`.

  Raises:
    ModelError: There is no such image, or the box is no region of it.
  """
  number = int(arguments.get('image', 1))
  if not 1 <= number <= len(views):
    raise ModelError(f'there is no image {number}, only 1 to {len(views)}')
  view = views[number - 1]
  size = images.size_of(view.data)
  try:
    return view, box_spec.to_original(
        arguments[BOX],
        original_size=size,
        seen_size=seen_size(*size),
        exact=exact,
    )
  except BoxError as error:
    raise ModelError(str(error)) from error


def cut(view: View, box: Box) -> View:
  """The crop of a region, which is in pixels of the view's file."""
  whole = _whole_pixels(box, images.size_of(view.data))
  data = images.encode_png(images.decode(view.data).crop(whole))
  return View(data=data, root=view.root, box=shifted(whole, view.box))


def shifted(box: Box, frame: Box, sign: int = 1) -> Box:
  """`box` in pixels of a crop -> in pixels of the image it was cut from.

  Args:
    box: The box.
    frame: That of the crop's view.
    sign: -1 for the way back.
  """
  x, y = sign * round(frame[0]), sign * round(frame[1])
  return box[0] + x, box[1] + y, box[2] + x, box[3] + y


def parameters(box_spec: BoxSpec) -> dict[str, Any]:
  """The schema of a call's arguments: it says the frame of boxes."""
  return {
      'type': 'object',
      'properties': {
          BOX: {
              'type': 'array',
              'items': {'type': 'number'},
              'minItems': 4,
              'maxItems': 4,
              'description': (
                  f'The region: [x1, y1, x2, y2], {KINDS[box_spec.kind]}.'
              ),
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
      'required': [BOX],
      'additionalProperties': False,
  }


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

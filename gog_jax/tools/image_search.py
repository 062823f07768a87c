"""image_search: the policy searches with the whole image, at a glance."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from gog_jax.tools.base import ModelError
from gog_jax.tools.base import SearchBackend
from gog_jax.tools.base import ToolContext
from gog_jax.types import ToolResult
from gog_jax.types import ToolStatus


class ImageSearch:
  """Finds what looks like the example's first image, uncropped."""

  name = 'image_search'
  description = 'Search with the whole image.'
  parameters = {
      'type': 'object',
      'properties': {},
      'additionalProperties': False,
  }

  def __init__(self, backend: SearchBackend, *, top_k: int):
    self._backend = backend
    self._top_k = top_k

  async def __call__(
      self, arguments: Mapping[str, Any], context: ToolContext
  ) -> ToolResult:
    """Searches with image 1.

    Raises:
      ModelError: The conversation holds no image.
    """
    del arguments
    if not context.views:
      raise ModelError('there is no image to search with')
    hits = await self._backend.search_image(
        context.views[0].data, scope=context.scope, top_k=self._top_k
    )
    return ToolResult(status=ToolStatus.OK, hits=tuple(hits), n_searches=1)

"""image_search: the policy searches with the whole image, at a glance."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from gog_jax.tools.base import ModelError
from gog_jax.tools.base import Query
from gog_jax.tools.base import ToolContext


class ImageSearch:
  """Finds what looks like the example's first image, uncropped."""

  name = 'image_search'
  description = 'Search with the whole image.'
  parameters = {
      'type': 'object',
      'properties': {},
      'additionalProperties': False,
  }

  def __init__(self, *, top_k: int):
    self._top_k = top_k

  async def query(
      self, arguments: Mapping[str, Any], context: ToolContext
  ) -> Query:
    """Image 1.

    Raises:
      ModelError: The conversation holds no image.
    """
    del arguments
    if not context.views:
      raise ModelError('there is no image to search with')
    return Query(
        image=context.views[0].data, scope=context.scope, top_k=self._top_k
    )

"""image_search: the policy searches with the whole image, at a glance."""

from __future__ import annotations

from collections.abc import Mapping
import functools
from typing import Any

from gog_jax.tools.base import IMAGE
from gog_jax.tools.base import ModelError
from gog_jax.tools.base import Query
from gog_jax.tools.base import SearchBackend
from gog_jax.tools.base import ToolContext
from gog_jax.types import View


class ImageSearch:
  """Finds what looks like the example's first image, uncropped."""

  name = 'image_search'
  needs = IMAGE
  description = 'Search with the whole image.'
  parameters = {
      'type': 'object',
      'properties': {},
      'additionalProperties': False,
  }

  def __init__(self, backend: SearchBackend, *, top_k: int, **unused: Any):
    self.version = backend.version
    self._backend, self._top_k = backend, top_k

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
    return query_for(
        self._backend, context.views[0].data, context.scope, self._top_k
    )


def query_for(
    backend: SearchBackend,
    image: bytes,
    scope: str,
    top_k: int,
    view: View | None = None,
) -> Query:
  """A search with an image; see `Query` for `view`."""
  ask = functools.partial(
      backend.search_image, image, scope=scope, top_k=top_k
  )
  return Query(ask=ask, image=image, scope=scope, top_k=top_k, view=view)

"""Searches in words, and with the whole image, at a glance."""

from __future__ import annotations

from collections.abc import Mapping
import functools
from typing import Any

from gog_jax.tools.base import IMAGE
from gog_jax.tools.base import ModelError
from gog_jax.tools.base import Query
from gog_jax.tools.base import SearchBackend
from gog_jax.tools.base import TEXT
from gog_jax.tools.base import ToolContext
from gog_jax.types import View

# Longer ones are no queries, and servers refuse them.
_MAX_LENGTH = 4096


class _Search:

  def __init__(self, backend: SearchBackend, *, top_k: int, **unused: Any):
    self.version = backend.version
    self._backend, self._top_k = backend, top_k


class TextSearch(_Search):
  """Finds documents by a text query."""

  name = 'text_search'
  needs = TEXT
  description = 'Search documents with a text query.'
  parameters = {
      'type': 'object',
      'properties': {
          'query': {'type': 'string', 'description': 'What to search for.'}
      },
      'required': ['query'],
      'additionalProperties': False,
  }

  async def query(
      self, arguments: Mapping[str, Any], context: ToolContext
  ) -> Query:
    """The words in `arguments['query']`.

    Raises:
      ModelError: They are blank, too many, or not text that UTF-8 can carry.
    """
    query = arguments['query'].strip()
    if not query:
      raise ModelError('query is empty')
    if len(query) > _MAX_LENGTH:
      raise ModelError(f'query is longer than {_MAX_LENGTH} characters')
    try:
      query.encode()  # JSON can spell lone surrogates; no backend takes them.
    except UnicodeEncodeError as error:
      raise ModelError('query is not valid Unicode') from error
    where = {'scope': context.scope, 'top_k': self._top_k}
    ask = functools.partial(self._backend.search_text, query, **where)
    return Query(ask=ask, text=query, **where)


class ImageSearch(_Search):
  """Finds what looks like the example's first image, uncropped."""

  name = 'image_search'
  needs = IMAGE
  description = 'Search with the whole image.'
  parameters = {
      'type': 'object',
      'properties': {},
      'additionalProperties': False,
  }

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
    return image_query(
        self._backend, context.views[0].data, context.scope, self._top_k
    )


def image_query(
    backend: SearchBackend,
    image: bytes,
    scope: str,
    top_k: int,
    view: View | None = None,
) -> Query:
  """A search with an image; see `Query` for `view`."""
  where = {'scope': scope, 'top_k': top_k}
  ask = functools.partial(backend.search_image, image, **where)
  return Query(ask=ask, image=image, view=view, **where)

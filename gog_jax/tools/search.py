"""Searches in words, and with the whole image, at a glance."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
import functools
from typing import Any

from gog_jax.tools.base import ModelError
from gog_jax.tools.base import Query
from gog_jax.tools.base import SearchBackend
from gog_jax.tools.base import Tool
from gog_jax.tools.base import ToolContext
from gog_jax.types import View

# Longer ones are no queries, and servers refuse them.
_MAX_LENGTH = 4096
# The schemas of the arguments, by tool.
PARAMETERS = {
    'text_search': {
        'type': 'object',
        'properties': {
            'query': {'type': 'string', 'description': 'What to search for.'}
        },
        'required': ['query'],
        'additionalProperties': False,
    },
    'image_search': {
        'type': 'object',
        'properties': {},
        'additionalProperties': False,
    },
}


def text_search(
    backend: SearchBackend | None, *, top_k: int, **unused: Any
) -> Tool | None:
  """Finds documents by a text query; None without a backend."""
  if backend is None:
    return None

  async def query(arguments: Mapping[str, Any], context: ToolContext) -> Query:
    text = query_of(arguments)
    where = {'scope': context.scope, 'top_k': top_k}
    ask = functools.partial(backend.search_text, text, **where)
    return Query(ask=ask, text=text, **where)

  return Tool(
      name='text_search',
      description='Search documents with a text query.',
      parameters=PARAMETERS['text_search'],
      version=backend.version,
      query=query,
  )


def image_search(
    backend: SearchBackend | None, *, top_k: int, **unused: Any
) -> Tool | None:
  """Finds what looks like the example's first image, uncropped."""
  if backend is None:
    return None

  async def query(arguments: Mapping[str, Any], context: ToolContext) -> Query:
    del arguments
    data = first(context.views).data
    return image_query(backend, data, context.scope, top_k)

  return Tool(
      name='image_search',
      description='Search with the whole image.',
      parameters=PARAMETERS['image_search'],
      version=backend.version,
      query=query,
  )


def query_of(arguments: Mapping[str, Any]) -> str:
  """The words that a call searches for; ModelError if they are no query."""
  text = arguments['query'].strip()
  if not text:
    raise ModelError('query is empty')
  if len(text) > _MAX_LENGTH:
    raise ModelError(f'query is longer than {_MAX_LENGTH} characters')
  try:
    text.encode()  # JSON can spell lone surrogates; no backend takes them.
  except UnicodeEncodeError as error:
    raise ModelError('query is not valid Unicode') from error
  return text


def first(views: Sequence[View]) -> View:
  """The image that is searched with at a glance; ModelError without any."""
  if not views:
    raise ModelError('there is no image to search with')
  return views[0]


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

"""text_search: the policy asks in words."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from gog_jax.tools.base import ModelError
from gog_jax.tools.base import SearchBackend
from gog_jax.tools.base import ToolContext
from gog_jax.types import ToolResult
from gog_jax.types import ToolStatus


class TextSearch:
  """Finds documents by a text query."""

  name = 'text_search'
  description = 'Search documents with a text query.'
  parameters = {
      'type': 'object',
      'properties': {
          'query': {'type': 'string', 'description': 'What to search for.'}
      },
      'required': ['query'],
      'additionalProperties': False,
  }

  def __init__(self, backend: SearchBackend, *, top_k: int):
    self._backend = backend
    self._top_k = top_k

  async def __call__(
      self, arguments: Mapping[str, Any], context: ToolContext
  ) -> ToolResult:
    """Searches for `arguments['query']`.

    Raises:
      ModelError: The query is blank, or not text that UTF-8 can carry.
    """
    query = arguments['query'].strip()
    if not query:
      raise ModelError('query is empty')
    try:
      query.encode()  # JSON can spell lone surrogates; no backend takes them.
    except UnicodeEncodeError as error:
      raise ModelError('query is not valid Unicode') from error
    hits = await self._backend.search_text(
        query, scope=context.scope, top_k=self._top_k
    )
    return ToolResult(status=ToolStatus.OK, hits=tuple(hits), n_searches=1)

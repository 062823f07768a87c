"""text_search: the policy asks in words."""

from __future__ import annotations

from collections.abc import Mapping
import functools
from typing import Any

from gog_jax.tools.base import ModelError
from gog_jax.tools.base import Query
from gog_jax.tools.base import SearchBackend
from gog_jax.tools.base import TEXT
from gog_jax.tools.base import ToolContext

# Longer ones are no queries, and servers refuse them.
_MAX_LENGTH = 4096


class TextSearch:
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

  def __init__(self, backend: SearchBackend, *, top_k: int, **unused: Any):
    self.version = backend.version
    self._backend, self._top_k = backend, top_k

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
    scope, top_k = context.scope, self._top_k
    ask = functools.partial(
        self._backend.search_text, query, scope=scope, top_k=top_k
    )
    return Query(ask=ask, text=query, scope=scope, top_k=top_k)

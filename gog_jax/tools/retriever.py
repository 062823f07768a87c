"""A server that searches: Search-R1's protocol, and an image half beside it.

    POST /retrieve        {"queries": [..], "topk": 3, "return_scores": true}
    POST /retrieve_image  {"images": [base64], "topk": 3}
      -> {"result": [[{"document": {..}, "score": ..}]]}, a list for each query
    GET /health           {"status": "ok", "version": .., "documents": 7,
                           "images": 0}

Text documents are {"id", "contents": '"title"\ntext'}, images {"id", "title",
"caption", "image", "link"}. Ours adds "title" and "text" to the former where
the contents do not tell them apart, "text" and "thumbnail" (base64) to the
latter where a request says `"return_hits": true`; and where a question has a
scope, `"scope"` is sent along. Others may ignore all that. /health counts, or
says true; what it does not say is tried out: a server may know nothing of
images.

What others answer with is read by retrieved.py.
"""

from __future__ import annotations

import asyncio
import base64
from collections.abc import Callable, Collection, Mapping
import functools
from typing import Any
import urllib.parse

from gog_jax import images
from gog_jax.config.tools import IMAGE
from gog_jax.config.tools import TEXT
from gog_jax.config.tools import ToolsConfig
from gog_jax.errors import UserError
from gog_jax.remote import http as http_json
from gog_jax.tools import retrieved
from gog_jax.tools.base import SearchError
from gog_jax.tools.base import TransientError
from gog_jax.types import Hit
from gog_jax.types import ToolResult

# Of the environment: the key that server and client share, if they do.
KEY_VARIABLE = 'GOG_JAX_RETRIEVER_KEY'

_MAX_BYTES = 16 * 2**20  # Of an answer.
_HEALTH_S = 10.0
_MAX_VERSION = 200  # Characters.
_NO_ADDRESS = (404, 405, 501)
_NO_KEY = (401, 403)
# What does not say whether there is such a search.
_NOT_READY = (408, 425, 429, 502, 503, 504)
_SHORTEST_KEY = 8
_PROBE = base64.b64encode(  # An image to search with.
    images.encode_png(images.Image.new('RGB', (64, 64)))
).decode()


def shared_key() -> str | None:
  """What server and client share, if they do.

  Raises:
    UserError: It is too short to be told from words, or no header carries it.
  """
  key = http_json.read_key(KEY_VARIABLE)
  if key is not None and len(key) < _SHORTEST_KEY:
    raise UserError(
        f'the key in {KEY_VARIABLE} is shorter than {_SHORTEST_KEY} '
        'characters; choose a longer one'
    )
  return key


class Retriever:
  """A `SearchBackend` on the other side of HTTP."""

  def __init__(
      self, url: str, *, version: str, kinds: Collection[str] = (TEXT, IMAGE)
  ):
    """Initialises without asking anything, see `connect`."""
    self.version = version
    self.kinds = kinds
    self._url = url
    key = shared_key()
    # A session belongs to one event loop, and every rollout runs its own.
    self._session_of = functools.lru_cache(maxsize=1)(
        lambda unused_loop: http_json.session(key)
    )

  @classmethod
  def connect(
      cls,
      url: str,
      *,
      version: str = '',
      kinds: Collection[str] = (TEXT, IMAGE),
  ) -> Retriever:
    """Asks a server for its version and for what it can be searched with.

    Args:
      url: Such as http://127.0.0.1:8000
      version: Of what it holds, where it does not say so itself.
      kinds: What it shall be searched with.

    Raises:
      UserError: This is no address, or no retriever answers there.
    """
    url = http_json.check_url(
        url,
        field='config.tools.url',
        like='http://127.0.0.1:8000',
        variable=KEY_VARIABLE,
    )
    if '?' in url or '#' in url:
      raise UserError(
          'config.tools.url has more than a path behind its host: leave out '
          f'what follows ? or #, and put a key into {KEY_VARIABLE}'
      )
    field = f'config.tools.url={url}'
    try:
      stated, kinds = asyncio.run(_introduced(url, kinds))
    except http_json.Refused as error:
      if error.status in _NO_KEY:
        raise UserError(
            f'the retriever at {field} wants a key ({error}): put it into the '
            f'environment variable {KEY_VARIABLE}'
        ) from error
      raise UserError(
          f'the retriever at {field} is not well ({error}): wait until it is '
          'ready, or look at its log'
      ) from error
    except (ConnectionError, TimeoutError) as error:
      port = urllib.parse.urlsplit(url).port or 80
      raise UserError(
          f'no retriever answers at {field} ({error or "no reply"}): start '
          'one, e.g. with python -m gog_jax.main --config=configs/retrieve.py '
          f'--config.index=DIR --config.port={port}'
      ) from error
    version = f'retriever/{stated or f"{url} {version}".rstrip()}'
    return cls(url, version=version, kinds=kinds)

  async def search_text(
      self, query: str, *, scope: str, top_k: int
  ) -> ToolResult:
    """Finds documents; raises as SearchBackend says."""
    body = {'queries': [query], 'topk': top_k, 'return_scores': True}
    return await self._search('retrieve', body, scope, retrieved.text_hit)

  async def search_image(
      self, data: bytes, *, scope: str, top_k: int
  ) -> ToolResult:
    """Finds images; raises as SearchBackend says."""
    encoded = base64.b64encode(data).decode()
    body = {'images': [encoded], 'topk': top_k, 'return_hits': True}
    return await self._search(
        'retrieve_image', body, scope, retrieved.image_hit
    )

  async def close(self) -> None:
    """Closes the connections of this event loop."""
    if self._session_of.cache_info().currsize:  # Else none was needed.
      await self._session_of(asyncio.get_running_loop()).close()
      self._session_of.cache_clear()

  async def _search(
      self,
      path: str,
      body: dict[str, Any],
      scope: str,
      hit: Callable[[Mapping[str, Any], float], Hit],
  ) -> ToolResult:
    if scope:  # Search-R1's own protocol has none.
      body['scope'] = scope
    try:
      value, raw = await http_json.ask(
          self._session_of(asyncio.get_running_loop()),
          f'{self._url}/{path}',
          body,
          max_bytes=_MAX_BYTES,
      )
      hits = tuple(hit(*found) for found in retrieved.documents(value))
    except (http_json.Refused, http_json.NotSent) as error:
      failure = TransientError if error.transient else SearchError
      raise failure(
          str(error), billed=False, retry_after_s=error.retry_after_s
      ) from error
    except http_json.Garbled as error:
      raise TransientError(str(error)) from error
    return ToolResult(hits=hits[: body['topk']], raw=raw)


def from_config(config: ToolsConfig) -> Retriever:
  """The server that a config names; raises as `connect`."""
  return Retriever.connect(
      config.url,
      version=config.version,
      kinds=[k for k in (TEXT, IMAGE) if getattr(config, k) == 'retriever'],
  )


async def _introduced(
    url: str, kinds: Collection[str]
) -> tuple[str, tuple[str, ...]]:
  """The version that a server states, if any, and which kinds it searches.

  Raises:
    UserError: It is no retriever, or its search with images is not ready.
    Refused, ConnectionError, TimeoutError: It is not well, or not there.
  """

  async def reply(path: str, body: Mapping[str, Any] | None = None) -> Any:
    """None if there is no such address, or no JSON comes from it."""
    try:
      async with asyncio.timeout(_HEALTH_S):
        value, _ = await http_json.ask(
            client, f'{url}/{path}', body, max_bytes=_MAX_BYTES
        )
        return value
    except http_json.Garbled:
      return None
    except http_json.Refused as error:
      if error.status not in _NO_ADDRESS:
        raise
      return None

  async def searches(
      path: str, field: str, probe: str, hit: Callable[..., Hit]
  ) -> bool:
    body = {field: [probe], 'topk': 1, 'return_scores': True}
    value = await reply(path, body)
    if value is None:
      return False
    kind = TEXT if field == 'queries' else IMAGE
    try:
      found = list(retrieved.documents(value))
      for one in found:
        hit(*one)
    except (http_json.Failed, http_json.Garbled) as error:
      if kind == IMAGE and not retrieved.items(value):
        return False
      raise UserError(
          f'config.tools.url={url}: /{path} gives no documents ({error}): wait '
          'until the server is ready, have it send documents like {"title": '
          f'"..", "contents": ".."}}, or choose --config.tools.{kind}=\'\''
      ) from error
    # Nothing may be a way of saying that there are no images.
    return kind == TEXT or bool(found) or value == {'result': [[]]}

  async with http_json.session(shared_key()) as client:
    health = await reply('health')  # Search-R1's own server has none.
    said = health if isinstance(health, dict) else {}
    counts = (said.get(name) for name in ('documents', 'images'))
    counts = (n if isinstance(n, int) else None for n in counts)
    texts, pictures = (
        n if kind in kinds else False for n, kind in zip(counts, (TEXT, IMAGE))
    )
    if texts is None:
      texts = await searches('retrieve', 'queries', 'probe', retrieved.text_hit)
    if pictures is None:
      try:
        pictures = await searches(
            'retrieve_image', 'images', _PROBE, retrieved.image_hit
        )
      except (http_json.Refused, ConnectionError, TimeoutError) as error:
        status = getattr(error, 'status', 0)
        if status in _NO_KEY:
          raise
        if status in _NOT_READY or isinstance(error, TimeoutError):
          raise UserError(
              f'the retriever at config.tools.url={url} is not ready for '
              f'images ({error or "no reply"}): wait until it is, or search '
              "text alone with --config.tools.image=''"
          ) from error
        pictures = False  # It trips over what it does not know.
  if TEXT in kinds and texts is pictures is False:
    raise UserError(
        f'what answers at config.tools.url={url} is no retriever: it has no '
        '/retrieve'
    )
  version = said.get('version')
  if not isinstance(version, str) or len(version) > _MAX_VERSION:
    version = ''
  held = ((TEXT, texts), (IMAGE, pictures))
  return ' '.join(version.split()), tuple(kind for kind, some in held if some)

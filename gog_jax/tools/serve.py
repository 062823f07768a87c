"""Search backends over HTTP, for the trainers that speak Search-R1's protocol.

    POST /retrieve        {"queries": [..], "topk": 3, "return_scores": true}
    POST /retrieve_image  {"images": [base64], "topk": 3}
    GET  /health

The client, tools/retriever.py, documents the protocol. A bad request gets a
status of 400 or more and {"error": why}.
"""

from __future__ import annotations

import asyncio
import base64
from collections.abc import Awaitable, Callable, Mapping
import dataclasses
import hmac
import json
from typing import Annotated, Any, TypeVar

from absl import logging
from aiohttp import web

from gog_jax import images
from gog_jax import interrupt
from gog_jax.config.tools import IMAGE
from gog_jax.config.tools import TEXT
from gog_jax.errors import UserError
from gog_jax.remote.secrets import redact
from gog_jax.remote.secrets import redact_traceback
from gog_jax.storage import heartbeat
from gog_jax.storage import typed
from gog_jax.tools.base import close
from gog_jax.tools.base import joined
from gog_jax.tools.base import SearchBackend
from gog_jax.tools.retrieved import text_hit
from gog_jax.tools.retriever import KEY_VARIABLE
from gog_jax.tools.retriever import shared_key
from gog_jax.types import Hit

_MAX_BODY_BYTES = 32 * 2**20
_MAX_REQUESTS = 64  # At once; further ones get a 503 with Retry-After.
_BODY_S = 30.0  # Seconds in which a client must have sent its body.
_SHUTDOWN_S = 2.0
_MAX_PIXELS = 16 * 2**20  # Of an image that is searched with.
_POLL_S = 0.2  # How often the server looks for a signal.
_OPEN_PATH = '/health'  # Needs no key.

_Handler = Callable[[web.Request], Awaitable[web.StreamResponse]]
# By TEXT and IMAGE, as far as anything is searched with them.
_Backends = Mapping[str, SearchBackend]
T = TypeVar('T')


def _at_most(n: int, what: str) -> typed.Bound:
  return typed.Bound(f'at most {n} {what}', lambda value: len(value) <= n)


_TopK = Annotated[int, typed.between(1, 100)]
_Query = Annotated[str, _at_most(8192, 'characters')]


@dataclasses.dataclass(frozen=True, kw_only=True)
class _TextSearch:
  """The body of a POST to /retrieve."""

  queries: Annotated[tuple[_Query, ...], _at_most(1024, 'texts')]
  topk: _TopK | None = None
  scope: str = ''
  return_scores: bool = False


@dataclasses.dataclass(frozen=True, kw_only=True)
class _ImageSearch:
  """The body of a POST to /retrieve_image; images are base64."""

  images: Annotated[tuple[str, ...], _at_most(64, 'texts')]
  topk: _TopK | None = None
  scope: str = ''
  return_hits: bool = False


def serve(backends: _Backends, *, host: str, port: int, top_k: int) -> None:
  """Serves searches until a signal comes; says one line when it is ready.

  Args:
    backends: What is searched, by TEXT and IMAGE.
    host: Where to listen: 127.0.0.1 is for this machine alone.
    port: 0 is any that is free.
    top_k: Results for those who do not say how many.

  Raises:
    UserError: Nothing is searched, it cannot listen there, or the key cannot
      be one.
    Interrupted: A signal came and all connections are closed.
  """
  asyncio.run(_serve(backends, host, port, top_k))


async def _serve(
    backends: _Backends, host: str, port: int, top_k: int
) -> None:
  if not backends:
    raise UserError(
        'there is nothing to serve: choose what is searched with '
        '--config.tools.backend'
    )
  if not host:
    raise UserError(
        '--config.host is empty: 127.0.0.1 is this machine alone, 0.0.0.0 '
        'everyone'
    )
  runner = web.AppRunner(
      make_app(backends, top_k),
      access_log=None,
      shutdown_timeout=_SHUTDOWN_S,
      handler_cancellation=True,  # A search ends when its client is gone.
  )
  with heartbeat.doing('getting ready to be searched'):
    for backend in {id(one): one for one in backends.values()}.values():
      if prepare := getattr(backend, 'prepare', None):
        prepare()
  await runner.setup()
  site = web.TCPSite(runner, host, port)
  try:
    try:
      await site.start()
    except (OSError, OverflowError) as error:
      reason = getattr(error, 'strerror', None) or error
      raise UserError(
          f'cannot listen on {host}:{port} ({reason}); choose another '
          '--config.port or --config.host'
      ) from error
    address = runner.addresses[0]
    held = ' and '.join(
        what if n is True else f'{n} {what}'
        for what, n in _counts(backends).items()
        if n
    )
    print(
        f'ready: http://{address[0]}:{address[1]} serves {held} '
        f'({_version(backends)})',
        flush=True,
    )
    while True:
      interrupt.check()
      await asyncio.sleep(_POLL_S)
  finally:
    await runner.cleanup()
    await close(backends.values())


def _version(backends: _Backends) -> str:
  """That of all; a backend keeps its own, even where one half is served."""
  one, *others = {backend.version for backend in backends.values()}
  return joined(backends) if others else one


def _counts(backends: _Backends) -> dict[str, int | bool]:
  """How much is searched; of backends that do not count, whether anything."""
  return {
      'documents': getattr(backends.get(TEXT), 'n_documents', TEXT in backends),
      'images': getattr(backends.get(IMAGE), 'n_images', IMAGE in backends),
  }


def make_app(backends: _Backends, top_k: int) -> web.Application:
  """The three addresses, over open backends; `top_k` is `topk`'s default."""

  async def retrieve(request: web.Request) -> web.Response:
    backend, asked = backend_of(TEXT), await _body(request, _TextSearch)
    where = {'scope': asked.scope, 'top_k': asked.topk or top_k}
    result = []
    for query in asked.queries:
      found = await backend.search_text(query, **where)
      result.append([_text_item(h, asked.return_scores) for h in found.hits])
    return web.json_response({'result': result})

  async def retrieve_image(request: web.Request) -> web.Response:
    backend, asked = backend_of(IMAGE), await _body(request, _ImageSearch)
    where = {'scope': asked.scope, 'top_k': asked.topk or top_k}
    result = []
    for number, text in enumerate(asked.images):
      try:
        found = await backend.search_image(_image(text), **where)
      except UserError as error:  # Its advice is for training sets.
        reason = str(error).rpartition(';')[0] or str(error)
        raise UserError(f'images[{number}]: {reason}') from error
      result.append([_image_item(h, asked.return_hits) for h in found.hits])
    return web.json_response({'result': result})

  def backend_of(kind: str) -> SearchBackend:
    if kind not in backends:
      raise web.HTTPNotFound(reason=f'nothing is searched with {kind}s here')
    return backends[kind]

  async def health(unused_request: web.Request) -> web.Response:
    version = _version(backends)
    return web.json_response(
        {'status': 'ok', 'version': version} | _counts(backends)
    )

  app = web.Application(
      client_max_size=_MAX_BODY_BYTES, middlewares=[_guard(shared_key())]
  )
  app.add_routes([
      web.post('/retrieve', retrieve),
      web.post('/retrieve_image', retrieve_image),
      web.get(_OPEN_PATH, health),
  ])
  return app


def _guard(key: str | None):
  """Limits requests, checks the key, answers failures with JSON."""
  free = asyncio.Semaphore(_MAX_REQUESTS)
  wanted = f'Bearer {key}'.encode()

  @web.middleware
  async def guard(
      request: web.Request, handler: _Handler
  ) -> web.StreamResponse:
    if free.locked():
      reason = f'{_MAX_REQUESTS} requests are being answered; come again'
      return _error(503, reason, headers={'Retry-After': '1'})
    if key and request.path != _OPEN_PATH:
      given = request.headers.get('Authorization', '').encode(errors='replace')
      if not hmac.compare_digest(given, wanted):
        return _error(401, f'the key of {KEY_VARIABLE} is missing or wrong')
    try:
      async with free:
        return await handler(request)
    except UserError as error:
      return _error(400, str(error))
    except web.HTTPException as error:
      return _error(error.status, error.reason)
    except ConnectionError:  # Nobody is there to be answered.
      raise
    except Exception as error:
      logging.error('%r failed\n%s', request.path, redact_traceback(error))
      return _error(500, 'the search failed; the server\'s log says how')

  return guard


def _error(status: int, reason: str, **options: Any) -> web.Response:
  line = redact(' '.join(reason.split()))
  return web.json_response({'error': line}, status=status, **options)


async def _body(request: web.Request, kind: type[T]) -> T:
  """What the body asks for.

  Raises:
    UserError: It is not JSON, or does not hold what it should.
    HTTPRequestTimeout: It was too slow to come.
  """
  try:
    async with asyncio.timeout(_BODY_S):
      data = await request.read()
    body = await asyncio.to_thread(json.loads, data.decode())
  except TimeoutError as error:
    raise web.HTTPRequestTimeout(
        reason=f'the body took longer than {_BODY_S:g} seconds'
    ) from error
  except (ValueError, RecursionError) as error:
    raise UserError(f'the body is not JSON ({error})') from error
  if not isinstance(body, dict):
    raise UserError('the body is not a JSON object')
  return typed.read(kind, body, ignore_unknown=True)


def _image(text: str) -> bytes:
  # As browsers write it: data:image/png;base64,...
  encoded = text.partition('base64,')[2] if text.startswith('data:') else text
  try:
    data = base64.b64decode(encoded, validate=True)
  except ValueError as error:
    raise UserError(f'not base64 of an image file ({error})') from error
  width, height = images.size_of(data)
  if width * height > _MAX_PIXELS:
    raise UserError(f'{width} x {height} pixels are more than {_MAX_PIXELS}')
  return data


def _text_item(hit: Hit, scored: bool) -> dict[str, Any]:
  """As Search-R1's own server: the document alone if scores are not wanted."""
  row = {'contents': f'"{hit.title}"\n{hit.text}', **hit.document}
  read = text_hit(row, hit.score)
  if (read.title, read.text) != (hit.title, hit.text):
    row |= {'title': hit.title, 'text': hit.text}
  row |= _thumbnail(hit)
  return {'document': row, 'score': float(hit.score)} if scored else row


def _image_item(hit: Hit, full: bool) -> dict[str, Any]:
  row = {'title': hit.title, 'caption': hit.text, **hit.document}
  if full:
    row |= {'text': hit.text, **_thumbnail(hit)}
  return {'document': row, 'score': float(hit.score)}


def _thumbnail(hit: Hit) -> dict[str, str]:
  if hit.image is None:
    return {}
  return {'thumbnail': base64.b64encode(hit.image).decode()}

"""A remote model on the loopback: an OpenAI-compatible server with a script."""

from __future__ import annotations

import asyncio
import base64
from collections.abc import Callable, Iterator
import contextlib
import io
import threading
from typing import Any

from aiohttp import web
from PIL import Image

# The body of a request -> a reply's message, or all that is answered.
Play = Callable[[dict[str, Any]], 'dict[str, Any] | web.Response']


class Server:
  """Plays a script.

  Attributes:
    url: What --config.remote.url takes.
    heard: The headers and the body of every request.
  """

  def __init__(self, play: Play):
    self._play = play
    self.url = ''
    self.heard: list[tuple[dict[str, str], dict[str, Any]]] = []

  @property
  def bodies(self) -> list[dict[str, Any]]:
    return [body for _, body in self.heard]

  async def answer(self, request: web.Request) -> web.StreamResponse:
    body = await request.json()
    headers = {name.lower(): value for name, value in request.headers.items()}
    self.heard.append((headers, body))
    message = await asyncio.to_thread(self._play, body)
    if isinstance(message, web.StreamResponse):
      return message
    return web.json_response(completion(message))


def completion(
    message: dict[str, Any], finish_reason: str = 'stop', usage: Any = None
):
  message = {'role': 'assistant', **message}
  choices = [{'message': message, 'finish_reason': finish_reason}]
  return {'choices': choices} | ({} if usage is None else {'usage': usage})


def says(content: Any) -> dict[str, Any]:
  return {'content': content}


@contextlib.contextmanager
def serve(
    play: Play,
    kind: type[Server] = Server,
    *,
    models: Callable[[], web.Response] = lambda: web.Response(status=404),
) -> Iterator[Server]:
  """Runs a server in a thread of its own until the block ends.

  Args:
    play: What it answers.
    kind: How it behaves.
    models: Answers the question which models there are.
  """
  server = kind(play)
  app = web.Application(client_max_size=2**26)
  app.router.add_post('/v1/chat/completions', server.answer)

  async def listed(_: web.Request) -> web.Response:
    return models()

  app.router.add_get('/v1/models', listed)
  loop = asyncio.new_event_loop()
  runner = web.AppRunner(app, shutdown_timeout=0.1)

  async def start() -> int:
    await runner.setup()
    site = web.TCPSite(runner, '127.0.0.1', 0)
    await site.start()
    return runner.addresses[0][1]

  port = loop.run_until_complete(start())
  server.url = f'http://127.0.0.1:{port}/v1'
  thread = threading.Thread(target=loop.run_forever)
  thread.start()
  try:
    yield server
  finally:
    asyncio.run_coroutine_threadsafe(runner.cleanup(), loop).result(10)
    loop.call_soon_threadsafe(loop.stop)
    thread.join()
    loop.close()


def parts_of(message: dict[str, Any]) -> list[Any]:
  """A message's texts, and its images opened, in order."""
  if isinstance(message['content'], str):
    return [message['content']]
  parts = []
  for part in message['content']:
    if part['type'] == 'text':
      parts.append(part['text'])
      continue
    head, _, data = part['image_url']['url'].partition(',')
    image = Image.open(io.BytesIO(base64.b64decode(data)))
    assert head == f'data:image/{str(image.format).lower()};base64'
    parts.append(image)
  return parts

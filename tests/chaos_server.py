"""A retriever that misbehaves as it is told, for the tests of its client.

    python -m tests.chaos_server SEED MODE=WEIGHT ...

Prints its port. Every request to /retrieve or /retrieve_image meets one of the
modes at random. GET /stats says how many requests were open at once, and how
often each mode was met; GET /health is always well.
"""

from __future__ import annotations

import asyncio
import base64
import collections
import contextlib
import json
import pathlib
import random
import re
import socket
import struct
import subprocess
import sys
import zlib

ROOT = pathlib.Path(__file__).parents[1]


def bomb(side: int) -> bytes:
  """A PNG that says it is side x side pixels, and would unpack to that."""

  def chunk(kind: bytes, data: bytes) -> bytes:
    check = struct.pack('>I', zlib.crc32(kind + data))
    return struct.pack('>I', len(data)) + kind + data + check

  header = struct.pack('>IIBBBBB', side, side, 8, 0, 0, 0, 0)
  return (
      b'\x89PNG\r\n\x1a\n'
      + chunk(b'IHDR', header)
      + chunk(b'IDAT', zlib.compress(bytes(side + 1)))
      + chunk(b'IEND', b'')
  )


def answer(document: dict) -> bytes:
  result = [[{'document': document, 'score': 1.5}]]
  return json.dumps({'result': result}).encode()


def _http(status: str, body: bytes, *headers: str, length: int | None = None):
  lines = [
      f'HTTP/1.1 {status}',
      'Content-Type: application/json',
      f'Content-Length: {len(body) if length is None else length}',
      *headers,
  ]
  return '\r\n'.join(lines).encode() + b'\r\n\r\n' + body


_GOOD = {'id': '1', 'contents': '"A title"\nIts text.'}
_HEALTH = (
    b'{"status": "ok", "version": "chaos/1", "documents": 1, "images": 1}'
)
_WRONG = (
    b'{}', b'null', b'7', b'{"result": 3}', b'{"result": [[3]]}',
    b'{"result": [[], []]}', b'{"result": [[{"document": 1, "score": 2}]]}',
    b'{"result": [[{"document": {"contents": 5}, "score": 2}]]}',
    b'{"result": [[{"document": {"id": 5}, "score": 2}]]}',
    b'[' * 100_000,
)  # fmt: skip


class Server:
  """Counts what it does."""

  def __init__(self, seed: int, weights: dict[str, float]):
    self._rng = random.Random(seed)
    self._modes = list(weights)
    self._weights = list(weights.values())
    self._open = 0
    self._most = 0
    self._met: collections.Counter[str] = collections.Counter()

  async def serve(self, reader, writer) -> None:
    try:
      while await self._request(reader, writer):
        pass
    except (ConnectionError, asyncio.IncompleteReadError):
      pass
    finally:
      writer.close()

  async def _request(self, reader, writer) -> bool:
    """Whether the connection goes on."""
    head = await reader.readuntil(b'\r\n\r\n')
    self._key = re.search(rb'(?i)authorization: (.*)\r', head)
    length = re.search(rb'(?i)content-length: (\d+)', head)
    if length:
      await reader.readexactly(int(length.group(1)))
    path = head.split(b' ')[1]
    if path == b'/health':
      writer.write(_http('200 OK', _HEALTH))
    elif path == b'/stats':
      stats = {'most': self._most, 'open': self._open, 'met': self._met}
      writer.write(_http('200 OK', json.dumps(stats).encode()))
    else:
      self._open += 1
      self._most = max(self._most, self._open)
      try:
        (mode,) = self._rng.choices(self._modes, self._weights)
        self._met[mode] += 1
        return await getattr(self, f'_{mode}')(reader, writer)
      finally:
        self._open -= 1
    await writer.drain()
    return True

  async def _send(self, writer, data: bytes, *, more: bool = True) -> bool:
    writer.write(data)
    await writer.drain()
    return more

  async def _ok(self, reader, writer):
    return await self._send(writer, _http('200 OK', answer(_GOOD)))

  async def _busy(self, reader, writer):
    return await self._send(
        writer, _http('429 Too Many', b'{"error": "slow"}', 'Retry-After: 0.05')
    )

  async def _error(self, reader, writer):
    return await self._send(writer, _http('500 Oops', b'<h1>Oops</h1>'))

  async def _reset(self, reader, writer):
    # Closed with no time to linger: the other side sees a reset.
    writer.get_extra_info('socket').setsockopt(
        socket.SOL_SOCKET, socket.SO_LINGER, struct.pack('ii', 1, 0)
    )
    return False

  async def _hang(self, reader, writer):
    await reader.read(1)  # Until the other side has had enough.
    return False

  async def _slow(self, reader, writer):
    for byte in _http('200 OK', answer(_GOOD)):
      writer.write(bytes([byte]))
      await writer.drain()
      await asyncio.sleep(1)
    return True

  async def _huge(self, reader, writer):
    size = 200 * 2**20
    writer.write(_http('200 OK', b'', length=size))
    for _ in range(size // 2**20):
      await self._send(writer, b' ' * 2**20)
    return False

  async def _cut(self, reader, writer):
    body = answer(_GOOD)
    return await self._send(writer, _http('200 OK', body[: len(body) // 2]))

  async def _short(self, reader, writer):
    body = answer(_GOOD)
    data = _http('200 OK', body[:9], length=len(body))
    return await self._send(writer, data, more=False)

  async def _types(self, reader, writer):
    return await self._send(
        writer, _http('200 OK', self._rng.choice(_WRONG))
    )

  async def _bytes(self, reader, writer):
    return await self._send(
        writer, _http('200 OK', answer(_GOOD).replace(b'A title', b'\xff\xfe'))
    )

  async def _html(self, reader, writer):
    return await self._send(
        writer, _http('200 OK', b'<!doctype html><title>Consent</title>')
    )

  async def _packed(self, reader, writer):
    body = zlib.compress(b'{"a": "' + bytes(2**20) + b'"}')
    return await self._send(
        writer, _http('200 OK', body, 'Content-Encoding: deflate')
    )

  async def _bomb(self, reader, writer):
    thumbnail = base64.b64encode(bomb(100_000)).decode()
    document = {'title': 'bomb', 'caption': '', 'thumbnail': thumbnail}
    return await self._send(writer, _http('200 OK', answer(document)))

  async def _echo(self, reader, writer):
    # A header that no parser takes, with what should be in none.
    line = b'Bad\x00' + (self._key.group(1) if self._key else b'') + b'\r\n'
    return await self._send(
        writer, b'HTTP/1.1 200 OK\r\n' + line + b'\r\n', more=False
    )

  async def _moved(self, reader, writer):
    return await self._send(
        writer, _http('302 Found', b'', 'Location: /retrieve')
    )


@contextlib.contextmanager
def running(seed=0, **weights):
  """A misbehaving server in a process of its own; its address."""
  modes = [f'{mode}={weight}' for mode, weight in weights.items()]
  server = subprocess.Popen(
      [sys.executable, '-m', 'tests.chaos_server', str(seed), *modes],
      cwd=ROOT,
      stdout=subprocess.PIPE,
      text=True,
  )
  try:
    yield f'http://127.0.0.1:{server.stdout.readline().strip()}'
  finally:
    server.kill()
    server.communicate()


async def main(seed: str, *modes: str) -> None:
  weights = {name: float(w) for name, _, w in (m.partition('=') for m in modes)}
  server = await asyncio.start_server(
      Server(int(seed), weights).serve, '127.0.0.1', 0, backlog=512
  )
  print(server.sockets[0].getsockname()[1], flush=True)
  await server.serve_forever()


if __name__ == '__main__':
  asyncio.run(main(*sys.argv[1:]))

"""JSON and files over HTTP, from servers that may send anything.

Nothing is unpacked, no cookie kept, and of an answer no more is read than the
caller allows.
"""

from __future__ import annotations

from collections.abc import Mapping
import datetime
import email.utils
import json
import math
import re
from typing import Any
import urllib.parse

import aiohttp

from gog_jax.errors import UserError
from gog_jax.remote import fields
from gog_jax.remote.public import NotPublic
from gog_jax.remote.secrets import from_environment
from gog_jax.remote.secrets import redact
from gog_jax.remote.secrets import redact_all

_CHUNK = 2**16
_REASON = 200  # Characters of a server's own words that are passed on.
_CONNECT_S = 10.0
# Of codes and of words: whether it is a filter's, may be gone soon, or stays.
BLOCKED = re.compile(
    'filter|moderat|safety|flagged|inspection|sensitiv|prohibit|block|recit'
    '|spii|guard|content.?policy|refused|refusal$|harmful'
)
_SOON = re.compile('(?i)rate.?limit|too.?many|throttl|exhaust|overload|busy')
_NEVER = re.compile(
    '(?i)invalid|bad.?request|too.?l(ong|arge)|context.?length|not.?support'
    '|not.?found|unauth|denied|permission|api.?key|credit|billing|required'
)


class Refused(Exception):
  """The server answered with a status that is not 2xx.

  Attributes:
    status: The status.
    reason: What the server said, on one line.
    retry_after_s: Seconds for which it asks to be left alone.
    transient: Whether the same request may work soon.
    filtered: Whether it is what was asked, or answered, that it refuses.
    billed: Whether it may have to be paid for.
  """

  billed = False

  def __init__(
      self,
      status: int,
      reason: str,
      *,
      retry_after_s: float = 0.0,
      transient: bool = False,
  ):
    super().__init__(f'HTTP {status}: {reason}' if reason else f'HTTP {status}')
    self.status = status
    self.reason = reason
    self.retry_after_s = retry_after_s
    self.transient = transient or _is_transient(status)
    self.filtered = bool(BLOCKED.search(reason.lower()))


class Failed(Refused):
  """The server answered 2xx, but with an error.

  Attributes:
    status: The HTTP status that its code stands for; 0 if it has none.
  """

  billed = True

  def __init__(self, reason: str, *, status: int = 0, codes: str = ''):
    super().__init__(status, _line(reason))
    self.args = (f'it failed: {self.reason}',)
    said = f'{codes} {reason}'.lower()
    self.filtered = bool(BLOCKED.search(said))
    # What nobody knows is tried again.
    soon = _is_soon(status, codes) or not (status or _NEVER.search(said))
    self.transient = soon and not self.filtered


class NotSent(ConnectionError):
  """Nobody listens at the address: nothing has left this machine."""

  billed, transient, retry_after_s = False, True, 0.0


class Garbled(Exception):
  """The server answered 2xx with what is no JSON, or too much of it."""


def failure(value: Any, *, alone: bool) -> Failed | None:
  """The error in the JSON of a 2xx; None if there is none.

  Args:
    value: The JSON, or a part of it.
    alone: Whether it holds nothing of what was asked for: then whatever words
      it has are about the error.
  """
  error = fields.field(value, 'error', 'errors', 'exception')
  error = error or _failed(value)
  if not error and not alone:
    return None
  told, status, codes = _told(
      value if alone or error is True else {'error': error}
  )
  told = told or ('without a reason' if error is True else '')
  if not told and not status:
    return None
  failed = Failed(told or codes, status=status, codes=codes)
  failed.billed = not alone
  return failed


def _failed(value: Any) -> bool:
  """Whether it says so without an error: by a code, or a word for it."""
  codes = [fields.field(value, name) for name in ('code', 'status')]
  return (
      fields.field(value, 'success', 'ok') is False
      or bool(fields.field(fields.field(value, 'base_resp'), 'status_code'))
      or any(str(code).isdigit() and int(code) >= 400 for code in codes)
      or any(str(code).lower() in ('error', 'failed') for code in codes)
  )


def check_url(url: str, *, field: str, like: str, variable: str) -> str:
  """The address without a slash at its end.

  Args:
    url: As the user gave it.
    field: The config field that holds it.
    like: An example of an address.
    variable: The environment variable for the server's key.

  Raises:
    UserError: This is no http(s) address, or it holds a password.
  """
  try:
    parts = urllib.parse.urlsplit(url)
    host, _ = parts.hostname or '', parts.port
    host.encode('idna')
  except ValueError:  # UnicodeError is one.
    parts, host = None, ''
  if parts is None or parts.scheme not in ('http', 'https') or not host:
    # Not quoted where it may hold a password.
    shown = '' if '@' in url else f'={redact(url)!r}'
    raise UserError(f'{field}{shown} is no address; give one like {like}')
  if parts.username or parts.password:
    raise UserError(
        f'{field} holds a name or password, which logs and recordings would '
        f'show: put the key into the environment variable {variable}'
    )
  return url.rstrip('/')


def read_key(variable: str) -> str | None:
  """The key of a server, from the environment; None where there is none.

  Raises:
    UserError: No header can carry it.
  """
  key = from_environment(variable)
  if key is not None and not (key.isascii() and key.isprintable()):
    raise UserError(
        f'the key in {variable} has characters that no header can carry; set '
        'it anew'
    )
  return key


def session(key: str | None, **connector: Any) -> aiohttp.ClientSession:
  """A session of this event loop; `key` goes with each of its requests.

  `connector` holds options of `aiohttp.TCPConnector`.
  """
  headers = {'Accept-Encoding': 'identity'}
  if key:
    headers['Authorization'] = f'Bearer {key}'
  return aiohttp.ClientSession(
      auto_decompress=False,
      # Callers have limits.
      connector=aiohttp.TCPConnector(limit=0, **connector),
      cookie_jar=aiohttp.DummyCookieJar(),
      headers=headers,
      timeout=aiohttp.ClientTimeout(total=None, sock_connect=_CONNECT_S),
  )


async def ask(
    client: aiohttp.ClientSession,
    url: str,
    body: Mapping[str, Any] | None,
    *,
    max_bytes: int,
) -> tuple[Any, str]:
  """Posts `body`, or gets where it is None; returns the JSON and its text.

  A server may repeat the key that it was sent: it is out of both.

  Raises:
    Refused: The status is not 2xx.
    Garbled: The answer is packed, longer than `max_bytes`, not UTF-8 or not
      JSON.
    NotSent: Nobody listens there.
    ConnectionError: There is no answer, or it broke off.
  """
  data = await fetch(
      client,
      'GET' if body is None else 'POST',
      url,
      max_bytes=max_bytes,
      json=body,
      allow_redirects=False,
  )
  try:
    text = data.decode('utf-8-sig')
    value = _value(text)
    clean = redact_all(value)
    # What it held may have been spelled with escapes.
    return clean, text if clean == value else json.dumps(clean)
  except (ValueError, RecursionError) as error:
    raise Garbled(f'the answer is not JSON: {_reason(data)}') from error


async def fetch(
    client: aiohttp.ClientSession,
    method: str,
    url: str,
    *,
    max_bytes: int,
    **options: Any,
) -> bytes:
  """What is answered; `options` are those of `client.request`.

  Raises:
    Refused, Garbled, NotSent, ConnectionError: As `ask`.
    NotPublic: See public.py.
  """
  try:
    async with client.request(method, url, **options) as response:
      data = await _read(response, max_bytes)
      if not 200 <= response.status < 300:
        raise Refused(
            response.status,
            _reason(data).removeprefix(f'{response.status}: '),
            retry_after_s=_seconds(response.headers.get('Retry-After', '')),
            transient=_is_soon(*_told(data.decode(errors='replace'))[1:]),
        )
      return data
  except aiohttp.ClientConnectorError as error:
    if isinstance(error.os_error, NotPublic):
      raise error.os_error from None
    raise NotSent(_words(error)) from None
  except (aiohttp.TooManyRedirects, aiohttp.InvalidURL) as error:
    raise Garbled(_words(error)) from None
  except (aiohttp.ClientError, ValueError) as error:
    raise ConnectionError(_words(error)) from None


async def _read(response: aiohttp.ClientResponse, max_bytes: int) -> bytes:
  """What a server answers with.

  Raises:
    Garbled: It is packed, or longer than `max_bytes`.
  """
  packed = response.headers.get('Content-Encoding', 'identity')
  if packed != 'identity':
    raise Garbled(f'unexpected Content-Encoding {packed[:20]}')
  data = bytearray()
  async for chunk in response.content.iter_chunked(_CHUNK):
    data += chunk
    if len(data) > max_bytes:
      raise Garbled(f'the answer has more than {max_bytes} bytes')
  return bytes(data)


def _value(text: str) -> Any:
  """The JSON of an answer, also of one that came as a server-sent event.

  Raises:
    ValueError, RecursionError: It is no JSON.
  """
  events = re.findall(r'^data: *(\{.*)$', text, re.M)
  if len(events) > 1:  # Of a stream's parts, none is all of it.
    events = [event for event in events if '"error"' in event]
  value = json.loads(events[0] if events else text)
  if isinstance(value, str) and value.lstrip().startswith('{'):
    return json.loads(value)  # Packed twice.
  return value


def _is_transient(status: int) -> bool:
  return status in (408, 425, 429) or status >= 500


def _is_soon(status: int, codes: str) -> bool:
  """Whether an error's codes say that it may be gone soon."""
  return _is_transient(status) or bool(not status and _SOON.search(codes))


def _told(value: Any) -> tuple[str, int, str]:
  """An error's words, the HTTP status that its code is, and all its codes."""
  leaves = list(fields.leaves(value))
  texts = [(n, x.strip()) for n, x in leaves if isinstance(x, str)]
  words = [x for name, x in texts if name in fields.WORDS and x]
  said = next(iter(words), '')
  if words and words[-1] not in said:  # Of who was asked next.
    said = f'{said}: {words[-1]}'
  codes = [str(x).removesuffix('.0') for n, x in leaves if n in fields.CODES]
  known = [int(code) for code in codes if re.fullmatch('[45][0-9]{2}', code)]
  return said, next(iter(known), 0), ' '.join(codes)


def _reason(data: bytes) -> str:
  """What a server said, on one short line; of JSON, its own error's words."""
  text = data[: 64 * _REASON].decode(errors='replace')
  return _line(_told(data.decode(errors='replace'))[0] or text)


def _line(text: str) -> str:
  # Secrets go before it is cut, or half of one stays.
  text = ''.join(c if c.isprintable() else ' ' for c in redact(text))
  return ' '.join(text.split())[:_REASON]


def _words(error: Exception) -> str:
  """What went wrong with a connection, without addresses and what is in them.

  The error itself may quote what the server repeated of a request.
  """
  if isinstance(error, aiohttp.ClientConnectorError):
    text = str(error.os_error.strerror or error.os_error)
  else:
    text = str(getattr(error, 'message', '')) or type(error).__name__
  text = ' '.join(redact(text).split())[:_REASON]
  return f'{type(error).__name__}: {text}'


def _seconds(retry_after: str) -> float:
  """Of a Retry-After header: seconds, or a date; 0 if it is neither."""
  try:
    seconds = float(retry_after)
  except ValueError:
    try:
      when = email.utils.parsedate_to_datetime(retry_after)
      seconds = (when - datetime.datetime.now(datetime.UTC)).total_seconds()
    except (ValueError, TypeError, OverflowError):
      return 0.0
  return max(seconds, 0.0) if math.isfinite(seconds) else 0.0

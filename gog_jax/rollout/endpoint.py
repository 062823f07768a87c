"""Asks an OpenAI-compatible endpoint for one message.

vLLM, SGLang, llama.cpp's server, Ollama and the vendors all speak it. Nothing
that comes back is trusted: it is capped, never followed elsewhere, never
unpacked, and its shape is checked.
"""

from __future__ import annotations

import asyncio
from collections.abc import Mapping, Sequence
import dataclasses
import email.utils
import json
import time
from typing import Any
import urllib.parse

import aiohttp
import tenacity

from gog_jax import secrets
from gog_jax.errors import UserError

_MAX_BYTES = 16 * 2**20  # Of a reply.
_REASON_LENGTH = 200  # Characters of what the server says went wrong.
_PATH = '/chat/completions'
# Worth another try, beside every 5xx.
_TRANSIENT = (408, 425, 429)
_BACKOFF_S = 0.5  # At most, before the second attempt; then twice as long.


@dataclasses.dataclass(frozen=True, kw_only=True)
class EndpointConfig:
  """A remote model and how it is asked.

  Attributes:
    url: Up to and including its version, e.g. http://127.0.0.1:8080/v1.
    model: Its name at the endpoint.
    key_variable: The environment variable that holds the key, if it wants one.
    timeout_s: Seconds for one message, all attempts and waits together.
    max_attempts: How often it is asked where a failure may be gone soon.
    temperature: Of sampling; negative leaves it to the endpoint.
    max_tokens: Of one message, by its tokenizer; 0 leaves it to the endpoint.
  """

  url: str
  model: str
  key_variable: str = 'OPENAI_API_KEY'
  timeout_s: float = 120.0
  max_attempts: int = 4
  temperature: float = 0.0
  max_tokens: int = 4096


@dataclasses.dataclass(frozen=True, kw_only=True)
class Reply:
  """A message of the remote model.

  Attributes:
    content: Its text; may be empty.
    reasoning: What a server with a reasoning parser took out of it.
    tool_calls: (name, arguments as JSON text) of what a tool parser took out.
    truncated: Its limit of tokens cut it off.
  """

  content: str
  reasoning: str
  tool_calls: tuple[tuple[str, str], ...]
  truncated: bool


class _Retriable(Exception):
  """A failure that may be gone soon; its text says what failed."""

  def __init__(self, message: str, retry_after_s: float = 0.0):
    super().__init__(message)
    self.retry_after_s = retry_after_s


class Endpoint:
  """One remote model."""

  def __init__(self, config: EndpointConfig):
    """Reads the key from the environment; nothing is asked yet.

    Raises:
      UserError: The address or the key cannot be one, or the model has no name.
    """
    self._config = config
    self._address = _address(config)
    self._shown = shown_url(config.url)
    if not config.model:
      raise UserError(
          'no remote model is named: pass --config.remote.model=NAME, as the '
          f'endpoint calls it (GET {self._shown}/models lists them)'
      )
    key = secrets.from_environment(config.key_variable)
    self._headers = {'Accept-Encoding': 'identity'}
    if key is not None:
      if not (key.isascii() and key.isprintable()):
        raise UserError(
            f'the key in {config.key_variable} has characters that no header '
            'can carry; set it anew'
        )
      self._headers['Authorization'] = f'Bearer {key}'

  async def complete(
      self,
      session: aiohttp.ClientSession,
      messages: Sequence[Mapping[str, Any]],
  ) -> Reply:
    """The model's next message.

    Raises:
      UserError: It cannot be had: what failed, in one line.
    """
    c = self._config
    request: dict[str, Any] = {'model': c.model, 'messages': list(messages)}
    if c.temperature >= 0:
      request['temperature'] = c.temperature
    if c.max_tokens:
      request['max_tokens'] = c.max_tokens
    jitter = tenacity.wait_random_exponential(multiplier=_BACKOFF_S)

    def wait(state: tenacity.RetryCallState) -> float:
      error = state.outcome.exception() if state.outcome else None
      asked = error.retry_after_s if isinstance(error, _Retriable) else 0.0
      return asked + jitter(state)

    attempts = tenacity.AsyncRetrying(
        retry=tenacity.retry_if_exception_type(_Retriable),
        stop=tenacity.stop_any(
            tenacity.stop_after_attempt(c.max_attempts),
            tenacity.stop_before_delay(c.timeout_s),
        ),
        wait=wait,
        reraise=True,
    )
    deadline = time.monotonic() + c.timeout_s
    try:
      async for attempt in attempts:
        with attempt:
          return await self._ask(session, request, deadline)
    except _Retriable as error:
      number = attempts.statistics['attempt_number']
      tries = f' after {number} attempts' if number > 1 else ''
      raise UserError(f'{error}{tries}') from error
    raise AssertionError('tenacity reraises')  # For type checkers.

  async def _ask(
      self,
      session: aiohttp.ClientSession,
      request: Mapping[str, Any],
      deadline: float,
  ) -> Reply:
    """Asks once.

    Raises:
      _Retriable: It may work soon.
      UserError: It will not.
    """
    c = self._config
    try:
      async with asyncio.timeout(max(deadline - time.monotonic(), 0.001)):
        async with session.post(
            self._address,
            json=request,
            headers=self._headers,
            allow_redirects=False,
        ) as response:
          body = await self._body(response)
    except TimeoutError as error:
      raise _Retriable(
          f'{self._shown} sent no reply within '
          f'--config.remote.timeout_s={c.timeout_s:g} seconds'
      ) from error
    except aiohttp.ClientError as error:
      reason = _one_line(str(error) or type(error).__name__)
      raise _Retriable(
          f'cannot reach {self._shown} ({reason}); is the server running, and '
          'is --config.remote.url right?'
      ) from error
    if response.status == 200:
      return self._reply(body)
    if 300 <= response.status < 400:
      raise UserError(
          f'{self._shown} answers {response.status}, a redirect, which is not '
          'followed: give the address it leads to as --config.remote.url'
      )
    message = f'{self._shown} answers {response.status}: {_reason(body)}'
    if response.status >= 500 or response.status in _TRANSIENT:
      after = _retry_after_s(response.headers.get('Retry-After', ''))
      raise _Retriable(message, after)
    if response.status in (401, 403):
      message += f' (the key is read from the variable {c.key_variable})'
    raise UserError(message)

  async def _body(self, response: aiohttp.ClientResponse) -> bytes:
    """The reply's bytes, as they came.

    Raises:
      UserError: They are too many.
    """
    body = bytearray()
    async for part in response.content.iter_chunked(2**16):
      body += part
      if len(body) > _MAX_BYTES:
        raise UserError(
            f'{self._shown} sent more than {_MAX_BYTES // 2**20} MB for one '
            'message; is --config.remote.url a chat endpoint?'
        )
    return bytes(body)

  def _reply(self, body: bytes) -> Reply:
    """Reads a reply.

    Raises:
      UserError: It is no chat completion.
    """
    try:
      choice = json.loads(body)['choices'][0]
      message = choice['message']
      reasoning = message.get('reasoning_content') or message.get('reasoning')
      return Reply(
          content=_text(message.get('content')),
          reasoning=_text(reasoning),
          tool_calls=tuple(
              _call(call['function'])
              for call in message.get('tool_calls') or ()
          ),
          truncated=choice.get('finish_reason') == 'length',
      )
    except (
        AttributeError, IndexError, KeyError, RecursionError, TypeError,
        ValueError,
    ) as error:  # fmt: skip
      raise UserError(
          f'{self._shown} answers with no chat completion but {_reason(body)}; '
          'is --config.remote.url right, up to its /v1?'
      ) from error


def shown_url(url: str) -> str:
  """The address without what may be secret in it: user, password and query.

  Raises:
    UserError: It is none.
  """
  parts = _split(url)
  host = f'[{parts.hostname}]' if ':' in str(parts.hostname) else parts.hostname
  port = f':{parts.port}' if parts.port else ''
  return f'{parts.scheme}://{host}{port}{parts.path}'.rstrip('/')


def _split(url: str) -> urllib.parse.SplitResult:
  try:
    parts = urllib.parse.urlsplit(url.strip())
    parts.port  # noqa: B018  Reading it checks it.
    if parts.scheme in ('http', 'https') and parts.hostname:
      return parts
  except ValueError:
    pass
  raise UserError(
      '--config.remote.url is no address: pass one up to its version, e.g. '
      '--config.remote.url=http://127.0.0.1:8080/v1'
  )


def _address(config: EndpointConfig) -> str:
  parts = _split(config.url)
  if '@' in parts.netloc:
    raise UserError(
        '--config.remote.url holds a user or a password, which others could '
        f'read: leave it out and put the key into {config.key_variable}, a '
        'variable of the environment (its name is --config.remote.key_variable)'
    )
  path = parts.path.rstrip('/').removesuffix(_PATH) + _PATH
  return parts._replace(path=path, fragment='').geturl()


def _call(function: Mapping[str, Any]) -> tuple[str, str]:
  arguments = function['arguments']
  if isinstance(arguments, dict):  # Of servers that are helpful.
    arguments = json.dumps(arguments)
  return _text(function['name']), _text(arguments)


def _text(value: Any) -> str:
  """The text of a message's field, secrets out of it.

  Raises:
    TypeError: It is neither text nor text in parts.
  """
  if isinstance(value, list):
    value = ''.join(part['text'] for part in value if part['type'] == 'text')
  if value is None:
    return ''
  if not isinstance(value, str):
    raise TypeError(f'{type(value).__name__} in place of text')
  return secrets.redact(value)


def _reason(body: bytes) -> str:
  """What a server says went wrong: its error's message, or how it begins."""
  text = body[: 2**16].decode('utf-8', 'replace')
  try:
    value = json.loads(body)
    value = value.get('error', value)
    value = value if isinstance(value, str) else value['message']
    text = value if isinstance(value, str) else text
  except (AttributeError, KeyError, RecursionError, TypeError, ValueError):
    pass
  return _one_line(text) or 'nothing'


def _one_line(text: str) -> str:
  """Its beginning on one line; secrets go before it is cut, or half stays."""
  text = ''.join(c if c.isprintable() else ' ' for c in secrets.redact(text))
  return ' '.join(text.split())[:_REASON_LENGTH]


def _retry_after_s(value: str) -> float:
  """Seconds for which a server asks to be left alone; 0 if it does not."""
  try:
    if value.strip().isdigit():
      return float(value)
    at = email.utils.parsedate_to_datetime(value).timestamp()
    return max(at - time.time(), 0.0)
  except ValueError:
    return 0.0

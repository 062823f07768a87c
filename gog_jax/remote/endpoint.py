"""Asks an OpenAI-compatible endpoint for one message.

vLLM, SGLang, llama.cpp's server, Ollama and the vendors all speak it. Nothing
that comes back is trusted: it is capped, never followed elsewhere, never
unpacked, and its shape is checked.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Mapping, Sequence
import dataclasses
import json
import re
import time
from typing import Any, TypeVar
import urllib.parse

import aiohttp
from etils import epath

from gog_jax.errors import UserError
from gog_jax.remote import http as http_json
from gog_jax.remote import retries
from gog_jax.remote import secrets
from gog_jax.remote.ledger import dollars
from gog_jax.remote.ledger import Ledger

T = TypeVar('T')

_MAX_BYTES = 16 * 2**20  # Of a reply.
_PATH = '/chat/completions'
_BACKOFF_S = 0.5  # At most, before the second attempt; then twice as long.


@dataclasses.dataclass(frozen=True, kw_only=True)
class Completion:
  """A message of the remote model.

  Attributes:
    content: Its text; may be empty.
    reasoning: What a server's reasoning parser took out of it.
    tool_calls: (name, arguments as JSON text) that a tool parser took out.
    truncated: Whether its token limit cut it off.
    prompt_tokens: As the endpoint says; 0 where it does not.
    completion_tokens: Likewise.
  """

  content: str
  reasoning: str
  tool_calls: tuple[tuple[str, str], ...]
  truncated: bool
  prompt_tokens: int = 0
  completion_tokens: int = 0


class EndpointError(UserError):
  """A message cannot be had; the text says why, in one line.

  Attributes:
    reason: The same in a few words, under which it is counted.
    billed: Whether it may have to be paid for: False where the request was
      turned away, or never sent.
    transient: Whether the same request may work soon.
    retry_after_s: Seconds that the endpoint asks to wait.
  """

  def __init__(
      self,
      message: str,
      *,
      reason: str,
      billed: bool = False,
      transient: bool = False,
      retry_after_s: float = 0.0,
  ):
    super().__init__(message)
    self.reason, self.billed = reason, billed
    self.transient, self.retry_after_s = transient, retry_after_s


class MisconfiguredError(EndpointError):
  """No request at all can work: the address, key or model name is wrong."""


class Endpoint:
  """One remote model.

  Attributes:
    ledger: Where spending is written down; None where messages cost nothing.
  """

  def __init__(self, section: Any, *, name: str, workdir: epath.PathLike):
    """Reads the key from the environment; nothing is asked yet.

    Args:
      section: A `config.tools.Endpoint`; a `Remote` may have requests carry
        their conversation's own seed.
      name: The section's, for messages.
      workdir: Where the ledger is if the section names none.

    Raises:
      UserError: The address, the key or the ledger cannot be one, or the model
        has no name.
    """
    self._section, self._name = section, name
    url = http_json.check_url(
        section.url.strip(),
        field=self._flag('url'),
        like='http://127.0.0.1:8080/v1',
        variable=section.key_variable,
    )
    parts = urllib.parse.urlsplit(url)
    path = parts.path.rstrip('/').removesuffix(_PATH) + _PATH
    self._address = parts._replace(path=path, fragment='').geturl()
    self._shown = shown_url(section.url)
    if not section.model:
      raise UserError(
          f'no remote model is named: pass {self._flag("model")}=NAME, as the '
          f'endpoint calls it (GET {self._shown}/models lists them)'
      )
    variable = section.key_variable
    if variable and not re.fullmatch('[A-Za-z_][A-Za-z0-9_]*', variable):
      raise UserError(  # Which is not quoted: it may be the key itself.
          f'{self._flag("key_variable")} is the name of a variable of the '
          'environment, letters, digits and _; put the key into that variable'
      )
    self._key = http_json.read_key(variable)
    self.ledger = None
    if section.price_in or section.price_out:
      self.ledger = Ledger(
          section.ledger or epath.Path(workdir) / f'{name}_spent.jsonl',
          cap=section.max_spend,
          section=name,
      )

  def dollars(self, tokens_in: int, tokens_out: int) -> float:
    return dollars(self._section, tokens_in, tokens_out)

  def session(self) -> aiohttp.ClientSession:
    """For `ask`, in this event loop."""
    return http_json.session(self._key)

  async def retried(
      self, ask: Callable[..., Awaitable[T]], *args: Any, **kwargs: Any
  ) -> T:
    """Calls `ask(*args, deadline=.., **kwargs)` as often as the config says.

    Raises:
      EndpointError: What the last call raised, as any other exception.
    """
    c = self._section
    retrying = retries.retrying(
        max_attempts=c.max_attempts,
        timeout_s=c.timeout_s,
        backoff_s=_BACKOFF_S,
    )
    deadline = time.monotonic() + c.timeout_s
    try:
      return await retrying(ask, *args, deadline=deadline, **kwargs)
    except EndpointError as error:
      n_attempts = retrying.statistics['attempt_number']
      if not error.transient or n_attempts == 1:
        raise
      raise EndpointError(
          f'{error} after {n_attempts} attempts',
          reason=error.reason,
          billed=error.billed,
      ) from error

  async def ask(
      self,
      session: aiohttp.ClientSession,
      messages: Sequence[Mapping[str, Any]],
      *,
      deadline: float,
      seed: int = 0,
  ) -> Completion:
    """Asks once for the model's next message.

    Args:
      session: Of this event loop.
      messages: The conversation so far.
      deadline: Until when, by time.monotonic().
      seed: Sent if the config says so.

    Raises:
      EndpointError: It cannot be had.
    """
    c = self._section
    request: dict[str, Any] = {'model': c.model, 'messages': list(messages)}
    if c.temperature >= 0:
      request['temperature'] = c.temperature
    if c.max_tokens:
      request['max_tokens'] = c.max_tokens
    if getattr(c, 'seeded', False):
      request['seed'] = seed
    try:
      async with asyncio.timeout(max(deadline - time.monotonic(), 0.001)):
        value, _ = await http_json.ask(
            session, self._address, request, max_bytes=_MAX_BYTES
        )
    except TimeoutError as error:
      raise EndpointError(
          f'{self._shown} sent no reply within '
          f'{self._flag("timeout_s")}={c.timeout_s:g} seconds',
          reason='no reply in time',
          billed=True,
          transient=True,
      ) from error
    except ConnectionError as error:
      raise EndpointError(
          f'cannot reach {self._shown} ({error}); is the server running, and '
          f'is {self._flag("url")} right?',
          reason='cannot be reached',
          billed=getattr(error, 'billed', True),
          transient=True,
      ) from error
    except http_json.Garbled as error:
      raise self._no_completion(str(error)) from error
    except http_json.Refused as error:
      raise self._refusal(error) from error
    return self._completion(value)

  def _refusal(self, error: http_json.Refused) -> EndpointError:
    reason = f'HTTP {error.status}'
    if 300 <= error.status < 400:
      return MisconfiguredError(
          f'{self._shown} answers {error.status}, a redirect, which is not '
          f'followed: give the address it leads to as {self._flag("url")}',
          reason=reason,
      )
    message = f'{self._shown} answers {error.status}: {error.reason}'
    if error.status == 404:
      message += (
          f'; is {self._flag("url")} right, up to its /v1, and '
          f'{self._flag("model")}?'
      )
    if error.status in (401, 403):
      variable = self._section.key_variable
      message += f' (the key is read from the variable {variable})'
    # Other requests may well be shorter, or have an image that it can read.
    if error.status in (401, 403, 404, 405):
      return MisconfiguredError(message, reason=reason)
    return EndpointError(
        message,
        reason=reason,
        transient=error.transient,
        retry_after_s=error.retry_after_s,
    )

  def _no_completion(self, what: str) -> EndpointError:
    return EndpointError(
        f'{self._shown} answers with no chat completion: {what}; is '
        f'{self._flag("url")} right, up to its /v1?',
        reason='no chat completion',
        billed=True,
    )

  def _flag(self, field: str) -> str:
    """What a user types to set a field."""
    return f'--config.{self._name}.{field}'

  def _completion(self, value: Any) -> Completion:
    """Reads a response.

    Raises:
      EndpointError: It is no chat completion.
    """
    try:
      choice = value['choices'][0]
      message = choice['message']
      reasoning = message.get('reasoning_content') or message.get('reasoning')
      return Completion(
          content=_text(message.get('content')),
          reasoning=_text(reasoning),
          tool_calls=tuple(
              _call(call['function'])
              for call in message.get('tool_calls') or ()
          ),
          truncated=choice.get('finish_reason') == 'length',
          prompt_tokens=_count(value, 'prompt_tokens'),
          completion_tokens=_count(value, 'completion_tokens'),
      )
    except (
        AttributeError, IndexError, KeyError, TypeError, ValueError,
    ) as error:  # fmt: skip
      what = f'{type(error).__name__}: {error}'
      raise self._no_completion(f'its JSON has no message ({what})') from error


def shown_url(url: str) -> str:
  """An address that was checked, without its query: it may hold a secret."""
  parts = urllib.parse.urlsplit(url.strip())
  host = f'[{parts.hostname}]' if ':' in str(parts.hostname) else parts.hostname
  port = f':{parts.port}' if parts.port else ''
  return f'{parts.scheme}://{host}{port}{parts.path}'.rstrip('/')


def _call(function: Mapping[str, Any]) -> tuple[str, str]:
  arguments = function['arguments']
  if isinstance(arguments, dict):  # Of servers that are helpful.
    arguments = json.dumps(arguments)
  return _text(function['name']), _text(arguments)


def _count(reply: Mapping[str, Any], what: str) -> int:
  """Of the tokens that a reply says it took; 0 where it says none."""
  usage = reply.get('usage')
  count = usage.get(what) if isinstance(usage, dict) else None
  return count if type(count) is int and count > 0 else 0


def _text(value: Any) -> str:
  """The text of a message's field, secrets out of it: parts may spell one.

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

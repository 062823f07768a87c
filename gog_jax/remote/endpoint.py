"""Asks an OpenAI-compatible endpoint for one message.

vLLM, SGLang, llama.cpp's server, Ollama and the vendors all speak it. Nothing
that comes back is trusted: it is capped, never followed elsewhere, never
unpacked, and its shape is checked.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Mapping, Sequence
import dataclasses
import functools
import re
from typing import Any, TypeVar
import urllib.parse

import aiohttp
from etils import epath

from gog_jax.errors import UserError
from gog_jax.remote import completion
from gog_jax.remote import http as http_json
from gog_jax.remote import retries
from gog_jax.remote import tasks
from gog_jax.remote.completion import Completion
from gog_jax.remote.ledger import charged
from gog_jax.remote.ledger import dollars
from gog_jax.remote.ledger import Ledger
from gog_jax.remote.tally import Tally
from gog_jax.storage import heartbeat

T = TypeVar('T')
Message = Mapping[str, Any]

_MAX_BYTES = 16 * 2**20  # Of a reply.
_PATH, _MODELS = '/chat/completions', '/models'
_NO_KEY = (401, 403)
_FILTERED = 'filtered or refused'
_LISTED = 5  # Models that are named, of those that there are.
_TOKENS = ('prompt_tokens', 'completion_tokens')
_BACKOFF_S = 0.5  # At most, before the second attempt; then twice as long.


class EndpointError(UserError):
  """There is no message; the text says why, in one line.

  Attributes:
    reason: The same in a few words, under which it is counted.
  """

  def __init__(self, message: str, *, reason: str):
    super().__init__(message)
    self.reason = reason


class MisconfiguredError(EndpointError):
  """No request at all can work: the address, key or model name is wrong."""


class Endpoint:
  """One remote model.

  Attributes:
    counts: The `requests` sent; the `prompt_tokens` and `completion_tokens`
      they took, where the endpoint says so; and their `price` in US dollars,
      if tokens have one.
  """

  def __init__(self, section: Any, *, name: str, workdir: epath.PathLike):
    """Reads the key from the environment; nothing is asked yet.

    Args:
      section: An EndpointConfig; a RemoteConfig may have requests carry their
        conversation's own seed.
      name: The section's, for messages.
      workdir: Where the ledger is if the section names none.

    Raises:
      UserError: The address, the key or the ledger cannot be one.
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
    variable = section.key_variable
    if variable and not re.fullmatch('[A-Za-z_][A-Za-z0-9_]*', variable):
      raise UserError(  # Which is not quoted: it may be the key itself.
          f'{self._flag("key_variable")} is the name of a variable of the '
          'environment, letters, digits and _; put the key into that variable'
      )
    self._key = http_json.read_key(variable)
    self._options: dict[str, Any] = {'model': section.model}
    if section.temperature >= 0:
      self._options['temperature'] = section.temperature
    if section.max_tokens:
      self._options['max_tokens'] = section.max_tokens
    self.counts = Tally()
    self._ledger = None
    if section.price_in or section.price_out:
      self._ledger = Ledger(
          section.ledger or epath.Path(workdir) / f'{name}_spent.jsonl',
          cap=section.max_spend,
          section=name,
      )

  def session(self) -> aiohttp.ClientSession:
    """A session for `ask`, bound to this event loop."""
    return http_json.session(self._key)

  async def ask(
      self,
      session: aiohttp.ClientSession,
      write: Callable[[int], Sequence[Message]],
      read: Callable[[Completion], T],
      *,
      seed: int = 0,
  ) -> T:
    """Asks for the model's next message, as often as the config says.

    Args:
      session: Of this event loop.
      write: The conversation to send, given the number of the attempt, from 1.
      read: What to make of a reply. What it raises fails the attempt.
      seed: Sent if the config says so.

    Raises:
      EndpointError: There is no reply.
      RunStopped: It would cost more than the run may spend.
      Exception: What the last `read` raised.
    """

    async def attempt(number: int) -> T:
      messages = write(number)
      request = {**self._options, 'messages': messages}
      if getattr(self._section, 'seeded', False):
        request['seed'] = seed
      with charged(
          self._ledger,
          'a message',
          self._most(messages),
          functools.partial(self.counts.add, 'price'),
      ) as charge:
        self.counts.add('requests')
        value, _ = await http_json.ask(
            session, self._address, request, max_bytes=_MAX_BYTES
        )
        usage = self._usage(value)
        charge.price = usage.get('price', charge.price)
        for what in _TOKENS:
          self.counts.add(what, usage.get(what, 0))
        reply = completion.read(value)
      return read(dataclasses.replace(reply, usage=usage))

    return await self._attempts(attempt)

  def probe(self) -> str:
    """Asks for the list of models: costs nothing, and makes no file.

    Returns:
      A remark for people; empty if the list holds the model, or there is none.

    Raises:
      Interrupted: After a signal.
      EndpointError: Nobody answers, or not whoever has this key.
    """
    address = self._address.replace(_PATH, _MODELS)

    async def listed(session: aiohttp.ClientSession) -> Any:
      try:
        return await http_json.ask(
            session, address, None, max_bytes=_MAX_BYTES
        )
      except http_json.Garbled:
        return None, ''
      except http_json.Refused as error:
        if error.status in _NO_KEY or not 400 <= error.status < 500:
          raise
        return None, ''  # It has no such list.

    async def asked() -> Any:
      async with self.session() as session:
        attempts = self._attempts(lambda _: listed(session))
        return await tasks.gather([attempts])

    ((value, _),) = asyncio.run(asked())
    try:
      names = [str(one['id']) for one in value['data']]
    except (KeyError, TypeError):
      return ''
    model = self._section.model
    if model in names:
      return ''
    return (
        f'{self._shown} does not list {self._flag("model")}={model} among its '
        f'models ({", ".join(names[:_LISTED]) or "none"}): it is asked '
        'nevertheless'
    )

  async def _attempts(self, attempt: Callable[[int], Awaitable[T]]) -> T:
    """Calls `attempt` with its number, from 1, as often as the config says."""
    c = self._section
    retrying = retries.retrying(
        max_attempts=c.max_attempts,
        timeout_s=c.timeout_s,
        backoff_s=_BACKOFF_S,
    )

    async def once() -> T:
      return await attempt(retrying.statistics['attempt_number'])

    try:
      with heartbeat.doing(f'waiting for {self._name} at {self._shown}'):
        async with asyncio.timeout(c.timeout_s):
          return await retrying(once)
    except (
        TimeoutError, ConnectionError, http_json.Garbled, http_json.Refused,
    ) as error:  # fmt: skip
      raise self._explained(
          error, retrying.statistics['attempt_number']
      ) from error

  def _most(self, messages: Sequence[Message]) -> float | None:
    """US dollars that a reply costs at most; None where nothing bounds them."""
    texts = [message['content'] for message in messages]
    n_tokens = self._section.max_tokens
    if not n_tokens or not all(isinstance(text, str) for text in texts):
      return None
    # No tokenizer makes more of a text than its bytes.
    n_bytes = sum(len(text.encode()) for text in texts)
    return dollars(self._section, n_bytes, n_tokens)

  def _explained(self, error: Exception, n_attempts: int) -> EndpointError:
    """What the last attempt's error means to the user."""
    shown, url, kind = self._shown, self._flag('url'), EndpointError
    match error:
      case TimeoutError():
        reason = 'no reply in time'
        timeout = f'{self._flag("timeout_s")}={self._section.timeout_s:g}'
        text = f'{shown} sent no reply within {timeout} seconds'
      case ConnectionError():
        reason = 'cannot be reached'
        text = (
            f'cannot reach {shown} ({error}); is the server running, and is '
            f'{url} right?'
        )
      case http_json.Failed(status=status):
        code = f' {status}' if status else ''
        reason = _FILTERED if error.filtered else f'error{code} in a reply'
        text = f'{shown} answers with an error{code}: {error.reason}'
        if status in (401, 404, 405) and not error.filtered:
          kind = MisconfiguredError
      case http_json.Refused(status=status):
        reason = f'HTTP {status}'
        text = f'{shown} answers {status}: {error.reason}'
        if 300 <= status < 400:
          text = (
              f'{shown} answers {status}, a redirect, which is not followed: '
              f'give the address it leads to as {url}'
          )
        elif status == 404:
          text += f'; is {url} right, up to its /v1, and {self._flag("model")}?'
        elif status in _NO_KEY:
          variable = self._section.key_variable
          text += f' (the key is read from the variable {variable})'
        if error.filtered:
          reason = _FILTERED
        # Other requests may be shorter, or have an image that it can read.
        elif not error.transient and (
            status < 400 or status in (*_NO_KEY, 404, 405)
        ):
          kind = MisconfiguredError
      case _:
        reason = 'no chat completion'
        text = (
            f'{shown} answers with no chat completion: {error}; is {url} '
            'right, up to its /v1?'
        )
    if retries.is_transient(error) and n_attempts > 1:
      text += f' after {n_attempts} attempts'
    return kind(text, reason=reason)

  def _flag(self, field: str) -> str:
    """What a user types to set a field."""
    return f'--config.{self._name}.{field}'

  def _usage(self, value: Any) -> dict[str, float]:
    """See `Completion`; a count that is not a positive number is 0."""
    counted = completion.tokens(value)
    if not any(counted):
      return {}
    price = dollars(self._section, *counted)
    return {**dict(zip(_TOKENS, counted)), 'price': price}


def shown_url(url: str) -> str:
  """An address that was checked, without its query: it may hold a secret."""
  parts = urllib.parse.urlsplit(url.strip())
  host = f'[{parts.hostname}]' if ':' in str(parts.hostname) else parts.hostname
  port = f':{parts.port}' if parts.port else ''
  return f'{parts.scheme}://{host}{port}{parts.path}'.rstrip('/')

"""An endpoint that fails: tried again, told in one line, and no key in it."""

from __future__ import annotations

import asyncio
import datetime
import email.utils
import gzip
import os
import signal
import threading
import time

from aiohttp import web
import pytest

from gog_jax import interrupt
from gog_jax.errors import UserError
from gog_jax.remote import secrets
from tests import endpoints
from tests.endpoints import says
from tests.remote_helpers import ANSWER
from tests.remote_helpers import KEY
from tests.remote_helpers import make_endpoint
from tests.remote_helpers import play
from tests.remote_helpers import replies
from tests.remote_helpers import sample_once


def failing(*statuses, headers=None, body='{"error":{"message":"busy"}}'):
  """Fails in these ways, then answers."""
  left = list(statuses)

  def script(_):
    if not left:
      return says(ANSWER)
    return web.Response(status=left.pop(0), headers=headers, text=body)

  return script


@pytest.mark.parametrize('status', [429, 500, 503])
def test_what_may_be_gone_soon_is_tried_again(status):
  with endpoints.serve(failing(status, status)) as server:
    turn, _ = sample_once(server)
  assert turn.answer == '132' and len(server.heard) == 3


def test_retry_after_is_honoured():
  with endpoints.serve(failing(429, headers={'Retry-After': '1'})) as server:
    started = time.monotonic()
    sample_once(server)
  assert 1.0 <= time.monotonic() - started < 5.0
  with endpoints.serve(failing(429, headers={'Retry-After': '99'})) as server:
    started = time.monotonic()
    with pytest.raises(UserError, match='answers 429: busy'):
      sample_once(server, timeout_s=5.0)  # It would be too late.
  assert time.monotonic() - started < 3.0


def test_retry_after_may_be_a_date():
  later = email.utils.format_datetime(
      datetime.datetime.now(datetime.UTC) + datetime.timedelta(seconds=99),
      usegmt=True,
  )
  with endpoints.serve(failing(503, headers={'Retry-After': later})) as server:
    with pytest.raises(UserError, match='answers 503'):
      sample_once(server, timeout_s=5.0)
  assert len(server.heard) == 1
  headers = {'Retry-After': 'soon'}
  with endpoints.serve(failing(503, headers=headers)) as server:
    assert sample_once(server)[0].answer == '132'


def test_what_is_compressed_is_not_unpacked():
  body = gzip.compress(b'{"choices":[]}' + b' ' * 2**20)

  def script(_):
    return web.Response(body=body, headers={'Content-Encoding': 'gzip'})

  with endpoints.serve(script) as server:
    with pytest.raises(UserError, match='no chat completion'):
      sample_once(server)


def one_line(error) -> str:
  assert len(str(error.value).splitlines()) == 1
  return str(error.value)


@pytest.mark.parametrize(
    ('script', 'words', 'n_asked'),
    [
        (failing(*[500] * 9), ['answers 500: busy', 'after 3 attempts'], 3),
        (failing(400, body='no such model'), ['400: no such model'], 1),
        (failing(401), ['401', 'busy', 'OPENAI_API_KEY'], 1),
        (
            failing(302, headers={'Location': 'http://127.0.0.1:1/'}),
            ['302', 'redirect', '--config.remote.url'],
            1,
        ),
        (
            lambda _: web.Response(text='<html>\n<b>hi</b>\x1b[31m'),
            ['not JSON: <html> <b>hi</b> [31m', '/v1'],
            1,
        ),
        (lambda _: web.json_response({'choices': []}), ['"choices"'], 3),
        (lambda _: web.json_response([]), ['no chat'], 1),
        (lambda _: says(7), ['no chat'], 1),
        (
            lambda _: web.json_response({'choices': [{'message': None}]}),
            ['message has no "content"'],
            3,
        ),
        (
            lambda _: web.Response(body=b'x' * (2**24 + 1)),
            ['more than 16777216 bytes'],
            1,
        ),
    ],
)
def test_failures_are_one_line(script, words, n_asked):
  with endpoints.serve(script) as server:
    with pytest.raises(UserError) as error:
      sample_once(server)
    for word in (*words, server.url):
      assert word in one_line(error)
  assert len(server.heard) == n_asked


def test_a_long_reason_is_cut():
  with endpoints.serve(failing(400, body='z' * 5000)) as server:
    with pytest.raises(UserError) as error:
      sample_once(server)
  assert one_line(error).count('z') == 200


def test_nobody_there():
  with endpoints.serve(replies(ANSWER)) as server:
    url = server.url
  with pytest.raises(UserError) as error:
    sample_once(server, max_attempts=2)
  for word in ('cannot reach', url, 'is the server running'):
    assert word in one_line(error)


def test_no_reply_in_time():
  gate = threading.Event()

  def script(_):
    gate.wait(10)
    return says(ANSWER)

  with endpoints.serve(script) as server:
    started = time.monotonic()
    with pytest.raises(UserError, match='no reply within .*timeout_s=0.5'):
      sample_once(server, timeout_s=0.5)
    assert time.monotonic() - started < 3
    gate.set()


def test_a_signal_does_not_wait_for_the_endpoint():
  gate = threading.Event()

  def script(_):
    os.kill(os.getpid(), signal.SIGINT)
    gate.wait(10)
    return says(ANSWER)

  before = signal.getsignal(signal.SIGINT), signal.getsignal(signal.SIGTERM)
  interrupt.install()
  try:
    with endpoints.serve(script) as server:
      started = time.monotonic()
      with pytest.raises(interrupt.Interrupted):
        play(server)
      assert time.monotonic() - started < 3
      gate.set()
  finally:
    interrupt.install()  # Forgets the request.
    signal.signal(signal.SIGINT, before[0])
    signal.signal(signal.SIGTERM, before[1])


def test_the_key_is_in_no_output(monkeypatch):
  monkeypatch.setenv('OPENAI_API_KEY', f' {KEY}\n')
  for body in (f'bad key {KEY}', f'{{"error":"{"x" * 190}{KEY}"}}'):
    with endpoints.serve(failing(401, body=body)) as server:
      with pytest.raises(UserError) as error:
        sample_once(server)
      assert KEY not in str(error.value) and 'sk-' not in one_line(error)
  message = {
      'content': f'<think>{KEY}</think><answer>{KEY}</answer>',
      'reasoning': KEY,
  }
  with endpoints.serve(lambda _: message) as server:
    turn, _ = sample_once(server)
  assert (turn.thought, turn.answer) == ('[secret]', '[secret]')


def test_short_values_are_no_secrets(monkeypatch):
  monkeypatch.setenv('SOME_KEY', 'none')
  assert secrets.from_environment('SOME_KEY') == 'none'
  assert secrets.redact('none of it') == 'none of it'
  assert secrets.from_environment('') is None


@pytest.mark.parametrize(
    ('usage', 'counts'),
    [
        ({'prompt_tokens': 7, 'completion_tokens': 3}, (7, 3)),
        ({'prompt_tokens': 7}, (7, 0)),
        ({'prompt_tokens': -7, 'completion_tokens': '3'}, (0, 0)),
        ({'prompt_tokens': True, 'completion_tokens': 1e999}, (0, 0)),
        ([7], (0, 0)),
        (None, (0, 0)),
    ],
)
def test_what_a_reply_says_it_took(usage, counts):
  def script(_):
    return web.json_response(endpoints.completion(says('hi'), usage=usage))

  async def ask(endpoint):
    async with endpoint.session() as session:
      return await endpoint.ask(session, lambda n: [], lambda reply: reply)

  with endpoints.serve(script) as server:
    reply = asyncio.run(ask(make_endpoint(server.url)))
  names = ('prompt_tokens', 'completion_tokens')
  assert tuple(reply.usage.get(name, 0) for name in names) == counts


@pytest.mark.parametrize(
    ('url', 'words'),
    [
        ('http://me:pass@127.0.0.1/v1', ['password', 'OPENAI_API_KEY']),
        ('127.0.0.1:8080/v1', ['no address', 'http://127.0.0.1:8080/v1']),
        ('http://[::1', ['no address']),
        ('http://host:port/v1', ['no address']),
        ('file:///etc/passwd', ['no address']),
    ],
)
def test_addresses_that_are_refused(url, words):
  with pytest.raises(UserError) as error:
    make_endpoint(url)
  for word in words:
    assert word in one_line(error)
  assert 'pass@' not in str(error.value)

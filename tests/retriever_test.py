"""The client of a retriever, against servers that do all they should not."""

import asyncio
import base64
import json
import pathlib

from aiohttp import web
import pytest

from gog_jax import images
from gog_jax.config.tools import TEXT
from gog_jax.errors import UserError
from gog_jax.remote import http as http_json
from gog_jax.remote import secrets
from gog_jax.tools import retriever as retriever_lib
from gog_jax.tools.base import SearchError
from gog_jax.tools.base import ToolContext
from gog_jax.tools.base import TransientError
from gog_jax.tools.recording import Recording
from gog_jax.tools.retriever import Retriever
from gog_jax.tools.search import text_search
from gog_jax.types import Hit
from gog_jax.types import ToolCall
from gog_jax.types import ToolStatus
from gog_jax.types import View
from tests import chaos_server
from tests.search_helpers import ask
from tests.search_helpers import make_cache
from tests.search_helpers import make_executor
from tests.search_helpers import served

_ROOT = pathlib.Path(__file__).parents[1]
_PIXEL = images.encode_png(images.Image.new('RGB', (9, 9), 'green'))
_CONTEXT = ToolContext(
    scope='', views=(View(data=_PIXEL, root=0, box=(0, 0, 9, 9)),)
)


def test_it_speaks_search_r1():
  asked = []

  async def retrieve(request):
    asked.append(await request.json())
    items = [
        {'document': {'contents': '"Title"\nText\nmore'}, 'score': 2},
        {'document': {'id': '8', 'contents': 'no title'}, 'score': 0.5},
        {'id': '9', 'contents': '"Bare"\nas without scores'},
    ]
    return web.json_response({'result': [items]})

  with served([web.post('/retrieve', retrieve)]) as url:
    reply = ask(url)
  assert asked == [{'queries': ['who'], 'topk': 3, 'return_scores': True}]
  assert reply.hits == (
      Hit(title='Title', text='Text\nmore', score=2.0),
      Hit(title='', text='no title', score=0.5),
      Hit(title='Bare', text='as without scores', score=0.0),
  )
  assert '"Title' in json.loads(reply.raw)['result'][0][0]['document'][
      'contents'
  ]


def test_a_scope_is_sent_where_there_is_one():
  asked = []

  async def retrieve(request):
    asked.append(await request.json())
    return web.json_response({'result': [[]]})

  with served([web.post('/{path:.*}', retrieve)]) as url:
    for image in (None, _PIXEL):
      for scope in ('', 'a world'):
        ask(url, image=image, scope=scope)
  assert [body.get('scope') for body in asked] == [None, 'a world'] * 2
  assert 'scope' not in asked[0] and 'scope' not in asked[2]


def test_it_sends_and_gets_images():
  asked = []

  async def retrieve(request):
    asked.append(await request.json())
    thumbnail = base64.b64encode(_PIXEL).decode()
    document = {'id': 'a.jpg', 'title': 'A', 'caption': 'c', 'image': 'a.jpg'}
    items = [
        {'document': document | {'thumbnail': thumbnail}, 'score': 0.9},
        {'document': document | {'text': 'longer'}, 'score': 0.8},
        {'document': document | {'thumbnail': 'no image'}, 'score': 0.7},
    ]
    return web.json_response({'result': [items]})

  with served([web.post('/retrieve_image', retrieve)]) as url:
    reply = ask(url, image=_PIXEL)
  assert base64.b64decode(asked[0]['images'][0]) == _PIXEL
  assert reply.hits == (
      Hit(title='A', text='c', score=0.9, image=_PIXEL),
      Hit(title='A', text='longer', score=0.8),
      Hit(title='A', text='c', score=0.7),
  )


def test_more_hits_than_were_asked_for_are_left_out():
  async def retrieve(unused_request):
    items = [{'document': {'contents': str(i)}, 'score': i} for i in range(9)]
    return web.json_response({'result': [items]})

  with served([web.post('/retrieve', retrieve)]) as url:
    assert len(ask(url, top_k=2).hits) == 2


@pytest.mark.parametrize(
    ('mode', 'error', 'words'),
    [
        ('busy', TransientError, '429: slow'),
        ('error', TransientError, '500: <h1>Oops</h1>'),
        ('reset', ConnectionError, ''),
        ('cut', TransientError, 'not JSON'),
        ('short', ConnectionError, ''),
        ('types', TransientError, ''),
        ('bytes', TransientError, 'not JSON'),
        ('html', TransientError, 'not JSON: <!doctype html>'),
        ('packed', TransientError, 'Content-Encoding'),
        ('huge', TransientError, 'more than 16777216 bytes'),
        ('moved', SearchError, 'HTTP 302'),
    ],
)
def test_each_misbehaviour_is_a_failure_that_says_what_it_was(
    mode, error, words
):
  with chaos_server.running(**{mode: 1}) as url:
    with pytest.raises(error) as caught:
      ask(url)
  assert words in str(caught.value)
  if mode == 'busy':
    assert caught.value.retry_after_s == 0.05
    assert not caught.value.billed


def test_a_bomb_is_left_out_and_the_hit_stays():
  with chaos_server.running(bomb=1) as url:
    assert ask(url, image=_PIXEL).hits == (
        Hit(title='bomb', text='', score=1.5),
    )


@pytest.mark.parametrize(
    ('given', 'seconds'),
    [('7', 7.0), ('-3', 0.0), ('soon', 0.0), ('nan', 0.0), ('inf', 0.0),
     ('Wed, 21 Oct 2015 07:28:00 GMT', 0.0),
     ('Wed, 21 Oct 2015 07:28:00', 0.0),
     ('Wed, 21 Jan 99999999999999999999 07:28:00 GMT', 0.0)],
)  # fmt: skip
def test_retry_after_is_seconds_or_a_date(given, seconds):
  assert http_json._seconds(given) == seconds


def test_retry_after_of_a_date_to_come():
  assert http_json._seconds('Wed, 21 Oct 2150 07:28:00 GMT') > 1e9


def test_the_version_is_what_the_server_says():
  with chaos_server.running(ok=1) as url:
    assert Retriever.connect(url + '/').version == 'retriever/chaos/1'


def test_without_a_health_address_it_is_the_address():
  async def retrieve(unused_request):
    return web.json_response({'result': [[]]})

  with served([web.post('/retrieve', retrieve)]) as url:
    client = Retriever.connect(url, version='wiki-18')
    assert client.version == f'retriever/{url} wiki-18'
  with served([]) as url:
    with pytest.raises(UserError, match='is no retriever: it has no /retri'):
      Retriever.connect(url)


def _text_only(answer):
  """Routes of a server that knows nothing of images, and what it says then."""

  async def retrieve(request):
    if 'queries' in await request.json():
      return web.json_response({'result': [[]]})
    if answer is None:  # As a handler that has raised, where none catches.
      request.transport.close()
      return web.Response()
    return answer

  return [web.post('/{path:.*}', retrieve)]


@pytest.mark.parametrize(
    'said',
    [
        {'status': 404, 'text': '{"detail": "Not Found"}'},
        {'status': 422, 'text': '{"detail": "queries: field required"}'},
        {'status': 500, 'text': 'Internal Server Error'},
        {'text': '{"detail": "Not Found"}'},
        {'text': '{"result": []}'},
        {'text': '<html>'},
        None,
    ],
)
def test_a_server_that_searches_text_alone(said):
  answer = said and web.Response(**said)
  with served(_text_only(answer)) as url:
    assert Retriever.connect(url).kinds == (TEXT,)


@pytest.mark.parametrize(
    ('said', 'words'),
    [
        ({'status': 503, 'text': 'loading'}, "503.* --config.tools.image=''"),
        ({'status': 429, 'text': 'slow'}, "429.* --config.tools.image=''"),
        ({'status': 403, 'text': 'who?'}, 'wants a key'),
    ],
)
def test_an_image_half_that_is_not_ready_is_said(said, words):
  with served(_text_only(web.Response(**said))) as url:
    with pytest.raises(UserError, match=words):
      Retriever.connect(url)


def test_health_without_counts_says_nothing_about_searches():
  async def health(unused_request):
    return web.json_response({'status': 'ok'})

  with served([web.get('/health', health)]) as url:
    with pytest.raises(UserError, match='is no retriever: it has no /retr'):
      Retriever.connect(url)


@pytest.mark.parametrize(
    ('url', 'words'),
    [
        ('', 'is no address'),
        ('localhost:8000', 'is no address'),
        ('ftp://a', 'is no address'),
        ('http://[', 'is no address'),
        ('http://a:b', 'is no address'),
        ('http://me:hush@127.0.0.1:9', 'environment variable GOG_JAX_RETR'),
        ('http://a..b', 'is no address'),
        ('htps://me:hush@a', 'config.tools.url is no address'),
        ('http://127.0.0.1:9/?token=hush', 'has more than a path'),
        ('http://127.0.0.1:9', 'no retriever answers at config.tools.url='),
    ],
)
def test_addresses_that_do_not_serve(url, words):
  with pytest.raises(UserError, match=words) as caught:
    Retriever.connect(url)
  assert 'hush' not in str(caught.value)


def test_a_key_is_sent_and_shown_nowhere(tmp_path, monkeypatch):
  """Though the server repeats it wherever it can."""
  monkeypatch.setattr(secrets, '_known', set())
  monkeypatch.setenv(retriever_lib.KEY_VARIABLE, 'sesame-open-17')
  statuses = [403, 200, 200]

  async def retrieve(request):
    key = request.headers['Authorization']
    assert key == 'Bearer sesame-open-17'
    status = statuses.pop(0)
    if status != 200:
      return web.json_response({'error': f'bad key {key}'}, status=status)
    document = {'contents': f'"{key}"\nsaid {key}'}
    body = json.dumps({'result': [[{'document': document, 'score': 1}]]})
    if not statuses:  # Spelled otherwise, as some servers do.
      body = body.replace('sesame', '\\u0073esame')
    return web.Response(text=body, content_type='application/json')

  with served([web.post('/retrieve', retrieve)]) as url:
    backend = Retriever(url, version='v')
    executor = make_executor(
        text_search(backend, top_k=1),
        backend=backend,
        cache=make_cache(tmp_path / 'cache'),
        recording=Recording(tmp_path / 'recording', backend='router/1'),
    )
    async def scenario():
      results = [
          await executor.run(
              ToolCall(name='text_search', arguments={'query': f'q{i}'}),
              _CONTEXT,
          )
          for i in range(3)
      ]
      await executor.close()
      return results

    failed, found, spelled = asyncio.run(scenario())
  assert failed.status == ToolStatus.INFRA_ERROR
  assert 'bad key Bearer [secret]' in failed.error
  assert found.status == ToolStatus.OK
  assert found.hits[0].title == 'Bearer [secret]'
  assert spelled.hits == found.hits
  files = [path for path in tmp_path.rglob('*') if path.is_file()]
  assert len(files) >= 3
  for path in files:
    assert b'esame' not in path.read_bytes(), path


def test_a_key_is_in_no_log(monkeypatch, caplog):
  """Not in the tracebacks of a parser's errors, either, which quote it."""
  monkeypatch.setattr(secrets, '_known', set())
  monkeypatch.setenv(retriever_lib.KEY_VARIABLE, 'sesame-open-17')
  with chaos_server.running(echo=1) as url:
    backend = Retriever(url, version='v')
    executor = make_executor(text_search(backend, top_k=1), backend=backend)
    call = ToolCall(name='text_search', arguments={'query': 'q'})
    result = asyncio.run(executor.run(call, _CONTEXT))
  assert result.status == ToolStatus.INFRA_ERROR
  assert 'text_search failed' in caplog.text
  assert 'sesame' not in caplog.text + result.error

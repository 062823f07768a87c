"""What retrievers answer with, in all the ways that are in use."""

from __future__ import annotations

import asyncio
import json

from aiohttp import web
from hypothesis import given
from hypothesis import strategies as st
import pytest

from gog_jax import images
from gog_jax.config.tools import TEXT
from gog_jax.errors import UserError
from gog_jax.remote import http as http_json
from gog_jax.tools import retrieved
from gog_jax.tools.base import SearchError
from gog_jax.tools.retriever import Retriever
from gog_jax.tools.search import text_search
from gog_jax.types import Hit
from gog_jax.types import ToolCall
from gog_jax.types import ToolStatus
from tests.search_helpers import ask
from tests.search_helpers import CONTEXT
from tests.search_helpers import make_executor
from tests.search_helpers import served

PIXEL = images.encode_png(images.Image.new('RGB', (9, 9), 'green'))
_HIT = Hit(title='Paris', text='is a city', score=0.0)
_DOCUMENT = {'title': 'Paris', 'text': 'is a city'}


def _answers(value, path='/retrieve'):
  """Routes of a server that answers every query with the same."""

  async def retrieve(unused_request):
    return web.Response(text=json.dumps(value))

  return [web.post(path, retrieve)]


@pytest.mark.parametrize(
    'answer',
    [
        {'result': [[_DOCUMENT]]},
        {'results': [[_DOCUMENT]]},
        {'results': [_DOCUMENT]},
        {'documents': [{'document': _DOCUMENT, 'score': None}]},
        {'docs': [{'title': 'Paris', 'contents': 'is a city'}]},
        {'hits': {'total': 1, 'hits': [{'_id': '1', '_source': _DOCUMENT}]}},
        {'data': {'results': [[_DOCUMENT]]}},
        {'passages': [{'title': 'Paris', 'passage': 'is a city'}]},
        {'matches': [{'id': '1', 'score': '12.5', 'metadata': _DOCUMENT}]},
        {'result': {'points': [{'id': 1, 'score': float('nan'),
                                'payload': _DOCUMENT}]}},
        {'results': [{'query': 'who', 'documents': [_DOCUMENT]}]},
        {'status': 'ok', 'result': 'done', 'data': [_DOCUMENT]},
        [_DOCUMENT],
        [[_DOCUMENT]],
        {'result': ['"Paris"\nis a city']},
        {'result': [['"Paris"\nis a city']]},
        {'result': [['"Paris"\nis a city', None]]},
        {'result': [[[_DOCUMENT, None]]]},
        {'result': [[{'page_content': 'is a city',
                      'metadata': {'title': 'Paris', 'source': 'x'}}]]},
        {'result': [[{'content': 'is a city', 'Title': 'Paris', 'n': 3}]]},
        {'result': [[{'page_content': 'is a city',
                      'metadata': {'title': 'Paris', 'text': 'a shadow'}}]]},
        {'documents': [{'content': 'is a city', 'meta': {'title': 'Paris'}}],
         'status': 'ok', 'code': 200},
        {'result': [[{'title': 'Paris', 'text': None, 'body': 'is a city'}]]},
        {'result': [[{'title': 'Paris', 'snippet': 'is a city', 'doc': 7}]]},
        {'result': [[{'title': 'Paris', 'text': '', 'content': 'is a city'}]]},
        {'organic': [{'title': 'Paris', 'snippet': 'is a city'}]},
        {'result': [[{'document': '"Paris"\nis a city', 'score': [1]}]]},
        {'result': [[{'node': {'text': 'is a city',
                               'metadata': {'title': 'Paris'}}}]]},
    ],
)  # fmt: skip
def test_one_document_in_many_spellings(answer):
  with served(_answers(answer)) as url:
    client = Retriever.connect(url)
    assert client.kinds == (TEXT,)
    assert ask(url).hits == (_HIT,)


def test_pairs_have_scores():
  for answer in ([['a', 0.5], ['b', 0.25]], [[['a', 0.5], ['b', 0.25]]]):
    with served(_answers({'result': answer})) as url:
      hits = ask(url).hits
    assert [(hit.text, hit.score) for hit in hits] == [('a', 0.5), ('b', 0.25)]


@pytest.mark.parametrize(
    ('answer', 'words'),
    [
        ({'result': [[{'id': '7', 'contentz': 'x'}]]}, '"contentz"'),
        ({'result': [[{'document': {'id': '7'}, 'score': 1}]]}, '"id"'),
        ({'result': [[{'title': 'Paris', 'contents': None}]]}, '"contents"'),
        ({'result': [[{'contents': 5}]]}, '"contents"'),
        ({'error': 'index not loaded', 'result': []}, 'index not loaded'),
        ({'success': False, 'results': []}, 'it failed'),
        ({'status': 'error', 'message': 'not ready', 'results': []},
         'not ready'),
        ({'result': [[{'text': {'a': 1}}]]}, 'no text'),
        ({'result': [[7]]}, 'result 0 is 7'),
        ({'result': [[_DOCUMENT, _DOCUMENT, None]]}, 'result 2 is null'),
        ({'rezults': [[_DOCUMENT]]}, '"rezults"'),
        ({'result': [[_DOCUMENT], [_DOCUMENT]]}, '2 lists'),
        ({'result': 'x', 'a\nb': 1}, '"result"'),
        (7, '"result"'),
        ({'error': 'no index'}, 'no documents.*no index'),
        ({'detail': [{'loc': ['body'], 'msg': 'no topk'}]}, 'no topk'),
    ],
)
def test_an_answer_of_another_kind_is_said_at_connect(answer, words):
  with served(_answers(answer)) as url:
    with pytest.raises(UserError, match=words) as caught:
      Retriever.connect(url)
    assert '\n' not in str(caught.value) and url in str(caught.value)
    with pytest.raises(SearchError, match=words.split('.*')[-1]):
      ask(url)


def test_an_image_half_that_cannot_be_read_is_said():
  images_half = _answers({'result': [[{'pic': 'x'}]]}, '/retrieve_image')
  with served([*_answers({'result': [[]]}), *images_half]) as url:
    with pytest.raises(UserError, match="\"pic\".*--config.tools.image=''"):
      Retriever.connect(url)
  titles = _answers({'results': [{'title': 'A', 'link': 'x'}]}, '/{path:.*}')
  with served(titles) as url:
    hits = ask(url, image=PIXEL).hits
  assert hits == (Hit(title='A', text='', score=0.0),)


def test_an_answer_unlike_the_probe_s_is_one_line(caplog):
  left = [{'result': [[_DOCUMENT]]}]

  async def retrieve(unused_request):
    value = left.pop() if left else {'result': [[{'id': 8, 'words': 'x'}]]}
    return web.json_response(value)

  with served([web.post('/retrieve', retrieve)]) as url:
    backend = Retriever.connect(url)
    executor = make_executor(text_search(backend, top_k=1), backend=backend)
    call = ToolCall(name='text_search', arguments={'query': 'q'})
    result = asyncio.run(executor.run(call, CONTEXT))
  assert result.status == ToolStatus.INFRA_ERROR and not result.hits
  assert '"words"' in result.error and '\n' not in result.error
  assert 'text_search failed' in caplog.text
  assert 'Traceback' not in caplog.text


@st.composite
def _retrieved(draw):
  """An answer, and the field of it that cannot be known, if any."""
  name = draw(st.sampled_from(['contents', 'content', 'text', 'page_content',
                               'passage', 'body', 'snippet', 'pageContent']))
  document = {'title': 'Paris', name: 'is a city'}
  for extra in ('id', 'url', 'x_extra'):
    if draw(st.booleans()):
      document[extra] = draw(st.sampled_from([None, 7, 'x', ['y'], {}]))
  broken = draw(st.sampled_from([''] * 3 + ['drop', 'rename', 'retype']))
  named = ''
  if broken:
    named = name
    value = document.pop(name)
    if broken == 'rename':
      named = f'{name}_x'
      document[named] = value
    elif broken == 'retype':
      document[name] = draw(st.sampled_from([7, True, 2.5]))
    else:
      named = 'contents'
  scores = [None, '1.5', 'high', float('nan'), [], 'absent']
  score = draw(st.sampled_from(scores))
  item = draw(
      st.sampled_from(
          [document, {'document': document}, {'_source': document},
           {'metadata': document}, {'node': document}]
      )
  )
  if score != 'absent':
    item = draw(st.sampled_from([{**item, 'score': score}, [item, None]]))
  inner = draw(st.sampled_from([[item], [[item]]]))
  lists = ['result', 'results', 'documents', 'docs', 'hits', 'data', 'passages']
  key = draw(st.sampled_from(lists))
  if draw(st.sampled_from([False] * 5 + [True])):
    return {f'{key}_x': inner}, f'{key}_x'
  wholes = [
      {key: inner}, {key: inner, 'took': 3}, inner, {key: {'hits': inner}},
  ]  # fmt: skip
  return draw(st.sampled_from(wholes)), named


@pytest.mark.long
@given(_retrieved())
def test_an_answer_is_read_as_it_was_meant_or_the_field_is_named(drawn):
  answer, named = drawn
  try:
    hits = [retrieved.text_hit(*one) for one in retrieved.documents(answer)]
  except http_json.Garbled as error:
    assert named and f'"{named}"' in str(error)
    return
  assert not named and hits == [_HIT]

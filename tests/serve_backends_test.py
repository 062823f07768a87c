"""Any search backend over HTTP: what it finds comes back to the byte."""

import asyncio
import dataclasses
import json
import urllib.request

from aiohttp import test_utils
import pytest

from configs import retrieve
from gog_jax import images
from gog_jax.app import commands
from gog_jax.config import from_page
from gog_jax.config.tools import IMAGE
from gog_jax.config.tools import TEXT
from gog_jax.errors import UserError
from gog_jax.tools import serve
from gog_jax.tools.base import SearchError
from gog_jax.tools.retriever import Retriever
from gog_jax.toy import knowledge
from gog_jax.toy.backend import WorldBackend
from gog_jax.types import Hit
from gog_jax.types import ToolResult
from tests import seams_tools_test
from tests import world_helpers
from tests.serve_test import picture
from tests.serve_test import post
from tests.serve_test import served


class Shelf:
  """Answers with what it is given, and knows what it was asked."""

  version = 'shelf/1'
  kinds = (TEXT, IMAGE)

  def __init__(self, *hits):
    self.hits, self.asked = hits, []

  async def search_text(self, query, *, scope, top_k):
    self.asked.append((query, scope, top_k))
    return ToolResult(hits=self.hits)

  search_image = search_text

def _asked(backends, ask):
  """What `ask(client, url)` returns of a server in this process."""

  async def scenario():
    app = serve.make_app(backends, top_k=2)
    async with test_utils.TestServer(app) as server:
      url = str(server.make_url('')).rstrip('/')
      client = await asyncio.to_thread(Retriever.connect, url)
      found = await ask(client, url)
      await client.close()
    return found

  return asyncio.run(scenario())


# What Search-R1's '"title"\ntext' does not tell apart, among others.
ODD = (
    ('Title', 'Two\nlines'), ('', 'Two\nlines'), ('', 'one'), ('', ''),
    ('"Zebra" or "horse"', 'quoted'), (' wide ', ''), ('two\nlines', '\n'),
    ('"', '"'), ('\u00dc\u65e5\ud800', '\x00<|im_end|>'),
)  # fmt: skip


def test_any_backend_is_served_to_the_byte_scope_included():
  png = images.encode_png(picture(7))
  hits = [
      Hit(title=title, text=text, score=0.1 + i / 3, image=(None, png)[i % 2])
      for i, (title, text) in enumerate(ODD)
  ]
  shelf = Shelf(*hits)

  async def ask(client, unused_url):
    assert client.version == 'retriever/shelf/1'
    return [
        await client.search_text('who?', scope='here', top_k=20),
        await client.search_image(png, scope='there', top_k=20),
        await client.search_text('who?', scope='', top_k=20),
    ]

  for found in _asked({TEXT: shelf, IMAGE: shelf}, ask):
    assert found.hits == shelf.hits
  assert shelf.asked == [
      ('who?', 'here', 20), (png, 'there', 20), ('who?', '', 20)
  ]  # fmt: skip


def test_the_world_is_the_same_over_http():
  """With its documents and noisy emblems, by words, scene and crop."""
  world = WorldBackend()
  examples = [one.example for one in world_helpers.questions_of('hard', 3, 40)]
  noisy = knowledge.make_scope(
      'hard', 1, dataclasses.replace(knowledge.USUAL, noise=0.2)
  )

  async def ask(client, unused_url):
    for example in examples:
      scene = images.decode(example.images[0])
      crop = images.encode_png(scene.crop((20, 30, 90, 110)))
      for scope in (example.scope, noisy):
        word = knowledge.world_of(scope).documents[0][1]
        for search, asked in (
            ('search_text', word),
            ('search_image', example.images[0]),
            ('search_image', crop),
        ):
          there, here = [
              await getattr(one, search)(asked, scope=scope, top_k=5)
              for one in (client, world)
          ]
          assert there.hits and there.hits == here.hits
    with pytest.raises(SearchError, match="400: scope '' is not one of"):
      await client.search_text('who', scope='', top_k=1)

  _asked({TEXT: world, IMAGE: world}, ask)


def test_what_is_not_served_is_said():
  shelf = Shelf()

  async def ask(client, url):
    assert (client.kinds, client.version) == ((TEXT,), 'retriever/shelf/1')
    await asyncio.to_thread(post, f'{url}/retrieve', {'queries': ['a']})
    return await asyncio.to_thread(
        post, f'{url}/retrieve_image', {'images': []}
    )

  assert _asked({TEXT: shelf}, ask) == (
      404, {'error': 'nothing is searched with images here'}
  )  # fmt: skip
  assert shelf.asked == [('a', '', 2)]


def test_a_backend_of_ones_own_is_prepared_served_and_closed(tmp_path):
  (tmp_path / 'mine.py').write_text(
      seams_tools_test.BACKEND
      + """
class Shelf(Notes):
  def prepare(self):
    open(__file__ + '.prepared', 'x').close()
  async def close(self):
    open(__file__ + '.closed', 'x').close()
"""
  )
  flag = f'--config.tools.backend={tmp_path}/mine.py:Shelf'
  with served(flag, holds='documents (notes/1)') as url:
    assert (tmp_path / 'mine.py.prepared').exists()
    _, reply = post(f'{url}/retrieve', {'queries': ['owls']})
    with urllib.request.urlopen(f'{url}/health') as health:
      assert json.load(health) == {
          'status': 'ok', 'version': 'notes/1', 'documents': True,
          'images': False,
      }  # fmt: skip
  assert reply['result'] == [[{'contents': '"note"\non owls'}]]
  assert (tmp_path / 'mine.py.closed').exists()


@pytest.mark.parametrize(
    ('fields', 'words'),
    [
        ({'tools.backend': ''}, 'nothing to serve: .*tools.backend'),
        ({'tools.mode': 'replay'}, 'tools.mode and tools.cache are for those'),
        ({'tools.cache': 'x'}, 'tools.mode and tools.cache are for those'),
        ({'tools.backend': 'shelf'}, "tools.backend: there is no 'shelf'"),
        ({'index': '/nowhere'}, 'no index in /nowhere; make it: '),
    ],
)
def test_what_cannot_be_served_is_one_line(fields, words, tmp_path):
  page = retrieve.get_config()
  page.update_from_flattened_dict(fields)
  with pytest.raises(UserError, match=words) as caught:
    commands.do(from_page(page), tmp_path)
  assert '\n' not in str(caught.value)

"""A local index over HTTP: Search-R1's protocol, images, and bad requests."""

import asyncio
import base64
import contextlib
import json
import os
import pathlib
import signal
import socket
import subprocess
import sys
import time
import urllib.error
import urllib.request

import numpy as np
import pytest

from gog_jax import images
from gog_jax.config.tools import IMAGE
from gog_jax.config.tools import TEXT
from gog_jax.errors import UserError
from gog_jax.index import build
from gog_jax.index.backend import LocalIndex
from gog_jax.tools import serve
from gog_jax.tools.retriever import KEY_VARIABLE
from gog_jax.tools.retriever import Retriever
from tests import chaos_server

_ROOT = pathlib.Path(__file__).parents[1]
KEY = 'open-sesame-4711'


def picture(seed):
  """Blocks of colours: no two seeds look alike."""
  rng = np.random.default_rng(seed)
  blocks = rng.integers(0, 256, (12, 16, 3), dtype=np.uint8)
  return images.Image.fromarray(blocks).resize((320, 240))


@pytest.fixture(scope='module')
def folder(tmp_path_factory):
  folder = tmp_path_factory.mktemp('serve')
  pictures = folder / 'pictures'
  pictures.mkdir()
  for i in range(5):
    picture(i).save(pictures / f'p{i}.png')
  (pictures / 'p1.txt').write_text('The <second> one')
  docs = [
      {'id': 'd1', 'contents': '"Zebra"\nStripes all over.'},
      {'id': 'd2', 'title': 'Heron', 'text': 'It stands.', 'image': 'p2.png'},
  ]
  lines = [json.dumps(document) + '\n' for document in docs]
  (folder / 'docs.jsonl').write_text(''.join(lines))
  build.build(
      str(folder / 'index'),
      docs=str(folder / 'docs.jsonl'),
      images=str(pictures),
  )
  return folder


@contextlib.contextmanager
def served(*flags, holds, **env):
  """The command, in a process of its own; its address."""
  process = subprocess.Popen(
      [
          sys.executable, '-m', 'gog_jax.main', '--config=configs/retrieve.py',
          '--config.port=0', *flags,
      ],
      cwd=_ROOT,
      stdout=subprocess.PIPE,
      stderr=subprocess.PIPE,
      text=True,
      env=os.environ | env,
  )  # fmt: skip
  try:
    line = process.stdout.readline()
    assert line.startswith('ready: http://127.0.0.1:'), process.stderr.read()
    assert f' serves {holds}' in line
    yield line.split()[1]
    process.send_signal(signal.SIGTERM)
    out, err = process.communicate(timeout=20)
    assert out == '' and process.returncode == 128 + signal.SIGTERM
    assert 'Traceback' not in err and 'gog_jax: stopped' in err
  finally:
    process.kill()
    process.communicate()


def _index_served(folder, **env):
  holds = '2 documents and 5 images (index/'
  return served(f'--config.index={folder / "index"}', holds=holds, **env)


@pytest.fixture(scope='module')
def url(folder):
  with _index_served(folder) as url:
    yield url


def post(url, body, **headers):
  """(status, JSON)."""
  data = body if isinstance(body, bytes) else json.dumps(body).encode()
  request = urllib.request.Request(url, data, headers)
  try:
    with urllib.request.urlopen(request) as reply:
      return reply.status, json.load(reply)
  except urllib.error.HTTPError as error:
    return error.code, json.load(error)


def _base64(seed):
  return base64.b64encode(images.encode_png(picture(seed))).decode()


def test_text_is_answered_as_search_r1_does(url):
  body = {'queries': ['zebra', 'heron stands', 'xyz'], 'topk': 2}
  status, reply = post(f'{url}/retrieve', body | {'return_scores': True})
  assert status == 200
  zebra, heron, none = reply['result']
  assert zebra[0]['document'] == {
      'id': 'd1', 'contents': '"Zebra"\nStripes all over.',
  }  # fmt: skip
  assert heron[0]['document']['contents'] == '"Heron"\nIt stands.'
  assert zebra[0]['score'] > 0 and none == []
  _, plain = post(f'{url}/retrieve', body)
  assert plain['result'][0] == [zebra[0]['document']]


def test_images_are_answered_with_what_they_carry(url):
  body = {'images': [_base64(1), _base64(2)], 'topk': 1}
  status, reply = post(f'{url}/retrieve_image', body)
  assert status == 200
  (second,), (third,) = reply['result']
  assert second['document'] == {
      'id': 'p1.png', 'title': 'p1', 'caption': 'The <second> one',
      'image': 'p1.png', 'link': '',
  }  # fmt: skip
  assert third['document']['title'] == 'Heron'
  assert third['document']['link'] == 'd2'
  assert 0.8 < second['score'] <= 1


def test_our_client_gets_what_the_index_gives(url, folder):
  client, index = Retriever.connect(url), LocalIndex(str(folder / 'index'))
  assert client.version == f'retriever/{index.version}'

  async def both(ask):
    found = [await ask(one) for one in (client, index)]
    await client.close()
    return found

  data = images.encode_png(picture(2))
  for ask in (
      lambda one: one.search_text('heron', scope='', top_k=2),
      lambda one: one.search_image(data, scope='', top_k=3),
  ):
    there, here = asyncio.run(both(ask))
    assert there.hits and there.hits == here.hits
    assert json.loads(there.raw)['result']


@pytest.mark.parametrize(
    ('path', 'body', 'status', 'words'),
    [
        ('retrieve', b'{', 400, 'not JSON'),
        ('retrieve', b'\xff', 400, 'not JSON'),
        ('retrieve', b'[' * 10**5, 400, 'not JSON'),
        ('retrieve', [], 400, 'not a JSON object'),
        ('retrieve', {}, 400, 'queries is missing'),
        ('retrieve', {'queries': 'a'}, 400, 'queries must be a list'),
        ('retrieve', {'queries': ['a'] * 1025}, 400, 'at most 1024'),
        ('retrieve', {'queries': [1]}, 400, 'queries[0] must be text'),
        ('retrieve', {'queries': ['a' * 9000]}, 400, 'at most 8192'),
        ('retrieve', {'queries': ['a'], 'topk': 0}, 400, 'from 1 to 100'),
        ('retrieve', {'queries': ['a'], 'topk': True}, 400, 'a whole number'),
        ('retrieve', {'queries': ['a'], 'topk': 10**9}, 400, 'from 1 to 100'),
        ('retrieve_image', {'images': ['?']}, 400, 'base64'),
        ('retrieve_image', {'images': [3]}, 400, 'images[0] must be text'),
        ('retrieve_image', {'images': ['aGk=']}, 400, 'images[0]: cannot'),
        (
            'retrieve_image',
            {'images': [
                base64.b64encode(chaos_server.bomb(100_000)).decode()
            ]},
            400,
            'decompression bomb',
        ),
        ('retrieve', b' ' * (32 * 2**20 + 1), 413, 'Too Large'),
        ('nothing', {}, 404, 'Not Found'),
        ('health', {}, 405, 'Not Allowed'),
    ],
)  # fmt: skip
def test_a_bad_request_is_told_why(url, path, body, status, words):
  found, reply = post(f'{url}/{path}', body)
  assert found == status
  assert words in reply['error'] and '\n' not in reply['error']
  # And the next is answered.
  assert post(f'{url}/retrieve', {'queries': ['zebra']})[0] == 200


def test_health_says_what_is_served(url, folder):
  with urllib.request.urlopen(f'{url}/health') as reply:
    assert json.load(reply) == {
        'status': 'ok',
        'version': LocalIndex(str(folder / 'index')).version,
        'documents': 2,
        'images': 5,
    }


def test_odd_headers_and_paths_are_answered(url):
  body = {'queries': ['zebra'], 'topk': None}
  assert post(f'{url}/retrieve', body, Authorization='B\xff')[0] == 200
  assert post(f'{url}/no%0aFAKE', body)[0] == 404


def test_a_picture_larger_than_a_photograph_is_refused(url):
  large = images.encode_png(images.Image.new('1', (5000, 5000)))
  body = {'images': [base64.b64encode(large).decode()]}
  status, reply = post(f'{url}/retrieve_image', body)
  assert status == 400 and '5000 x 5000 pixels are more' in reply['error']


def test_who_sets_a_key_demands_it_and_a_stalled_client_holds_up_nothing(
    folder,
):
  body = {'queries': ['zebra']}
  with _index_served(folder, **{KEY_VARIABLE: KEY}) as url:
    status, reply = post(f'{url}/retrieve', body)
    assert status == 401 and KEY not in json.dumps(reply)
    assert post(f'{url}/retrieve', body, Authorization='Bearer x')[0] == 401
    given = post(f'{url}/retrieve', body, Authorization=f'Bearer {KEY}')
    assert given[0] == 200
    host, port = url.removeprefix('http://').split(':')
    stalled = socket.create_connection((host, int(port)))
    stalled.sendall(
        b'POST /retrieve HTTP/1.1\r\nHost: x\r\nContent-Length: 99\r\n'
        + f'Authorization: Bearer {KEY}\r\n\r\n{{'.encode()
    )
    time.sleep(0.5)
  stalled.close()  # The server has ended before, within its time.


@pytest.mark.parametrize(
    ('host', 'port', 'words'),
    [
        ('127.0.0.1', None, 'cannot listen on 127.0.0.1:'),
        ('127.0.0.1', 70000, 'cannot listen on 127.0.0.1:70000'),
        ('no.such.host.invalid', 0, 'cannot listen on no.such'),
        ('', 0, '--config.host is empty'),
    ],
)
def test_where_nobody_can_listen_is_one_line(folder, host, port, words):
  with socket.socket() as taken:
    taken.bind(('127.0.0.1', 0))
    taken.listen()
    port = taken.getsockname()[1] if port is None else port
    with pytest.raises(UserError, match=words) as caught:
      index = LocalIndex(str(folder / 'index'))
      serve.serve(
          {TEXT: index, IMAGE: index}, host=host, port=port, top_k=1
      )
  assert '\n' not in str(caught.value)

"""What is searched: probed at the start, text and images chosen apart."""

from __future__ import annotations

import asyncio
import contextlib
import http.server
import json
import threading

import pytest

from gog_jax.app import stages
from gog_jax.config.tools import IMAGE
from gog_jax.config.tools import TEXT
from gog_jax.errors import UserError
from gog_jax.index import build
from gog_jax.storage import trajectories as store
from gog_jax.tools.base import describe
from gog_jax.tools.base import ToolContext
from gog_jax.types import Hit
from gog_jax.types import ToolCall
from gog_jax.types import ToolResult
from gog_jax.types import ToolStatus
from gog_jax.types import Trajectory
from gog_jax.types import View
from tests import index_helpers
from tests import mini
from tests import seams_tools_test
from tests import world_helpers

OK, DOWN = ToolStatus.OK, ToolStatus.INFRA_ERROR
SHOWS = 'Crop a region of an image and see it enlarged.'
PLAY = """
def play(request, turns):
  if not turns:
    return 'look', [('gaze', {'bbox_2d': [0, 0, 42, 42]})], None
  if len(turns) == 1:
    return 'ask', [('text_search', {'query': 'red'})], None
  return 'so', [], turns[-1].results[0].hits[0].title
"""


class _SearchR1(http.server.BaseHTTPRequestHandler):
  """A plain Search-R1 server: texts, by whatever address it is asked."""

  protocol_version = 'HTTP/1.1'

  def do_POST(self):
    size = int(self.headers['Content-Length'])
    asked = json.loads(self.rfile.read(size))
    document = {'id': '1', 'contents': '"Red"\nA colour.'}
    found = [{'document': document, 'score': 1.0}]
    body = json.dumps({'result': [found for _ in asked['queries']]}).encode()
    self.send_response(200)
    self.send_header('Content-Length', str(len(body)))
    self.end_headers()
    self.wfile.write(body)

  def log_message(self, *unused_args):
    pass


class _Server(http.server.ThreadingHTTPServer):

  def handle_error(self, *unused_args):
    pass  # A request without queries: the connection is dropped.


@contextlib.contextmanager
def search_r1():
  server = _Server(('127.0.0.1', 0), _SearchR1)
  thread = threading.Thread(target=server.serve_forever)
  thread.start()
  try:
    yield f'http://127.0.0.1:{server.server_port}'
  finally:
    server.shutdown()
    thread.join()
    server.server_close()


@pytest.fixture(name='index', scope='module')
def _index(tmp_path_factory):
  """Pictures and documents."""
  folder = tmp_path_factory.mktemp('index')
  pictures = folder / 'pictures'
  pictures.mkdir()
  (question,) = world_helpers.questions_of('test', 1)  # Who is asked by `play`.
  (pictures / 'a.png').write_bytes(question.example.images[0])
  docs = index_helpers.write_docs(
      folder / 'docs.jsonl', {'id': '1', 'title': 'Mine', 'text': 'red text'}
  )
  build.build(str(folder / 'index'), docs=docs, images=str(pictures))
  return str(folder / 'index')


@pytest.fixture(name='asked', scope='module')
def _asked(tmp_path_factory):
  """Questions of one's own: about the world a retriever knows nothing."""
  folder = tmp_path_factory.mktemp('asked')
  rows = []
  for i, one in enumerate(world_helpers.questions_of('test', 12)):
    (folder / f'{i}.png').write_bytes(one.example.images[0])
    rows.append({'question': f'{i}?', 'answer': 'Red', 'image': f'{i}.png'})
  path = folder / 'asked.jsonl'
  path.write_text(''.join(json.dumps(row) + '\n' for row in rows))
  return {'questions__test': (f'jsonl:{path}',)}


def described(run):
  return {
      name: describe(tool)['description']
      for name, tool in run.executor.tools.items()
  }


def test_an_evaluation_with_a_text_only_retriever(asked, tmp_path, capsys):
  (tmp_path / 'play.py').write_text(PLAY)
  with search_r1() as url:
    run = mini.make_run(
        tmp_path / 'run',
        'eval',
        eval__policies=('gog@script',),
        eval__script=f'{tmp_path}/play.py:play',
        eval__n_examples=12,
        **asked,
        tools__backend='retriever',
        tools__url=url,
    )
    said = capsys.readouterr().err
    assert [line for line in said.splitlines() if 'tools:' in line] == [
        f'tools: retriever/{url} cannot be searched with images: image_search '
        'is not offered, gaze shows its crop alone'
    ]
    assert described(run) == {
        'text_search': 'Search documents with a text query.', 'gaze': SHOWS,
    }  # fmt: skip
    mini.make_stages(run, 'eval')
  folder = run.workdir / 'eval' / 'gog@script'
  manifest = json.loads((folder / 'manifest.json').read_text())
  assert manifest['facts']['infra_errors'] == 0 and manifest['facts']['n'] == 12
  for t in store.read(folder / 'trajectories.jsonl', Trajectory):
    gazed, found = (turn.results[0] for turn in t.turns[:2])
    assert gazed.status == OK and gazed.view == t.images[1] and not gazed.hits
    assert found.status == OK and t.answer == 'Red'


def test_nobody_there_is_said_before_anything(tmp_path):
  with search_r1() as url:
    pass
  with pytest.raises(UserError, match='no retriever answers at config.tools'):
    mini.make_run(
        tmp_path, 'inspect', tools__backend='retriever', tools__url=url
    )
  assert not list(tmp_path.iterdir())


def test_text_by_a_retriever_and_images_by_ones_own_index(index, tmp_path):
  played = (
      [seams_tools_test.call('image_search')],
      [seams_tools_test.call('text_search', query='red')],
  )
  with search_r1() as url:
    apart = {
        'tools__text': 'retriever',
        'tools__url': url,
        'tools__image': 'index',
        'tools__index': index,
        **seams_tools_test.ROOM,
    }

    def results(**fields):
      run = mini.make_run(tmp_path / 'run', 'inspect', **apart, **fields)
      t = seams_tools_test.play(run, *played)
      return run, seams_tools_test.results(t)

    run, (seen, found) = results(tools__mode='record')
    assert list(run.executor.tools) == ['text_search', 'image_search', 'gaze']
    assert seen.hits[0].title == 'a' and found.hits[0].title == 'Red'
    versions = {k: one.version for k, one in run.toolbox.backends.items()}
    assert versions[TEXT] == f'retriever/{url}'
    assert versions[IMAGE].startswith('index/')
    assert run.toolbox.version == (
        f'text {versions[TEXT]}, image {versions[IMAGE]}'
    )
    manifest = stages.manifest_of(run, 'grade')
    assert manifest.inputs['searched'] == run.toolbox.version
    assert manifest.config['tools.image'] == 'index'
  # Nobody is there any more, and nobody is asked.
  again, told = results(tools__mode='replay')
  assert again.toolbox.version == run.toolbox.version
  assert [r.hits for r in told] == [seen.hits, found.hits]


def test_a_folder_of_recordings_holds_one_choice(index, tmp_path):
  fields = {
      'tools__backend': 'index', 'tools__index': index, 'tools__mode': 'record',
  }  # fmt: skip
  whole = mini.make_run(tmp_path, 'inspect', **fields)
  assert whole.toolbox.recording is not None
  whole.toolbox.recording.close()
  with pytest.raises(UserError, match='is a recording of index/.*not of text'):
    mini.make_run(tmp_path, 'inspect', tools__image='', **fields)


@pytest.mark.parametrize(
    ('text', 'image', 'told'),
    [
        ('index', '', {'text_search': ..., 'gaze': SHOWS}),
        ('', 'index', {'image_search': ..., 'gaze': ...}),
        ('', '', {'gaze': SHOWS}),
    ],
)
def test_none_is_a_choice(index, tmp_path, capsys, text, image, told):
  run = mini.make_run(
      tmp_path,
      'inspect',
      tools__text=text,
      tools__image=image,
      tools__index=index,
  )
  found = described(run)
  assert list(found) == list(told)
  assert (found['gaze'] == SHOWS) == (not image)
  assert 'tools:' not in capsys.readouterr().err  # As it was told to.


def test_what_was_chosen_for_images_has_to_search_with_them(tmp_path):
  with search_r1() as url:
    with pytest.raises(UserError, match='tools.image=retriever cannot be sear'):
      mini.make_run(
          tmp_path, 'inspect', tools__image='retriever', tools__url=url
      )


def test_what_is_not_chosen_is_as_the_backend():
  def chosen(**fields):
    tools = mini.make_config('inspect', **fields).tools
    return tools.text, tools.image

  assert chosen() == ('world', 'world')
  assert chosen(tools__backend='index') == ('index', 'index')
  assert chosen(tools__backend='index', tools__text='mine.py:Notes') == (
      'mine.py:Notes', 'index',
  )  # fmt: skip
  assert chosen(tools__image='') == ('world', '')


class Down:
  """Would find texts, if it worked."""

  version = 'down/1'
  kinds = (TEXT,)
  closed = 0

  async def search_text(self, query, *, scope, top_k):
    raise ConnectionError('out of order')

  async def close(self):
    Down.closed += 1


class Pictures:
  """Finds pictures, and need not be closed."""

  version = 'pictures/1'
  kinds = (IMAGE,)

  async def search_image(self, data, *, scope, top_k):
    return ToolResult(hits=(Hit(title='seen', text='', score=1.0),))


def test_one_that_rests_does_not_rest_the_other(tmp_path, monkeypatch):
  monkeypatch.setattr(Down, 'closed', 0)
  run = mini.make_run(
      tmp_path,
      'inspect',
      tools__text='tests.backends_test:Down',
      tools__image='tests.backends_test:Pictures',
      tools__rest_after=2,
      tools__rest_s=60.0,
      tools__timeout_s=0.5,
  )
  picture = index_helpers.encoded(index_helpers.picture(1))
  view = View(data=picture, root=0, box=(0, 0, 120, 90))
  context = ToolContext(scope='', views=(view,))

  async def scenario():
    for name in ['text_search'] * 4 + ['image_search'] * 2:
      arguments = {'query': 'q'} if name == 'text_search' else {}
      call = ToolCall(name=name, arguments=arguments)
      yield await run.executor.run(call, context)
    await run.executor.close()

  async def results():
    return [result async for result in scenario()]

  found = asyncio.run(results())
  assert [r.status for r in found] == [DOWN] * 4 + [OK] * 2
  assert 'down/1 rests' in found[3].error and found[5].hits[0].title == 'seen'
  assert Down.closed == 1

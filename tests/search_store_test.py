"""What is kept of searches: cache, recording, replay."""

import asyncio
import json
import sqlite3
import subprocess
import sys

import pytest

from gog_jax import images
from gog_jax.errors import UserError
from gog_jax.tools import cache as cache_lib
from gog_jax.tools.base import Query
from gog_jax.tools.base import RunStopped
from gog_jax.tools.base import ToolContext
from gog_jax.tools.outcome import call_key
from gog_jax.tools.outcome import Outcome
from gog_jax.tools.recording import Recording
from gog_jax.types import Hit
from gog_jax.types import ToolCall
from gog_jax.types import ToolStatus
from tests.search_helpers import Fake
from tests.search_helpers import make_executor

pytestmark = pytest.mark.quick

_CONTEXT = ToolContext(scope='s', views=(), caller='q/7/0')
_BACKEND = 'router/1'


class Plain(Fake):
  """Asks the same whoever calls."""

  async def query(self, arguments, context):
    text = f'{self.name} {arguments["x"]}'
    self._asked[text] = (arguments['x'], context)
    return Query(text=text, scope=context.scope, top_k=1)


def _call(x=0, name='fake'):
  return ToolCall(name=name, arguments={'x': x})


def _cache(path, *, days=1.0, max_bytes=1e9):
  return cache_lib.Cache(path, days=days, max_bytes=max_bytes)


def _turn(executor, *xs, context=_CONTEXT):
  calls = [_call(x) for x in xs]
  return asyncio.run(executor.run_turn(calls, context))


def _outcome(**fields):
  return Outcome(**{'status': ToolStatus.OK, **fields})


def test_the_key_is_all_that_an_answer_depends_on():
  query = Query(text='a', scope='s', top_k=1)
  keys = {
      call_key(call, q, backend=backend)
      for call, q, backend in [
          (_call(), query, 'b'),
          (_call(1), query, 'b'),
          (_call(name='other'), query, 'b'),
          (_call(), query, 'c'),
          (_call(), Query(text='b', scope='s', top_k=1), 'b'),
          (_call(), Query(text='a', scope='t', top_k=1), 'b'),
          (_call(), Query(text='a', scope='s', top_k=2), 'b'),
          (_call(), Query(image=b'1', scope='s', top_k=1), 'b'),
          (_call(), Query(image=b'2', scope='s', top_k=1), 'b'),
      ]
  }
  assert len(keys) == 9
  # And of nothing else: arguments are canonical.
  one = ToolCall(name='f', arguments={'a': 1, 'b': 2})
  other = ToolCall(name='f', arguments={'b': 2, 'a': 1})
  assert call_key(one, query, backend='b') == call_key(
      other, query, backend='b'
  )


def test_a_cache_answers_the_next_run(tmp_path):
  path = tmp_path / 'cache.sqlite'
  first, second = Plain(), Plain()
  told = _turn(make_executor(first, cache=_cache(path)), 1, 2)
  executor = make_executor(second, cache=_cache(path))
  again = _turn(executor, 1, 2, 3)
  assert (first.n_calls, second.n_calls) == (2, 1)
  assert [r.hits for r in again[:2]] == [r.hits for r in told]
  assert executor.metrics()['fake/cached'] == 2
  assert executor.metrics()['fake/searches'] == 3


def test_failures_are_never_cached(tmp_path):
  failures = [ConnectionError('down'), ValueError('no')]

  async def play(unused_x, unused_context):
    if failures:
      raise failures.pop(0)

  tool = Plain(play)
  executor = make_executor(tool, cache=_cache(tmp_path / 'c'))
  statuses = [_turn(executor, 1)[0].status for _ in range(4)]
  assert statuses == [ToolStatus.INFRA_ERROR] * 2 + [ToolStatus.OK] * 2
  assert tool.n_calls == 3


def test_equal_calls_side_by_side_are_one_search(tmp_path):
  async def slow(unused_x, unused_context):
    await asyncio.sleep(0.05)

  tool = Plain(slow)
  executor = make_executor(tool, cache=_cache(tmp_path / 'c'))
  results = _turn(executor, *[1] * 6, 2)
  assert tool.n_calls == 2
  assert {r.hits[0].text for r in results} == {'reply 1', 'reply 2'}
  # Without a place to keep answers each is a search of its own.
  tool = Plain(slow)
  _turn(make_executor(tool), *[1] * 6)
  assert tool.n_calls == 6


def test_old_answers_are_asked_for_anew(tmp_path):
  path = tmp_path / 'c'
  query = Query(text='a', scope='s', top_k=1)
  _cache(path).put('k', _call(), query, _outcome())
  assert _cache(path).get('k') is not None
  with sqlite3.connect(path) as db:
    db.execute('UPDATE answers SET time = time - 90000')
  assert _cache(path, days=2).get('k') is not None
  assert _cache(path, days=1).get('k') is None


def test_a_cache_gives_back_what_it_was_given(tmp_path):
  image = images.encode_png(images.Image.new('RGB', (3, 2), 'red'))
  outcome = _outcome(
      hits=(
          Hit(title='t\u2028', text='\ud800 \x00', score=0.1, image=image),
          Hit(title='', text='', score=1 / 3),
      ),
      raw='{"x": 1}',
      price=0.1,
      latency_s=1 / 7,
      time='2026-01-01T00:00:00.000+00:00',
  )
  query = Query(text='a', scope='s', top_k=1)
  _cache(tmp_path / 'c').put('k', _call(), query, outcome)
  assert _cache(tmp_path / 'c').get('k') == outcome


def test_the_oldest_answers_go_when_the_file_is_too_big(tmp_path):
  cache = _cache(tmp_path / 'c', max_bytes=200_000)
  query = Query(text='a', scope='s', top_k=1)
  outcome = _outcome(raw='x' * 4000)
  for i in range(640):
    cache.put(f'k{i}', _call(), query, outcome)
  cache.close()
  assert (tmp_path / 'c').stat().st_size < 600_000
  kept = [_cache(tmp_path / 'c').get(f'k{i}') is not None for i in range(640)]
  assert kept[-1] and not kept[0]
  assert 20 < sum(kept) < 130


@pytest.mark.parametrize('what', ['text', 'folder', 'gs'])
def test_what_is_no_cache_is_said_in_one_line(tmp_path, what):
  path = tmp_path / 'c'
  if what == 'text':
    path.write_text('not a database' * 100)
  elif what == 'folder':
    path.mkdir()
  else:
    path = 'gs://bucket/cache'
  with pytest.raises(UserError, match='config.tools.cache=') as caught:
    _cache(path)
  assert '\n' not in str(caught.value)


def test_a_damaged_answer_is_asked_for_anew(tmp_path):
  path = tmp_path / 'c'
  tool = Plain()
  _turn(make_executor(tool, cache=_cache(path)), 1)
  for body in ('{', '{}', '[]', '{"status": "fine"}'):
    with sqlite3.connect(path) as db:
      db.execute('UPDATE answers SET body = ?', (body,))
    assert _turn(make_executor(tool, cache=_cache(path)), 1)[0].hits
  assert tool.n_calls == 5


def test_processes_share_a_cache(tmp_path):
  script = f"""
import sys
from gog_jax.tools import cache
from gog_jax.tools.base import Query
from gog_jax.tools.outcome import Outcome
from gog_jax.types import ToolCall, ToolStatus
own = cache.Cache({str(tmp_path / 'c')!r}, days=1, max_bytes=1e9)
call = ToolCall(name='t', arguments={{}})
query = Query(text='a', scope='', top_k=1)
for i in range(200):
  own.put(sys.argv[1] + str(i), call, query, Outcome(status=ToolStatus.OK))
"""
  writers = [
      subprocess.Popen([sys.executable, '-c', script, name]) for name in 'ab'
  ]
  assert [writer.wait() for writer in writers] == [0, 0]
  cache = _cache(tmp_path / 'c')
  assert all(cache.get(f'{name}{i}') for name in 'ab' for i in range(200))


def _record(folder, tool, *xs, context=_CONTEXT, **more):
  executor = make_executor(
      tool, recording=Recording(folder, backend=_BACKEND), **more
  )
  return _turn(executor, *xs, context=context)


def _replay(folder, *xs, context=_CONTEXT):
  executor = make_executor(
      Plain(_never), recording=Recording(folder, backend=None), playing=True
  )
  return _turn(executor, *xs, context=context)


async def _never(unused_x, unused_context):
  raise AssertionError('a replay does not search')


async def _negative_fails(x, unused_context):
  if x < 0:
    raise ConnectionError('down')


def test_a_replay_is_the_run_that_was_recorded_to_the_last_bit(tmp_path):
  told = _record(tmp_path, Plain(_negative_fails), 1, -2, 3, 1)
  assert _replay(tmp_path, 1, -2, 3, 1) == told
  assert [r.status.value for r in told] == ['ok', 'infra_error', 'ok', 'ok']


def test_a_recorded_search_stands_when_it_is_made_again(tmp_path):
  changing = []

  async def play(unused_x, unused_context):
    changing.append(1)

  class Changes(Plain):
    async def search(self, text):
      reply = await super().search(text)
      hit = reply.hits[0]
      return type(reply)(
          hits=(type(hit)(title=str(len(changing)), text='', score=0.0),)
      )

  tool = Changes(play)
  first = _record(tmp_path, tool, 1)
  second = _record(tmp_path, tool, 1)  # A resumed run.
  assert first == second == _replay(tmp_path, 1)
  assert tool.n_calls == 1


def test_a_failure_is_that_of_one_call_of_one_rollout(tmp_path):
  fails = [True]

  async def play(unused_x, unused_context):
    if fails:
      fails.pop()
      raise ConnectionError('once')

  tool = Plain(play)
  early = ToolContext(scope='s', views=(), caller='q/1/0')
  late = ToolContext(scope='s', views=(), caller='q/2/0')
  told = [
      _record(tmp_path, tool, 1, context=early),
      _record(tmp_path, tool, 1, context=late),
  ]
  assert [r.status.value for (r,) in told] == ['infra_error', 'ok']
  # Whoever comes first.
  assert _replay(tmp_path, 1, context=late) == told[1]
  assert _replay(tmp_path, 1, context=early) == told[0]


def test_a_call_that_was_not_recorded_is_named(tmp_path):
  _record(tmp_path, Plain(), 1)
  with pytest.raises(RunStopped) as caught:
    _replay(tmp_path, 1, 17)
  assert 'does not hold the call fake {"x":17}' in str(caught.value)
  assert "scope 's'" in str(caught.value)


def test_the_file_is_for_people_too(tmp_path):
  _record(tmp_path, Plain(_negative_fails), 1, -1)
  rows = [
      json.loads(line)
      for line in (tmp_path / 'calls.jsonl').read_text().splitlines()
  ]
  by_status = {row['status']: row for row in rows}
  assert by_status['ok']['tool'] == 'fake'
  assert by_status['ok']['arguments'] == {'x': 1}
  assert by_status['ok']['hits'][0]['text'] == 'reply 1'
  assert by_status['ok']['time'].startswith('20')
  failed = by_status['infra_error']
  assert failed['error'] == 'fake failed: ConnectionError: down'
  assert failed['caller'] == 'q/7/0/1'


def test_a_line_that_a_kill_cut_off_is_taken_away(tmp_path):
  told = _record(tmp_path, Plain(), 1, 2)
  path = tmp_path / 'calls.jsonl'
  whole = path.read_bytes()
  start = whole.index(b'\n') + 1
  for cut in (start + 1, start + 40, len(whole) - 2):
    path.write_bytes(whole[:cut])
    assert Recording(tmp_path, backend=None).n_calls == 1  # Only read.
    assert path.read_bytes() == whole[:cut]
    again = _record(tmp_path, Plain(), 1, 2)
    kept = [r for r in told if r in again]
    assert len(kept) == 1
    assert [json.loads(x) for x in path.read_text().splitlines()]
  # Whole but for its end.
  path.write_bytes(whole[:-1])
  assert _record(tmp_path, Plain(_never), 1, 2) == told


def test_damage_is_one_line_that_names_the_place(tmp_path):
  _record(tmp_path, Plain(), 1, 2)
  path = tmp_path / 'calls.jsonl'
  path.write_text('{"key": 1}\n' + path.read_text())
  with pytest.raises(UserError, match='line 1, is damaged'):
    Recording(tmp_path, backend=None)
  (tmp_path / 'recording.json').write_text('{')
  with pytest.raises(UserError, match='recording.json is damaged'):
    Recording(tmp_path, backend=None)


def test_a_recording_is_of_one_backend(tmp_path):
  _record(tmp_path, Plain(), 1)
  with pytest.raises(UserError, match='recording of router/1, not of other/2'):
    Recording(tmp_path, backend='other/2')
  with pytest.raises(UserError, match='holds no recording'):
    Recording(tmp_path / 'none', backend=None)
  with pytest.raises(UserError, match='local disk'):
    Recording('gs://bucket/recording', backend='b')


def test_images_are_kept_by_their_content_and_looked_after(tmp_path):
  image = images.encode_png(images.Image.new('RGB', (3, 2), 'red'))
  query = Query(image=image, scope='s', top_k=1)
  outcome = _outcome(hits=(Hit(title='', text='', score=1.0, image=image),))
  recording = Recording(tmp_path, backend='b')
  recording.put('k', _call(), query, outcome)
  (path,) = (tmp_path / 'images').iterdir()
  assert Recording(tmp_path, backend=None).get('k') == outcome
  path.write_bytes(image[:-1])
  with pytest.raises(RunStopped, match='damaged'):
    Recording(tmp_path, backend=None).get('k')


def test_a_run_that_ends_waits_for_what_may_have_been_paid_for(tmp_path):
  async def slow(unused_x, unused_context):
    await asyncio.sleep(0.2)

  tool = Plain(slow)

  async def scenario(drain_s):
    executor = make_executor(
        tool,
        recording=Recording(tmp_path / str(drain_s), backend=_BACKEND),
        drain_s=drain_s,
    )
    turn = asyncio.create_task(executor.run_turn([_call(1)], _CONTEXT))
    await asyncio.sleep(0.05)
    turn.cancel()
    await asyncio.gather(turn, return_exceptions=True)
    await executor.close()
    assert tool.running == 0

  asyncio.run(scenario(5.0))
  asyncio.run(scenario(0.0))
  assert Recording(tmp_path / '5.0', backend=None).n_calls == 1
  assert Recording(tmp_path / '0.0', backend=None).n_calls == 0

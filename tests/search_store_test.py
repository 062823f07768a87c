"""What is kept of searches: the cache, and who shares a search."""

import asyncio
import sqlite3
import subprocess
import sys

import pytest

from gog_jax import images
from gog_jax.errors import UserError
from gog_jax.remote.ledger import Ledger
from gog_jax.storage.store import Store
from gog_jax.tools.base import Query
from gog_jax.tools.results import Cache
from gog_jax.tools.results import call_key
from gog_jax.types import Hit
from gog_jax.types import ToolCall
from gog_jax.types import ToolResult
from gog_jax.types import ToolStatus
from tests.search_helpers import call
from tests.search_helpers import CONTEXT
from tests.search_helpers import make_cache
from tests.search_helpers import make_executor
from tests.search_helpers import Plain
from tests.search_helpers import run_turn

pytestmark = pytest.mark.quick

_BACKEND = 'router/1'


def test_the_key_is_all_that_an_answer_depends_on():
  query = Query(text='a', scope='s', top_k=1)
  keys = {
      call_key(call, q, version=version)
      for call, q, version in [
          (call(), query, 'b'),
          (call(1), query, 'b'),
          (call(name='other'), query, 'b'),
          (call(), query, 'c'),
          (call(), Query(text='b', scope='s', top_k=1), 'b'),
          (call(), Query(text='a', scope='t', top_k=1), 'b'),
          (call(), Query(text='a', scope='s', top_k=2), 'b'),
          (call(), Query(image=b'1', scope='s', top_k=1), 'b'),
          (call(), Query(image=b'2', scope='s', top_k=1), 'b'),
      ]
  }
  assert len(keys) == 9
  # And of nothing else: arguments are canonical.
  one = ToolCall(name='f', arguments={'a': 1, 'b': 2})
  other = ToolCall(name='f', arguments={'b': 2, 'a': 1})
  assert call_key(one, query, version='b') == call_key(
      other, query, version='b'
  )


def test_a_cache_answers_the_next_run(tmp_path):
  path = tmp_path / 'cache.sqlite'
  first, second = Plain(), Plain()
  told = run_turn(make_executor(first, cache=make_cache(path)), 1, 2)
  executor = make_executor(second, cache=make_cache(path))
  again = run_turn(executor, 1, 2, 3)
  assert (first.n_calls, second.n_calls) == (2, 1)
  assert [r.hits for r in again[:2]] == [r.hits for r in told]
  assert executor.counts.totals()['fake/cached'] == 2
  assert executor.counts.totals()['fake/searches'] == 3


def test_failures_are_never_cached(tmp_path):
  failures = [ConnectionError('down'), ValueError('no')]

  async def play(unused_x, unused_context):
    if failures:
      raise failures.pop(0)

  tool = Plain(play)
  executor = make_executor(tool, cache=make_cache(tmp_path / 'c'))
  statuses = [run_turn(executor, 1)[0].status for _ in range(4)]
  assert statuses == [ToolStatus.INFRA_ERROR] * 2 + [ToolStatus.OK] * 2
  assert tool.n_calls == 3


def test_equal_calls_side_by_side_are_one_search(tmp_path):
  async def slow(unused_x, unused_context):
    await asyncio.sleep(0.05)

  tool = Plain(slow)
  executor = make_executor(tool, cache=make_cache(tmp_path / 'c'))
  results = run_turn(executor, *[1] * 6, 2)
  assert tool.n_calls == 2
  assert {r.hits[0].text for r in results} == {'reply 1', 'reply 2'}
  # Without a place to keep answers each is a search of its own.
  tool = Plain(slow)
  run_turn(make_executor(tool), *[1] * 6)
  assert tool.n_calls == 6


def test_old_answers_are_asked_for_anew(tmp_path):
  path = tmp_path / 'c'
  query = Query(text='a', scope='s', top_k=1)
  make_cache(path).put('k', call(), query, ToolResult())
  assert make_cache(path).get('k') is not None
  with sqlite3.connect(path) as db:
    db.execute('UPDATE answers SET time = time - 90000')
  assert make_cache(path, days=2).get('k') is not None
  assert make_cache(path, days=1).get('k') is None


def test_a_cache_gives_back_what_it_was_given(tmp_path):
  image = images.encode_png(images.Image.new('RGB', (3, 2), 'red'))
  outcome = ToolResult(
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
  make_cache(tmp_path / 'c').put('k', call(), query, outcome)
  assert make_cache(tmp_path / 'c').get('k') == outcome


def test_the_oldest_answers_go_when_the_file_is_too_big(tmp_path):
  store = Store(tmp_path / 'c', field='tools.cache', max_bytes=200_000)
  cache = Cache(store)
  query = Query(text='a', scope='s', top_k=1)
  outcome = ToolResult(raw='x' * 4000)
  for i in range(640):
    cache.put(f'k{i}', call(), query, outcome)
  store.close()
  assert (tmp_path / 'c').stat().st_size < 600_000
  again = make_cache(tmp_path / 'c')
  kept = [again.get(f'k{i}') is not None for i in range(640)]
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
    make_cache(path)
  assert '\n' not in str(caught.value)


def test_a_damaged_answer_is_asked_for_anew(tmp_path):
  path = tmp_path / 'c'
  tool = Plain()
  run_turn(make_executor(tool, cache=make_cache(path)), 1)
  for body in ('{', '{}', '[]', '{"status": "fine"}'):
    with sqlite3.connect(path) as db:
      db.execute('UPDATE answers SET body = ?', (body,))
    assert run_turn(make_executor(tool, cache=make_cache(path)), 1)[0].hits
  assert tool.n_calls == 5


def test_processes_share_amake_cache(tmp_path):
  script = f"""
import sys
from gog_jax.tools.base import Query
from gog_jax.types import ToolCall, ToolResult
from tests.search_helpers import make_cache
own = make_cache({str(tmp_path / 'c')!r})
call = ToolCall(name='t', arguments={{}})
query = Query(text='a', scope='', top_k=1)
for i in range(200):
  own.put(sys.argv[1] + str(i), call, query, ToolResult())
"""
  writers = [
      subprocess.Popen([sys.executable, '-c', script, name]) for name in 'ab'
  ]
  assert [writer.wait() for writer in writers] == [0, 0]
  cache = make_cache(tmp_path / 'c')
  assert all(cache.get(f'{name}{i}') for name in 'ab' for i in range(200))


def test_answers_at_hand_cost_nothing(tmp_path):
  ledger = Ledger(tmp_path / 'spent', cap=9)
  executor = make_executor(
      Plain(), price=0.5, ledger=ledger, cache=make_cache(tmp_path / 'c')
  )
  assert sorted(r.price for r in run_turn(executor, 1, 1, 1)) == [0, 0, 0.5]
  assert [r.price for r in run_turn(executor, 1)] == [0]
  assert ledger.spent == 0.5


def test_no_search_is_begun_once_the_run_ends(tmp_path):
  async def slow(unused_x, unused_context):
    await asyncio.sleep(0.3)

  tool = Plain(slow)

  async def scenario():
    executor = make_executor(
        tool, cache=make_cache(tmp_path / 'c'), max_concurrency=1, drain_s=5.0
    )
    calls = [call(x) for x in range(6)]
    turn = asyncio.create_task(executor.run_turn(calls, CONTEXT))
    await asyncio.sleep(0.1)
    turn.cancel()
    await asyncio.gather(turn, return_exceptions=True)
    await executor.close()
    return await executor.run(call(9), CONTEXT)  # In use again.

  assert asyncio.run(scenario()).status == ToolStatus.OK
  assert tool.n_calls == 2

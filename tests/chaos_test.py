"""Thousands of searches of a retriever that does all that it should not."""

import asyncio
import json
import sqlite3
import urllib.request

import psutil
import pytest

from configs import common
from gog_jax import images
from gog_jax.tools.base import ToolContext
from gog_jax.tools.retriever import Retriever
from gog_jax.tools.search import image_search
from gog_jax.tools.search import text_search
from gog_jax.types import ToolCall
from gog_jax.types import ToolStatus
from gog_jax.types import View
from tests import chaos_server
from tests.search_helpers import make_cache
from tests.search_helpers import make_executor

pytestmark = pytest.mark.slow

_PIXEL = images.encode_png(images.Image.new('RGB', (9, 9), 'green'))


def _stats(url):
  with urllib.request.urlopen(f'{url}/stats') as reply:
    return json.load(reply)


def _executor(url, path, *, timeout_s, max_attempts, backoff_s):
  backend = Retriever.connect(url)
  return make_executor(
      text_search(backend, top_k=1),
      image_search(backend, top_k=1),
      backend=backend,
      timeout_s=timeout_s,
      max_concurrency=64,
      max_attempts=max_attempts,
      backoff_s=backoff_s,
      failures=10**9,  # Else most of them would be spared.
      cache=make_cache(path),
  )


async def _many(executor, n, at_once=64):
  """n different calls, so many at once; and what they left behind."""
  gate = asyncio.Semaphore(at_once)

  async def one(i):
    call = ToolCall(name='text_search', arguments={'query': f'q {i}'})
    if i % 4 == 0:
      call = ToolCall(name='image_search', arguments={})
    image = View(data=_PIXEL + str(i).encode(), root=0, box=(0, 0, 9, 9))
    async with gate:
      return await executor.run(call, ToolContext(scope='', views=(image,)))

  results = await asyncio.gather(*map(one, range(n)))
  await executor.close()
  await asyncio.sleep(0.3)  # Sockets close in the background.
  return results, len(asyncio.all_tasks()) - 1


def test_chaos(tmp_path):
  """5,000 calls, 64 at once, to a server that does all at random."""
  modes = dict.fromkeys(
      ('ok', 'busy', 'error', 'reset', 'hang', 'slow', 'cut', 'short', 'types',
       'bytes', 'html', 'packed', 'bomb', 'moved'), 1.0,
  )  # fmt: skip
  timeout_s = 2.0
  process = psutil.Process()
  with chaos_server.running(seed=3, **modes, huge=0.1) as url:
    path = tmp_path / 'cache'
    executor = _executor(
        url, path, timeout_s=timeout_s, max_attempts=3, backoff_s=0.05
    )
    # What is loaded once is no leak.
    asyncio.run(_many(_executor(
        url, tmp_path / 'warm', timeout_s=0.5, max_attempts=1, backoff_s=0.0
    ), 400))
    before = process.num_fds(), process.memory_info().rss
    results, n_tasks = asyncio.run(_many(executor, 5000))
    after = process.num_fds(), process.memory_info().rss
    stats = _stats(url)
  ok = [r for r in results if r.status == ToolStatus.OK]
  failed = [r for r in results if r.status == ToolStatus.INFRA_ERROR]
  slowest = max(r.latency_s for r in results)
  with sqlite3.connect(path) as db:
    (n_cached,) = db.execute('SELECT COUNT(*) FROM answers').fetchone()
  print(
      f'\n{len(ok)} ok, {len(failed)} infra_error, slowest {slowest:.2f} s, '
      f'{n_tasks} tasks left, files {before[0]} -> {after[0]}, memory '
      f'{before[1] / 2**20:.0f} -> {after[1] / 2**20:.0f} MiB, at most '
      f'{stats["most"]} requests at once, {n_cached} answers cached, met '
      f'{stats["met"]}'
  )
  assert len(ok) + len(failed) == 5000
  assert len(ok) > 500 and len(failed) > 500
  assert all(r.error for r in failed) and not any(r.error for r in ok)
  # What hangs would hang for ever; a busy machine may be late to notice.
  assert slowest <= 5 * timeout_s
  assert n_tasks == 0
  assert after[0] <= before[0] + 4
  assert after[1] - before[1] < 150 * 2**20
  # Two tools; sockets that are given up count until the server has noticed.
  assert stats['most'] <= 128 + 16
  assert n_cached == len(ok)
  assert set(stats['met']) == {*modes, 'huge'}


def test_with_30_per_cent_of_faults_99_succeed(tmp_path):
  tools = common.get_base('toy').tools
  with chaos_server.running(
      seed=4, ok=70, busy=6, error=6, reset=6, cut=6, short=6
  ) as url:
    executor = _executor(
        url,
        tmp_path / 'cache',
        timeout_s=tools.timeout_s,
        max_attempts=tools.max_attempts,
        backoff_s=0.1 * tools.backoff_s,  # The test's time, not its figure.
    )
    results, _ = asyncio.run(_many(executor, 5000))
  n_ok = sum(r.status == ToolStatus.OK for r in results)
  print(f'\n{n_ok} of 5000 succeed, {executor.counts.totals()}')
  assert n_ok >= 4950

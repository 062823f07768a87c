"""kill -9 while searches are recorded and cached: the next start goes on."""

import asyncio
import json
import pathlib
import random
import signal
import subprocess
import sys
import time

import pytest

from gog_jax.tools.base import ToolContext
from gog_jax.tools.recording import Recording
from gog_jax.types import ToolCall
from gog_jax.types import ToolStatus
from tests.search_helpers import Fake
from tests.search_helpers import make_cache
from tests.search_helpers import make_executor

_ROOT = pathlib.Path(__file__).parents[1]
_N = 4000

# Searches for 0 to _N, records and caches what it finds, and says each number
# whose answer was given back.
_SCRIPT = f"""
import asyncio, pathlib, sys
from tests.search_kill_test import searches

asyncio.run(searches(pathlib.Path(sys.argv[1]), range({_N})))
print('done', flush=True)
"""


class _Found(Fake):
  """Its answers are long, so that a kill finds them half written."""

  async def search(self, x, context):
    reply = await super().search(x, context)
    return type(reply)(hits=reply.hits, raw=f'fake {x} {context.caller}' * 4000)


async def searches(folder, numbers, *, say=True):
  """Makes these searches, eight at once."""
  tool = _Found()
  executor = make_executor(
      tool,
      cache=make_cache(folder / 'cache'),
      recording=Recording(folder / 'recording', backend='router/1'),
  )
  gate = asyncio.Semaphore(8)

  async def one(number):
    async with gate:
      call = ToolCall(name='fake', arguments={'x': number})
      context = ToolContext(scope='', views=(), caller=f'{number}')
      result = await executor.run(call, context)
      if say:
        print(number, flush=True)
      return result

  results = await asyncio.gather(*map(one, numbers))
  await executor.close()
  return results, tool.n_calls


@pytest.mark.slow
def test_killed_ten_times_it_goes_on_and_serves_nothing_half_written(tmp_path):
  rng = random.Random(5)
  told: set[int] = set()
  survived = []
  for _ in range(10):
    process = subprocess.Popen(
        [sys.executable, '-c', _SCRIPT, str(tmp_path)],
        cwd=_ROOT,
        stdout=subprocess.PIPE,
        text=True,
    )
    first = process.stdout.readline()  # It is under way.
    time.sleep(rng.uniform(0, 0.25))
    process.send_signal(signal.SIGKILL)
    rest, _ = process.communicate()
    told |= {int(x) for x in (first + rest).split() if x.isdigit()}
    recording = Recording(tmp_path / 'recording', backend='router/1')
    survived.append(recording.n_calls)
    # Whatever was given back is there, and what is there is whole.
    lines = (tmp_path / 'recording/calls.jsonl').read_text().splitlines()
    rows = [json.loads(line) for line in lines]
    assert told <= {row['arguments']['x'] for row in rows}
    for row in rows:
      outcome = recording.get(row['key'])
      number = row['arguments']['x']
      assert outcome.hits[0].text == f'reply {number}'
      assert outcome.raw == f'fake {number} {number}' * 4000
    recording.close()
  print(f'\nsurvived each kill: {survived} of {_N}')
  assert survived == sorted(survived) and survived[0] < _N
  results, n_calls = asyncio.run(
      searches(tmp_path, range(_N), say=False)
  )
  assert all(r.status == ToolStatus.OK for r in results)
  assert [r.hits[0].text for r in results] == [f'reply {i}' for i in range(_N)]
  assert n_calls <= _N - survived[-1]

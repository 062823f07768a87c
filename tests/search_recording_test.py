"""Recordings of searches: made, mended and played."""

import asyncio
import json

import pytest

from gog_jax import images
from gog_jax.errors import RunStopped
from gog_jax.errors import UserError
from gog_jax.tools.base import Query
from gog_jax.tools.base import ToolContext
from gog_jax.tools.recording import Recording
from gog_jax.types import Hit
from gog_jax.types import ToolResult
from tests.search_helpers import call
from tests.search_helpers import CONTEXT
from tests.search_helpers import make_executor
from tests.search_helpers import Plain
from tests.search_helpers import run_turn

pytestmark = pytest.mark.quick

_BACKEND = 'router/1'


def _record(folder, tool, *xs, context=CONTEXT, **more):
  recording = Recording(folder, backend=_BACKEND)
  executor = make_executor(tool, recording=recording, **more)
  results = run_turn(executor, *xs, context=context)
  recording.close()
  return results


def _replay(folder, *xs, context=CONTEXT):
  executor = make_executor(
      Plain(_never), recording=Recording(folder, backend=None)
  )
  return run_turn(executor, *xs, context=context)


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
    async def search(self, x, context):
      reply = await super().search(x, context)
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
  # The same call again, as after a kill: now it works, and that counts.
  again = _record(tmp_path, tool, 1, context=early)
  assert again == told[1] == _replay(tmp_path, 1, context=early)


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
  with pytest.raises(UserError, match='recording.json cannot be read'):
    Recording(tmp_path, backend=None)


def test_one_process_records_to_a_folder(tmp_path):
  first = Recording(tmp_path, backend='b')
  with pytest.raises(UserError, match='another process records to this'):
    Recording(tmp_path, backend='b')
  assert Recording(tmp_path, backend=None).n_calls == first.n_calls == 0


@pytest.mark.parametrize(
    'change',
    [
        {'hits': [{'title': 1, 'text': 'a', 'score': 1, 'image': None}]},
        {'hits': [{'title': 'a'}]},
        {'hits': 5},
        {'raw': 5},
        {'status': 'fine'},
    ],
)
def test_a_damaged_record_stops_the_run_in_one_line(tmp_path, change):
  _record(tmp_path, Plain(), 1)
  path = tmp_path / 'calls.jsonl'
  path.write_text(json.dumps(json.loads(path.read_text()) | change) + '\n')
  with pytest.raises(RunStopped) as caught:
    _replay(tmp_path, 1)
  assert '\n' not in str(caught.value)


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
  outcome = ToolResult(hits=(Hit(title='', text='', score=1.0, image=image),))
  recording = Recording(tmp_path, backend='b')
  recording.put('k', call(), query, outcome)
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
    turn = asyncio.create_task(executor.run_turn([call(1)], CONTEXT))
    await asyncio.sleep(0.05)
    turn.cancel()
    await asyncio.gather(turn, return_exceptions=True)
    await executor.close()
    assert tool.running == 0

  asyncio.run(scenario(5.0))
  asyncio.run(scenario(0.0))
  assert Recording(tmp_path / '5.0', backend=None).n_calls == 1
  assert Recording(tmp_path / '0.0', backend=None).n_calls == 0

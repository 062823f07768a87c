"""The executor: order, time, blame and honest counts."""

import asyncio
import time

import pytest

from gog_jax.tools.base import ModelError
from gog_jax.tools.base import ToolContext
from gog_jax.tools.base import TransientError
from gog_jax.types import ToolCall
from gog_jax.types import ToolStatus
from tests.search_helpers import checked
from tests.search_helpers import Fake
from tests.search_helpers import make_executor

_CONTEXT = ToolContext(scope='s', views=())


async def _sleep(seconds, unused_context):
  await asyncio.sleep(seconds)


def _raises(error):
  async def play(unused_x, unused_context):
    raise error

  return play


def _call(x=0, name='fake', **more):
  return ToolCall(name=name, arguments={'x': x}, **more)


def test_calls_run_side_by_side_and_replies_keep_call_order():
  delays = [0.20, 0.05, 0.15, 0.0]
  tool = Fake(_sleep)
  results = asyncio.run(
      make_executor(tool).run_turn([_call(delay) for delay in delays], _CONTEXT)
  )
  assert tool.most == 4
  assert [r.hits[0].text for r in results] == [f'reply {x}' for x in delays]
  for result, delay in zip(results, delays):
    assert result.status == ToolStatus.OK
    assert result.latency_s >= delay * 0.99


def test_no_calls_no_results():
  assert asyncio.run(make_executor(Fake()).run_turn([], _CONTEXT)) == ()


def test_timeout_is_an_infra_error_within_the_deadline():
  executor = make_executor(Fake(_sleep), timeout_s=0.1)
  started = time.perf_counter()
  result = asyncio.run(executor.run(_call(30), _CONTEXT))
  assert time.perf_counter() - started < 5
  assert result.status == ToolStatus.INFRA_ERROR
  assert result.error == 'fake failed: TimeoutError: no reply within 0.1 s'
  assert result.latency_s >= 0.1


def test_a_tool_that_will_not_die_does_not_hold_up_its_caller():
  freed = []

  async def stubborn(x, unused_context):
    try:
      await asyncio.sleep(x)
    except asyncio.CancelledError:
      await asyncio.sleep(0.3)  # Cleaning up at leisure.
    freed.append(x)

  async def scenario():
    tool = Fake(stubborn)
    executor = make_executor(tool, timeout_s=0.1, max_concurrency=1)
    first = await executor.run(_call(30), _CONTEXT)
    assert not freed  # The caller went on while the tool still unwinds.
    second = await executor.run(_call(0), _CONTEXT)
    return tool, first, second

  tool, first, second = asyncio.run(scenario())
  assert first.status == ToolStatus.INFRA_ERROR
  # The next call waited until the first had really gone.
  assert tool.most == 1
  assert freed == [30, 0]
  assert second.status == ToolStatus.OK


@pytest.mark.parametrize(
    ('error', 'words'),
    [
        (ConnectionError('down\nsince noon'), 'ConnectionError: down since'),
        (ValueError(), 'fake failed: ValueError'),
        (RuntimeError('x' * 5000), 'RuntimeError: xxx'),
        (TimeoutError('their own'), 'TimeoutError: their own'),
    ],
)
def test_a_raising_backend_is_an_infra_error_on_one_line(error, words):
  executor = make_executor(Fake(_raises(error)))
  result = asyncio.run(executor.run(_call(), _CONTEXT))
  assert result.status == ToolStatus.INFRA_ERROR
  assert words in result.error
  assert '\n' not in result.error and len(result.error) <= 120


def test_a_tool_that_cancels_itself_is_an_infra_error():
  executor = make_executor(Fake(_raises(asyncio.CancelledError())))
  result = asyncio.run(executor.run(_call(), _CONTEXT))
  assert result.status == ToolStatus.INFRA_ERROR


def _fails(*failures):
  """Raises these, one a call, and then answers; keeps the time of each call."""
  times = []

  async def play(unused_x, unused_context):
    times.append(time.monotonic())
    if len(times) <= len(failures):
      raise failures[len(times) - 1]

  return Fake(play), times


def test_what_may_be_gone_soon_is_tried_again():
  tool, times = _fails(ConnectionError(), TimeoutError(), TransientError('503'))
  executor = make_executor(tool, max_attempts=4, backoff_s=0.001)
  result = asyncio.run(executor.run(_call(), _CONTEXT))
  assert result.status == ToolStatus.OK
  assert len(times) == 4
  found = {key: n for key, n in executor.counts.totals().items() if n}
  assert found.pop('fake/seconds') > 0
  # One call, one search, however often it was tried.
  assert found == {'fake/ok': 1, 'fake/retries': 3, 'fake/searches': 1}


def test_attempts_are_bounded_and_the_last_failure_is_told():
  tool, times = _fails(*(TransientError(f'no. {i}') for i in range(1, 9)))
  executor = make_executor(tool, max_attempts=3)
  result = asyncio.run(executor.run(_call(), _CONTEXT))
  assert result.status == ToolStatus.INFRA_ERROR
  assert result.error == 'fake failed: TransientError: no. 3'
  assert len(times) == 3


@pytest.mark.parametrize('error', [ValueError('x'), KeyError('x')])
def test_what_will_not_get_better_is_tried_once(error):
  tool, times = _fails(error)
  asyncio.run(make_executor(tool, max_attempts=3).run(_call(), _CONTEXT))
  assert len(times) == 1


def test_it_waits_as_long_as_it_is_asked_to():
  tool, times = _fails(TransientError('429', retry_after_s=0.3))
  executor = make_executor(tool, max_attempts=2)
  assert asyncio.run(executor.run(_call(), _CONTEXT)).status == ToolStatus.OK
  assert times[1] - times[0] >= 0.3


def test_what_asks_for_longer_than_there_is_fails_at_once():
  """With what it said, not with a timeout that says less."""
  tool, times = _fails(TransientError('429, ask tomorrow', retry_after_s=86400))
  executor = make_executor(tool, max_attempts=2, timeout_s=60)
  result = asyncio.run(executor.run(_call(), _CONTEXT))
  assert 'ask tomorrow' in result.error
  assert len(times) == 1 and result.latency_s < 50


def test_whoever_waits_to_try_again_keeps_its_turn():
  """Or a service that is overloaded would get the calls that queue up next."""
  tool, times = _fails(TransientError('busy', retry_after_s=0.2))
  executor = make_executor(tool, max_attempts=2, max_concurrency=1)
  results = asyncio.run(executor.run_turn([_call(), _call()], _CONTEXT))
  assert [result.status for result in results] == [ToolStatus.OK] * 2
  assert len(times) == 3
  assert times[1] - times[0] >= 0.2  # The second call came after that.


def test_the_policys_mistakes_are_model_errors_and_never_executed():
  tool = Fake(_sleep)
  executor = make_executor(tool)
  calls = [
      _call(error='not JSON'),
      checked([tool], 'teleport', {'x': 0}),
      checked([tool], 'fake', {}),
      checked([tool], 'fake', {'x': 'soon'}),
      checked([tool], 'fake', {'x': 0, 'y': 1}),
  ]
  results = asyncio.run(executor.run_turn(calls, _CONTEXT))
  assert {r.status for r in results} == {ToolStatus.MODEL_ERROR}
  assert [r.error for r in results] == [
      'not JSON',
      "no tool 'teleport', only fake",
      "'x' is a required property",
      "x: 'soon' is not of type 'number'",
      "Additional properties are not allowed ('y' was unexpected)",
  ]
  assert tool.n_calls == 0


def test_model_error_raised_by_a_tool_stays_the_policys():
  class Refuses(Fake):
    async def query(self, arguments, context):
      raise ModelError('no image 7')

  result = asyncio.run(make_executor(Refuses()).run(_call(), _CONTEXT))
  assert result.status == ToolStatus.MODEL_ERROR
  assert result.error == 'no image 7'


def test_one_failure_leaves_its_neighbours_alone():
  bad = Fake(_raises(OSError('gone')), name='bad')
  executor = make_executor(Fake(_sleep), bad)
  results = asyncio.run(
      executor.run_turn(
          [_call(0.05), _call(name='bad'), _call(0.01)], _CONTEXT
      )
  )
  assert [result.status.value for result in results] == [
      'ok', 'infra_error', 'ok',
  ]


def test_the_concurrency_limit_holds_per_tool():
  slow, other = Fake(_sleep), Fake(_sleep, name='other')
  executor = make_executor(slow, other, max_concurrency=2)
  calls = [_call(0.02) for _ in range(7)] + [_call(0.02, 'other')] * 2
  results = asyncio.run(executor.run_turn(calls, _CONTEXT))
  assert all(result.status == ToolStatus.OK for result in results)
  assert slow.most == 2  # Reached, so the limit is what stopped it.
  assert other.most == 2


def test_waiting_for_a_turn_does_not_eat_the_time_to_run():
  executor = make_executor(Fake(_sleep), timeout_s=0.5, max_concurrency=1)
  results = asyncio.run(
      executor.run_turn([_call(0.2) for _ in range(4)], _CONTEXT)
  )
  assert all(result.status == ToolStatus.OK for result in results)
  assert results[-1].latency_s > 0.5  # The wait is part of the latency.


def test_cancellation_propagates_and_ends_what_runs():
  tool = Fake(_sleep)
  executor = make_executor(tool, max_concurrency=2)

  async def scenario():
    task = asyncio.create_task(
        executor.run_turn([_call(30) for _ in range(4)], _CONTEXT)
    )
    await asyncio.sleep(0.05)
    assert tool.running == 2
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
      await task
    await asyncio.sleep(0)  # Let the cancelled tools unwind.
    assert tool.running == 0
    return await executor.run(_call(0), _CONTEXT)  # No slot was lost.

  assert asyncio.run(scenario()).status == ToolStatus.OK
  assert executor.counts.totals()['fake/cancelled'] == 4


def test_one_executor_serves_one_event_loop_after_another():
  tool = Fake(_sleep)
  executor = make_executor(tool, max_concurrency=1)
  for _ in range(2):
    results = asyncio.run(
        executor.run_turn([_call(0.01) for _ in range(3)], _CONTEXT)
    )
    assert all(result.status == ToolStatus.OK for result in results)


def test_metrics_count_every_call_once_under_its_fate():
  async def play(x, unused_context):
    if x < 0:
      raise ConnectionError

  executor = make_executor(Fake(play), Fake(play, name='idle'))
  tools = executor.tools.values()
  calls = [_call(1), _call(2), _call(-1), _call(error='cut')]
  calls.insert(3, checked(tools, 'fake', {'x': 'x'}))
  calls += [checked(tools, name, {}) for name in ('fly', 'swim')]
  results = asyncio.run(executor.run_turn(calls, _CONTEXT))
  metrics = executor.counts.totals()
  seconds = sum(result.latency_s for result in results[:5])
  assert metrics.pop('fake/seconds') == pytest.approx(seconds)
  assert metrics.pop('unknown/seconds') < 0.1
  assert {key: value for key, value in metrics.items() if value} == {
      'fake/ok': 2,
      'fake/infra_error': 1,
      'fake/model_error': 2,
      'fake/searches': 2,
      'unknown/model_error': 2,
  }
  assert metrics['idle/ok'] == 0


def test_two_tools_of_one_name_are_refused():
  with pytest.raises(ValueError, match='share a name'):
    make_executor(Fake(_sleep), Fake(_sleep))

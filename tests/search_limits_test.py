"""Searches within limits: rest for what fails, no more money than agreed."""

import asyncio
import json
import time

import pytest

from gog_jax.errors import RunStopped
from gog_jax.errors import UserError
from gog_jax.remote.ledger import Ledger
from gog_jax.tools.base import ToolContext
from gog_jax.tools.base import TransientError
from gog_jax.types import ToolCall
from gog_jax.types import ToolStatus
from tests.search_helpers import Fake
from tests.search_helpers import make_executor

pytestmark = pytest.mark.quick

_CONTEXT = ToolContext(scope='s', views=())


def _call(x=0, name='fake'):
  return ToolCall(name=name, arguments={'x': x})


def _run(executor, *xs):
  """One call after another."""

  async def scenario():
    return [await executor.run(_call(x), _CONTEXT) for x in xs]

  return asyncio.run(scenario())


async def _negative_fails(x, unused_context):
  if x < 0:
    raise ConnectionError('down')


def test_a_backend_that_keeps_failing_is_left_alone_and_asked_again_later():
  tool = Fake(_negative_fails)
  executor = make_executor(tool, failures=3, rest_s=0.4, timeout_s=0.3)
  results = _run(executor, -1, -1, -1, 5)
  assert tool.n_calls == 3
  assert [r.status for r in results] == [ToolStatus.INFRA_ERROR] * 4
  # It had no time to wait, and says so at once.
  assert 'router/1 rests after 3 failures' in results[-1].error
  assert results[-1].latency_s < 0.2
  time.sleep(0.5)
  assert _run(executor, 5)[0].status == ToolStatus.OK
  # One success and the count begins anew.
  assert _run(executor, -1, -1, 5)[-1].status == ToolStatus.OK


def test_who_has_the_time_waits_while_the_backend_rests():
  tool = Fake(_negative_fails)
  executor = make_executor(
      tool, failures=2, rest_s=0.3, timeout_s=5.0, max_attempts=3
  )
  started = time.monotonic()
  results = _run(executor, -1, 5)
  assert results[1].status == ToolStatus.OK
  assert time.monotonic() - started >= 0.3


def test_one_search_tries_whether_the_others_may_follow():
  running = []

  async def play(x, unused_context):
    running.append(x)
    await asyncio.sleep(0.1)
    if x < 0 or len(running) == 3:
      raise ConnectionError('down')

  tool = Fake(play)
  executor = make_executor(tool, failures=2, rest_s=0.3, timeout_s=5.0)
  _run(executor, -1, -2)
  calls = [_call(x) for x in range(1, 6)]
  results = asyncio.run(executor.run_turn(calls, _CONTEXT))
  # One tried and failed; after another rest one tried, and all could go.
  assert [r.status.value for r in results].count('infra_error') == 1
  assert tool.most == 3 and tool.n_calls == 7


def test_answers_that_refuse_are_answers_and_no_reason_to_rest():
  async def refuses(unused_x, unused_context):
    raise ValueError('no such scope')

  tool = Fake(refuses)
  _run(make_executor(tool, failures=2), *range(6))
  assert tool.n_calls == 6


def _paid(tool, path, cap, **more):
  return make_executor(tool, price=0.25, ledger=Ledger(path, cap=cap), **more)


def _prices(path):
  lines = path.read_text().splitlines()
  return [json.loads(line)['price'] for line in lines if line[-1] == '}']


def test_the_cap_stops_the_run_before_it_is_passed(tmp_path):
  tool = Fake()
  executor = _paid(tool, tmp_path / 'spent.jsonl', 1.0)
  assert [r.price for r in _run(executor, 1, 2, 3)] == [0.25] * 3
  with pytest.raises(RunStopped, match=r'cost \$1.0000; .*max_spend=1: raise'):
    _run(executor, 4, 5, 6)
  assert tool.n_calls == 4
  assert executor.counts.totals()['fake/price'] == 1.0


def test_side_by_side_no_more_are_sent_than_the_cap_allows(tmp_path):
  async def slow(unused_x, unused_context):
    await asyncio.sleep(0.05)

  tool = Fake(slow)
  executor = _paid(tool, tmp_path / 'spent.jsonl', 1.0)
  calls = [_call(x) for x in range(8)]
  with pytest.raises(RunStopped):
    asyncio.run(executor.run_turn(calls, _CONTEXT))
  assert tool.n_calls <= 4


def test_what_was_spent_before_a_restart_counts(tmp_path):
  path = tmp_path / 'spent.jsonl'
  first = Ledger(path, cap=1.0)
  _run(make_executor(Fake(), price=0.25, ledger=first), 1, 2, 3)
  with path.open('a') as f:
    f.write('{"price": 0.2')  # A kill cut it off.
  executor = _paid(Fake(), path, 1.0)
  _run(executor, 4)
  with pytest.raises(RunStopped):
    _run(executor, 5)
  assert _prices(path) == [0.25] * 4


def test_every_attempt_is_paid_for_but_those_turned_away(tmp_path):
  failures = [
      TransientError('garbled'),
      TransientError('429', billed=False),
      ConnectionError(),
  ]

  async def play(unused_x, unused_context):
    if failures:
      raise failures.pop(0)

  path = tmp_path / 'spent.jsonl'
  executor = _paid(Fake(play), path, 9.0, max_attempts=4)
  (result,) = _run(executor, 1)
  assert result.status == ToolStatus.OK
  assert result.price == 0.75
  assert _prices(path) == [0.25, 0.25, -0.25, 0.25, 0.25]


@pytest.mark.parametrize('line', ['{"price": NaN}', '{}', '{"price": "1"}'])
def test_a_damaged_ledger_is_no_empty_purse(tmp_path, line):
  (tmp_path / 'spent').write_text(line + '\n{"price": 1}\n')
  with pytest.raises(UserError, match='line 1, is damaged'):
    Ledger(tmp_path / 'spent', cap=1.0)
  with pytest.raises(UserError, match='--config.tools.ledger=FILE'):
    Ledger('gs://bucket/spent', cap=1.0)


def test_what_cannot_be_written_down_is_not_spent(tmp_path):
  ledger = Ledger(tmp_path / 'folder' / 'spent', cap=1.0)
  (tmp_path / 'folder' / 'spent').mkdir(parents=True)
  executor = make_executor(Fake(), price=0.25, ledger=ledger)
  with pytest.raises(RunStopped, match='cannot be read'):
    _run(executor, 1)
  assert ledger.spent == 0


def test_money_without_a_ledger_is_a_mistake_of_ours():
  with pytest.raises(ValueError, match='ledger'):
    make_executor(Fake(), price=0.1)


def test_a_ledger_that_cannot_be_read_is_said(tmp_path):
  with pytest.raises(UserError, match='cannot be read'):
    Ledger(tmp_path, cap=1.0)

"""Many conversations at once: who waits for whom, and how it all ends.

Tools here wait for events, not for a time: a loop that holds up somebody would
run into the executor's timeout, which these tests see as an infra_error.
"""

from __future__ import annotations

import asyncio
import signal

import pytest

from gog_jax import interrupt
from gog_jax.interrupt import Interrupted
from gog_jax.rollout import loop
from gog_jax.types import StopReason
from gog_jax.types import ToolStatus
from tests import loop_helpers
from tests.loop_helpers import Fake
from tests.loop_helpers import fake
from tests.loop_helpers import play

pytestmark = pytest.mark.quick


@pytest.fixture(autouse=True)
def no_signal(monkeypatch):
  monkeypatch.setattr(interrupt, '_requested', None)


@pytest.fixture(name='patient')
def patient_rounds(monkeypatch):
  """Rounds that wait for every search, however loaded the machine is."""
  monkeypatch.setattr(loop, '_GRACE_S', 20.0)


def searches(n_searches):
  """A script: sample i calls `fake(i)` n_searches[i] times, then answers."""

  def script(chat, request, n_turns):
    if n_turns < n_searches[request.sample]:
      return chat.encode_turn(thought='find', calls=(fake(request.sample),))
    return chat.encode_turn(thought='found', answer=str(request.sample))

  return script


def test_parallel_calls_run_together_and_reply_in_call_order():
  finished = []

  async def waits_for_the_next(x, context):
    del context
    turnstiles = waits_for_the_next.turnstiles
    if x < 2:
      await turnstiles.setdefault(x + 1, asyncio.Event()).wait()
    finished.append(x)
    turnstiles.setdefault(x, asyncio.Event()).set()

  waits_for_the_next.turnstiles = {}

  def script(chat, request, n_turns):
    del request
    if n_turns:
      return chat.encode_turn(thought='found', answer='a')
    return chat.encode_turn(thought='', calls=[fake(0), fake(1), fake(2)])

  (trajectory,), _, executor = play(script, Fake(waits_for_the_next))
  assert finished == [2, 1, 0]
  results = trajectory.turns[0].results
  assert [r.status for r in results] == [ToolStatus.OK] * 3
  assert [r.hits[0].text for r in results] == ['reply 0', 'reply 1', 'reply 2']
  text = loop_helpers.make_chat(executor).decode(trajectory.token_ids)
  assert (
      '<tool_response>\nreply 0\n</tool_response>\n'
      '<tool_response>\nreply 1\n</tool_response>\n'
      '<tool_response>\nreply 2\n</tool_response><|im_end|>' in text
  )


def test_a_slow_search_holds_up_nobody_else(monkeypatch):
  monkeypatch.setattr(loop, '_GRACE_S', 0.02)
  order = []
  others_are_done = asyncio.Event()

  async def slow_for_the_first(x, context):
    del context
    if x == 0:
      await others_are_done.wait()

  def on_trajectory(trajectory):
    order.append(trajectory.sample)
    if len(order) == 3:
      others_are_done.set()

  trajectories, policy, _ = play(
      searches([1, 3, 3, 3]),
      Fake(slow_for_the_first),
      n=4,
      on_trajectory=on_trajectory,
  )
  assert sorted(order[:3]) == [1, 2, 3] and order[3] == 0
  assert all(trajectory.valid for trajectory in trajectories)
  # Sample 0 takes part in the first round and, alone, in the last.
  assert policy.rounds[0] == [0, 1, 2, 3]
  assert policy.rounds[-1] == [0]
  assert not any(0 in players for players in policy.rounds[1:-1])


def test_free_slots_are_refilled_while_all_others_search(monkeypatch):
  monkeypatch.setattr(loop, '_GRACE_S', 0.02)
  order = []
  others_are_done = asyncio.Event()

  async def slow(x, context):
    del x, context
    await others_are_done.wait()

  def on_trajectory(trajectory):
    order.append(trajectory.sample)
    if len(order) == 4:
      others_are_done.set()

  trajectories, policy, _ = play(
      searches([1, 0, 0, 0, 0]),
      Fake(slow),
      n=5,
      capacity=2,
      on_trajectory=on_trajectory,
  )
  assert order == [1, 2, 3, 4, 0]
  assert policy.rounds == [[0, 1], [2], [3], [4], [0]]
  assert all(trajectory.valid for trajectory in trajectories)


def test_more_requests_than_slots(patient):
  del patient
  n_searches = [0, 2, 0, 0, 1, 3, 0, 1]
  order = []
  trajectories, policy, _ = play(
      searches(n_searches),
      Fake(),
      n=8,
      capacity=3,
      on_trajectory=lambda trajectory: order.append(trajectory.sample),
  )
  assert [t.sample for t in trajectories] == list(range(8))
  assert [t.answer for t in trajectories] == [str(i) for i in range(8)]
  assert [len(t.turns) for t in trajectories] == [n + 1 for n in n_searches]
  assert sorted(order) == list(range(8))
  # By hand: a slot that falls free is taken in the very next round.
  assert policy.rounds == [
      [0, 1, 2],
      [1, 3, 4],
      [1, 4, 5],
      [5, 6, 7],
      [5, 7],
      [5],
  ]


def test_no_requests():
  trajectories, policy, _ = play(searches([]), n=0)
  assert not trajectories and not policy.rounds


def test_the_first_reply_is_not_held_up_by_the_last(monkeypatch):
  """Both search; one ends by its context, then the other's search returns."""
  monkeypatch.setattr(loop, '_GRACE_S', 0.01)
  first_is_done = asyncio.Event()

  async def waits(x, context):
    del context
    if x == 0:
      await asyncio.sleep(0.1)  # Longer than the grace.
    else:
      await first_is_done.wait()

  trajectories, policy, _ = play(
      searches([1, 1]),
      Fake(waits),
      n=2,
      on_trajectory=lambda _: first_is_done.set(),
      max_context=34 + loop_helpers.MAX_TURN_TOKENS,
  )
  assert [t.stop_reason for t in trajectories] == [StopReason.CONTEXT] * 2
  assert policy.rounds == [[0, 1]]  # And no round without players.
  assert all(trajectory.valid for trajectory in trajectories)


class _Abandoned:
  """A rollout of two that is to end early, and what it leaves behind."""

  def __init__(self, when_searching=lambda: None):
    self.when_searching = when_searching
    self.started = False
    self.cancelled = False
    self.left_over: set[asyncio.Task] = set()
    self.policy = None

  async def forever(self, x, context):
    del context
    if x == 0:
      self.started = True
      self.when_searching()
      try:
        await asyncio.Event().wait()
      except asyncio.CancelledError:
        self.cancelled = True
        raise

  def run(self, script, expected, *, n=2):
    executor = loop_helpers.make_executor(Fake(self.forever))
    chat = loop_helpers.make_chat(executor)
    self.policy = loop_helpers.Player(
        lambda request, turns: script(chat, request, len(turns)),
        chat.stop_ids,
    )

    async def main():
      with pytest.raises(expected):
        # Not run: asyncio.run would itself cancel what was left over.
        await loop.Loop(
            policy=self.policy,
            executor=executor,
            chat=chat,
            limits=loop_helpers.limits(),
            on_finished=lambda *unused: None,
        )._run(loop_helpers.requests(n))
      # The abandoned tool itself ends when the event loop comes round to it.
      await asyncio.sleep(0)
      self.left_over = asyncio.all_tasks() - {asyncio.current_task()}

    asyncio.run(main())
    assert not self.left_over
    assert self.started and self.cancelled
    # Cancelled by the loop, not by the executor when its time was over.
    assert executor.counts.totals()['fake/cancelled'] == 1
    assert executor.counts.totals()['fake/infra_error'] == 0


def test_interrupted_between_rounds(monkeypatch):
  monkeypatch.setattr(loop, '_GRACE_S', 0.02)
  abandoned = _Abandoned()

  def script(chat, request, n_turns):
    if n_turns == 2:
      interrupt._request(signal.SIGTERM, None)
    return searches([1, 4])(chat, request, n_turns)

  abandoned.run(script, Interrupted)
  # The round in which the signal came was played to its end.
  assert abandoned.policy.rounds == [[0, 1], [1], [1]]


def test_interrupted_while_everybody_searches(monkeypatch):
  monkeypatch.setattr(loop, '_GRACE_S', 0.02)
  monkeypatch.setattr(loop, '_POLL_S', 0.02)

  def signal_comes():
    asyncio.get_running_loop().call_later(
        0.1, interrupt._request, signal.SIGTERM, None
    )

  abandoned = _Abandoned(when_searching=signal_comes)
  abandoned.run(searches([1]), Interrupted, n=1)
  assert abandoned.policy.rounds == [[0]]


def test_an_error_of_the_policy_is_raised_and_cleans_up(monkeypatch):
  monkeypatch.setattr(loop, '_GRACE_S', 0.02)

  class Broken(Exception):
    pass

  def script(chat, request, n_turns):
    if n_turns == 2:
      raise Broken
    return searches([1, 4])(chat, request, n_turns)

  _Abandoned().run(script, Broken)


def test_an_error_of_the_caller_is_raised_and_cleans_up():
  class Broken(Exception):
    pass

  def on_trajectory(trajectory):
    raise Broken

  with pytest.raises(Broken):
    play(searches([0, 1]), Fake(), n=2, on_trajectory=on_trajectory)

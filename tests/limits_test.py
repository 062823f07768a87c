"""Limits of calls, and MMSearch-R1's conversations from end to end."""

from __future__ import annotations

import itertools

import pytest

from gog_jax.chat import load_dialect
from gog_jax.errors import UserError
from gog_jax.evaluation import policies
from gog_jax.rewards import parts
from gog_jax.rollout.limits import calls_within
from gog_jax.rollout.scripted import ScriptedPolicy
from gog_jax.types import ParsedTurn
from gog_jax.types import StopReason
from gog_jax.types import ToolCall
from gog_jax.types import ToolStatus
from gog_jax.types import Turn
from tests import chat_helpers
from tests import endpoints
from tests import loop_helpers
from tests import mini
from tests import remote_helpers
from tests import world_helpers
from tests.loop_helpers import fake
from tests.search_helpers import Fake

OK, BAD = ToolStatus.OK, ToolStatus.MODEL_ERROR
ROOM = {'rollout__max_context': 8192, 'batch__row_tokens': 8192}
SAID = '<reason>t</reason>\n'
IMAGE = f'{SAID}<search><img></search>'
ANSWER = f'{SAID}<answer>132</answer>'


def text(query: str) -> str:
  return f'{SAID}<text_search>{query}</text_search>'


def turn(*calls: ToolCall) -> Turn:
  return Turn(parsed=ParsedTurn(text='', calls=calls))


def broken(name: str) -> ToolCall:
  return ToolCall(name=name, arguments={}, error='broken')


def errors(max_calls, *turns: Turn) -> list[str | None]:
  return [call.error for call in calls_within(max_calls, turns)]


def test_calls_are_counted_over_a_conversation():
  a, b = fake(1), ToolCall(name='other', arguments={})
  once = 'a conversation may call fake once'
  assert errors({}, turn(a, a), turn(a, a, a)) == [None] * 3
  assert errors({'fake': 0}, turn(a, a), turn(a)) == [None]
  assert errors({'fake': 1}, turn(a)) == [None]
  assert errors({'fake': 1}, turn(a), turn(a, b, a)) == [once, None, once]
  # In call order, also within a turn.
  twice = 'a conversation may call fake 2 times'
  assert errors({'fake': 2}, turn(a), turn(a, b, a, a)) == [
      None, None, twice, twice,
  ]  # fmt: skip
  # What cannot be made is not counted, and keeps its own error.
  assert errors({'fake': 1}, turn(broken('fake')), turn(broken('fake'), a)) == [
      'broken', None,
  ]  # fmt: skip
  assert errors({'fake': 1}) == []


def test_the_loop_refuses_what_is_too_much():
  """Three turns of two calls each, of which three may be made."""
  numbers = itertools.count()

  def script(chat, request, n_turns):
    del request
    if n_turns == 3:
      return chat.encode_turn(thought='', answer='132')
    calls = [fake(next(numbers)), fake(next(numbers))]
    return chat.encode_turn(thought='', calls=calls)

  tool = Fake()
  (trajectory,), _, executor = loop_helpers.play(
      script, tool, max_calls={'fake': 3}
  )
  statuses = [[r.status for r in t.results] for t in trajectory.turns]
  assert statuses == [[OK, OK], [OK, BAD], [BAD, BAD], []]
  assert tool.n_calls == 3
  assert trajectory.turns[1].results[1].error == (
      'a conversation may call fake 3 times'
  )
  # What it wrote stays what it wrote.
  assert all(c.error is None for t in trajectory.turns for c in t.parsed.calls)
  assert executor.counts.totals()['fake/model_error'] == 3
  assert executor.counts.totals()['fake/ok'] == 3
  # As for any error of its.
  assert parts.format_reward(chat_helpers.EXAMPLE, trajectory) == 0.0


def test_each_conversation_has_calls_of_its_own():
  tool = Fake()

  def script(chat, request, n_turns):
    if n_turns == 2:
      return chat.encode_turn(thought='', answer='132')
    call = fake(10 * request.sample + n_turns)
    return chat.encode_turn(thought='', calls=[call])

  trajectories, *_ = loop_helpers.play(
      script, tool, n=3, capacity=2, max_calls={'fake': 1}
  )
  assert tool.n_calls == 3
  for trajectory in trajectories:
    (one,), (two,), () = [t.results for t in trajectory.turns]
    assert (one.status, two.status) == (OK, BAD)


def test_the_tighter_limit_holds(tmp_path):
  run = mini.make_run(tmp_path, 'eval')
  assert run.can_gaze and run.limits.max_turns == 5
  assert not any(run.limits.max_calls.values())
  more = {'model__dialect': 'mmsearch_r1', **ROOM}
  run = mini.make_run(tmp_path, 'eval', **more)
  assert not run.can_gaze
  assert list(run.executor.tools) == ['text_search', 'image_search']
  assert run.limits.max_turns == 3
  assert run.limits.max_calls == {
      'text_search': 2, 'image_search': 1, 'gaze': 0,
  }  # fmt: skip
  run = mini.make_run(
      tmp_path,
      'eval',
      **more,
      rollout__max_turns=2,
      rollout__max_calls__text_search=1,
      rollout__max_calls__image_search=7,
  )
  assert run.limits.max_turns == 2
  assert run.limits.max_calls['text_search'] == 1
  assert run.limits.max_calls['image_search'] == 1


def test_limits_that_mean_nothing(tmp_path):
  with pytest.raises(UserError, match='rollout.max_calls.gaze must be 0 or'):
    mini.make_config('eval', rollout__max_calls__gaze=-1)
  path = tmp_path / 'mine.json'
  own = chat_helpers.ROOT / 'gog_jax' / 'chat' / 'dialects' / 'mmsearch_r1.json'
  path.write_text(own.read_text().replace('"image_search": 1', '"glance": 1'))
  with pytest.raises(UserError, match='limits calls of glance; the tools are'):
    mini.make_run(tmp_path, 'eval', model__dialect=str(path), **ROOM)


# MMSearch-R1 in the embedded world.


@pytest.fixture(scope='module')
def run(tmp_path_factory):
  return mini.make_run(
      tmp_path_factory.mktemp('r1'),
      'eval',
      model__dialect='mmsearch_r1',
      rollout__max_turn_tokens=200,
      **ROOM,
  )


def play(run, *messages: str):
  """One conversation in which the policy says these, letter by letter."""
  (question,) = world_helpers.questions_of('test', 1)

  def script(request, turns):
    del request
    text = messages[len(turns)]
    return [*run.chat.encode_untrusted(text), run.chat.stop_ids[0]]

  policy = ScriptedPolicy(script, capacity=1)
  ((trajectory,),) = run.rollout(
      policy, [question.example], samples=1, seed=('t',)
  )
  said = [len(run.chat.encode_untrusted(m)) + 1 for m in messages]
  said = said[: len(trajectory.turns)]
  assert [turn.n_sampled for turn in trajectory.turns] == said
  assert trajectory.loss_mask.sum() == sum(said)
  # What was sampled, in order, and nothing else is to be learnt.
  ids = trajectory.token_ids[trajectory.loss_mask == 1].tolist()
  assert run.chat.decode(ids) == ''.join(
      f'{m}<|im_end|>' for m in messages[: len(said)]
  )
  return trajectory


def statuses(trajectory) -> list[ToolStatus]:
  return [r.status for turn in trajectory.turns for r in turn.results]


def test_three_turns(run):
  trajectory = play(run, IMAGE, text('beldak'), ANSWER)
  assert trajectory.stop_reason == StopReason.ANSWER
  assert trajectory.answer == '132'
  assert statuses(trajectory) == [OK, OK]
  assert sum(r.n_searches for t in trajectory.turns for r in t.results) == 2
  assert parts.format_reward(chat_helpers.EXAMPLE, trajectory) == 1.0
  shown = run.chat.decode(trajectory.token_ids.tolist())
  found = trajectory.turns[0].results[0].hits[0]
  assert f'<information>\n1. {found.title}\n{found.text}\n</inf' in shown
  # The question, and again after each search.
  (question,) = world_helpers.questions_of('test', 1)
  assert shown.count(question.example.question) == 3
  assert len(trajectory.images) == 1


def test_the_second_image_search_is_refused(run):
  trajectory = play(run, IMAGE, IMAGE, ANSWER)
  assert statuses(trajectory) == [OK, BAD]
  assert trajectory.turns[1].results[0].error == (
      'a conversation may call image_search once'
  )
  assert trajectory.stop_reason == StopReason.ANSWER
  assert parts.format_reward(chat_helpers.EXAMPLE, trajectory) == 0.0
  assert 'Error: a conversation may call image_search once' in (
      run.chat.decode(trajectory.token_ids.tolist())
  )


def test_the_third_turn_has_to_answer(run):
  trajectory = play(run, text('a'), text('b'), text('c'), ANSWER)
  assert trajectory.stop_reason == StopReason.TURNS
  assert statuses(trajectory) == [OK, OK]  # The third was never made.
  assert trajectory.answer is None


def test_mistakes_are_answered(run):
  trajectory = play(run, f'{SAID}<gaze>1</gaze>', text(' '), ANSWER)
  assert statuses(trajectory) == [BAD, BAD]
  assert run.executor.counts.totals()['unknown/model_error'] >= 2
  assert play(run, 'red').stop_reason == StopReason.FORMAT
  several = play(run, IMAGE + '<text_search>a</text_search>', ANSWER)
  assert statuses(several) == [OK, BAD]


def test_the_worlds_expert_speaks_it(run):
  examples = [q.example for q in world_helpers.questions_of('test', 12)]
  trajectories = [
      group[0]
      for group in run.rollout(
          policies.expert_policy(run), examples, samples=1, seed=('t',)
      )
  ]
  parsed = [t.parsed for one in trajectories for t in one.turns]
  assert not any(p.format_error for p in parsed)
  assert {c.name for p in parsed for c in p.calls} == {
      'image_search', 'text_search',
  }  # fmt: skip
  assert any(one.answer is not None for one in trajectories)


def test_a_remote_model_speaks_it():
  said = remote_helpers.replies(IMAGE, text('beldak year'), ANSWER)
  with endpoints.serve(said) as server:
    (trajectory,) = remote_helpers.play(server, dialect='mmsearch_r1')
  # Its small tools have no search with the image: that is an error.
  assert statuses(trajectory) == [BAD, OK]
  assert trajectory.answer == '132'
  assert [t.parsed.text for t in trajectory.turns] == [
      IMAGE, text('beldak year'), ANSWER,
  ]  # fmt: skip
  assert trajectory.turns[2].parsed.format_error is None
  system, user, *rest = server.bodies[-1]['messages']
  assert system['content'] == 'You answer questions about images.'
  prompt, _, question = endpoints.parts_of(user)
  assert '<search><img></search>' in prompt
  assert question == f'\n{chat_helpers.EXAMPLE.question}'
  assert [m['role'] for m in rest] == ['assistant', 'user'] * 2
  assert rest[0]['content'] == IMAGE
  assert rest[3]['content'].startswith(
      '<information>\n1. beldak\nbeldak year 132\n</information>\n'
  )


def test_what_a_server_took_apart_is_put_together():
  """Its reasoning parser knows no <reason>; its tool parser, other calls."""
  message = {'content': '<answer>132</answer>', 'reasoning_content': ' hm '}
  with endpoints.serve(lambda _: message) as server:
    turn, _ = remote_helpers.sample_once(server, dialect='mmsearch_r1')
  assert turn.format_error is None
  assert (turn.thought, turn.answer) == ('hm', '132')
  calls = [{'function': {'name': 'text_search', 'arguments': '{"query":"a"}'}}]
  message = {'content': SAID, 'tool_calls': calls}
  with endpoints.serve(lambda _: message) as server:
    turn, _ = remote_helpers.sample_once(server, dialect='mmsearch_r1')
  (call,) = turn.calls
  assert 'there is no <tool_call>' in call.error


def test_limits_hold_for_any_dialect(run):
  """They are the loop's: the policy has no say."""
  limits = loop_helpers.limits(max_calls=load_dialect('mmsearch_r1').max_calls)
  executor = loop_helpers.make_executor()
  chat = loop_helpers.make_chat(executor)
  search = chat.encode_turn(thought='', calls=(loop_helpers.SEARCH,))
  policy = ScriptedPolicy(lambda request, turns: search, capacity=1)
  (trajectory,) = loop_helpers.rollout(
      policy, executor, chat, loop_helpers.requests(1), limits=limits
  )
  assert statuses(trajectory) == [OK, OK, BAD, BAD]

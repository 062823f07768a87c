"""How a conversation ends, and whose fault a failure is."""

from __future__ import annotations

import dataclasses

import pytest

from gog_jax.errors import UserError
from gog_jax.rewards import parts
from gog_jax.rewards import score as rewards
from gog_jax.rollout import loop
from gog_jax.types import StopReason
from gog_jax.types import ToolCall
from gog_jax.types import ToolStatus
from tests import chat_helpers
from tests import helpers
from tests import loop_helpers
from tests.loop_helpers import Fake
from tests.loop_helpers import fake
from tests.loop_helpers import MAX_TURN_TOKENS
from tests.loop_helpers import play
from tests.loop_helpers import SEARCH
from tests.loop_helpers import three_turns

pytestmark = pytest.mark.quick


@pytest.mark.parametrize('n_cut', [1, 3, 8])
def test_a_truncated_call_is_neither_executed_nor_repaired(n_cut):
  """Cut before <|im_end|>, inside the closing tag's line, inside the JSON."""

  def script(chat, request, n_turns):
    return three_turns(chat, request, n_turns)[:-n_cut]

  (trajectory,), _, executor = play(script)
  assert trajectory.stop_reason == StopReason.LENGTH
  (turn,) = trajectory.turns
  assert turn.parsed.calls == turn.results == ()
  assert turn.parsed.format_error is not None
  assert trajectory.answer is None
  assert trajectory.loss_mask.tolist() == [0] * 34 + [1] * (20 - n_cut)
  assert executor.counts.totals()['gaze/ok'] == 0
  assert parts.format_reward(chat_helpers.EXAMPLE, trajectory) == 0.0


def test_a_truncated_answer_is_no_answer():
  def script(chat, request, n_turns):
    del request, n_turns
    return chat.encode_turn(thought='found', answer='132')[:-1]

  (trajectory,), _, _ = play(script)
  assert trajectory.stop_reason == StopReason.LENGTH
  assert trajectory.answer is None


def test_an_observation_that_does_not_fit_is_dropped_whole():
  # Prompt 34, gaze 20, observation 23, and room for one more turn.
  enough = 34 + 20 + 23 + MAX_TURN_TOKENS
  (fits,), _, _ = play(three_turns, max_context=enough)
  # It goes on, but the second observation does not fit.
  assert fits.stop_reason == StopReason.CONTEXT
  assert len(fits.token_ids) == 34 + 20 + 23 + 15
  assert len(fits.images) == 2

  (dropped,), policy, executor = play(three_turns, max_context=enough - 1)
  assert dropped.stop_reason == StopReason.CONTEXT
  assert dropped.loss_mask.tolist() == [0] * 34 + [1] * 20
  assert len(dropped.images) == len(dropped.placements) == 1
  # What was found stays in the record, the call is counted.
  (result,) = dropped.turns[0].results
  assert result.status == ToolStatus.OK
  assert result.view is not None
  assert executor.counts.totals()['gaze/ok'] == 1
  assert dropped.answer is None and dropped.valid
  assert len(policy.rounds) == 1


def test_a_turn_may_be_as_long_as_the_rest_of_the_context():
  """It goes on while an answer fits, and is cut where none was asked to fit."""
  (plain,), _, _ = play(three_turns)
  n_whole, n_answer = len(plain.token_ids), plain.turns[-1].n_sampled
  (whole,), _, _ = play(
      three_turns, min_turn_tokens=n_answer, max_context=n_whole
  )
  assert whole.token_ids.tolist() == plain.token_ids.tolist()
  (cut,), _, _ = play(three_turns, min_turn_tokens=1, max_context=n_whole - 1)
  assert cut.stop_reason == StopReason.LENGTH
  assert cut.token_ids.tolist() == plain.token_ids.tolist()[:-1]
  (ended,), _, _ = play(
      three_turns, min_turn_tokens=n_answer, max_context=n_whole - 1
  )
  assert ended.stop_reason == StopReason.CONTEXT


def test_images_that_training_could_not_pack_are_dropped_whole():
  # The scene is 36 patches, the crop 20.
  (fits,), _, _ = play(three_turns, max_patches=56)
  assert fits.stop_reason == StopReason.ANSWER
  (dropped,), _, _ = play(three_turns, max_patches=55)
  assert dropped.stop_reason == StopReason.CONTEXT
  assert dropped.loss_mask.tolist() == [0] * 34 + [1] * 20
  assert len(dropped.images) == len(dropped.placements) == 1
  with pytest.raises(UserError, match='the images of e take 36 patches'):
    play(three_turns, max_patches=35)


def test_the_turn_limit():
  def script(chat, request, n_turns):
    del request, n_turns
    return chat.encode_turn(thought='need year', calls=(SEARCH,))

  (trajectory,), _, executor = play(script, max_turns=3)
  assert trajectory.stop_reason == StopReason.TURNS
  assert [len(turn.results) for turn in trajectory.turns] == [1, 1, 0]
  # The last message stands; its call, whose reply nobody would read, is not
  # made.
  assert trajectory.loss_mask[-15:].all()
  assert len(trajectory.turns[2].parsed.calls) == 1
  assert executor.counts.totals()['text_search/ok'] == 2
  assert parts.format_reward(chat_helpers.EXAMPLE, trajectory) == 0.0


def test_an_answer_in_the_last_turn_counts():
  (trajectory,), _, _ = play(three_turns, max_turns=3)
  assert trajectory.stop_reason == StopReason.ANSWER


def test_a_message_without_call_and_answer():
  def script(chat, request, n_turns):
    del request, n_turns
    return [*chat.encode_untrusted('a red star'), chat.stop_ids[0]]

  (trajectory,), _, _ = play(script)
  assert trajectory.stop_reason == StopReason.FORMAT
  assert len(trajectory.turns) == 1 and trajectory.answer is None
  assert parts.format_reward(chat_helpers.EXAMPLE, trajectory) == 0.0


def test_calls_beside_an_answer_are_not_made():
  def script(chat, request, n_turns):
    del request, n_turns
    call = chat.encode_turn(thought='', calls=[fake(0)])
    answer = chat.encode_turn(thought='', answer='a')
    return call[:-1] + answer[2:]  # Without <|im_end|>, without a thought.

  tool = Fake()
  (trajectory,), _, _ = play(script, tool)
  assert trajectory.stop_reason == StopReason.ANSWER
  assert trajectory.answer == 'a'
  assert len(trajectory.turns[0].parsed.calls) == 1
  assert trajectory.turns[0].parsed.format_error is not None
  assert tool.n_calls == 0


def test_infra_error_is_seen_and_masks_the_trajectory():
  async def breaks(x, context):
    del x, context
    raise OSError('no route')

  def script(chat, request, n_turns):
    if n_turns:
      return three_turns(chat, request, 2)
    return chat.encode_turn(thought='find', calls=(fake(1),))

  (trajectory,), _, executor = play(script, Fake(breaks))
  text = loop_helpers.make_chat(executor).decode(trajectory.token_ids)
  assert (
      '<tool_response>\nerror: fake failed: OSError: no route\n</tool_response>'
      in text
  )
  assert trajectory.answer == '132'
  assert trajectory.turns[0].results[0].status == ToolStatus.INFRA_ERROR
  assert not trajectory.valid
  # It is not the policy's fault.
  assert parts.format_reward(chat_helpers.EXAMPLE, trajectory) == 1.0


@pytest.mark.parametrize(
    'call',
    [
        ToolCall(name='gaze', arguments={'bbox_2d': [40, 3, 12, 84]}),
        ToolCall(name='gaze', arguments={'bbox_2d': [1, 2, 30], 'image': 1}),
        ToolCall(name='gaze', arguments={'bbox_2d': [0, 0, 9, 9], 'image': 2}),
        ToolCall(name='sing', arguments={}),
    ],
)
def test_model_error_costs_the_format_reward_alone(call):
  def script(chat, request, n_turns):
    if n_turns:
      return three_turns(chat, request, 2)
    return chat.encode_turn(thought='find', calls=(call,))

  (trajectory,), _, executor = play(script)
  (result,) = trajectory.turns[0].results
  assert result.status == ToolStatus.MODEL_ERROR
  text = loop_helpers.make_chat(executor).decode(trajectory.token_ids)
  assert f'<tool_response>\nerror: {result.error}\n</tool_response>' in text
  assert trajectory.valid
  assert len(trajectory.images) == 1
  scored = rewards.score(
      chat_helpers.EXAMPLE,
      trajectory,
      config=helpers.REWARD,
  )
  assert scored.reward_parts == {
      'accuracy': 1.0, 'format': 0.0, 'exact_match': 1.0, 'f1': 1.0,
  }  # fmt: skip
  assert scored.reward == pytest.approx(0.9)


def test_a_prompt_that_leaves_no_room_for_a_turn():
  play(three_turns, max_context=34 + MAX_TURN_TOKENS)
  with pytest.raises(UserError, match='the prompt of e takes 34 tokens'):
    play(three_turns, max_context=34 + MAX_TURN_TOKENS - 1)


def test_why_a_conversation_cannot_begin():
  chat = loop_helpers.make_chat(loop_helpers.make_executor())
  example, whole = chat_helpers.EXAMPLE, loop_helpers.limits()
  short = loop_helpers.limits(max_context=34)
  broken = dataclasses.replace(example, images=(b'no picture',))
  assert loop.refusal_of(example, chat, whole) == ''
  assert 'takes 34 tokens' in loop.refusal_of(example, chat, short)
  assert 'image' in loop.refusal_of(broken, chat, whole)


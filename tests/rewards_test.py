"""The reward, case by case."""

from __future__ import annotations

import dataclasses

import numpy as np
import pytest

from gog_jax.config.evaluation import RewardConfig
from gog_jax.rewards import answers
from gog_jax.rewards import score as rewards
from gog_jax.types import Example
from gog_jax.types import ParsedTurn
from gog_jax.types import StopReason
from gog_jax.types import ToolCall
from gog_jax.types import ToolResult
from gog_jax.types import ToolStatus
from gog_jax.types import Trajectory
from gog_jax.types import Turn
from gog_jax.types import Verdict

pytestmark = pytest.mark.quick

CONFIG = RewardConfig(accuracy='exact_match', format_weight=0.1, extra=())
EXAMPLE = Example(
    id='q',
    images=(),
    question='?',
    answers=('The Eiffel Tower', 'Tour Eiffel'),
    source='test',
    scope='',
)
CALL = ToolCall(name='text_search', arguments={'query': 'x'})


def trajectory(
    answer='tour eiffel',
    *,
    status=ToolStatus.OK,
    stop_reason=StopReason.ANSWER,
    format_error=None,
):
  turns = (
      Turn(
          parsed=ParsedTurn(text='', calls=(CALL,)),
          results=(ToolResult(status=status),),
      ),
      Turn(
          parsed=ParsedTurn(
              text='', answer=answer, format_error=format_error
          )
      ),
  )
  answered = stop_reason == StopReason.ANSWER
  return Trajectory(
      example_id='q',
      sample=0,
      token_ids=np.zeros(2, np.int32),
      loss_mask=np.ones(2, np.int8),
      sampler_logprobs=np.zeros(2, np.float32),
      images=(),
      placements=(),
      turns=turns if answered else turns[:1],
      stop_reason=stop_reason,
      answer=answer if answered else None,
  )


@pytest.mark.parametrize(
    ('case', 'want'),
    [
        (trajectory(), 1.0),
        (trajectory('an eiffel tower!'), 1.0),
        (trajectory('louvre'), 0.1),
        (trajectory(format_error='text after the answer'), 0.9),
        (trajectory(status=ToolStatus.MODEL_ERROR), 0.9),
        (trajectory('louvre', status=ToolStatus.MODEL_ERROR), 0.0),
        # The infrastructure's failure is not the policy's bad format.
        (trajectory(status=ToolStatus.INFRA_ERROR), 1.0),
        (trajectory(stop_reason=StopReason.TURNS), 0.0),
        (trajectory(stop_reason=StopReason.LENGTH), 0.0),
        (trajectory(stop_reason=StopReason.CONTEXT), 0.0),
        (trajectory(stop_reason=StopReason.FORMAT), 0.0),
    ],
)
def test_reward(case, want):
  scored = rewards.score(EXAMPLE, case, config=CONFIG)
  assert scored.reward == pytest.approx(want)
  assert case.reward is None  # Scoring makes a new record.


def test_infra_error_is_not_valid():
  assert not trajectory(status=ToolStatus.INFRA_ERROR).valid
  assert trajectory(status=ToolStatus.MODEL_ERROR).valid


@pytest.mark.parametrize(
    ('right', 'reward', 'valid'),
    [(True, 1.0, True), (False, 0.1, True), (None, 0.1, False)],
)
def test_a_verdict_may_be_the_accuracy(right, reward, valid):
  config = dataclasses.replace(CONFIG, accuracy='judge')
  judged = dataclasses.replace(
      trajectory('la tour eiffel'), verdict=Verdict(right=right, by='m')
  )
  scored = rewards.score(EXAMPLE, judged, config=config)
  assert scored.reward == pytest.approx(reward) and scored.valid is valid
  assert scored.reward_parts == {
      'accuracy': float(right is True), 'format': 1.0, 'exact_match': 0.0,
      'f1': pytest.approx(0.8),
  }  # fmt: skip


def test_what_is_not_judged_is_not_scored_by_a_judge():
  config = dataclasses.replace(CONFIG, accuracy='judge')
  with pytest.raises(ValueError, match='q is not judged'):
    rewards.score(EXAMPLE, trajectory(), config=config)
  spoilt = trajectory(status=ToolStatus.INFRA_ERROR)
  assert not rewards.score(EXAMPLE, spoilt, config=config).valid


def test_exact_match_and_f1_are_always_there():
  for accuracy in ('exact_match', 'token_f1'):
    config = dataclasses.replace(CONFIG, accuracy=accuracy)
    parts = rewards.score(
        EXAMPLE, trajectory('la tour eiffel'), config=config
    ).reward_parts
    assert (parts['exact_match'], parts['f1']) == (0.0, pytest.approx(0.8))
    assert parts['accuracy'] == parts[
        {'exact_match': 'exact_match', 'token_f1': 'f1'}[accuracy]
    ]
  nothing = trajectory(stop_reason=StopReason.TURNS)
  parts = rewards.score(EXAMPLE, nothing, config=CONFIG).reward_parts
  assert parts == dict.fromkeys(('accuracy', 'format', 'exact_match', 'f1'), 0)


def test_token_f1_by_hand():
  # 2 of 3 words right, 2 of 2 found: P = 2/3, R = 1.
  assert answers.token_f1('big eiffel tower', ('Eiffel tower',)) == (
      pytest.approx(0.8)
  )
  assert answers.token_f1('', ('x',)) == 0
  assert answers.exact_match('a', ('the',)) == 0  # Nothing equals nothing.


def test_a_search_costs_only_where_the_answer_is_right():
  def reward(n_calls, *, right):
    t = trajectory(answer='tour eiffel' if right else 'no')
    result = dataclasses.replace(t.turns[0].results[0], n_searches=1)
    asked = dataclasses.replace(
        t.turns[0],
        parsed=ParsedTurn(text='', calls=(CALL,) * n_calls),
        results=(result,) * n_calls,
    )
    return rewards.score(
        EXAMPLE,
        dataclasses.replace(t, turns=(asked, t.turns[1])),
        config=CONFIG,
        call_cost=0.2,
    )

  by_calls = [reward(n, right=True).reward for n in range(7)]
  np.testing.assert_allclose(
      by_calls, [1.0, 0.82, 0.64, 0.46, 0.28, 0.1, 0.1]
  )
  assert {reward(n, right=False).reward for n in range(7)} == {0.1}
  # How right it is does not depend on what it cost.
  assert reward(3, right=True).reward_parts == {
      'accuracy': 1.0, 'format': 1.0, 'exact_match': 1.0, 'f1': 1.0,
      'budget': pytest.approx(0.4),
  }  # fmt: skip

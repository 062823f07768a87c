"""One conversation through the rollout loop, token by token."""

from __future__ import annotations

import dataclasses

import numpy as np
import pytest

from gog_jax.chat import Chat
from gog_jax.rewards import answers
from gog_jax.rewards import parts
from gog_jax.rewards import score as rewards
from gog_jax.storage import trajectories as store
from gog_jax.toy import expert
from gog_jax.toy import questions
from gog_jax.toy.backend import WorldBackend
from gog_jax.toy.knowledge import make_scope
from gog_jax.types import StopReason
from gog_jax.types import Trajectory
from tests import chat_helpers
from tests import helpers
from tests import loop_helpers
from tests import world_helpers
from tests.loop_helpers import play
from tests.loop_helpers import three_turns

TRANSCRIPT = (
    '<|im_start|>system\nsee, find, search or answer<|im_end|>\n'
    '<|im_start|>user\n' + chat_helpers.image(9) + 'year of the top emblem?'
    '<|im_end|>\n<|im_start|>assistant\n'
    '<think>find red star</think>\n<tool_call>\n'
    '{"name":"gaze","arguments":{"bbox_2d":[12,3,40,84]}}'
    '\n</tool_call><|im_end|>\n'
    '<|im_start|>user\n<tool_response>\n' + chat_helpers.image(5) +
    'beldak red star strong\n</tool_response><|im_end|>\n'
    '<|im_start|>assistant\n'
    '<think>need year</think>\n<tool_call>\n'
    '{"name":"text_search","arguments":{"query":"beldak year"}}'
    '\n</tool_call><|im_end|>\n'
    '<|im_start|>user\n<tool_response>\nbeldak year 132\n</tool_response>'
    '<|im_end|>\n<|im_start|>assistant\n'
    '<think>found</think>\n<answer>132</answer><|im_end|>'
)
# By hand, from the toy tokenizer's pieces.
MASK = (
    '0000000000 0000'  # System, user, vision start.
    '000000000'  # The scene: 9 image tokens.
    '0 000000 0 00 0'  # Vision end, question, end, assistant.
    '11111 111 1 1111111 1 111'  # Thought, tag, gaze and its box, tag, end.
    '000000'  # Line, user, response, vision start.
    '00000'  # The crop: 5 image tokens.
    '0 00000 0 0 0 000'  # Vision end, hit, response end, end, assistant.
    '1111 111 1 111 1 111'  # Thought, tag, search and its query, tag, end.
    '00000 00000 0 0 0 000'  # Response with its hit, assistant.
    '111 1 1 1 1 1'  # Thought, answer, end.
)


@pytest.fixture(scope='module', name='played')
def three_turns_played():
  (trajectory,), policy, executor = play(three_turns)
  return trajectory, policy, loop_helpers.make_chat(executor)


@pytest.mark.quick
def test_three_turns_token_by_token(played):
  trajectory, _, chat = played
  assert chat.decode(trajectory.token_ids) == TRANSCRIPT
  want = [int(digit) for digit in MASK.replace(' ', '')]
  assert trajectory.loss_mask.tolist() == want
  said = [
      token
      for turn in range(3)
      for token in three_turns(chat, None, turn)
  ]
  assert trajectory.token_ids[trajectory.loss_mask == 1].tolist() == said
  assert [turn.n_sampled for turn in trajectory.turns] == [20, 15, 8]
  # The player counts -1, -2, ... in every turn.
  logprobs = np.zeros(len(want), np.float32)
  logprobs[np.array(want) == 1] = [
      -1.0 - i for n in (20, 15, 8) for i in range(n)
  ]
  np.testing.assert_array_equal(trajectory.sampler_logprobs, logprobs)
  assert trajectory.stop_reason == StopReason.ANSWER
  assert trajectory.answer == '132' and trajectory.valid


@pytest.mark.quick
def test_placements_are_the_runs_of_image_tokens(played):
  trajectory, _, chat = played
  is_image = trajectory.token_ids == chat.image_pad_id
  edges = np.flatnonzero(np.diff(is_image.astype(int), prepend=0, append=0))
  runs = list(zip(edges[::2], edges[1::2] - edges[::2]))
  assert runs == [(14, 9), (60, 5)]
  placements = trajectory.placements
  assert [(p.start, p.n_tokens) for p in placements] == runs
  assert [p.grid for p in placements] == [(1, 6, 6), (1, 10, 2)]
  assert [p.image for p in placements] == [0, 1]
  scene, crop = trajectory.images
  assert scene.data == chat_helpers.SCENE and scene.box == (0, 0, 168, 168)
  # The model saw 84 x 84 of 168 x 168 pixels.
  assert (crop.root, crop.box) == (0, (24, 6, 80, 168))
  assert crop == trajectory.turns[0].results[0].view


@pytest.mark.quick
def test_the_record_survives_the_disk(played, tmp_path):
  trajectory, _, _ = played
  scored = rewards.score(
      chat_helpers.EXAMPLE,
      trajectory,
      config=helpers.REWARD,
  )
  assert scored.reward == 1.0
  store.write(tmp_path / 't.jsonl', [scored])
  (read,) = store.read(tmp_path / 't.jsonl', Trajectory)
  for field in dataclasses.fields(Trajectory):
    want, got = getattr(scored, field.name), getattr(read, field.name)
    if isinstance(want, np.ndarray):
      assert got.dtype == want.dtype
      np.testing.assert_array_equal(got, want)
    else:
      assert got == want, field.name


@pytest.mark.quick
def test_odd_tokenisations_are_kept_as_sampled():
  odd = {}

  def script(chat, request, n_turns):
    usual = three_turns(chat, request, n_turns)
    word = chat.encode_untrusted(['find', 'need', 'found'][n_turns])
    at = usual.index(word[0])
    letters = [
        token
        for letter in chat.decode(word)
        for token in chat.encode_untrusted(letter)
    ]
    odd[n_turns] = usual[:at] + letters + usual[at + len(word) :]
    assert odd[n_turns] != usual
    return odd[n_turns]

  (trajectory,), _, executor = play(script)
  sampled = trajectory.token_ids[trajectory.loss_mask == 1].tolist()
  assert sampled == odd[0] + odd[1] + odd[2]
  chat = loop_helpers.make_chat(executor)
  assert chat.decode(trajectory.token_ids) == TRANSCRIPT
  assert trajectory.answer == '132'
  assert [len(turn.results) for turn in trajectory.turns] == [1, 1, 0]


def test_the_oracle_answers_in_the_embedded_world():
  """Questions of every depth, with the world's own searches."""
  executor = loop_helpers.make_executor(backend=WorldBackend())
  chat = loop_helpers.make_chat(executor)
  to_model_box = lambda box: [side / 2 for side in box]  # 168 seen as 84.

  def script(request, turns):
    rng = np.random.default_rng(0)
    thought, calls, answer = expert.expert_turn(
        request.example, turns, to_model_box, rng, world_helpers.ORACLE
    )
    return chat.encode_turn(thought=thought, calls=calls, answer=answer)

  scope = make_scope('test', 0)
  examples = [questions.make_question(scope, i).example for i in range(16)]
  assert {example.hops for example in examples} >= {0, 1, 2}
  policy = loop_helpers.Player(script, chat.stop_ids)
  trajectories = loop_helpers.rollout(
      policy,
      executor,
      chat,
      [r for e in examples for r in loop_helpers.requests(1, e)],
      limits=loop_helpers.limits(),
  )
  answered = [
      answers.match(trajectory.answer or '', example.answers)
      for example, trajectory in zip(examples, trajectories, strict=True)
  ]
  assert np.mean(answered) > 0.9
  for example, trajectory in zip(examples, trajectories):
    assert trajectory.example_id == example.id
    assert parts.format_reward(example, trajectory) == 1.0
    assert bool(example.hops) == any(t.results for t in trajectory.turns)


@pytest.mark.quick
def test_turns_are_told_when_sampled_and_when_results_are_in():
  told = {0: [], 1: []}
  trajectories, _, _ = play(
      three_turns,
      n=2,
      on_turn=lambda request, turn: told[request.sample].append(turn),
  )
  for trajectory in trajectories:
    without = [dataclasses.replace(t, results=()) for t in trajectory.turns]
    first, second, answer = trajectory.turns
    assert first.results and second.results
    # The answer has none to wait for.
    assert told[trajectory.sample] == [
        without[0], first, without[1], second, answer,
    ]  # fmt: skip


@pytest.mark.quick
def test_results_that_end_a_conversation_are_told_as_well():
  told = []
  (trajectory,), _, _ = play(
      three_turns, max_context=90, on_turn=lambda _, turn: told.append(turn)
  )
  assert trajectory.stop_reason == StopReason.CONTEXT
  assert told[-1] == trajectory.turns[-1] and told[-1].results


def test_a_groups_prompt_is_rendered_once(monkeypatch):
  """Two examples of three samples each; both are told apart."""
  other = dataclasses.replace(chat_helpers.EXAMPLE, id='o', question='shape?')
  rendered, prompt = [], Chat.prompt

  def counted(chat, example):
    rendered.append(example.id)
    return prompt(chat, example)

  monkeypatch.setattr(Chat, 'prompt', counted)
  executor = loop_helpers.make_executor()
  chat = loop_helpers.make_chat(executor)
  trajectories = loop_helpers.rollout(
      loop_helpers.Player(
          lambda request, turns: three_turns(chat, request, len(turns)),
          chat.stop_ids,
      ),
      executor,
      chat,
      [
          *loop_helpers.requests(3),
          *(
              dataclasses.replace(one, sample=one.sample + 3)
              for one in loop_helpers.requests(3, other)
          ),
      ],
      limits=loop_helpers.limits(),
  )
  assert rendered == [chat_helpers.EXAMPLE.id, 'o']
  asked = [chat.codec.decode(t.token_ids[:40]) for t in trajectories]
  assert len(set(asked)) == 2 and all('shape?' in text for text in asked[3:])

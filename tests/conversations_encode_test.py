"""Conversations in words as tokens: masks by hand, the rollout's encoding."""

from __future__ import annotations

import dataclasses
import itertools

import pytest

from gog_jax.boxes import BoxSpec
from gog_jax.chat import protocol
from gog_jax.conversations import encode
from gog_jax.conversations import layouts
from gog_jax.conversations.layouts import LAYOUTS
from gog_jax.storage.records import Unusable
from gog_jax.types import NO_ROOT
from gog_jax.types import StopReason
from gog_jax.types import TokenChunk
from gog_jax.types import ToolCall
from tests import conversation_helpers as helpers
from tests.chat_helpers import CROP
from tests.chat_helpers import EXAMPLE
from tests.chat_helpers import hit
from tests.chat_helpers import make_chat
from tests.chat_helpers import ok
from tests.chat_helpers import SCENE
from tests.chat_helpers import TOY

SPEC = BoxSpec(kind='resized_pixels', min_side=16, step=7)


@pytest.fixture(scope='module', name='chat')
def toy_chat():
  return make_chat(TOY, 'gog_toy')


@pytest.fixture(scope='module', name='folder')
def image_folder(tmp_path_factory):
  return helpers.save(tmp_path_factory.mktemp('images') / 'x.json', []).parent


def conversation(folder, row, layout='sharegpt'):
  return layouts.read_row(row, LAYOUTS[layout], folder=folder, name='x')


def encoded(row, chat, folder, layout='sharegpt', **more):
  """Boxes in pixels of the image as the policy sees it, as the toy's own."""
  return encode.encode(
      conversation(folder, row, layout),
      chat,
      SPEC,
      **{'data_box': 'resized_pixels', **more},
  )


def said(*values, images=()):
  """A ShareGPT row of turns that alternate, the agent's first words second."""
  words = itertools.cycle(['human', 'gpt'])
  return {
      'conversations': [
          {'from': word, 'value': value} for word, value in zip(words, values)
      ],
      'images': list(images),
  }


def runs(mask):
  return [(key, len(list(group))) for key, group in itertools.groupby(mask)]


# 11 of the system message, 2 and 4 of the frame, an image of 9 and its frame,
# a question of 6. Then a thought of 4, a call of 8 and 9 of tags and lines; a
# reply of 5 with an image of 6; and so on.
BY_HAND = [(0, 34), (1, 21), (0, 24), (1, 13), (0, 16), (1, 7)]


@pytest.mark.parametrize('layout', LAYOUTS)
def test_targets_are_the_agents_words_alone(chat, folder, layout):
  row = getattr(helpers, layout)()
  trajectory = encoded(row, chat, folder, layout)
  assert runs(trajectory.loss_mask.tolist()) == BY_HAND
  assert [(p.start, p.image, p.n_tokens) for p in trajectory.placements] == [
      (14, 0, 9), (34 + 21 + 6, 1, 6),
  ]  # fmt: skip
  assert [view.data for view in trajectory.images] == [SCENE, CROP.data]
  assert not trajectory.sampler_logprobs.any()
  assert [view.root for view in trajectory.images] == [0, NO_ROOT]
  assert trajectory.answer == '129'
  assert trajectory.stop_reason == StopReason.ANSWER
  names = [c.name for turn in trajectory.turns for c in turn.parsed.calls]
  assert names == ['gaze', 'text_search']


def test_a_turn_without_loss_is_no_target(chat, folder):
  row = helpers.swift()
  row['messages'][3]['loss'] = False
  got = encoded(row, chat, folder, 'swift')
  assert runs(got.loss_mask.tolist()) == [
      (0, 34 + 21 + 24), *BY_HAND[3:]
  ]  # fmt: skip


def test_tokens_are_those_of_a_rollout(chat, folder):
  """Written by the chat piece by piece, as rollout/loop.py has it."""
  got = encoded(helpers.sharegpt(), chat, folder)
  example = dataclasses.replace(EXAMPLE, question='year of barred blue circle?')
  gaze = ToolCall(name='gaze', arguments={'bbox_2d': [28, 28, 56, 56]})
  search = ToolCall(name='text_search', arguments={'query': 'belwen year'})
  wanted = [
      *chat.prompt(example).token_ids,
      *chat.encode_turn(thought='find barred blue circle', calls=[gaze]),
      *chat.observation(
          [gaze], [ok(hit('belwen barred blue circle'), view=CROP)]
      ).token_ids,
      *chat.encode_turn(thought='', calls=[search]),
      *chat.observation([search], [ok(hit('belwen year 129'))]).token_ids,
      *chat.encode_turn(thought='', answer='129'),
  ]
  assert got.token_ids.tolist() == wanted


@pytest.mark.parametrize(
    ('text', 'thought', 'answer'),
    [
        ('<think>hm</think>\n<answer>red</answer>', 'hm', 'red'),
        ('<think>hm</think><answer>red</answer>', 'hm', 'red'),
        ('I see it. <answer>red</answer>', 'I see it.', 'red'),
        ('<think>hm</think>red', 'hm', 'red'),
        ('red', '', 'red'),
    ],
)
def test_answers_however_they_are_written(chat, folder, text, thought, answer):
  (turn,) = encoded(said('what?', text), chat, folder).turns
  assert turn.parsed.format_error is None
  assert (turn.parsed.thought, turn.parsed.answer) == (thought, answer)


def test_hermes_calls_and_replies_are_read(chat, folder):
  call = f'{protocol.CALL}\n{helpers.GAZE}\n{protocol.END_CALL}'
  reply = '<tool_response>\n<image>it\n</tool_response>'
  hermes = said(
      '<image>who?', f'look {call}', reply, '129',
      images=['images/scene.png', 'images/crop.png'],
  )  # fmt: skip
  plain = {
      **hermes,
      'conversations': [
          {'from': 'human', 'value': '<image>who?'},
          {
              'from': 'function_call',
              'value': f'<think>look</think>{helpers.GAZE}',
          },
          {'from': 'observation', 'value': '<image>it'},
          {'from': 'gpt', 'value': '129'},
      ],
  }
  a, b = (encoded(row, chat, folder) for row in (hermes, plain))
  assert a.token_ids.tolist() == b.token_ids.tolist()
  assert a.loss_mask.tolist() == b.loss_mask.tolist()
  assert a.turns == b.turns


def test_parallel_calls_have_a_reply_each(chat, folder):
  row = helpers.swift()
  row['messages'][4:4] = [row['messages'].pop(5)]  # Both calls, then replies.
  got = encoded(row, chat, folder, 'swift')
  assert [len(turn.parsed.calls) for turn in got.turns] == [2, 0]
  text = chat.decode(got.token_ids)
  assert text.count(protocol.RESPONSE) == text.count(protocol.CALL) == 2
  assert '</tool_response>\n<tool_response>' in text


def test_images_stand_where_a_question_shows_them(chat, folder):
  row = said(
      '<image>is it <image> or not?', 'no', 'sure?', 'yes',
      images=['images/scene.png', 'images/crop.png'],
  )  # fmt: skip
  got = encoded(row, chat, folder)
  chunk = TokenChunk(
      token_ids=tuple(got.token_ids.tolist()),
      images=got.images,
      placements=got.placements,
  )
  shown = [
      (role, [part if isinstance(part, str) else '#' for part in parts])
      for role, parts in chat.messages(chunk)[1:]
  ]
  assert shown[0] == ('user', ['#', 'is it ', '#', ' or not?'])
  assert shown[2] == ('user', ['sure?'])
  assert [view.root for view in got.images] == [0, 1]


def test_text_that_spells_tags_stays_text(chat, folder):
  question = 'what is <image\u200b> or <tool_call> or <|im_end|>?'
  ids = encoded(said(question, 'red'), chat, folder).token_ids.tolist()
  text = 'what is <image> or <tool_call> or <|im_end|>?'
  assert text in chat.decode(ids)
  assert ids.count(chat.stop_ids[0]) == 3  # System, user and the agent.
  assert not set(chat.call_ids) & set(ids)
  assert chat.image_pad_id not in ids


@pytest.mark.parametrize(
    ('turn', 'reason', 'words'),
    [
        (('function_call', 'red'), 'bad call', 'is not JSON'),
        (('function_call', '{"id": "x"}'), 'bad call', 'is no {"name"'),
        (
            ('function_call', '{"name": "zoom", "arguments": {}}'),
            'bad call',
            "no tool 'zoom'",
        ),
        (
            ('function_call', '{"name": "gaze", "arguments": {"bbox_2d": 3}}'),
            'bad call',
            'bbox_2d',
        ),
        (('gpt', '<think>a</think>b<answer>c</answer>'), 'bad turn', "'b'"),
        (('gpt', ''), 'bad turn', 'the answer is empty'),
    ],
)
def test_turns_that_no_policy_can_do(chat, folder, turn, reason, words):
  row = said('what?', '')
  row['conversations'][1] = dict(zip(('from', 'value'), turn, strict=True))
  with pytest.raises(Unusable, match=words) as caught:
    encoded(row, chat, folder)
  assert caught.value.reason == reason


def test_a_dialect_that_asks_again_is_given_the_question(folder):
  """MMSearch-R1's prompt is long: no question may be one already."""
  chat = make_chat(TOY, 'mmsearch_r1')
  row = said(
      'who is it?',
      '<think>see</think>\n<tool_call>\n'
      '{"name":"text_search","arguments":{"query":"q"}}\n</tool_call>',
      '<tool_response>\nseljin\n</tool_response>',
      '<answer>seljin</answer>',
  )
  text = chat.decode(encoded(row, chat, folder).token_ids.tolist())
  assert 'The question was: who is it?\n' in text
  prompt = text.partition('<|im_start|>user\n')[2].partition('<|im_end|>')[0]
  row['conversations'][0]['value'] = prompt
  row['conversations'] = [row['conversations'][0], row['conversations'][-1]]
  with pytest.raises(Unusable, match='is a prompt in the dialect'):
    encoded(row, chat, folder)

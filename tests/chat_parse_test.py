"""Chat: how messages of the policy are read, and that reading is exact."""

from __future__ import annotations

import itertools
import json
import unicodedata

from hypothesis import given
from hypothesis import HealthCheck
from hypothesis import settings
from hypothesis import strategies as st
import numpy as np
import pytest

from gog_jax.chat import Chat
from gog_jax.chat import protocol
from gog_jax.types import ToolCall
from tests.chat_helpers import GAZE
from tests.chat_helpers import GLANCE
from tests.chat_helpers import hit
from tests.chat_helpers import HOSTILE
from tests.chat_helpers import ok
from tests.chat_helpers import SEARCH
from tests.chat_helpers import TOY

pytest_plugins = ['tests.chat_fixtures']

TEXTS = st.text(max_size=12) | st.lists(
    st.sampled_from([*HOSTILE, '\\', '"', 'é', '{', '}}', '\n', 'u003c', '年']),
    max_size=4,
).map(''.join)
NORMAL = TEXTS.map(lambda text: unicodedata.normalize('NFC', text))
CONTENTS = NORMAL.filter(
    lambda text: not any(tag in text for tag in protocol.TAGS)
).map(str.strip)
NUMBERS = st.integers(-(10**6), 10**6) | st.floats(
    allow_nan=False, allow_infinity=False
)
CALLS = st.one_of(
    st.builds(
        lambda query: ToolCall(name='text_search', arguments={'query': query}),
        NORMAL,
    ),
    st.just(GLANCE),
    st.builds(
        lambda box, rest: ToolCall(
            name='gaze', arguments={'bbox_2d': box} | rest
        ),
        st.lists(NUMBERS, min_size=4, max_size=4),
        st.sampled_from([{}, {'image': 2}]),
    ),
)
FUZZ = settings(
    max_examples=150,
    deadline=None,
    suppress_health_check=[HealthCheck.too_slow],
)


@FUZZ
@given(thought=CONTENTS, calls=st.lists(CALLS, min_size=1, max_size=3))
def test_calls_read_back(chat, thought, calls):
  turn = chat.encode_turn(thought=thought, calls=calls)
  parsed = chat.parse(turn, truncated=False)
  assert parsed.thought == thought
  assert parsed.calls == tuple(calls)
  assert parsed.answer is None and parsed.format_error is None
  assert parsed.text + '<|im_end|>' == chat.decode(turn)


@FUZZ
@given(thought=CONTENTS, answer=CONTENTS.filter(bool))
def test_answers_read_back(chat, thought, answer):
  turn = chat.encode_turn(thought=thought, answer=answer)
  parsed = chat.parse(np.array(turn, np.int32), truncated=False)
  assert (parsed.thought, parsed.answer) == (thought, answer)
  assert parsed.calls == () and parsed.format_error is None


@FUZZ
@given(data=st.data())
def test_any_tokens_can_be_read(toy, data):
  ids = st.lists(st.integers(0, toy.codec.vocab_size + 9), max_size=30)
  tags = [toy.encode_turn(thought='x', calls=[SEARCH])]
  tags += [toy.encode_turn(thought='x', answer='y')]
  pieces = st.one_of(
      ids, st.sampled_from([[i] for i in itertools.chain(*tags)])
  )
  turn = sum(data.draw(st.lists(pieces, max_size=12)), [])
  parsed = toy.parse(turn, truncated=data.draw(st.booleans()))
  assert '\n' not in ''.join(call.error or '' for call in parsed.calls)
  if parsed.format_error is None:
    assert bool(parsed.calls) != bool(parsed.answer)


def read(toy: Chat, text: str):
  """Reads a message spelled by us; its tags are the control tokens."""
  ids = []
  for part in protocol.HERMES.tag.split(text):
    index = toy.codec.id_of(part) if part in protocol.TAGS else None
    ids += toy.encode_untrusted(part) if index is None else [index]
  return toy.parse([*ids, toy.stop_ids[0]], truncated=False)


JSON = '{"name":"text_search","arguments":{"query":"q"}}'
CALL = f'<tool_call>{JSON}</tool_call>'


@pytest.mark.parametrize(
    'text',
    [
        f'<think>t</think>{CALL}',
        f' \n<think>\nt\n</think>\n\n<tool_call>\n {JSON} \n</tool_call>\n',
        f'<think>t</think>\n{CALL}\n\n{CALL}',
        '<think>t</think>\n<tool_call>\n{ "arguments" : {"query": "q"},\n'
        ' "name": "text_search" }\n</tool_call>',
    ],
)
def test_white_space_is_free(toy, text):
  parsed = read(toy, text)
  assert parsed.format_error is None and parsed.thought == 't'
  assert set(call.arguments['query'] for call in parsed.calls) == {'q'}
  assert all(call.error is None for call in parsed.calls)


@pytest.mark.parametrize(
    ('text', 'error', 'n_calls', 'answer'),
    [
        ('', 'begin with one <think>', 0, None),
        ('<think>t</think>', 'neither calls nor an answer', 0, None),
        (CALL, 'begin with one <think>', 1, None),
        ('<answer>a</answer>', 'begin with one <think>', 0, 'a'),
        (f'so <think>t</think>{CALL}', 'begin with one <think>', 1, None),
        (f'<think>t</think>so {CALL}', 'text outside', 1, None),
        (f'<think>t</think>{CALL}.', 'text outside', 1, None),
        (f'<think>t</think><think>u</think>{CALL}', 'outside', 1, None),
        (f'<think>t{CALL}', 'begin with one <think>', 1, None),
        # A call inside a thought is not a call.
        (f'<think>{CALL}</think>', 'neither', 0, None),
        (f'<think>{CALL}</think><answer>a</answer>', 'inside', 0, 'a'),
        (f'<think>t</think>{CALL}<answer>a</answer>', 'both', 1, 'a'),
        ('<think>t</think><answer>a<answer>b</answer>', 'inside', 0, 'a<answ'),
        (
            '<think>t</think><answer>a</answer><answer>b</answer>',
            'more than one answer',
            0,
            'a',
        ),
        ('<think>t</think><answer> </answer>', 'answer is empty', 0, ''),
        ('<think>t</think><answer>a', 'text outside', 0, None),
        (f'<think>t</think><tool_call>{JSON}', 'text outside', 1, None),
    ],
)
def test_format_errors(toy, text, error, n_calls, answer):
  parsed = read(toy, text)
  assert error in parsed.format_error
  assert len(parsed.calls) == n_calls
  assert parsed.text == text
  if answer is None:
    assert parsed.answer is None
  else:
    assert parsed.answer is not None and parsed.answer.startswith(answer)


@pytest.mark.parametrize(
    ('call', 'error'),
    [
        ('', 'not JSON'),
        ('{"name":"gaze"', 'not JSON'),
        ('{"name":"gaze","arguments":{"bbox_2d":[1,2,3,NaN]}}', 'NaN'),
        ('[' * 100_000, 'not JSON'),
        ('9' * 5000, 'not JSON'),
        ('[]', 'must be'),
        ('{"name":"image_search"}', 'must be'),
        ('{"name":"image_search","arguments":{},"id":1}', 'must be'),
        ('{"name":7,"arguments":{}}', 'name must be text'),
        ('{"name":"gaze","arguments":"{}"}', 'arguments a JSON object'),
        ('{"name":"zoom","arguments":{}}', "no tool 'zoom', only text_search"),
        ('{"name":"text_search","arguments":{}}', "'query' is a required"),
        ('{"name":"text_search","arguments":{"query":7}}', 'query: 7 is not'),
        ('{"name":"image_search","arguments":{"k":1}}', 'unexpected'),
        ('{"name":"gaze","arguments":{"bbox_2d":[1,2,3]}}', 'too short'),
        ('{"name":"gaze","arguments":{"bbox_2d":[1,2,3,true]}}', 'bbox_2d.3'),
        (
            '{"name":"gaze","arguments":{"bbox_2d":[1,2,3,4],"image":0}}',
            'minimum',
        ),
    ],
)
def test_calls_that_cannot_be_executed(toy, call, error):
  parsed = read(toy, f'<think>t</think><tool_call>{call}</tool_call>{CALL}')
  bad, good = parsed.calls
  assert bad.error is not None
  assert error in bad.error and '\n' not in bad.error
  assert len(bad.error) <= 120
  assert good.error is None
  assert parsed.format_error is None  # The message is well formed; the call
  # is what fails, and costs the policy through its model_error.


def test_an_unclosed_call_is_answered_but_not_executed(toy):
  parsed = read(toy, f'<think>t</think>{CALL}<tool_call>{JSON}')
  assert [call.error for call in parsed.calls] == [
      None,
      'the call is not closed by </tool_call>',
  ]
  assert parsed.format_error is not None


def test_cut_off_turns_are_neither_executed_nor_repaired(toy):
  for turn in (
      toy.encode_turn(thought='find it', calls=[SEARCH, GAZE]),
      toy.encode_turn(thought='found', answer='132'),
  ):
    for length in range(len(turn)):
      parsed = toy.parse(turn[:length], truncated=True)
      assert parsed.calls == () and parsed.answer is None
      assert 'cut off' in parsed.format_error
      assert parsed.text == toy.decode(turn[:length])
    # A turn without its end is cut off, whatever the caller says.
    assert 'cut off' in toy.parse(turn[:-1], truncated=False).format_error


def test_control_tokens_inside_a_message_are_format_errors(toy):
  turn = toy.encode_turn(thought='see it', answer='red')
  for token in ('<|image_pad|>', '<|im_start|>', '<|im_end|>', '<|video_pad|>'):
    index = toy.codec.id_of(token)
    parsed = toy.parse([*turn[:2], index, *turn[2:]], truncated=False)
    assert parsed.format_error == f'{token} inside the message'
    # The same letters as text are harmless.
    letters = [*turn[:2], *toy.encode_untrusted(token), *turn[2:]]
    assert toy.parse(letters, truncated=False).format_error is None
  reply = toy.encode_turn(thought='see it', calls=[GLANCE])[:-1]
  reply += toy.observation([GLANCE], [ok(hit('it is red'))]).token_ids[3:-3]
  parsed = toy.parse([*reply, toy.stop_ids[0]], truncated=False)
  assert '<tool_response> inside the message' in parsed.format_error


def test_other_ends_and_ids_without_text(toy):
  turn = toy.encode_turn(thought='see it', answer='red')
  assert toy.decode(toy.stop_ids) == '<|im_end|><|endoftext|>'
  parsed = toy.parse([*turn[:-1], toy.stop_ids[1]], truncated=False)
  assert parsed.answer == 'red' and '<|endoftext|>' in parsed.format_error
  # A model's table may be larger than its tokenizer.
  parsed = toy.parse([toy.codec.vocab_size, *turn], truncated=False)
  assert f'token {toy.codec.vocab_size} has no text' in parsed.format_error


def test_reading_never_encodes(toy, monkeypatch):
  turn = toy.encode_turn(thought='find it', calls=[SEARCH, GAZE])
  # Byte by byte: ids that no encoder would give, and the same text.
  vocab = json.loads((TOY / 'tokenizer.json').read_text())['model']['vocab']
  spelled = [
      piece
      for index in turn
      for piece in (
          [index]
          if index >= len(vocab)
          else [
              i
              for byte in toy.decode([index])
              for i in toy.encode_untrusted(byte)
          ]
      )
  ]
  assert len(spelled) > len(turn)

  def refuse(*_):
    raise AssertionError('sampled text was encoded')

  monkeypatch.setattr(toy.codec, 'encode_text', refuse)
  assert toy.parse(spelled, truncated=False) == toy.parse(turn, truncated=False)


@pytest.mark.parametrize(
    ('message', 'error'),
    [
        ({'thought': 'x'}, 'either calls or an answer'),
        ({'thought': 'x', 'calls': [GAZE], 'answer': 'y'}, 'either'),
        ({'thought': 'x', 'answer': ' '}, 'empty'),
        ({'thought': 'a</think>b', 'answer': 'y'}, '</think> inside'),
        ({'thought': 'x', 'answer': '<tool_call>'}, '<tool_call> inside'),
        (
            {
                'thought': 'x',
                'calls': [ToolCall(name='gaze', arguments={'x': float('nan')})],
            },
            'JSON',
        ),
    ],
)
def test_turns_that_would_not_read_back_are_refused(toy, message, error):
  with pytest.raises(ValueError, match=error):
    toy.encode_turn(**message)


def test_equal_calls_give_equal_tokens(toy):
  arguments = {'bbox_2d': [1, 2, 3, 4], 'image': 2}
  backwards = dict(reversed(arguments.items()))
  assert toy.encode_turn(
      thought='x', calls=[ToolCall(name='gaze', arguments=arguments)]
  ) == toy.encode_turn(
      thought='x', calls=[ToolCall(name='gaze', arguments=backwards)]
  )

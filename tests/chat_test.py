"""Chat: what is rendered, and that text never turns into control."""

from __future__ import annotations

import json
import time

from hypothesis import given
from hypothesis import settings
from hypothesis import strategies as st
import numpy as np
import pytest
import tokenizers

from gog_jax.chat.render import whole
from gog_jax.types import Example
from gog_jax.types import Placement
from gog_jax.types import ToolCall
from gog_jax.types import ToolResult
from gog_jax.types import ToolStatus
from gog_jax.types import View
from tests.chat_helpers import CROP
from tests.chat_helpers import EXAMPLE
from tests.chat_helpers import GAZE
from tests.chat_helpers import GLANCE
from tests.chat_helpers import hit
from tests.chat_helpers import HOSTILE
from tests.chat_helpers import image
from tests.chat_helpers import ok
from tests.chat_helpers import SCENE
from tests.chat_helpers import SEARCH
from tests.chat_helpers import TOOLS

pytest_plugins = ['tests.chat_fixtures']

# Rendering.


def test_prompt_word_for_word(toy):
  prompt = toy.prompt(EXAMPLE)
  assert toy.decode(prompt.token_ids) == (
      '<|im_start|>system\n'
      'see, find, search or answer<|im_end|>\n'
      '<|im_start|>user\n'
      f'{image(9)}year of the top emblem?<|im_end|>\n'
      '<|im_start|>assistant\n'
  )
  assert prompt.placements == (
      Placement(start=14, image=0, grid=(1, 6, 6), n_tokens=9),
  )
  assert prompt.images == (View(data=SCENE, root=0, box=(0, 0, 168, 168)),)


def test_observation_word_for_word(toy):
  results = (
      ok(hit('beldak red circle strong'), view=CROP),
      ok(),
      ToolResult(status=ToolStatus.INFRA_ERROR, error='no reply within 10 s'),
      ok(hit('beldak year 132'), hit('beldak city rome')),
  )
  chunk = toy.observation([GAZE, SEARCH, GLANCE, SEARCH], results)
  assert toy.decode(chunk.token_ids) == (
      '\n<|im_start|>user\n'
      f'<tool_response>\n{image(6)}beldak red circle strong\n</tool_response>\n'
      '<tool_response>\nnot found\n</tool_response>\n'
      '<tool_response>\nerror: no reply within 10 s\n</tool_response>\n'
      '<tool_response>\nbeldak year 132\nbeldak city rome\n</tool_response>'
      '<|im_end|>\n<|im_start|>assistant\n'
  )
  assert chunk.images == (CROP,)
  (placement,) = chunk.placements
  assert placement.n_tokens == 6 and placement.grid == (1, 6, 4)
  pads = np.flatnonzero(np.array(chunk.token_ids) == toy.image_pad_id)
  assert pads.tolist() == list(range(placement.start, placement.start + 6))


def test_rendering_equals_the_usual_tokenizer_on_the_whole_text(chat, oracle):
  """As if a chat template had been rendered to text and then encoded."""
  examples = (
      EXAMPLE,
      Example(
          id='t',
          images=(),
          question='\n\n  who is this?\n',
          answers=('x',),
          source='s',
          scope='s',
      ),
      Example(
          id='u',
          images=(SCENE, CROP.data),
          question='¿Qué año? 年 1987',
          answers=('x',),
          source='s',
          scope='s',
      ),
  )
  results = [ok(hit('Two\nlines, née 1987.'), view=CROP), ok(hit('x', 'y'))]
  chunks = [chat.prompt(example) for example in examples]
  chunks += [chat.observation([GAZE, SEARCH], results)]
  chunks += [chat.user([*whole((SCENE,)), 'where is it?'], first=True)]
  for chunk in chunks:
    text = chat.decode(chunk.token_ids)
    assert list(chunk.token_ids) == oracle(text)['input_ids']
  for turn in (
      chat.encode_turn(thought='find it', calls=[GAZE, SEARCH]),
      chat.encode_turn(thought='two\nlines', answer='132 or so'),
      chat.encode_turn(thought='', answer='né en 1987'),
  ):
    assert turn == oracle(chat.decode(turn))['input_ids']


def test_turns_word_for_word(chat):
  turn = chat.encode_turn(thought=' find it ', calls=[GAZE, GLANCE])
  assert chat.decode(turn) == (
      '<think>find it</think>\n'
      '<tool_call>\n'
      '{"name":"gaze","arguments":{"bbox_2d":[12,3,40,84]}}\n'
      '</tool_call>\n'
      '<tool_call>\n'
      '{"name":"image_search","arguments":{}}\n'
      '</tool_call><|im_end|>'
  )
  turn = chat.encode_turn(thought='seen', answer='né')
  assert chat.decode(turn) == (
      '<think>seen</think>\n<answer>né</answer><|im_end|>'
  )
  assert turn[-1] == chat.stop_ids[0]


def test_the_full_dialect_describes_each_tool(qwen3):
  text = qwen3.decode(qwen3.prompt(EXAMPLE).token_ids)
  tools = text.split('<tools>\n')[1].split('\n</tools>')[0].splitlines()
  assert [json.loads(line)['function'] for line in tools] == list(TOOLS)
  assert text.count('<|im_start|>') == 3 and text.startswith('<|im_start|>sys')


def test_a_message_in_no_words_of_a_dialect(chat):
  message = [*whole((SCENE,)), 'where is it?']
  prompt = chat.user(message, first=True)
  system, _, _ = chat.decode(chat.prompt(EXAMPLE).token_ids).partition(
      '<|im_start|>user'
  )
  asked = (
      f'<|im_start|>user\n{image(9)}where is it?<|im_end|>\n'
      '<|im_start|>assistant\n'
  )
  assert chat.decode(prompt.token_ids) == system + asked
  then = chat.user(message, first=False)
  assert chat.decode(then.token_ids) == '\n' + asked


def test_observation_needs_a_result_per_call(toy):
  for calls, results in (([GAZE], []), ([], []), ([GAZE], [ok(), ok()])):
    with pytest.raises(ValueError, match='results'):
      toy.observation(calls, results)


# Text and control.


def test_control_tokens_spelled_in_text_stay_text(chat):
  size = tokenizers.Tokenizer.from_str(
      chat.codec._plain.to_str()
  ).get_vocab_size(with_added_tokens=False)
  for text in (*HOSTILE, ' '.join(HOSTILE), ''.join(HOSTILE), 'a<think>b'):
    ids = chat.encode_untrusted(text)
    assert max(ids) < size and len(ids) > 1
    assert chat.decode(ids) == text


def test_no_content_can_add_a_control_token(chat):
  """The same control tokens, in the same order, whatever the content says."""
  boundary = min(chat.codec._added.values())
  poison = ' '.join(HOSTILE)

  def skeletons(text: str) -> list[list[int]]:
    example = Example(
        id='e',
        images=(SCENE,),
        question=text,
        answers=('x',),
        source='s',
        scope='s',
    )
    call = ToolCall(name='text_search', arguments={'query': text})
    sequences = [
        chat.prompt(example).token_ids,
        chat.observation([call], [ok(hit(text, text), view=CROP)]).token_ids,
        chat.observation(
            [call], [ToolResult(status=ToolStatus.MODEL_ERROR, error=text)]
        ).token_ids,
        chat.user([*whole((SCENE,)), text], first=True).token_ids,
        chat.encode_turn(thought='x', calls=[call]),
    ]
    return [[i for i in ids if i >= boundary] for ids in sequences]

  assert skeletons(poison) == skeletons('harmless')


def test_lone_surrogates_do_not_break_encoding(chat):
  assert chat.decode(chat.encode_untrusted('a\ud800b')) == 'a?b'


@settings(max_examples=200, deadline=None)
@given(text=st.text() | st.lists(st.sampled_from(HOSTILE)).map(''.join))
def test_untrusted_text_comes_back(toy, text):
  ids = toy.encode_untrusted(text)
  assert toy.decode(ids) == text
  assert all(i < min(toy.codec._added.values()) for i in ids)


# What the toy's protocol costs.


def test_token_budget(toy, capsys):
  thought = 'find red circle'
  system = toy.prompt(EXAMPLE).token_ids
  system = system[: system.index(toy.stop_ids[0]) + 2]
  frame = toy.observation([GLANCE], [ok(hit(''))]).token_ids
  counts = {
      'gaze': (len(toy.encode_turn(thought=thought, calls=[GAZE])), 22),
      'text': (len(toy.encode_turn(thought=thought, calls=[SEARCH])), 22),
      'glance': (len(toy.encode_turn(thought=thought, calls=[GLANCE])), 22),
      'answer': (len(toy.encode_turn(thought=thought, answer='beldak')), 12),
      'system': (len(system), 24),
      'frame': (len(frame), 12),
  }
  with capsys.disabled():
    print(' tokens:', *(f'{k} {n}' for k, (n, _) in counts.items()), end=' ')
  for name, (count, limit) in counts.items():
    assert count <= limit, name


def test_observations_are_encoded_fast(toy):
  results = [ok(hit('beldak red circle strong'), view=CROP)]
  toy.observation([GAZE], results)
  seconds = []
  for index in range(60):
    # A text not met before: only the frame may come from a cache.
    fresh = [ok(hit(f'beldak year {index}'), view=CROP)]
    started = time.perf_counter()
    toy.observation([GAZE], fresh)
    seconds.append(time.perf_counter() - started)
  # The quarter least disturbed by whoever else uses the machine.
  assert sorted(seconds)[15] < 0.3e-3

"""Replies drawn at random: read as they were meant, or the field is named."""

from __future__ import annotations

import json

from hypothesis import given
from hypothesis import strategies as st
import pytest

from gog_jax.remote import completion
from gog_jax.remote import http
from tests import remote_helpers
from tests.replies_test import BARE
from tests.replies_test import BOX
from tests.replies_test import USAGE

# A good reply, what it means, and what may become of it.
MEANING = ('so', '132', ())
CALL = ('so', None, (('gaze', BOX),))


@st.composite
def replies(draw):
  """A reply, its meaning, and the names of what was taken from it."""
  calls = draw(st.booleans())
  message = {'role': 'assistant', 'content': BARE, 'reasoning_content': 'so'}
  if calls:
    function = {'name': 'gaze', 'arguments': json.dumps(BOX)}
    call = {'id': '1', 'type': 'function', 'function': function}
    message |= {'content': None, 'tool_calls': [call]}
  choice = {
      'index': 0,
      'message': message,
      'finish_reason': 'tool_calls' if calls else 'stop',
  }
  reply = {'id': 'x', 'choices': [choice], 'usage': dict(USAGE)}

  def rename(value, old, *news):
    new = draw(st.sampled_from([old, *news]))
    value[new] = value.pop(old)
    return new

  for value in (reply, choice, message):  # Harmless.
    if draw(st.booleans()):
      value['x_extra'] = draw(st.sampled_from([None, 7, 'x', {}, ['y']]))
  for name in ('id', 'usage'):
    if draw(st.booleans()):
      reply[name] = None
  if draw(st.booleans()):
    choice['finish_reason'] = draw(
        st.sampled_from([None, 'STOP', choice['finish_reason'], 'end_turn'])
    )
  # Broken, in one place.
  broken = draw(st.sampled_from([''] * 2 + ['drop', 'rename', 'retype']))
  named = ''
  if broken:
    paths = [(reply, 'choices'), (choice, 'message')]
    if calls:
      paths += [(function, 'name'), (function, 'arguments')]
      paths.append((message, 'tool_calls'))
    else:
      paths.append((message, 'content'))
    value, named = draw(st.sampled_from(paths))
    if broken == 'rename':
      value[f'{named}_x'] = value.pop(named)
    elif broken == 'retype':
      value[named] = draw(st.sampled_from([7, True, 1.5]))
    else:
      del value[named]
      if named == 'arguments':  # Which is {}.
        named = ''
      elif named == 'tool_calls':  # Else nothing says that there were any.
        choice['finish_reason'] = 'tool_calls'
  else:
    if calls:
      kind = draw(st.integers(0, 3))
      if kind == 1:
        function['arguments'] = dict(BOX)
      elif kind == 2:
        message['tool_calls'] = call
      elif kind == 3:
        message['function_call'] = message.pop('tool_calls')[0]['function']
    else:
      message['content'] = draw(
          st.sampled_from([BARE, [BARE], [{'type': 'text', 'text': BARE}],
                           {'text': BARE}])
      )  # fmt: skip
    rename(message, 'reasoning_content', 'reasoning', 'thinking')
    rename(choice, 'finish_reason', 'finishReason', 'finish-reason')
    if draw(st.booleans()):
      choice['message'] = [message]
    reply = draw(
        st.sampled_from([reply, [reply], {'data': reply}, {'result': reply}])
    )
  return reply, CALL if calls else MEANING, named, bool(broken)


@pytest.fixture(scope='module')
def policy():
  return remote_helpers.make_policy('http://127.0.0.1:1/v1')


@pytest.mark.long
@given(data=st.data())
def test_a_reply_is_read_as_it_was_meant_or_the_field_is_named(policy, data):
  reply, meaning, named, broken = data.draw(replies())
  try:
    read = completion.read(json.loads(json.dumps(reply)))
  except (http.Garbled, http.Failed) as error:
    assert broken and named in str(error)
    return
  if broken and named:
    raise AssertionError(f'{named} was not missed')
  remote, chat, _ = policy
  sampled = remote._sampled(read)
  turn = chat.parse(sampled.token_ids, truncated=False)
  calls = tuple((call.name, call.arguments) for call in turn.calls)
  wanted = meaning if not broken else (*meaning[:2], (('gaze', {}),))
  assert (turn.thought, turn.answer, calls) == wanted

"""Replies in all the ways that OpenAI-compatible servers spell them."""

from __future__ import annotations

import json

from aiohttp import web
import pytest

from gog_jax.errors import UserError
from gog_jax.remote import endpoint
from gog_jax.types import StopReason
from tests import endpoints
from tests.endpoints import says
from tests.remote_helpers import ANSWER
from tests.remote_helpers import play
from tests.remote_helpers import sample_once

BARE = '<answer>132</answer>'
BOX = {'bbox_2d': [1, 2, 3, 4]}
USAGE = {'prompt_tokens': 9, 'completion_tokens': 5}


@pytest.fixture(autouse=True)
def _without_waiting(monkeypatch):
  monkeypatch.setattr(endpoint, '_BACKOFF_S', 0.01)


def whole(value, *, status=200):
  text = value if isinstance(value, str) else json.dumps(value)
  return lambda _: web.Response(status=status, text=text)


def ended(reason, message=None, **more):
  reply = endpoints.completion(message or says(ANSWER), reason)
  reply['choices'][0] |= more
  return reply


def failed(message, **error):
  return {'error': {'message': message, **error}}


@pytest.mark.parametrize(
    ('reply', 'words', 'n_asked'),
    [
        # Of the message that there is.
        (ended('error'), ['finish_reason is error'], 3),
        (ended('ERROR', says('')), ['finish_reason is error'], 3),
        (ended('abort'), ['abort'], 3),
        (ended('network_error'), ['network_error'], 3),
        (ended('insufficient_system_resource'), ['insufficient_system'], 3),
        (ended('MALFORMED_FUNCTION_CALL', says(None)), ['malformed'], 3),
        ({'choices': [{'finish_reason': 'error', 'message': None}]}, ['er'], 3),
        (ended({'type': 'abort', 'message': 'x'}), ['abort'], 3),
        (ended('content_filter', says('')), ['content_filter'], 1),
        (ended('content_filter: PROHIBITED_CONTENT'), ['prohibited'], 1),
        (ended('SAFETY', says(None)), ['safety'], 1),
        (ended('sensitive'), ['sensitive'], 1),
        (ended('refusal', says('')), ['refusal'], 1),
        (ended('error', error={'message': 'cut', 'code': 502}),
         ['502: cut'], 3),
        (ended('stop', error={'message': 'too long', 'code': 400}),
         ['400: too long'], 1),
        (ended('stop', says('')), ['says nothing'], 3),
        (ended('stop', says(None)), ['says nothing', '"content"'], 3),
        (ended('stop', says([])), ['says nothing'], 3),
        (ended('stop', {'content': None, 'refusal': None}), ['nothing'], 3),
        ({**ended('stop', says(' \n')), 'usage': {'completion_tokens': 0}},
         ['says nothing'], 3),
        ({**ended('stop', says('')), 'usage': None}, ['says nothing'], 3),
        ({**ended('stop'), 'code': 500, 'message': 'upstream'},
         ['500: upstream'], 3),
        ({**ended('stop', says('')), 'usage': {'completion_tokens': 5},
          'base_resp': {'status_code': 1027, 'status_msg': 'new_sensitive'}},
         ['new_sensitive'], 1),
        # In place of one.
        (failed('slow', code=429), ['error 429: slow'], 3),
        (failed('slow', code='429'), ['error 429: slow'], 3),
        (failed('slow', code='rate_limit_exceeded'), ['error: slow'], 3),
        (failed('Provider returned error', code=502,
                metadata={'raw': '{"error":{"message":"no GPU"}}'}),
         ['502: Provider returned error: no GPU'], 3),
        (failed('hm', type='overloaded_error', code=None), ['error: hm'], 3),
        (failed('hm', status='RESOURCE_EXHAUSTED'), [': hm'], 3),
        (failed('longer than 8 tokens', code=400), ['400: longer'], 1),
        (failed('longer', code='context_length_exceeded'), ['lon'], 1),
        (failed('who?', code=401), ['401: who?'], 1),
        (failed('bad', type='content_policy_violation'), ['bad'], 1),
        ([failed('quota', code=429)], ['429: quota'], 3),
        ({'error': 'model is loading'}, ['model is loading'], 3),
        ({'error': 'busy', 'choices': None}, ['busy'], 3),
        ({'error': 'slow', 'code': 429, 'choices': []}, ['429: slow'], 3),
        ({'object': 'error', 'message': 'long', 'code': 400}, ['400: lo'], 1),
        ({'type': 'error', 'error': {'type': 'api_error', 'message': 'oh'}},
         ['oh'], 3),
        ({'detail': '{"error": {"message": "deep", "code": 503}}'},
         ['503: deep'], 3),
        ({'detail': [{'msg': 'Field required', 'type': 'missing'}]},
         ['Field required'], 1),
        ({'success': False, 'result': None,
          'errors': [{'code': 7003, 'message': 'no route'}]}, ['no route'], 3),
        ({'choices': None, 'base_resp': {'status_code': 1002,
                                         'status_msg': 'rate limit'}},
         ['rate limit'], 3),
        ({'message': 'Too Many Requests', 'statusCode': 429}, ['429'], 3),
        ('data: {"error":{"message":"gone","code":503}}\n\n', ['503: gone'], 3),
        ('event: error\ndata: {"error":{"message":"gone","code":500}}\n\n',
         ['500: gone'], 3),
        ('"{\\"error\\": \\"busy\\"}"', ['busy'], 3),
        ({'choices': []}, ['"choices" is empty'], 3),
        ({'choices': None}, ['"choices" is empty'], 3),
        # What is not known is named.
        (ended('wormhole'), ['finish_reason', 'wormhole'], 3),
        (ended(3), ['finish_reason is 3'], 3),
        (ended('stop', {'says': ANSWER}), ['"content"', '"says"'], 3),
        ({**ended('stop', {'says': ANSWER}), 'usage': USAGE},
         ['"content"', '"says"'], 1),
        (ended('tool_calls', says('hm')), ['"tool_calls"'], 1),
        (ended('stop', {'content': None, 'reasoning': 'so', 'calls_': [{}]}),
         ['"content"', '"tool_calls"', '"calls_"'], 1),
        (ended('stop', says(7)), ['content is 7, no text'], 1),
        (ended('stop', says([{'type': 'image_url'}])), ['image_url'], 1),
        ({'choices': [{'finish_reason': 'stop'}]}, ['message has no'], 3),
        ({'id': 'x', 'chioces': []}, ['"choices"', '"chioces"'], 1),
        (ended('stop', {'tool_calls': [{'function': {'nam': 'gaze'}}]}),
         ['tool_calls[0]', '"name"', '"nam"'], 1),
        (ended('stop', {'tool_calls': [
            {'function': {'name': 'gaze', 'argz': {'x': 1}}}]}),
         ['tool_calls[0]', '"arguments"', '"argz"'], 1),
        ({'data': ['x'] * 3, 'x\n': 1}, ['"choices"'], 1),
    ],
)  # fmt: skip
def test_no_reply_is_an_error_in_one_line(reply, words, n_asked):
  with endpoints.serve(whole(reply)) as server:
    with pytest.raises(UserError) as caught:
      sample_once(server, timeout_s=30.0)
    for word in words:
      assert word in str(caught.value)
    assert '\n' not in str(caught.value) and len(str(caught.value)) < 500
    assert len(server.heard) == n_asked


@pytest.mark.parametrize(
    'reply',
    [
        failed('busy', code=503),
        ended('content_filter'),
        ended('error'),
        ended('stop', says('')),
        ended('wormhole'),
        {'id': 'x'},
    ],
)
def test_the_provider_s_failure_is_not_the_model_s(reply):
  with endpoints.serve(whole(reply)) as server:
    (trajectory,) = play(server, tolerant=True, max_attempts=1)
  assert trajectory.stop_reason == StopReason.ERROR and not trajectory.valid


@pytest.mark.parametrize('status', [400, 403, 500])
def test_what_kind_of_failure_it_is_may_stand_in_the_body(status):
  slow = failed('slow', code='rate_limit_exceeded')
  with endpoints.serve(whole(slow, status=status)) as server:
    with pytest.raises(UserError, match=f'answers {status}: slow'):
      sample_once(server)
    assert len(server.heard) == 3
  # One image that a filter does not like is no reason to stop.
  flagged = failed('input was flagged by moderation')
  with endpoints.serve(whole(flagged, status=status)) as server:
    (trajectory,) = play(server, tolerant=True, max_attempts=1)
  assert 'flagged' in trajectory.error


def test_a_failure_is_gone_with_the_next_attempt():
  left = [failed('busy', code=503), ended('error'), ended('stop')]
  with endpoints.serve(lambda b: whole(left.pop(0))(b)) as server:
    turn, _ = sample_once(server)
  assert turn.answer == '132'


@pytest.mark.parametrize(
    ('reply', 'thought'),
    [
        # Another field.
        (ended('stop', {'content': None, 'reasoning_content': ANSWER}), 'so'),
        (ended('stop', {'content': '', 'reasoning': ANSWER}), 'so'),
        (ended('stop', {'reasoning': ANSWER}), 'so'),
        (ended('stop', {'content': '\n', 'reasoning': f'so</think>{BARE}'}),
         'so'),
        (ended('stop', {'content': None, 'thinking': ANSWER}), 'so'),
        # Without a parser, or one that leaves a tag.
        (ended('stop', says(f'so\n</think>\n\n{BARE}')), 'so'),
        (ended('stop', says(f'\n\nso</think>{BARE}')), 'so'),
        (ended('stop', says(f'</think>{BARE}')), ''),
        (ended('stop', {'content': f'</think>\n{BARE}', 'reasoning': 'so'}),
         'so'),
        # Other shapes.
        (ended(None), 'so'),
        (ended(''), 'so'),
        (ended('STOP'), 'so'),
        (ended('end_turn'), 'so'),
        (ended('eos_token'), 'so'),
        (ended('stop', says({'type': 'text', 'text': ANSWER})), 'so'),
        (ended('stop', says([ANSWER[:9], {'text': ANSWER[9:]}])), 'so'),
        (ended('stop', says([{'type': 'output_text', 'text': ANSWER}])), 'so'),
        (ended('stop', says([{'type': 'thinking', 'thinking': 'so'},
                             {'type': 'text', 'text': BARE}])), 'so'),
        (ended('stop', says([{'type': 'thinking',
                              'thinking': [{'type': 'text', 'text': 'so'}]},
                             {'type': 'text', 'text': BARE}])), 'so'),
        (ended('stop', {'content': BARE, 'reasoning': '',
                        'reasoning_details': [
                            {'type': 'reasoning.text', 'text': 'so'},
                            {'type': 'reasoning.encrypted', 'data': 'x'}]}),
         'so'),
        (ended('stop', {'content': ANSWER, 'refusal': None,
                        'tool_calls': None, 'function_call': None}), 'so'),
        (ended('stop', {'content': ANSWER, 'tool_calls': [],
                        'function_call': {'name': '', 'arguments': ''}}),
         'so'),
        ({**ended('stop'), 'error': None, 'usage': None}, 'so'),
        ({**ended('stop'), 'error': {'code': 0, 'message': ''}}, 'so'),
        ({**ended('stop'), 'errors': [], 'success': True}, 'so'),
        ([ended('stop')], 'so'),
        ({'choices': ended('stop')['choices'][0]}, 'so'),
        ({'choices': ended('stop')['choices'] * 2}, 'so'),
        ({'choices': [{'text': ANSWER, 'finish_reason': 'stop'}]}, 'so'),
        ({'choices': [{'message': ANSWER}]}, 'so'),
        ({'result': ended('stop'), 'success': True, 'errors': []}, 'so'),
        ({'data': ended('stop')}, 'so'),
        ({'message': {'role': 'assistant', 'content': BARE, 'thinking': 'so'},
          'done': True, 'done_reason': 'stop'}, 'so'),
        ({'type': 'message', 'role': 'assistant', 'stop_reason': 'end_turn',
          'content': [{'type': 'text', 'text': ANSWER}]}, 'so'),
        (f': OPENROUTER PROCESSING\n\ndata: {json.dumps(ended("stop"))}', 'so'),
        ('\ufeff' + json.dumps(ended('stop')), 'so'),
        (json.dumps(json.dumps(ended('stop'))), 'so'),
    ],
)  # fmt: skip
def test_one_answer_in_many_spellings(reply, thought):
  with endpoints.serve(whole(reply)) as server:
    turn, _ = sample_once(server, max_attempts=1)
  assert (turn.thought, turn.answer) == (thought, '132')
  assert turn.format_error is None


@pytest.mark.parametrize(
    'message',
    [{'content': None, 'refusal': 'I may not.'},
     {'content': [{'type': 'refusal', 'refusal': 'I may not.'}]}],
)  # fmt: skip
def test_a_model_that_refuses_has_answered(message):
  with endpoints.serve(whole(ended('stop', message))) as server:
    turn, _ = sample_once(server)
  assert turn.text == 'I may not.' and turn.format_error


@pytest.mark.parametrize('status', [200, 201])
def test_every_status_of_success_is_one(status):
  with endpoints.serve(whole(ended('stop'), status=status)) as server:
    assert sample_once(server)[0].answer == '132'


@pytest.mark.parametrize(
    'reason',
    ['length', 'max_tokens', 'MAX_TOKENS', 'max_output_tokens', 'token_limit',
     'model_context_window_exceeded', 'max_new_tokens'],
)  # fmt: skip
def test_cut_off_by_any_name(reason):
  with endpoints.serve(whole(ended(reason, says('<think>and'))) ) as server:
    turn, sampled = sample_once(server)
  assert sampled.truncated and turn.answer is None
  with endpoints.serve(whole(ended(reason, says(None)))) as server:
    assert sample_once(server)[1].truncated


@pytest.mark.parametrize(
    ('message', 'arguments'),
    [
        ({'tool_calls': [{'function': {'name': 'gaze'}}]}, {}),
        ({'tool_calls': [{'function': {'name': 'gaze', 'arguments': None}}]},
         {}),
        ({'tool_calls': [{'function': {'name': 'gaze', 'arguments': ''}}]}, {}),
        ({'tool_calls': [{'function': {'name': 'gaze', 'arguments': 'null'}}]},
         {}),
        ({'tool_calls': [{'function': {'name': 'gaze', 'arguments': []}}]}, {}),
        ({'tool_calls': [{'function': {'name': 'gaze', 'arguments': BOX}}]},
         BOX),
        ({'tool_calls': [{'function': {'name': 'gaze',
                                       'arguments': json.dumps(BOX)}}]}, BOX),
        ({'tool_calls': [{'function': {
            'name': 'gaze', 'arguments': json.dumps(json.dumps(BOX))}}]}, BOX),
        ({'tool_calls': [{'name': 'gaze', 'parameters': BOX}]}, BOX),
        ({'tool_calls': {'function': {'name': 'gaze', 'arguments': BOX}}}, BOX),
        ({'toolCalls': [{'function': {'name': 'gaze', 'arguments': BOX}}]},
         BOX),
        ({'function_call': {'name': 'gaze', 'arguments': json.dumps(BOX)}},
         BOX),
        ({'content': [{'type': 'tool_use', 'name': 'gaze', 'input': BOX}]},
         BOX),
    ],
)  # fmt: skip
def test_one_call_in_many_spellings(message, arguments):
  message = {'content': None, 'reasoning': 'so', **message}
  with endpoints.serve(whole(ended('tool_calls', message))) as server:
    turn, _ = sample_once(server, max_attempts=1)
  (call,) = turn.calls
  assert (call.name, call.arguments) == ('gaze', arguments)
  assert turn.thought == 'so' and turn.format_error is None


@pytest.mark.parametrize(
    ('content', 'answer'),
    [
        ('132', '132'),
        ('<think>so</think>\n132\n', '132'),
        ('so</think>132', '132'),
        ('The year is 132.', 'The year is 132.'),
        (ANSWER, '132'),
        ('<think>so', None),
        ('<think>so</think>', None),
        ('<answer>132', None),
    ],
)
def test_an_answer_at_once_needs_no_tags(content, answer):
  with endpoints.serve(lambda _: says(content)) as server:
    (direct,) = play(server, dialect='gog_remote', paradigm='direct')
    (gog,) = play(server, dialect='gog_remote')
  assert direct.answer == answer
  tagged = content == ANSWER
  assert (direct.turns[0].parsed.format_error is None) == tagged
  assert gog.answer == (answer if tagged else None)
  if answer:
    assert direct.stop_reason == StopReason.ANSWER

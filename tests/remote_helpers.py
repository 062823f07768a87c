"""A remote policy over the loopback, with the loop's small tools."""

from __future__ import annotations

import functools

from configs import sections
from gog_jax.chat import Chat
from gog_jax.chat import load_dialect
from gog_jax.remote.endpoint import Endpoint
from gog_jax.rollout import loop
from gog_jax.rollout import remote
from gog_jax.rollout.policy import Conversation
from gog_jax.rollout.policy import Request
from gog_jax.tools.base import describe
from tests import chat_helpers
from tests import loop_helpers
from tests.endpoints import says

KEY = 'sk-loopback-0123456789'
GAZE = (
    '<think>look</think>\n<tool_call>\n{"name":"gaze","arguments":'
    '{"bbox_2d":[12,3,40,84]}}\n</tool_call>'
)
ANSWER = '<think>so</think>\n<answer>132</answer>'


def make_policy(
    url: str,
    *,
    capacity=1,
    dialect='gog_toy',
    paradigm='gog',
    tolerant=False,
    **changed,
):
  executor = loop_helpers.make_executor()
  chat = make_chat(executor, dialect, paradigm)
  policy = remote.RemotePolicy(
      endpoint=make_endpoint(
          url, **{'timeout_s': 20.0, 'max_attempts': 3} | changed
      ),
      chat=chat,
      capacity=capacity,
      max_turn_tokens=4096,
      exact_size=False,
      tolerant=tolerant,
  )
  return policy, chat, executor


def make_endpoint(url: str, **changed) -> Endpoint:
  section = sections.remote()
  section.update({'url': url, 'model': 'm', **changed})
  return Endpoint(section, name='remote', workdir='')


def make_chat(executor, dialect: str, paradigm: str = 'gog') -> Chat:
  return Chat(
      chat_helpers.TOY,
      dialect=load_dialect(dialect, paradigm),
      processor=loop_helpers.processor(),
      tools=[describe(tool) for tool in executor.tools.values()],
  )


@functools.cache
def a_chat() -> Chat:
  return make_chat(loop_helpers.make_executor(), 'gog_toy')


def play(server, n=1, example=chat_helpers.EXAMPLE, **changed):
  policy, chat, executor = make_policy(server.url, capacity=n, **changed)
  return loop_helpers.rollout(
      policy,
      executor,
      chat,
      [Request(example=example, sample=i, seed=i) for i in range(n)],
      limits=loop.ConversationLimits(
          max_turns=5,
          max_turn_tokens=4096,
          min_turn_tokens=4096,
          max_context=2**16,
          max_patches=2**16,
      ),
  )


def replies(*contents):
  """Says one after the other, each conversation from the beginning."""

  def script(body):
    turn = sum(m['role'] == 'assistant' for m in body['messages'])
    return says(contents[turn])

  return script


def sample_once(server, **changed):
  """The first turn's text, and whether it was cut off."""
  policy, chat, _ = make_policy(server.url, **changed)
  request = loop_helpers.requests(1)[0]
  conversation = Conversation(request=request, slot=0)
  conversation.append(chat.prompt(request.example))
  (turn,) = policy.sample([conversation])
  return chat.parse(turn.token_ids, truncated=turn.truncated), turn

"""A judge on the loopback, and answers for it."""

from __future__ import annotations

import json
import re
from typing import Any

from aiohttp import web

from configs import sections
from gog_jax.config.tools import JudgeConfig
from gog_jax.judge.judge import Judge
from gog_jax.judge.prompt import Case
from gog_jax.storage import typed
from tests import endpoints
from tests.endpoints import says

KEY = 'sk-judge-0123456789'
QUESTION = 'Which tower is this?'
ANSWERS = ('Eiffel Tower', 'Tour Eiffel')


def case(answer: str, question: str = QUESTION) -> Case:
  return Case(question=question, answers=ANSWERS, answer=answer)


def settings(url: str, **changed: Any) -> Any:
  section = sections.judge()
  section.update({
      'url': url,
      'model': 'm',
      'timeout_s': 20.0,
      'max_attempts': 1,
      'min_success': 0.0,
      **changed,
  })
  return typed.read(JudgeConfig, section.to_dict(), 'config.judge')


def make_judge(server: Any, workdir: Any, **changed: Any) -> Judge:
  return Judge(settings(server.url, **changed), workdir)


def prompt_of(body: dict[str, Any]) -> str:
  (message,) = body['messages']
  assert message['role'] == 'user'
  return message['content']


def answer_in(body: dict[str, Any]) -> str:
  (line,) = re.findall('^Answer to judge: (.*)$', prompt_of(body), re.M)
  return json.loads(line)


def question_in(body: dict[str, Any]) -> str:
  (line,) = re.findall('^Question: (.*)$', prompt_of(body), re.M)
  return json.loads(line)


def code_in(body: dict[str, Any]) -> str:
  (code,) = re.findall('"code": "([0-9a-f]{12})"', prompt_of(body))
  return code


def verdict(body: dict[str, Any], word: str) -> str:
  return json.dumps({'verdict': word, 'code': code_in(body)})


def answers_with(status: int, body: str = '{"error":{"message":"busy"}}'):
  return lambda _: web.Response(status=status, text=body)


def failing_on(*bad: str):
  """Fails on these answers for good; the others are wrong."""
  wrong, refuses = right_if(), answers_with(400, 'filtered')
  return lambda body: (refuses if answer_in(body) in bad else wrong)(body)


def right_if(*answers: str, usage: Any = None):
  """Calls these answers right and all others wrong."""

  def script(body):
    word = 'correct' if answer_in(body) in answers else 'incorrect'
    reply = says(f'I see.\n{verdict(body, word)}')
    return web.json_response(endpoints.completion(reply, usage=usage))

  return script

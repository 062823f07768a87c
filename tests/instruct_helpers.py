"""A small foreign data set, its index, and a teacher on the loopback."""

from __future__ import annotations

import asyncio
import hashlib
import json
import pathlib
import random
import re
import threading
from typing import Any

from aiohttp import web

from gog_jax.index import build as index_build
from gog_jax.storage import trajectories
from gog_jax.types import Example
from tests import endpoints
from tests import report_helpers

_ITEM = re.compile(r'item (\d+)')


def example(number: int, **more: Any) -> Example:
  """'What is item 7 called?' 'kelo 7', about a picture of one colour each."""
  fields = dict(
      id=f'q{number:03d}',
      images=(report_helpers.png(colour=(number % 256, 40, 90)),),
      question=f'What is item {number} called?',
      answers=(f'kelo {number}',),
      source='items' if number % 3 else 'thirds',
      scope='',
      gold_regions=(report_helpers.GOLD,) if number % 2 else (),
  )
  return Example(**{**fields, **more})


def make_world(folder: pathlib.Path, n: int) -> dict[str, Any]:
  """Writes questions and an index; the config fields that a build takes."""
  trajectories.write(
      folder / 'questions' / 'examples.jsonl', map(example, range(n))
  )
  rows = [
      {'id': str(i), 'title': f'item {i}', 'text': f'It is kelo {i}.'}
      for i in range(n)
  ]
  docs = folder / 'docs.jsonl'
  docs.write_text(''.join(json.dumps(row) + '\n' for row in rows))
  index_build.build(
      str(folder / 'index'), docs=str(docs), images='', encoder=None
  )
  return {
      'questions.train': (f'examples:{folder / "questions"}',),
      'instruct.teacher': 'remote',
      'remote.model': 'm',
      'tools.backend': 'index',
      'tools.index': str(folder / 'index'),
  }


def teach(body: dict[str, Any]) -> dict[str, Any]:
  """What the teacher says: the request's content decides, and nothing else.

  Of items, by their number modulo 5: 0, always right at once: too easy; 1,
  right at once where the seed is even, else gazes past the image; 2, looks it
  up; 3, gazes, then looks it up; 4, is always wrong.
  """
  messages = body['messages']
  number = item_of(body)
  drawn = hashlib.sha256(f'{number} {body["seed"]}'.encode()).digest()[0]
  said = sum(m['role'] == 'assistant' for m in messages)
  kind = number % 5
  right = f'kelo {number}'
  if '<tools>' not in messages[0]['content']:
    knows = kind == 0 or (kind == 1 and drawn % 2 == 0)
    return answer(right if knows else 'no idea')
  if kind == 4:
    return answer('wrong')
  if kind == 0 or (kind == 1 and drawn % 2 == 0):
    return answer(right)
  if kind == 1:
    return (
        call('gaze', bbox_2d=[0, 0, 1001, 999]) if not said else answer(right)
    )
  plan = [call('text_search', query=f'item {number}'), answer(right)]
  if kind == 3:
    # GOLD in thousandths of 100 x 100 pixels.
    plan.insert(0, call('gaze', bbox_2d=[100, 100, 500, 500]))
  return plan[said]


def item_of(body: dict[str, Any]) -> int:
  """The item that a request is about."""
  (user,) = [m for m in body['messages'][:2] if m['role'] == 'user']
  text = ''.join(
      part for part in endpoints.parts_of(user) if isinstance(part, str)
  )
  found = _ITEM.search(text)
  assert found is not None
  return int(found[1])


def answer(text: str) -> dict[str, Any]:
  return endpoints.says(f'<think>so</think>\n<answer>{text}</answer>')


def call(name: str, **arguments: Any) -> dict[str, Any]:
  text = json.dumps({'name': name, 'arguments': arguments})
  return endpoints.says(
      f'<think>look</think>\n<tool_call>\n{text}\n</tool_call>'
  )


def tree(folder):
  """Every file of a build but what says when it was made."""
  return {
      str(path.relative_to(folder)): path.read_bytes()
      for path in sorted(pathlib.Path(folder).rglob('*'))
      if path.is_file() and path.name != 'manifest.json'
  }


class Failing(endpoints.Server):
  """Fails a share of its calls, at random: 500, a reset, or garbage."""

  def __init__(self, play: endpoints.Play, share: float = 0.2):
    super().__init__(play)
    self._share = share
    self._random = random.Random(0)
    self._lock = threading.Lock()
    self.n_failed = 0

  async def answer(self, request: web.Request) -> web.StreamResponse:
    with self._lock:
      fails = self._random.random() < self._share
      how = self._random.randrange(3)
    if not fails:
      return await super().answer(request)
    await request.read()
    self.n_failed += 1
    if how == 0:
      return web.Response(status=500, text='burnt')
    if how == 1:
      assert request.transport is not None
      request.transport.abort()
      await asyncio.sleep(0)
    return web.Response(text='{"choices": [{"mess')

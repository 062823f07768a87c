"""One of ours is a line in a list; a policy of a user's own is a class."""

from __future__ import annotations

import pytest

from gog_jax.evaluation import evaluate
from gog_jax.questions.benchmarks import registry
from gog_jax.questions.questions import Question
from gog_jax.questions.sources import SOURCES
from gog_jax.rewards import parts
from gog_jax.storage import trajectories as store
from gog_jax.storage.records import Loaded
from gog_jax.tools import toolbox
from gog_jax.types import Hit
from gog_jax.types import ToolResult
from gog_jax.types import Trajectory
from tests import mini
from tests import report_helpers

HERE = 'tests.seams_ours_test'


def read(path: str, *, images: str = '') -> Loaded[Question]:
  del images
  return Loaded(
      name=path,
      items=[
          Question(
              id=str(n),
              question=f'What is {n}?',
              answers=(str(n),),
              images=(report_helpers.png,),
          )
          for n in range(3)
      ],
  )


def read_set(config, fetched) -> registry.Reading:
  del fetched
  return registry.Reading(found=read(config.path))


SET = registry.Spec(title='Digits', n=3, read=read_set)


class Echo:
  version = 'echo/1'
  kinds = ('text',)

  async def search_text(self, query, *, scope, top_k):
    del scope, top_k
    return ToolResult(hits=(Hit(title='echo', text=query, score=1.0),))


def brevity(example, trajectory) -> float:
  del example
  return 1 / len(trajectory.turns)


def play(request, turns):
  """Searches once, and says what it found."""
  if turns:
    return 'so', [], turns[-1].results[0].hits[0].text[-2]
  query = {'query': request.example.question}
  return 'look', [('text_search', query)], None


def evaluated(tmp_path, stage='eval', **fields):
  run = mini.make_run(
      tmp_path / 'run',
      'eval',
      **{
          'eval__policies': ('gog@script',),
          'eval__script': f'{HERE}:play',
          **fields,
      },
  )
  evaluate.check(run.config)
  mini.make_stages(run, 'eval')
  path = run.workdir / stage / 'gog@script' / 'trajectories.jsonl'
  return run, store.read(path, Trajectory)


def test_source_backend_and_reward_part(tmp_path, monkeypatch):
  monkeypatch.setitem(SOURCES, 'digits', f'{HERE}:read')
  monkeypatch.setitem(toolbox.BACKENDS, 'echo', f'{HERE}:Echo')
  monkeypatch.setitem(parts.PARTS, 'brevity', f'{HERE}:brevity')
  run, found = evaluated(
      tmp_path,
      questions__test=('digits:any',),
      tools__backend='echo',
      reward__extra=('brevity=0.5',),
  )
  assert list(run.executor.tools) == ['text_search', 'gaze']
  assert [t.answer for t in found] == ['0', '1', '2']
  for t in found:
    assert t.reward_parts['brevity'] == 0.5
    assert t.reward == pytest.approx(1.25)


def test_benchmark(tmp_path, monkeypatch):
  monkeypatch.setitem(registry.BENCHMARKS, 'digits', f'{HERE}:SET')
  monkeypatch.setitem(toolbox.BACKENDS, 'echo', f'{HERE}:Echo')
  _, found = evaluated(
      tmp_path,
      'eval_digits',
      eval__benchmark='digits',
      benchmark__path=str(tmp_path),
      tools__backend='echo',
  )
  assert [t.reward_parts['accuracy'] for t in found] == [1, 1, 1]


POLICY = """
from gog_jax.rollout.policy import said

class Echoes:
  '''Answers with the last word of the question.'''
  capacity = 2

  def __init__(self, run):
    self.chat = run.chat

  def sample(self, conversations):
    assert len(conversations) <= self.capacity
    return [self.says(c.request.example.question) for c in conversations]

  def says(self, question):
    answer = question.rstrip('?').split()[-1]
    return said(self.chat.encode_turn(thought='', answer=answer))
"""


def test_a_users_policy_is_a_class_in_a_file(tmp_path, monkeypatch):
  monkeypatch.setitem(SOURCES, 'digits', f'{HERE}:read')
  monkeypatch.setitem(toolbox.BACKENDS, 'echo', f'{HERE}:Echo')
  path = tmp_path / 'policy.py'
  path.write_text(POLICY)
  _, found = evaluated(
      tmp_path,
      questions__test=('digits:any',),
      tools__backend='echo',
      eval__script=f'{path}:Echoes',
  )
  assert [(t.answer, len(t.turns)) for t in found] == [
      ('0', 1), ('1', 1), ('2', 1),
  ]  # fmt: skip

"""Users' own tools and search backends, in files outside the package."""

from __future__ import annotations

import asyncio
import dataclasses
import json
import sys
import traceback

import pytest

from gog_jax.config.tools import Search
from gog_jax.config.tools import SEARCHES
from gog_jax.config.tools import TEXT
from gog_jax.errors import UserError
from gog_jax.evaluation import policies
from gog_jax.rewards import behaviour
from gog_jax.rollout.policy import Request
from gog_jax.rollout.scripted import ScriptedPolicy
from gog_jax.storage import trajectories as store
from gog_jax.tools import toolbox
from gog_jax.tools.base import describe
from gog_jax.tools.base import ToolContext
from gog_jax.tools.search import text_search
from gog_jax.types import NO_ROOT
from gog_jax.types import ToolCall
from gog_jax.types import ToolStatus
from gog_jax.types import Trajectory
from tests import imports_test
from tests import loop_helpers
from tests import mini
from tests import world_helpers

PACKAGE = str(imports_test.PACKAGE)
OK, BAD, DOWN = ToolStatus.OK, ToolStatus.MODEL_ERROR, ToolStatus.INFRA_ERROR
# The toy's own limits leave no room for a picture of a tool's.
ROOM = {'rollout__max_context': 2048, 'batch__row_tokens': 2048}

TOOLS = """
from __future__ import annotations
import time
from typing import Literal, Optional
from PIL import Image
from gog_jax.tools.base import ToolContext

def swatch(colour: Literal['red', 'blue'], side: int = 40, *,
           context: ToolContext, note: Optional[str] = None) -> list:
  '''Paints a square.'''
  if side > 99:
    raise ValueError(f'side {side} is too large')
  picture = Image.new('RGB', (side, side), colour)
  return [f'{colour} <|im_end|> {len(context.views)}', picture, note or 'end']

async def total(numbers: list[float]) -> str:
  '''Adds numbers.'''
  if len(numbers) > 3:
    raise RuntimeError('overflow')
  return str(sum(numbers))

total.price = 0.25

def nap(seconds: float) -> None:
  '''Sleeps.'''
  time.sleep(seconds)

nap.timeout_s = 0.1
"""

BACKEND = """
from gog_jax.types import Hit, ToolResult

class Notes:
  version = 'notes/1'
  kinds = ('text',)
  async def search_text(self, query, *, scope, top_k):
    return ToolResult(hits=(Hit(title='note', text=f'on {query}', score=1.0),))

def from_section(config):
  notes = Notes()
  notes.version = f'notes/{config.version}'
  return notes

def broken():
  raise KeyError('NOTES')
"""


def call(name, **arguments):
  return ToolCall(name=name, arguments=arguments)


@pytest.fixture(name='files', scope='module')
def _files(tmp_path_factory):
  folder = tmp_path_factory.mktemp('mine')
  (folder / 'tools.py').write_text(TOOLS)
  (folder / 'backend.py').write_text(BACKEND)
  (folder / 'play.py').write_text(
      'def play(request, turns):\n'
      '  if turns:\n'
      '    return "so", [], turns[-1].results[0].parts[0]\n'
      '  return "add", [("total", {"numbers": [1, 2.0]})], None\n'
  )
  return folder


def extra(files, *names):
  return tuple(f'{files}/tools.py:{name}' for name in names)


def play(run, *turns):
  """What a script comes to in the run's own rollout: turns of calls."""

  def script(request, said):
    del request
    if len(said) == len(turns):
      return run.chat.encode_turn(thought='', answer='132')
    return run.chat.encode_turn(thought='', calls=turns[len(said)])

  policy = ScriptedPolicy(script, capacity=1)
  examples = [q.example for q in world_helpers.questions_of('test', 1)]
  ((trajectory,),) = run.rollout(policy, examples, samples=1, seed=('own',))
  return trajectory


def results(trajectory):
  return [result for turn in trajectory.turns for result in turn.results]


def test_a_users_tools_in_the_toys_rollout(files, tmp_path):
  run = mini.make_run(
      tmp_path,
      'eval',
      tools__extra=extra(files, 'swatch', 'total'),
      tools__max_spend=9.0,
      **ROOM,
  )
  assert list(run.executor.tools) == [
      'text_search', 'image_search', 'gaze', 'swatch', 'total',
  ]  # fmt: skip
  t = play(
      run,
      [call('swatch', colour='red', side=50.0)],
      [call('gaze', image=2, bbox_2d=[0, 0, 40, 40])],
      [call('swatch', colour='red', side=100), call('swatch', colour='pink')],
      [call('total', numbers=[1, 2.5]), call('total', numbers=[1] * 4)],
  )
  painted, gazed, large, pink, three, overflow = results(t)
  # Text and image in their order, the text untrusted.
  assert painted.status == OK and painted.n_searches == 0
  first, picture, last = painted.parts
  assert (first, last) == ('red <|im_end|> 1', 'end')
  assert painted.images == (picture,) and picture.root == NO_ROOT
  assert picture.box == (0, 0, 50, 50)
  shown = run.chat.decode(t.token_ids.tolist())
  assert 'red <|im_end|> 1<|vision_start|>' in shown
  assert t.images[1] == picture and len(t.images) == 3
  # A gaze at it cuts from the tool's image.
  assert gazed.status == OK and gazed.view.root == NO_ROOT
  assert gazed.view == t.images[2]
  assert (large.status, large.error) == (BAD, 'side 100 is too large')
  assert pink.status == BAD and "'pink' is not one of" in pink.error
  assert (three.status, three.text, three.price) == (OK, '3.5', 0.25)
  assert overflow.status == DOWN and 'RuntimeError: overflow' in overflow.error
  totals = run.toolbox.counts.totals()
  assert totals['swatch/ok'] == 1 and totals['swatch/model_error'] == 2
  assert totals['total/price'] == 0.5 and totals['total/searches'] == 0
  # The record holds them.
  store.write(tmp_path / 'kept' / 't.jsonl', [t])
  (again,) = store.read(tmp_path / 'kept' / 't.jsonl', Trajectory)
  assert results(again) == results(t)
  old = json.loads((tmp_path / 'kept' / 't.jsonl').read_text())
  for turn in old['turns']:
    for result in turn['results']:
      del result['parts']
  (tmp_path / 'kept' / 't.jsonl').write_text(json.dumps(old) + '\n')
  (old,) = store.read(tmp_path / 'kept' / 't.jsonl', Trajectory)
  assert not results(old)[0].parts


def test_a_users_tools_are_recorded_and_replayed(files, tmp_path):
  def rolled_out(mode):
    run = mini.make_run(
        tmp_path,
        'eval',
        tools__extra=extra(files, 'swatch', 'total'),
        tools__max_spend=9.0,
        tools__mode=mode,
        **ROOM,
    )
    return results(
        play(
            run,
            [call('swatch', colour='blue'), call('swatch', colour='blue')],
            [
                call('total', numbers=[1]),
                call('swatch', colour='red', side=100),
            ],
            [call('total', numbers=[1] * 4)],
        )
    ), run.toolbox.counts.totals()

  told, counted = rolled_out('record')
  assert [r.status for r in told] == [OK, OK, OK, BAD, DOWN]
  assert counted['swatch/cached'] == 1
  played, counted = rolled_out('replay')
  assert played == told
  assert counted['swatch/replayed'] == 3 and counted['total/replayed'] == 2


def test_a_call_of_a_users_tool_has_its_time(files, tmp_path):
  run = mini.make_run(tmp_path, 'eval', tools__extra=extra(files, 'nap'))
  context = ToolContext(scope='', views=())
  result = asyncio.run(run.executor.run(call('nap', seconds=0.4), context))
  assert result.status == DOWN and 'no reply within 0.1 s' in result.error
  result = asyncio.run(run.executor.run(call('nap', seconds=0), context))
  assert result.status == OK and result.parts == ()


def test_calls_of_a_users_tool_that_cost_need_a_cap(files, tmp_path):
  with pytest.raises(UserError, match='--config.tools.max_spend=DOLLARS'):
    mini.make_run(tmp_path, 'eval', tools__extra=extra(files, 'total'))


def test_a_users_tool_and_backend_in_an_evaluation(
    files, tmp_path, monkeypatch
):
  monkeypatch.syspath_prepend(str(files))
  name = 'gog@script'
  run = mini.make_run(
      tmp_path,
      'eval',
      eval__policies=(name, 'direct@script'),
      eval__script='play:play',
      eval__n_examples=2,
      tools__backend=f'{files}/backend.py:from_section',
      tools__version='7',
      tools__extra=extra(files, 'total'),
      tools__max_spend=9.0,
  )
  own = policies.run_of(run, name)
  assert list(own.executor.tools) == ['text_search', 'gaze', 'total']
  assert not policies.run_of(run, 'direct@script').executor.tools
  assert run.toolbox.version.startswith('text notes/7, total ')
  mini.make_stages(run, 'data', 'eval', 'report')
  folder = run.workdir / 'eval' / name
  for t in store.read(folder / 'trajectories.jsonl', Trajectory):
    assert t.answer == '3.0' and results(t)[0].text == '3.0'
  assert '3.0' in (run.workdir / 'report' / 'index.html').read_text()
  manifest = json.loads((folder / 'manifest.json').read_text())
  assert manifest['inputs']['searched'] == run.toolbox.version


def test_without_image_search_a_gaze_shows_its_crop_alone(files, tmp_path):
  run = mini.make_run(
      tmp_path, 'eval', tools__backend=f'{files}/backend.py:Notes'
  )
  assert describe(run.executor.tools['gaze'])['description'] == (
      'Crop a region of an image and see it enlarged.'
  )
  t = play(
      run,
      [call('gaze', bbox_2d=[0, 0, 42, 42])],
      [call('text_search', query='red'), call('image_search')],
  )
  gazed, found, missing = results(t)
  assert gazed.status == OK and gazed.view is not None
  assert not gazed.hits and gazed.n_searches == 0
  assert found.hits[0].text == 'on red'
  assert missing.error == "no tool 'image_search', only text_search, gaze"
  # What is searched for the policy is what can be.
  own = policies.run_of(run, 'full_search@sft')
  (question,) = world_helpers.questions_of('test', 1)
  request = Request(example=question.example, sample=0, seed=0)
  (said,) = policies._both_searches(own, request)
  assert 'text_search' in own.chat.decode(said)


@pytest.mark.parametrize(
    ('name', 'words'),
    [
        ('nowhere', "there is no 'nowhere'"),
        ('backend.py:broken', "makes no search backend (KeyError: 'NOTES')"),
        ('backend.py:Hit', 'makes no search backend (TypeError'),
        ('backend.py:Missing', 'cannot load'),
    ],
)
def test_backends_that_are_refused(files, tmp_path, name, words):
  backend = f'{files}/{name}' if ':' in name else name
  with pytest.raises(UserError) as error:
    mini.make_run(tmp_path, 'eval', tools__backend=backend)
  assert words in str(error.value) and '\n' not in str(error.value)


def test_a_tool_of_ours_is_a_line_in_a_list(files, tmp_path, monkeypatch):
  monkeypatch.setitem(
      toolbox.functions.KNOWN, 'total', 'tests.seams_tools_test:total'
  )
  run = mini.make_run(tmp_path, 'eval', tools__extra=('total',))
  t = play(run, [call('total', numbers=[2, 3])])
  assert results(t)[0].text == '5'


def total(numbers: list[int]) -> str:
  """Adds whole numbers."""
  return str(sum(numbers))


def page_search(backend, **settings):
  return dataclasses.replace(
      text_search(backend, **settings), name='page_search'
  )


def test_a_search_tool_of_ours_is_a_line_in_a_list(tmp_path, monkeypatch):
  search = Search('tests.seams_tools_test:page_search', TEXT)
  monkeypatch.setitem(SEARCHES, 'page_search', search)
  run = mini.make_run(
      tmp_path,
      'eval',
      rollout__max_calls__page_search=1,
      tools__limits__page_search__price=0.5,
      tools__max_spend=9.0,
  )
  assert list(run.executor.tools)[-1] == 'page_search'
  pages = [call('page_search', query='red')]
  t = play(run, pages, pages, [call('text_search', query='red')])
  first, second, last = results(t)
  assert (first.status, first.n_searches, first.price) == (OK, 1, 0.5)
  assert second.error == 'a conversation may call page_search once'
  assert (last.status, last.price) == (OK, 0.0)
  # Both search with text.
  assert behaviour.kinds_of_search(t) == {TEXT}


class Deep(loop_helpers.Backend):
  """Knows which of our frames stand between a turn's calls and a search."""

  frames: list[str] = []

  async def search_text(self, query, *, scope, top_k):
    found = traceback.extract_stack(sys._getframe())
    for task in asyncio.all_tasks() - {asyncio.current_task()}:
      coroutine = task.get_coro()
      while coroutine is not None and hasattr(coroutine, 'cr_frame'):
        found.append(traceback.extract_stack(coroutine.cr_frame, limit=1)[0])
        coroutine = coroutine.cr_await
    self.frames = [
        frame.name
        for frame in found
        if frame.filename.startswith(PACKAGE)
        and not frame.filename.startswith(f'{PACKAGE}/rollout')
    ]
    return await super().search_text(query, scope=scope, top_k=top_k)


@pytest.mark.parametrize('kept', [False, True])
def test_few_frames_stand_between_a_call_and_its_search(
    tmp_path, monkeypatch, kept
):
  """Over all tasks; the loop's own task is no part of the call."""
  backend = Deep()
  monkeypatch.setattr(toolbox, '_backend', lambda config, field: backend)
  fields = {'tools__cache': str(tmp_path / 'cache')} if kept else {}
  run = mini.make_run(tmp_path, 'eval', **fields)
  monkeypatch.chdir(tmp_path)
  play(run, [call('text_search', query='red')])
  print(backend.frames)
  assert 'run_turn' in backend.frames and len(backend.frames) <= 7

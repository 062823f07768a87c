"""Questions of a user's own, from files outside the package, all the way."""

from __future__ import annotations

import json
import shutil

import pytest

from gog_jax import images
from gog_jax.app import commands
from gog_jax.app import stages
from gog_jax.app import walk
from gog_jax.errors import UserError
from gog_jax.storage import trajectories as store
from gog_jax.types import Example
from tests import mini

# The world's questions, so that its searches find something; as a user's file.
OWN = """
import pathlib
from gog_jax.storage import trajectories
from gog_jax.types import Example
FOLDER = pathlib.Path(__file__).parent
def questions():
  return trajectories.read(FOLDER / 'examples.jsonl', Example)
"""


@pytest.fixture
def own(prepared, tmp_path):
  """A folder with questions, a function that gives them, and demos."""
  folder = tmp_path / 'own'
  shutil.copytree(prepared / 'demos', folder)
  (folder / 'mine.py').write_text(OWN)
  return folder


def fields(own, **more):
  name = f'{own / "mine.py"}:questions'
  return {
      'questions__train': (name,),
      'questions__validation': (name,),
      'questions__test': (name,),
      # One file for all: there is nothing left of it otherwise.
      'questions__leaks': 'keep',
      # As a backend of one's own, or it would be refused.
      'tools__backend': 'gog_jax.toy.backend:WorldBackend',
      'sft__data': str(own),
      **more,
  }


def test_own_questions_are_graded_from_the_first_and_evaluated(own, tmp_path):
  config = mini.make_config('rl', **fields(own, eval__policies=('sft', 'rl')))
  run = mini.run_of(config, tmp_path / 'run')
  asked = store.read(own / 'examples.jsonl', Example)
  assert [e.id for e in run.graded_examples()] == [e.id for e in asked]
  assert len(run.examples('validation', n=3)) == 3
  # As many as there are, however many are asked for.
  assert len(run.examples('test', n=10_000)) == len(asked)
  assert 'data' not in walk.order_for(config)
  digest = run.questions('train').digest
  assert stages.manifest_of(run, 'grade').inputs['questions'] == digest


def test_json_lines_are_questions(prepared, tmp_path):
  example = store.read(prepared / 'demos' / 'examples.jsonl', Example)[0]
  picture = tmp_path / 'a.png'
  picture.write_bytes(images.encode_png(images.decode(example.images[0])))
  path = tmp_path / 'mine.jsonl'
  row = {
      'question': 'what?',
      'answer': 'this',
      'image': 'a.png',
      'scope': example.scope,  # Or its searches would all fail.
  }
  path.write_text(json.dumps(row) + '\n{"question": "no answer"}\n')
  config = mini.make_config(
      'eval',
      questions__test=(f'jsonl:{path}',),
      tools__backend='gog_jax.toy.backend:WorldBackend',
      eval__policies=('gog@script',),
      eval__script='tests.eval_plays:mixed',
  )
  run = mini.run_of(config, tmp_path / 'run')
  held = run.questions('test')
  assert [(e.question, e.answers) for e in held] == [('what?', ('this',))]
  assert len(held.drops) == 1
  mini.make_stages(run, 'eval')
  folder = tmp_path / 'run' / 'eval' / 'gog@script'
  facts = json.loads((folder / 'manifest.json').read_text())['benchmark']
  assert facts['label'] == 'not in the paper'
  assert facts['name'] == f'jsonl:{path}'
  assert (facts['n'], facts['left_out']) == (1, 1)


def test_the_expert_demonstrates_the_world_alone(tmp_path):
  names = ('jsonl:mine.jsonl',)
  config = mini.make_config(
      'rl',
      questions__train=names,
      questions__validation=names,
      questions__test=names,
      tools__backend='gog_jax.toy.backend:WorldBackend',
      eval__policies=('sft', 'rl'),
  )
  (tmp_path / 'mine.jsonl').touch()
  with pytest.raises(UserError, match='--config.sft.data=FILE'):
    commands.do(config, tmp_path)


@pytest.mark.slow
def test_rl_on_own_questions(own, tmp_path):
  """SFT on own data, grading, GRPO and evaluation; the world is not made."""
  run = mini.make_run(
      tmp_path / 'run',
      'rl',
      **fields(own, eval__policies=('sft', 'rl'), rl__steps=2),
  )
  walk.walk(run)
  assert not (tmp_path / 'run' / 'data').exists()
  for name in ('sft', 'grade', 'rl', 'eval/sft', 'eval/rl', 'report'):
    path = tmp_path / 'run' / name / 'manifest.json'
    assert json.loads(path.read_text())['complete']
  assert len(mini.metrics_of(run, 'rl')) == 2

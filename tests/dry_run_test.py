"""--dry_run beside what the real run then does."""

from __future__ import annotations

import importlib
import json
import math
import pathlib
import re

from PIL import Image
import pytest

from gog_jax.app import dry_run
from gog_jax.app import export
from gog_jax.app import plans
from gog_jax.app import stages
from gog_jax.config import from_page
from gog_jax.errors import UserError
from gog_jax.evaluation import grade
from gog_jax.questions import checked
from gog_jax.rewards import levels
from gog_jax.rollout.scripted import ScriptedPolicy
from gog_jax.train import rl
from gog_jax.train import sft
from gog_jax.train import validation
from tests import conversation_helpers
from tests import mini
from tests import report_helpers

OWN = {
    'questions__validation': ('world',),
    'tools__backend': 'gog_jax.toy.backend:WorldBackend',
    'sft__epochs': 2.0,
    'sft__batch_size': 4,
    'eval__policies': ('sft',),
}


def told(config, workdir, capsys) -> dict[str, list[str]]:
  """What a dry run says, by its headings; it makes nothing."""
  before = tree(workdir)
  try:
    dry_run.dry_run(config, workdir)
  finally:
    assert tree(workdir) == before
  found, name = {}, ''
  for line in capsys.readouterr().out.splitlines():
    if line.startswith('  '):
      found[name].append(line.strip())
    else:
      name = line.rstrip(':')
      found[name] = []
  return found


def tree(folder) -> dict[str, int]:
  paths = pathlib.Path(folder).rglob('*')
  return {str(path): path.stat().st_mtime_ns for path in paths}


def conversations(folder: pathlib.Path) -> pathlib.Path:
  """Ten, of 117 or 88 tokens and 60 patches; of no use are 1, 2 and 3."""
  rows = [conversation_helpers.sharegpt(f'q{i}') for i in range(10)]
  for i, row in enumerate(rows):
    row['conversations'][-1]['value'] = f'<think>it is</think>{100 + i}'
    if i % 2:
      row['conversations'][3:5] = []
  rows[1]['conversations'][2]['value'] += ' belwen' * 300
  rows[2]['images'][1] = 'gone.png'
  rows[3]['id'] = 'q0'
  return conversation_helpers.save(folder / 'data.json', rows)


def questions(folder: pathlib.Path) -> dict[str, tuple[str, ...]]:
  """Six questions to train on, of which two can be asked, and one to test."""
  image = {}
  for name, colour in (('a', (200, 0, 0)), ('b', (0, 0, 200))):
    image[name] = folder / f'{name}.png'
    image[name].write_bytes(report_helpers.png(colour=colour))
  (folder / 'bad.png').write_bytes(b'\x89PNG nothing')
  row = lambda q, picture='a': {
      'question': q, 'answer': 'x', 'image': f'{picture}.png', 'id': q[:5],
  }  # fmt: skip
  written = {
      'train': [
          row('one?'), row('two?', 'b'), row('three?', 'bad'),
          {'question': 'four?'}, row('The TEST'), row('long ' * 400),
      ],
      'test': [row('the test?') | {'id': 'test'}],
  }  # fmt: skip
  for name, rows in written.items():
    path = folder / f'{name}.jsonl'
    path.write_text(''.join(json.dumps(one) + '\n' for one in rows))
  return {
      f'questions__{name}': (f'jsonl:{folder}/{name}.jsonl',)
      for name in written
  }


def test_sft_on_data_and_grading_are_told_as_they_are_done(
    tmp_path, capsys, monkeypatch
):
  (tmp_path / 'own').mkdir()
  fields = OWN | questions(tmp_path / 'own') | {
      'sft__data': str(conversations(tmp_path / 'own')),
      'sft__data_box': 'resized_pixels',
  }
  run = mini.make_run(tmp_path / 'run', 'grade', **fields)
  found = told(run.config, tmp_path / 'run', capsys)
  assert list(found)[:3] == ['config', 'sft', 'grade']

  records, longest, patches, tokens, steps, _ = found['sft']
  assert re.fullmatch(
      r'records: 7 of .*/data.json; dropped: 1 no image, 1 duplicate id, '
      r'1 too long', records,
  )  # fmt: skip
  # 4 of 117 tokens and 3 of 88.
  assert tokens.startswith('732 tokens an epoch, ')
  n, row, every = (
      int(one.replace(',', '')) for one in re.findall(r'\d[\d,]*', longest)[:3]
  )
  assert n > row == 288 and every == 256 * math.ceil(n / 256)
  assert patches == 'most patches of a record 60, batch.row_patches=160'
  assert steps == 'steps: 4 of 4 records, 2.3 epochs'
  made = {}

  def fit(state, *unused, n_steps, **kwargs):
    made['steps'] = n_steps
    return state

  monkeypatch.setattr(sft, 'fit', fit)
  facts = sft.train(run, tmp_path / 'sft', demos='')
  assert (facts['n_demos'], made['steps']) == (7, 4)
  assert facts['dropped'] == {'no image': 1, 'duplicate id': 1, 'too long': 1}

  left_out, prompts, room, _, rolled, most = found['grade']
  reasons = left_out.removeprefix('left out of questions.train: ').split(', ')
  assert {*reasons} == {'1 bad image', '1 no answer', '1 also evaluated'}
  assert prompts.startswith('prompts: 2, left out: 1 (the prompt of long')
  examples = run.graded_examples()
  sizes = [len(run.chat.prompt(one).token_ids) for one in examples[:2]]
  assert room.startswith(f'longest prompt {max(sizes)} tokens; ')
  assert f'leaves {288 - max(sizes)} for' in room
  assert rolled == '4 conversations, 1,152 tokens at most'
  assert most.endswith('20 turns, 16 tool calls, price unknown')
  policy = ScriptedPolicy(
      lambda request, _: run.chat.encode_turn(thought='', answer='x'), 4
  )
  grades = grade.grade_examples(run, policy, examples, tmp_path / 'grade')
  assert sum(one.n_valid for one in grades) == 4
  assert capsys.readouterr().err.count('is left out') == 1


def test_what_is_complete_is_reused_and_the_rest_is_told(finished, capsys):
  run = mini.make_run(finished.workdir, 'rl', eval__policies=('sft', 'rl'))
  found = told(run.config, run.workdir, capsys)
  for name in ('data', 'demos', 'sft', 'grade'):
    assert found[name] == [f'complete in {run.workdir / name}, reused']
  n = sum(
      one.level is not None for one in levels.read_grades(run.workdir / 'grade')
  )
  prompts, _, queries, steps, held, rolled, most = found['rl']
  assert prompts == f'prompts: {n}'
  assert queries == f'{n} queries of all levels: {16 / n:.1f} epochs'
  assert steps == 'steps: 4 of 4 x 4 rollouts, 4 updates'
  assert rolled == '64 conversations, 18,432 tokens at most'
  assert most == 'at most   320 turns, 256 tool calls, $0.0000'
  assert 'optimizer' in held
  assert '16 items, 0 done' in found['eval sft'][0]
  assert found['all at most: $0.0000'] == []


def test_all_that_would_stop_it_is_named_in_one_line(
    finished, tmp_path, capsys
):
  few = mini.make_config('rl', rl__n_prompts=17, **{
      name.replace('.', '__'): value
      for name, value in mini.OVERRIDES.items() if name != 'rl.n_prompts'
  })  # fmt: skip
  with pytest.raises(UserError, match='16 of 16 queries are graded, fewer'):
    told(few, finished.workdir, capsys)
  (tmp_path / 'own').mkdir()
  fields = OWN | questions(tmp_path / 'own') | {
      'eval__policies': ('sft', 'rl'),
      'sft__data': 'gone.jsonl',
      'sft__n_validation': 0,
      'reward__accuracy': 'judge',
      'judge__model': 'j',
      'judge__url': 'http://127.0.0.1:1/v1',
      'judge__max_attempts': 1,
  }
  config = mini.make_config('rl', **fields)
  with pytest.raises(UserError) as stopped:
    told(config, tmp_path / 'run', capsys)
  message = str(stopped.value)
  assert 'cannot reach http://127.0.0.1:1/v1' in message
  assert '; gone.jsonl does not exist' in message and '\n' not in message
  # What can be told is told nevertheless.
  assert 'would stop: gone.jsonl' in (out := capsys.readouterr().out)
  assert 'prompts: 2, left out: 1' in out
  assert 'all at most: price unknown' in out
  asked = mini.make_config('rl', unasked=False)
  with pytest.raises(UserError, match='rl needs data, which is not complete'):
    told(asked, tmp_path / 'run', capsys)
  no_index = {'tools__backend': 'index', 'tools__index': str(tmp_path / 'no')}
  with pytest.raises(UserError) as stopped:
    told(mini.make_config('rl', **fields | no_index), tmp_path / 'run', capsys)
  message = str(stopped.value)
  assert f'{tmp_path}/no' in message
  assert 'cannot reach http://127.0.0.1:1/v1' in message


def test_validation_is_counted_as_it_is_measured(finished, tmp_path, capsys):
  (tmp_path / 'own').mkdir()
  fields = OWN | questions(tmp_path / 'own')
  fields |= {
      'questions__validation': fields['questions__test'],
      'questions__leaks': 'keep',
  }
  run = mini.make_run(
      tmp_path / 'run',
      'sft',
      **fields,
      sft__data=str(conversations(tmp_path / 'own')),
      sft__data_box='resized_pixels',
      sft__n_validation=9,  # Of which there is one.
      sft__eval_every=3,  # After the third step, and after the fourth and last.
      reward__accuracy='judge',
      judge__model='j',
      judge__url='http://127.0.0.1:1/v1',
  )
  plan = plans.sft(run, run.workdir / 'sft', demos='')
  due = validation.Validation(run, run.workdir / 'sft', n=9, every=3, n_steps=4)
  assert sum(map(due.is_due, range(5))) == plan.judged == 2
  assert plan.lines[-2] == '2 validation conversations, 576 tokens at most'
  config = mini.make_run(
      finished.workdir, 'rl', rl__n_validation=8, rl__eval_every=3
  ).config
  lines = told(config, finished.workdir, capsys)['rl']
  assert 'validation: 16 conversations among those below' in lines


def test_images_that_only_the_run_fetches_stop_no_dry_run(tmp_path, capsys):
  rows = [
      {'question': f'{i}?', 'answer': 'x', 'image': f'http://127.0.0.1:1/{i}'}
      for i in range(3)
  ]
  path = tmp_path / 'linked.jsonl'
  path.write_text(''.join(json.dumps(row) + '\n' for row in rows))
  fields = OWN | {
      'questions__train': (f'jsonl:{path}',),
      'questions__test': ('train:5%',),
      'sft__data': str(conversations(tmp_path)),
      'sft__data_box': 'resized_pixels',
      'sft__n_validation': 0,
  }
  found = told(mini.make_config('grade', **fields), tmp_path / 'run', capsys)
  unknown = 'unknown until the images of 3 questions are fetched'
  assert found['grade'] == [unknown]
  assert 'all at most: price unknown' in found
  fields['questions__fetch_images'] = False
  with pytest.raises(UserError, match='linked.jsonl holds nothing of use'):
    told(mini.make_config('grade', **fields), tmp_path / 'run', capsys)


def test_only_the_queries_of_a_level_are_read(tmp_path, monkeypatch):
  (tmp_path / 'own').mkdir()
  fields = OWN | questions(tmp_path / 'own')
  run = mini.make_run(tmp_path / 'run', 'grade', **fields, sft__data='gone')
  run.questions('train')
  taken, item = [], checked.Questions.item
  monkeypatch.setattr(
      checked.Questions,
      'item',
      lambda self, index: taken.append(index) or item(self, index),
  )
  (one,) = run.graded_examples({'two?'})
  assert (one.id, taken) == ('two?', [1])


def test_a_set_is_built_once_whatever_the_seeds(tmp_path, capsys):
  config = mini.make_config('instruct', seeds=(0, 1))
  found = told(config, tmp_path, capsys)
  assert [*found][:3] == ['config', 'data', 'instruct']
  assert not [name for name in found if name.startswith('seed')]


def test_epochs_of_rl_are_those_of_its_level(finished, monkeypatch, capsys):
  taken = []
  monkeypatch.setattr(
      rl, 'train', lambda run, folder: taken.append(run.config.rl.steps) or {}
  )
  grades = levels.read_grades(finished.workdir / 'grade')
  n = sum(one.level is not None for one in grades)
  run = mini.make_run(finished.workdir, 'rl', rl__epochs=2.5, rl__n_prompts=3)
  stage = stages.stages_of(run.config)['rl']
  stage.make(run, run.workdir / 'rl')
  assert taken == [math.ceil(2.5 * n / 3)]
  (steps,) = [
      line
      for line in told(run.config, run.workdir, capsys)['rl']
      if line.startswith('steps: ')
  ]
  assert steps.startswith(f'steps: {taken[0]} of 3 x 4 rollouts')
  assert stages.manifest_of(run, 'rl').config['rl.epochs'] == 2.5


def test_an_index_and_an_export_are_told(finished, tmp_path, capsys):
  docs, folder = tmp_path / 'docs.jsonl', tmp_path / 'photos'
  folder.mkdir()
  docs.write_text('{"id": "1", "text": "a"}\n{"id": "2", "text": ""}\n')
  Image.new('RGB', (9, 9)).save(folder / 'a.png')
  page = importlib.import_module('configs.index').get_config()
  page.update(
      docs=str(docs), images=str(folder), index=str(tmp_path / 'index')
  )
  found = told(from_page(page), tmp_path, capsys)
  assert found['index'] == [f'1 documents, 1 images, into {tmp_path}/index']
  out = tmp_path / 'out'
  config = mini.make_config(
      'export', export__stage='sft', export__folder=str(out)
  )
  (line,) = told(config, finished.workdir, capsys)['export']
  export.export(config, finished.workdir)
  size = (out / 'model.safetensors').stat().st_size
  assert abs(float(re.findall(r'([\d.]+) MB', line)[0]) - size / 1e6) < 0.1

"""Held-out shares, exclusions, draws and leaks, by the config's section."""

from __future__ import annotations

import collections
import dataclasses
import hashlib
import json
from typing import Any

import pytest

from gog_jax.app import stages
from gog_jax.errors import UserError
from gog_jax.evaluation import evaluate
from gog_jax.questions import checked
from gog_jax.questions import splits
from gog_jax.rewards.levels import Grade
from gog_jax.train import rl
from tests import benchmark_fixtures as fixtures
from tests import mini

BACKEND = 'gog_jax.toy.backend:WorldBackend'


def save(path, rows):
  path.write_text(''.join(json.dumps(row) + '\n' for row in rows))
  return f'jsonl:{path}'


def row(i, image, question='who?', **more):
  return {'id': f'q{i}', 'question': question, 'answer': 'x',
          'image': f'{image}.png'} | more  # fmt: skip


@pytest.fixture(name='folder')
def pictures(tmp_path):
  for i in range(60):
    (tmp_path / f'{i}.png').write_bytes(fixtures.picture(i))
  return tmp_path


def make(train, stage='rl', **fields: Any):
  return mini.make_config(
      stage,
      **{
          'questions__train': (train,) if isinstance(train, str) else train,
          'questions__validation': ('train:20%',),
          'questions__test': ('train:30%',),
          'tools__backend': BACKEND,
          'sft__data': 'x',
          'eval__policies': ('sft', 'rl'),
      }
      | {f'questions__{name}': value for name, value in fields.items()},
  )


def opened(config, folder):
  return {
      split: splits.open(config, split, workdir=folder)
      for split in ('train', 'validation', 'test')
  }


def test_a_share_is_held_out_by_image(folder):
  """Of two questions about each of 60 images, none straddles."""
  rows = [row(i, i // 2, f'who is {i}?') for i in range(120)]
  rows.append(row(120, 0, images=[f'{i}.png' for i in range(9)]))
  name = save(folder / 'mine.jsonl', rows)
  found = opened(make(name), folder)
  sides = {
      split: {one.images[0] for one in held} for split, held in found.items()
  }
  assert sum(map(len, found.values())) == 120
  assert sum(map(len, sides.values())) == 60 == len(set.union(*sides.values()))
  assert 4 <= len(sides['validation']) <= 20 and len(sides['test']) >= 9
  reasons = {drop.reason for held in found.values() for drop in held.drops}
  assert reasons == {splits.STRADDLES}
  # It hangs on the images alone: not on the order, nor on what else there is.
  name = save(folder / 'less.jsonl', rows[119:20:-1])
  again = opened(make(name), folder)
  for split, held in again.items():
    assert {one.images[0] for one in held} <= sides[split]


def test_what_is_evaluated_too_is_left_out_and_said(folder, capsys):
  train = save(folder / 'train.jsonl', [row(i, i) for i in range(8)])
  test = save(
      folder / 'test.jsonl',
      [row(0, 0, 'WHO'), row(1, 1, 'else?'), row(2, 50), row(3, 3, ' who')],
  )
  validation = save(folder / 'validation.jsonl', [row(7, 7), row(3, 3)])
  fields = {'test': (test,), 'validation': (validation,)}
  found = opened(make(train, **fields), folder)
  assert [one.id for one in found['train']] == ['q1', 'q2', 'q4', 'q5', 'q6']
  assert [one.id for one in found['validation']] == ['q7']
  assert len(found['test']) == 4
  assert [d.reason for d in found['train'].drops] == [checked.LEAKED] * 3
  said = ''.join(capsys.readouterr())
  assert 'questions.train: 5, left out: 3 also evaluated' in said
  kept = opened(make(train, leaks='keep', **fields), folder)
  assert [len(held) for held in kept.values()] == [8, 2, 4]
  # What is evaluated may be chosen later: it does not tell what was graded.
  assert found['train'].origin == kept['train'].origin
  assert found['train'].digest != kept['train'].digest


def test_the_benchmark_evaluated_is_left_out(folder):
  fvqa = fixtures.fvqa(folder / 'fvqa', 5)
  rows = [row(i, i, f'Question {i}?') for i in range(8)]
  other = save(folder / 'validation.jsonl', [row(0, 50)])
  config = make(
      save(folder / 'train.jsonl', rows), validation=(other,), test=(other,)
  )
  config = mini.changed(
      config, eval__benchmark='fvqa_test', benchmark__path=str(fvqa)
  )
  found = splits.open(config, 'train', workdir=folder)
  assert found.ids == ('q5', 'q6', 'q7')
  reasons = collections.Counter(drop.reason for drop in found.drops)
  assert reasons == {checked.LEAKED: 5}
  named = make(
      f'jsonl:{folder}/train.jsonl',
      validation=(other,),
      test=(f'benchmark:fvqa_test:{fvqa}',),
  )
  trained = splits.open(named, 'train', workdir=folder)
  assert trained.ids == found.ids and trained.digest == found.digest
  assert [one.id for one in splits.open(named, 'test', workdir=folder)] == [
      f'fvqa_test_{i}' for i in range(5)
  ]


def test_a_share_of_nothing_says_whose(folder):
  config = make(save(folder / 'a.jsonl', [row(0, 0)]), test=('train:1%',))
  with pytest.raises(UserError, match="test=.'train:1%',.: .*nothing of use"):
    splits.open(config, 'validation', workdir=folder)


def test_excluded_images_are_left_out_whatever_is_asked(folder):
  train = save(folder / 'train.jsonl', [row(i, i) for i in range(40)])
  others = [row(i, i, 'where?') for i in range(5)]
  config = make(train, exclude=(save(folder / 'no.jsonl', others),))
  found = opened(config, folder)
  asked = {id for split in ('train', 'validation') for id in found[split].ids}
  assert not asked & {f'q{i}' for i in range(5)} and len(asked) > 15
  reasons = collections.Counter(drop.reason for drop in found['train'].drops)
  assert reasons == {splits.EXCLUDED: 5}


def test_a_draw_of_train_and_a_folder_of_images(folder):
  (folder / 'lists').mkdir()
  rows = [row(i, i) for i in range(60)]
  name = save(folder / 'lists' / 'mine.jsonl', rows)
  config = make(name, n=10, images=str(folder))
  found = opened(config, folder)
  assert len(found['train']) == 10
  everything = splits.open(
      make(name, images=str(folder)), 'train', workdir=folder
  )
  assert {*found['train'].ids} < {*everything.ids}
  assert [e.id for e in found['train']] == [*found['train'].ids]
  other = mini.changed(config, seed=1)
  drawn = splits.open(other, 'train', workdir=folder)
  assert drawn.ids != found['train'].ids and drawn.origin != everything.origin


def test_sources_by_weight(folder, capsys):
  """Worked out by hand: of a two for each of b, and one of c for three of b."""
  names = [
      save(folder / f'{letter}.jsonl', [
          row(f'{letter}{i}', 12 * number + i) for i in range(12)
      ])
      for number, letter in enumerate('abc')
  ]  # fmt: skip
  a, b, c = names
  train = (f'{a}*1.5', f'{b}*0.75', f'{c}*0.25')
  config = make(train, validation=(c,), test=(c,), leaks='keep')
  whole = splits.open(config, 'train', workdir=folder)
  # Shares 0.6, 0.3, 0.1; a is the first to run out, asked for a 13th.
  turns = 'abaabacaba' 'abaabacaba'
  assert ''.join(id[1] for id in whole.ids) == turns
  assert 'questions.train by weight: 12 of jsonl:' in capsys.readouterr().err
  # Every a; of b and c as the seed draws, in their order.
  of = {letter: [i for i in whole.ids if i[1] == letter] for letter in 'abc'}
  assert of['a'] == [f'qa{i}' for i in range(12)]
  ranks = {
      letter: sorted(
          (f'q{letter}{i}' for i in range(12)),
          key=lambda id: hashlib.sha256(f'0/{id}'.encode()).digest(),
      )
      for letter in 'bc'
  }
  in_order = lambda ids: sorted(ids, key=lambda id: int(id[2:]))
  assert of['b'] == in_order(ranks['b'][:6])
  assert of['c'] == in_order(ranks['c'][:2])
  # A draw takes as many, and what is asked of it first is its beginning.
  drawn = splits.open(
      make(train, validation=(c,), test=(c,), leaks='keep', n=5),
      'train',
      workdir=folder,
  )
  assert [id[1] for id in drawn.ids] == [*'abaab'] and drawn.digest
  assert {*drawn.ids} < {f'qa{i}' for i in range(12)} | {*of['b']}
  first = splits.open(config, 'train', workdir=folder, n=7)
  assert first.ids == whole.ids[:7]
  assert [one.id for one in first] == [*first.ids]
  digests = {one.origin for one in (whole, drawn, first)}
  other = splits.open(mini.changed(config, seed=1), 'train', workdir=folder)
  assert len(digests | {other.origin}) == 3 and other.ids != whole.ids
  # In turn, as before, where no source has a weight; and shares are of all.
  plain = splits.open(
      make(tuple(names), validation=(c,), test=(c,), leaks='keep'),
      'train',
      workdir=folder,
  )
  assert [id[1] for id in plain.ids] == [*'abc'] * 12
  held = opened(make(train), folder)
  assert len(held['validation']) + len(held['test']) > 8
  assert not {*held['train'].ids} & {*held['test'].ids}


def test_a_source_without_questions_has_no_weight(folder):
  a = save(folder / 'a.jsonl', [row(0, 0)])
  b = save(folder / 'b.jsonl', [row(1, 1)])
  config = make((a, f'{b}*2'), validation=(b,), test=(b,))
  with pytest.raises(UserError, match='no question of .*b.jsonl is of use, so'):
    splits.open(config, 'train', workdir=folder)


def test_a_grading_under_way_goes_on_with_the_same_questions(folder):
  train = save(folder / 'train.jsonl', [row(i, i) for i in range(8)])
  test = save(folder / 'test.jsonl', [row(0, 0)])
  unseen = (save(folder / 'validation.jsonl', [row(0, 50)]),)
  one = mini.run_of(
      make(train, test=(test,), validation=unseen), folder / 'run'
  )
  checked.check_same([e.id for e in one.graded_examples()], folder / 'asked')
  checked.check_same([e.id for e in one.graded_examples()], folder / 'asked')
  other = save(folder / 'other.jsonl', [row(i, i) for i in range(7)])
  two = mini.run_of(
      make(train, test=(other,), validation=unseen), folder / 'run'
  )
  manifests = [stages._asked(run, 'train') for run in (one, two)]
  assert manifests[0] == manifests[1] and manifests[0]['leaks'] == 'leave_out'
  with pytest.raises(UserError, match='was begun with other questions'):
    checked.check_same([e.id for e in two.graded_examples()], folder / 'asked')


def test_rl_under_way_goes_on_with_the_same_questions(folder, monkeypatch):
  train = save(folder / 'train.jsonl', [row(i, i) for i in range(8)])
  unseen = save(folder / 'validation.jsonl', [row(0, 50), row(1, 51)])
  (folder / 'rl').mkdir()
  monkeypatch.setattr(rl, 'train', lambda run, folder: {})

  def start(number, validation=unseen):
    test = save(folder / f'{number}.jsonl', [row(number, number)])
    config = make(train, validation=(validation,), test=(test,))
    stages._train_rl(mini.run_of(config, folder / 'run'), folder / 'rl')

  start(0)
  start(0)
  fewer = save(folder / 'fewer.jsonl', [row(0, 50)])
  for others in (1, unseen), (0, fewer):
    with pytest.raises(UserError, match='was begun with other questions'):
      start(*others)


WORLD = ('world',)


@pytest.mark.parametrize(
    ('fields', 'words'),
    [
        ({'train': ('train:5%',)},
         "train=('train:5%',): a share of train is ('train:5%',), alone"),
        ({'validation': ('train:5',)},
         "validation=('train:5',): a share of train is"),
        ({'test': ('train:5%', 'jsonl:x')}, 'alone, and for validation'),
        ({'validation': ('train:70%',)}, 'leave nothing'),
        ({'validation': ('train:0%',)}, 'leave nothing'),
        ({'train': WORLD}, 'config.data'),
        ({'validation': WORLD},
         "questions.validation has the embedded world's questions, beside "
         'your own in config.questions.train: name your own with '
         '--config.questions.validation="(\'jsonl:FILE\',)", or ask none'),
        ({'test': WORLD}, "questions.test has the embedded world's questions"),
        ({'test': ('jsonl:x*2',)}, "test=('jsonl:x*2',): weights are for tr"),
        ({'train': ('jsonl:x*2',)}, 'for one of several sources'),
        ({'train': ('jsonl:x', 'jsonl:y*0')}, 'a weight is more than 0'),
        ({'train': ('world*2',)}, 'for one of several sources'),
        ({'exclude': ('jsonl:x', 'world')}, 'are in no other source; leave'),
        ({'leaks': 'drop'}, 'leaks must be one of leave_out, keep'),
    ],
)  # fmt: skip
def test_sections_that_are_refused(fields, words):
  with pytest.raises(UserError) as error:
    make(**{'train': 'jsonl:x'} | fields)
  assert words in str(error.value) and '\n' not in str(error.value)


@pytest.mark.parametrize(
    ('stage', 'fields', 'words'),
    [
        # The toy's page with one's own index.
        ('grade', {'tools__backend': 'index'},
         "questions.train has the embedded world's questions, beside "
         'tools that search by index, which has none of it'),
        ('eval', {'tools__backend': 'retriever'}, 'questions.test has'),
        ('eval', {'tools__backend': 'index', 'eval__benchmark': 'world_hard'},
         'eval.benchmark has'),
        ('sft', {'tools__backend': 'index', 'sft__data': 'x'},
         '--config.sft.n_validation=0'),
        ('grade', {'questions__train': ('jsonl:x',), 'sft__data': 'x'},
         'the embedded world knows nothing about your questions '
         '(config.questions.train)'),
        ('eval', {'questions__test': ('jsonl:x',), 'eval__policies': ('sft',)},
         '(config.questions.test)'),
    ],
)  # fmt: skip
def test_questions_about_which_nothing_is_found(stage, fields, words):
  with pytest.raises(UserError) as error:
    mini.make_config(stage, **fields)
  assert words in str(error.value) and '\n' not in str(error.value)


def test_what_never_searches_needs_no_search():
  mini.make_config(
      'eval',
      questions__test=('jsonl:x',),
      eval__policies=('direct@base',),
  )
  mini.make_config(
      'sft', sft__data='x', sft__n_validation=0, tools__backend='index'
  )


def test_what_was_trained_on_is_said_where_it_is_evaluated(folder, capsys):
  """As of a benchmark that was chosen after training."""
  train = save(folder / 'train.jsonl', [row(i, i) for i in range(8)])
  unseen = (save(folder / 'unseen.jsonl', [row(0, 50)]),)
  (folder / 'grade').mkdir()
  names = ('valid', 'correct', 'errors', 'short', 'unseen', 'else')
  counts = {f'n_{name}': 0 for name in names}
  grades = [
      Grade(example_id=f'q{i}', hops=None, level=0, **counts) for i in range(5)
  ]
  rows = ''.join(json.dumps(dataclasses.asdict(one)) + '\n' for one in grades)
  (folder / 'grade' / 'graded.jsonl').write_text(rows)
  test = (save(folder / 'test.jsonl', [row(3, 3), row(6, 6)]),)
  for names, n in ((unseen, 0), (test, 1)):
    run = mini.run_of(make(train, test=names, validation=unseen), folder)
    assert evaluate.trained_on(run) == {'trained_on': n}
  assert '1 of the questions evaluated were there to' in capsys.readouterr().err


def test_the_builder_asks_what_is_drawn_and_not_evaluated(folder):
  train = save(folder / 'train.jsonl', [row(i, i) for i in range(20)])
  test = (save(folder / 'test.jsonl', [row(i, i) for i in range(5)]),)
  fields = {'test': test, 'validation': test}
  drawn = splits.open(make(train, n=10, **fields), 'train', workdir=folder)
  fewer = splits.open(make(train, n=10, **fields), 'train', workdir=folder, n=4)
  assert len(drawn) == 10 and len(fewer) == 4 and {*fewer.ids} < {*drawn.ids}
  assert not {*drawn.ids} & {f'q{i}' for i in range(5)}
  first = splits.open(make(train, **fields), 'train', workdir=folder, n=4)
  assert first.ids == ('q5', 'q6', 'q7', 'q8')

"""Questions of the world, of files and of a user's own code."""

from __future__ import annotations

import base64
import collections
import json

import numpy as np
import pytest

from gog_jax.errors import UserError
from gog_jax.questions import checked
from gog_jax.questions import json_lines
from gog_jax.questions import sources
from gog_jax.questions.benchmarks import describe
from gog_jax.questions.local_files import ImageFolder
from gog_jax.storage.records import Drop
from gog_jax.storage.records import Loaded
from gog_jax.types import Example
from tests import benchmark_fixtures as fixtures
from tests import instruct_helpers as helpers
from tests import tiny

pytestmark = pytest.mark.quick


def examples(*images):
  return [
      Example(
          id=f'e{i}',
          images=(data,),
          question='?',
          answers=('x',),
          source='test',
          scope='',
      )
      for i, data in enumerate(images)
  ]


def unchecked(*images):
  found = Loaded(name='set', items=examples(*images))
  return checked.Questions([found], [(0, i) for i in range(len(images))])


def test_a_corrupt_image_of_the_world_names_its_record():
  good = tiny.picture(56, 56, 0)
  damaged = good[:60] + bytes(40) + good[100:]
  questions = unchecked(good, good, damaged)
  assert len(list(questions.part(0, 2))) == 2
  with pytest.raises(UserError, match=r'set, record 2 \(e2\), image 1: cannot'):
    list(questions.part(1, 2))


def test_too_few_say_how_many():
  with pytest.raises(UserError, match='set holds 1 examples, 3 are needed'):
    unchecked(tiny.picture(56, 56, 0)).part(1, 2)


def test_records_of_no_use_are_counted_and_sources_taken_in_turn():
  a = [helpers.example(i) for i in range(4)]
  b = [
      helpers.example(0),  # An id that is taken.
      helpers.example(10, images=()),
      helpers.example(11, answers=(' ',)),
      helpers.example(12, images=(b'no image',)),
      helpers.example(13),
  ]
  found = [
      Loaded(name='a', items=a, drops=(Drop(where='row 9', reason='no image',
                                             detail='it has none'),)),
      Loaded(name='b', items=b),
  ]  # fmt: skip
  queries = checked.in_turn(found, n=100)
  assert [e.id for e in queries] == ['q000', 'q001', 'q002', 'q003', 'q013']
  reasons = collections.Counter(drop.reason for drop in queries.drops)
  assert reasons == {
      'no image': 2, 'duplicate id': 1, 'no answer': 1, 'bad image': 1
  }
  assert queries.drops[0].where == 'a: row 9'
  assert len(checked.in_turn(found, n=2)) == 2
  with pytest.raises(UserError, match='nothing of use'):
    checked.in_turn([Loaded(name='c', items=b[1:4])], n=5)


# A user's own.


def open_one(name, **options):
  return sources.open((name,), split='train', workdir='', **options)


def save(path, rows):
  path.parent.mkdir(exist_ok=True, parents=True)
  text = [row if isinstance(row, str) else json.dumps(row) for row in rows]
  path.write_text('\n'.join(text) + '\n')
  return f'jsonl:{path}'


def test_json_lines_hold_images_in_files_and_in_themselves(tmp_path):
  files = tmp_path / 'images'
  files.mkdir()
  (files / 'a.png').write_bytes(fixtures.picture(0))
  inline = base64.b64encode(fixtures.picture(1)).decode()
  name = save(tmp_path / 'mine.jsonl', [
      {'question': ' who? ', 'answer': 7, 'image': 'images/a.png'},
      {'id': 'two', 'question': 'who?', 'answers': ['x', 'y'],
       'images': [str(files / 'a.png'), f'data:image/png;base64,{inline}'],
       'scope': 'mine', 'search_required': True, 'hops': 2,
       'gold_regions': [[0, 1, 2, 3]]},
      {'id': 3, 'question': 'who?', 'answers': 'x', 'image': inline},
  ])  # fmt: skip
  one, two, three = open_one(name)
  assert (one.id, one.question, one.answers) == ('1', 'who?', ('7',))
  assert one.images == (fixtures.picture(0),)
  assert two.images == (fixtures.picture(0), fixtures.picture(1))
  assert (two.answers, two.scope, two.hops) == (('x', 'y'), 'mine', 2)
  assert two.search_required and two.gold_regions == ((0.0, 1.0, 2.0, 3.0),)
  assert (three.id, three.images) == ('3', (fixtures.picture(1),))


def test_json_lines_are_read_as_others_spell_them(tmp_path):
  (tmp_path / 'a.png').write_bytes(fixtures.picture(0))
  inline = base64.b64encode(fixtures.picture(0)).decode()
  plain = {'question': 'who?', 'answer': 'x', 'image': 'a.png'}
  rows = [
      plain,
      plain | {'question': '<image>\nwho?'},
      plain | {'images': []},
      plain | {'images': None, 'answers': None},
      plain | {'images': ['', 'a.png', None]},
      plain | {'image': {'bytes': inline, 'path': None}},
      plain | {'images': [{'path': 'a.png'}]},
      plain | {'answer': {'ground_truth': 'x'}},
      plain | {'answer': '["x"]'},
      plain | {'image': 'pictures\\..\\a.png'},
      plain | {'image': ''},
      plain | {'image': {'bytes': None, 'path': None}},
  ]
  found = open_one(save(tmp_path / 'mine.jsonl', rows))
  assert [one.id for one in found] == [str(i) for i in range(1, 11)]
  for one in found:
    assert (one.question, one.answers) == ('who?', ('x',))
    assert one.images == (fixtures.picture(0),)
  assert [drop.reason for drop in found.drops] == ['no image', 'bad record']


def test_paths_lead_no_further_than_one_says(tmp_path):
  (tmp_path / 'a.png').write_bytes(fixtures.picture(0))
  row = {'question': 'who?', 'answer': 'x'}
  for image in ('../a.png', str(tmp_path / 'a.png')):
    name = save(tmp_path / 'lists' / 'mine.jsonl', [row | {'image': image}])
    words = 'a.png. is outside of .*lists: pass --config.questions.images=FOLD'
    with pytest.raises(UserError, match=words):
      open_one(name)
  for images in ('/', str(tmp_path)):
    assert len(open_one(name, images=images)) == 1
  name = save(tmp_path / 'lists' / 'b.jsonl', [row | {'image': 'gone.png'}])
  with pytest.raises(UserError, match='gone.png. is not in .*lists$'):
    open_one(name)


def test_an_image_file_that_went_is_named(tmp_path):
  (tmp_path / 'a.png').write_bytes(fixtures.picture(0))
  row = {'question': 'who?', 'answer': 'x', 'image': 'a.png'}
  questions = open_one(save(tmp_path / 'mine.jsonl', [row]))
  (tmp_path / 'a.png').unlink()
  with pytest.raises(UserError, match='a.png cannot be read .*put it back'):
    questions[0]


def test_every_bad_line_costs_itself_alone(tmp_path):
  good = {'question': 'who?', 'answer': 'x', 'image': 'a.png'}
  (tmp_path / 'a.png').write_bytes(fixtures.picture(0))
  (tmp_path / 'bad.png').write_bytes(b'<html>')
  name = save(tmp_path / 'mine.jsonl', [
      good,
      '{"cut',
      '[1]',
      good | {'image': None},
      good | {'image': 'gone.png'},
      good | {'image': 'bad.png'},
      good | {'image': 'no base64!'},
      good | {'answer': ' '},
      good | {'question': None},
      good | {'id': 1},
      good | {'gold_regions': [[1, 2]]},
      good | {'hops': 'two'},
      good | {'images': [7]},
      good,
  ])  # fmt: skip
  questions = open_one(name)
  # What a question need not have costs nothing but itself.
  assert [one.id for one in questions] == ['1', '11', '12', '14']
  assert [one.hops for one in questions] == [None] * 4
  assert [one.gold_regions for one in questions] == [()] * 4
  assert collections.Counter(drop.reason for drop in questions.drops) == {
      'not JSON': 1, 'bad record': 2, 'no image': 1, 'missing image': 1,
      'bad image': 1, 'not an image': 1, 'no answer': 1, 'no question': 1,
      'duplicate id': 1,
  }  # fmt: skip
  assert not any('\n' in str(drop) for drop in questions.drops)
  path = name.removeprefix('jsonl:')
  assert f'{path}, line 5: its image' in ' '.join(map(str, questions.drops))


def test_a_functions_regions_may_be_arrays():
  row = {'question': 'who?', 'answer': 'x', 'image': fixtures.picture(0)}
  regions = np.arange(8.0).reshape(2, 4)
  made = json_lines.question_of(
      row | {'gold_regions': regions}, ImageFolder(), id='1'
  )
  assert made.gold_regions == ((0, 1, 2, 3), (4, 5, 6, 7))


def test_the_digest_follows_texts_and_images(tmp_path):
  row = {'question': 'who?', 'answer': 'x', 'image': 'a.png'}
  (tmp_path / 'a.png').write_bytes(fixtures.picture(0))
  path = tmp_path / 'mine.jsonl'
  name = save(path, [row])
  first = open_one(name).digest
  assert open_one(name).digest == first
  save(path, [row | {'answer': 'y'}])
  second = open_one(name).digest
  (tmp_path / 'a.png').write_bytes(fixtures.picture(1))
  save(path, [row])
  assert len({first, second, open_one(name).digest}) == 3


OWN = """
import dataclasses
from PIL import Image
COLOURS = ['red', 'green', 'blue']
class Pictures:  # Read as they are asked for.
  def __len__(self): return 3
  def __getitem__(self, i):
    asked.append(i)
    return {'id': COLOURS[i], 'question': 'which?', 'answers': [COLOURS[i]],
            'image': Image.new('RGB', (8, 8), COLOURS[i])}
asked = []
import collections.abc
collections.abc.Sequence.register(Pictures)
def lazy(split): return Pictures() if split == 'train' else []
def plain(): return iter([dict(Pictures()[0]), 7, dict(Pictures()[0])])
def mine(): yield from Pictures()
"""


@pytest.fixture(name='own')
def own_file(tmp_path):
  path = tmp_path / 'own.py'
  path.write_text(OWN)
  return path


def test_a_users_function_is_a_source(own, tmp_path):
  questions = open_one(f'{own}:lazy')
  assert [one.id for one in questions] == ['red', 'green', 'blue']
  assert questions[1].answers == ('green',)
  assert questions[1].source == f'{own}:lazy'
  plain = open_one(f'{own}:plain')
  assert [one.id for one in plain] == ['red']
  assert [drop.reason for drop in plain.drops] == ['bad record', 'duplicate id']
  with pytest.raises(UserError, match='nothing of use'):
    sources.open((f'{own}:lazy',), split='test', workdir='')
  assert len(open_one(f'{own}:lazy', n=2)) == 2
  assert questions.digest != open_one(f'{own}:mine').digest


@pytest.mark.parametrize(
    ('names', 'words'),
    [
        ((), 'config.questions.train is empty'),
        (('world', 'world'), 'names a source twice'),
        (('csv:x',), 'there are world, jsonl:PATH, verl:PATH, parquet:PATH'),
        (('jsonl:',), 'there are world'),
        (('gone.py:f',), 'there is no file gone.py'),
    ],
)
def test_sources_that_nothing_reads(names, words):
  with pytest.raises(UserError, match=words):
    sources.check(names, field='config.questions.train')


def test_a_users_function_is_a_benchmark(own):
  name = f'{own}:mine'
  opened = fixtures.open_benchmark(name)
  assert (opened.title, opened.label, opened.n) == (name, 'not in the paper', 3)
  assert [one.id for one in opened.examples] == ['red', 'green', 'blue']
  assert opened.facts['digest'] and opened.label
  two = fixtures.open_benchmark(name, n=2, seed=1)
  assert two.n == 2 and 'drawn with seed 1' in two.label
  assert two.digest != opened.digest
  assert f'{name}: 3 questions\n' in describe.describe(opened)

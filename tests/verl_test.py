"""Questions of verl's parquet files, whole, cut off, damaged and odd."""

from __future__ import annotations

import pickle

import numpy as np
from PIL import Image
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from gog_jax.errors import UserError
from gog_jax.questions import parquet
from gog_jax.questions import questions as q
from gog_jax.questions import verl
from gog_jax.storage.records import DUPLICATE
from gog_jax.storage.records import TOO_LARGE
from gog_jax.types import Example
from tests import benchmark_fixtures as fixtures

pytestmark = pytest.mark.quick


def write(folder, rows, name='test.parquet', schema=fixtures.VERL, **options):
  return fixtures.write(folder / name, rows, schema, **options)


def read(path, scope='', **options):
  found = verl.read(str(path), name='fvqa', **options)
  return fixtures.with_images(found, scope)


def test_a_row_is_an_example(tmp_path):
  write(tmp_path, [fixtures.verl_row(i) for i in range(3)])
  records = read(tmp_path, scope='corpus')
  assert len(records.items) == 3
  assert records.items[1] == Example(
      id='fvqa_test_1',
      images=(fixtures.picture(1),),
      question='Question 1?',
      answers=('Answer 1', 'form 1'),
      source='fvqa',
      scope='corpus',
      search_required=False,
  )
  assert records.items[0].search_required is True
  assert records.drops == ()


@pytest.mark.parametrize(
    ('truth', 'candidates', 'answers'),
    [
        ('a', '["b", "a"]', ('a', 'b')),
        ('a', '[]', ('a',)),
        ('a', '', ('a',)),
        ('a', None, ('a',)),
        (' a ', '["a", 3, ""]', ('a', '3')),
        ('a', "['a' 'b']", ('a', "['a' 'b']")),
        ('["a", "b"]', 'c', ('a', 'b', 'c')),
        ('[0.5, 1]', '[2, "a"]', ('[0.5, 1]', '2', 'a')),
        ('["a', '[]', ('["a',)),
    ],
)
def test_candidate_answers_are_json(tmp_path, truth, candidates, answers):
  reward = {'ground_truth': truth, 'candidate_answers': candidates}
  write(tmp_path, [fixtures.verl_row(0, reward_model=reward)])
  assert read(tmp_path).items[0].answers == answers


def test_candidate_answers_may_be_lists_and_targets(tmp_path):
  schema = pa.schema([
      ('prompt', fixtures.PROMPT),
      ('images', pa.list_(pa.binary())),
      (
          'reward_model',
          pa.struct([
              ('ground_truth', pa.struct([('target', pa.list_(pa.string()))])),
              ('candidate_answers', pa.list_(pa.string())),
          ]),
      ),
      ('extra_info', pa.struct([('index', pa.int64())])),
  ])
  row = {
      'prompt': [
          {'role': 'system', 'content': 's'}, {'role': 'user', 'content': 'Q?'}
      ],
      'images': [fixtures.picture(0), fixtures.picture(1)],
      'reward_model': {
          'ground_truth': {'target': ['a', 'b']}, 'candidate_answers': ['c']
      },
      'extra_info': {'index': 7},
  }
  write(tmp_path, [row], schema=schema)
  (example,) = read(tmp_path).items
  assert example.id == '7'
  assert example.question == 'Q?'
  assert example.answers == ('a', 'b', 'c')
  assert example.images == (fixtures.picture(0), fixtures.picture(1))


def test_rows_without_ids_are_named_by_their_places(tmp_path):
  schema = fixtures.VERL.remove(fixtures.VERL.get_field_index('data_id'))
  write(tmp_path, [fixtures.verl_row(i) for i in range(2)], schema=schema)
  assert [e.id for e in read(tmp_path).items] == ['test/0', 'test/1']


def test_images_may_be_named(tmp_path):
  (tmp_path / 'pictures').mkdir()
  (tmp_path / 'pictures/a.png').write_bytes(fixtures.picture(5))
  (tmp_path / 'secret.png').write_bytes(fixtures.picture(6))
  folder = tmp_path / 'set'
  folder.mkdir()
  (folder / 'own.png').write_bytes(fixtures.picture(7))
  names = (
      'a.png', str(tmp_path / 'pictures' / 'a.png'), str(folder / 'own.png'),
      'b.png', '../secret.png', str(tmp_path / 'secret.png'),
      f'{tmp_path}/pictures/../secret.png', f'{tmp_path}/pictures_/a.png',
  )  # fmt: skip
  rows = [
      fixtures.verl_row(i, images=[{'bytes': None, 'path': name}])
      for i, name in enumerate(names)
  ]
  write(folder, rows)
  records = read(folder, images=str(tmp_path / 'pictures'))
  assert [e.images for e in records.items] == [
      (fixtures.picture(i),) for i in (5, 5, 7)
  ]
  assert records.reasons() == {q.MISSING_IMAGE: 5}
  outside = [
      "is outside of" in drop.detail
      and "--config.questions.images=FOLDER" in drop.detail
      for drop in records.drops
  ]
  assert outside == [False, True, True, True, True]
  anywhere = read(folder, images='/')
  assert len(anywhere.items) == 4 and anywhere.reasons() == {q.MISSING_IMAGE: 4}
  assert anywhere.items[2].images == (fixtures.picture(6),)
  schema = fixtures.VERL.set(1, pa.field('images', pa.list_(pa.string())))
  rows = [fixtures.verl_row(0, images=['a.png'])]
  write(folder, rows, schema=schema)
  records = read(folder, images=str(tmp_path / 'pictures'))
  assert records.items[0].images == (fixtures.picture(5),)


def test_what_is_of_no_use_is_left_out_and_said_in_a_line(tmp_path):
  reward = {'ground_truth': None, 'candidate_answers': '[]'}
  path = write(
      tmp_path,
      [
          fixtures.verl_row(0),
          fixtures.verl_row(1, images=[]),
          fixtures.verl_row(2, images=None),
          fixtures.verl_row(3, images=[{'bytes': b'', 'path': None}]),
          fixtures.verl_row(4, data_id='fvqa_test_0'),
          fixtures.verl_row(5, prompt=[]),
          fixtures.verl_row(6, reward_model=reward),
          fixtures.verl_row(8),
      ],
  )
  records = read(tmp_path)
  assert [e.id for e in records.items] == ['fvqa_test_0', 'fvqa_test_8']
  assert records.reasons() == {
      q.NO_IMAGE: 3,
      DUPLICATE: 1,
      q.NO_QUESTION: 1,
      q.NO_ANSWER: 1,
  }
  lines = [str(drop) for drop in records.drops]
  assert not any('\n' in line for line in lines)
  assert lines[3] == (
      f"{path}, row 5: its id 'fvqa_test_0' is that of {path}, row 1 too; the "
      'first is kept'
  )


def test_a_file_cut_off_leaves_the_others(tmp_path):
  write(tmp_path, [fixtures.verl_row(0)], 'a.parquet')
  whole = write(tmp_path, [fixtures.verl_row(1)], 'b.parquet')
  (tmp_path / 'c.parquet').write_bytes(whole.read_bytes()[:-100])
  (tmp_path / 'd.parquet').write_bytes(b'')
  (tmp_path / 'e.parquet').write_text(
      'version https://git-lfs.github.com/spec/v1\noid sha256:0\nsize 9\n'
  )
  records = read(tmp_path)
  assert [e.id for e in records.items] == ['fvqa_test_0', 'fvqa_test_1']
  assert records.reasons() == {q.UNREADABLE: 3}
  for drop, name in zip(records.drops, 'cde', strict=True):
    assert str(drop).startswith(f'{tmp_path}/{name}.parquet: ')
    assert '\n' not in str(drop)
  assert 'git lfs pull' in records.drops[2].detail
  for name in 'ab':
    (tmp_path / f'{name}.parquet').unlink()
  with pytest.raises(UserError, match='nothing of use.*cut off'):
    read(tmp_path)


def test_a_damaged_row_group_leaves_the_others(tmp_path):
  path = write(
      tmp_path,
      [fixtures.verl_row(i) for i in range(6)],
      row_group_size=2,
      compression='gzip',
      use_dictionary=False,
  )
  group = pq.ParquetFile(path).metadata.row_group(1)
  data = bytearray(path.read_bytes())
  for i in range(group.num_columns):
    if group.column(i).path_in_schema.endswith('bytes'):
      start = group.column(i).data_page_offset
      size = group.column(i).total_compressed_size
      data[start + size // 2 : start + size] = bytes(size - size // 2)
  path.write_bytes(data)
  records = read(tmp_path)
  ids = [e.id for e in records.items]
  assert ids == [f'fvqa_test_{i}' for i in (0, 1, 4, 5)]
  assert records.reasons() == {q.DAMAGED: 1}
  assert 'rows 3 to 4' in records.drops[0].detail


def test_fields_over_the_cap_are_left_out_before_they_are_made(
    tmp_path, monkeypatch
):
  long = [{'role': 'user', 'content': 'x' * 2000}]
  big = [{'bytes': b'\x89PNG' + bytes(2000), 'path': None}]
  write(
      tmp_path,
      [
          fixtures.verl_row(0),
          fixtures.verl_row(1, prompt=long),
          fixtures.verl_row(2, images=big),
          fixtures.verl_row(3),
      ],
  )
  made = []
  real = parquet.value

  def value(cell, **options):
    made.append(real(cell, **options))
    return made[-1]

  monkeypatch.setattr(parquet, 'value', value)
  monkeypatch.setattr(q, 'MAX_FIELD_BYTES', 1000)
  records = read(tmp_path)
  assert [e.id for e in records.items] == ['fvqa_test_0', 'fvqa_test_3']
  assert records.reasons() == {TOO_LARGE: 2}
  # 2,004 each, and Arrow's offsets.
  assert 'prompt has 2016 bytes, over the 1000' in records.drops[0].detail
  assert 'images has 2017 bytes, over the 1000' in records.drops[1].detail
  assert made and all(len(repr(one)) < 1000 for one in made)


@pytest.mark.parametrize(
    ('column', 'value', 'message'),
    [
        ('prompt', 'Q?', 'is str, expected a list of .role, content'),
        ('images', 7, 'is int, expected a list of .bytes, path'),
        ('reward_model', 'a', 'is str, expected a struct with ground_truth'),
        ('data_id', 7, 'is int, expected text'),
    ],
)
def test_other_kinds_of_columns_are_one_line(tmp_path, column, value, message):
  index = fixtures.VERL.get_field_index(column)
  kind = pa.scalar(value).type
  schema = fixtures.VERL.set(index, pa.field(column, kind))
  write(tmp_path, [fixtures.verl_row(0, **{column: value})], schema=schema)
  with pytest.raises(UserError, match=message) as caught:
    read(tmp_path, needed=('data_id',))
  assert f'test.parquet, row 1: column {column!r}' in str(caught.value)
  assert '\n' not in str(caught.value)


def test_a_renamed_column_is_one_line(tmp_path):
  names = ['messages' if n == 'prompt' else n for n in fixtures.VERL.names]
  path = write(tmp_path, [fixtures.verl_row(0)])
  pq.write_table(pq.read_table(path).rename_columns(names), path)
  with pytest.raises(UserError, match=r"no column 'prompt'.*has messages, im"):
    read(tmp_path)


def test_nothing_is_decoded_and_no_image_is_read_when_opened(
    tmp_path, monkeypatch
):
  write(tmp_path, [fixtures.verl_row(i) for i in range(4)])
  second = fixtures.picture(2)
  read_cells = []
  cell = parquet.Table.cell

  def counted(self, column, row):
    read_cells.append(row)
    return cell(self, column, row)

  def refuse(*unused):
    raise AssertionError('decoded')

  monkeypatch.setattr(parquet.Table, 'cell', counted)
  monkeypatch.setattr(Image.Image, 'load', refuse)
  monkeypatch.setattr(Image, 'open', refuse)
  items = read(tmp_path).items
  assert len(items) == 4 and read_cells == []
  assert items[2].images == (second,)
  assert read_cells == [2]


def test_any_order_and_any_process_gives_the_same(tmp_path):
  rows = [fixtures.verl_row(i) for i in range(11)]
  write(tmp_path, rows[:7], 'a.parquet', row_group_size=3)
  write(tmp_path, rows[7:], 'b.parquet', row_group_size=3)
  items = read(tmp_path).items
  order = np.random.default_rng(0).permutation(np.repeat(np.arange(11), 3))
  for i in order:
    assert items[int(i)].images == (fixtures.picture(int(i)),)
  copy = pickle.loads(pickle.dumps(items))
  assert list(copy) == list(items)
  assert list(items[2:9:3]) == [items[2], items[5], items[8]]

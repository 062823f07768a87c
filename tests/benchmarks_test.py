"""Six benchmarks in the schemas in which they are published."""

from __future__ import annotations

import dataclasses
import io
import json
import shutil

from PIL import Image
import pytest

from gog_jax.errors import UserError
from gog_jax.questions import benchmarks
from gog_jax.questions import questions as q
from gog_jax.questions.benchmarks import livevqa
from tests import benchmark_fixtures as fixtures


def replace(monkeypatch, name, **changed):
  """Changes what is known of a benchmark."""
  spec = dataclasses.replace(benchmarks.find(name), **changed)
  place = benchmarks.BENCHMARKS[name].replace(':', '.')
  monkeypatch.setattr(place, spec)


@pytest.fixture
def small(monkeypatch):
  """The paper's counts as those of the fixtures, so that both can be had."""
  for name, n in fixtures.COUNTS.items():
    replace(monkeypatch, name, n=n)


def test_the_papers_counts_and_the_names():
  counts = {name: benchmarks.find(name).n for name in benchmarks.BENCHMARKS}
  assert counts == {
      'fvqa_test': 1800,
      'infoseek': 2000,
      'simplevqa': 1013,
      'mmsearch': 171,
      'livevqa': 2000,
      'dynvqa': 706,
      'world': 0,
      'world_hard': 0,
      'world_validation': 0,
  }
  assert 'never in the paper' in benchmarks.find('world_hard').label


@pytest.mark.parametrize('name', fixtures.MAKERS)
def test_every_example_is_whole_and_no_other_count_is_the_papers(
    tmp_path, name
):
  opened = fixtures.load(name, fixtures.MAKERS[name](tmp_path), scope='corpus')
  assert (opened.n, len(opened.examples)) == (fixtures.COUNTS[name],) * 2
  assert opened.label
  assert opened.label.startswith("not the paper's: ")
  assert f'{opened.n} items, the paper has {opened.expected_n}' in opened.label
  assert len({example.id for example in opened.examples}) == opened.n
  for example in opened.examples:
    assert example.source == name and example.scope == 'corpus'
    assert example.question and example.answers and len(example.images) == 1


@pytest.mark.parametrize('name', fixtures.MAKERS)
def test_the_count_alone_makes_no_set_the_papers(tmp_path, small, name):
  opened = fixtures.load(name, fixtures.MAKERS[name](tmp_path))
  if name in ('infoseek', 'livevqa'):
    n = fixtures.COUNTS[name]
    assert opened.label == f"not the paper's: which {n} it has is not published"
  else:
    assert not opened.label


@pytest.mark.parametrize('name', fixtures.MAKERS)
def test_nothing_is_decoded_when_opened(tmp_path, name, monkeypatch):
  folder = fixtures.MAKERS[name](tmp_path)

  def refuse(*unused):
    raise AssertionError('decoded')

  for place in ('PIL.PngImagePlugin.PngImageFile', 'PIL.JpegImagePlugin'
                '.JpegImageFile', 'PIL.Image.Image'):  # fmt: skip
    monkeypatch.setattr(f'{place}.load', refuse)
  opened = fixtures.load(name, folder)
  monkeypatch.undo()
  assert Image.open(io.BytesIO(opened.examples[0].images[0])).size == (8, 6)


def test_fvqa_has_every_accepted_form(tmp_path):
  opened = fixtures.load('fvqa_test', fixtures.fvqa(tmp_path))
  assert [e.id for e in opened.examples] == [f'fvqa_test_{i}' for i in range(5)]
  assert opened.examples[3].answers == ('Answer 3', 'form 3')
  assert opened.examples[3].search_required is False


def test_simplevqa_is_its_english_half_and_the_other_is_no_loss(tmp_path):
  opened = fixtures.load('simplevqa', fixtures.simplevqa(tmp_path))
  assert [e.id for e in opened.examples] == ['1', '3']
  assert opened.examples[1].images == (fixtures.picture(3, 'JPEG'),)
  assert opened.drops == ()


def test_mmsearch_is_what_comes_with_an_image(tmp_path):
  opened = fixtures.load('mmsearch', fixtures.mmsearch(tmp_path))
  assert [e.id for e in opened.examples] == ['1', '2', '4', '5']
  assert opened.examples[0].answers == ('Answer 1', 'form 1')
  assert [drop.reason for drop in opened.drops] == [q.NO_IMAGE] * 2


def test_livevqa_asks_twice_about_each_picture(tmp_path):
  opened = fixtures.load('livevqa', fixtures.livevqa(tmp_path))
  examples = {example.id: example for example in opened.examples}
  assert len(examples) == 3 * 3 * 2
  one = examples['Paper/Paper_2/level2']
  assert one.question == 'Question 2, 2?'
  assert one.answers == ('312,900', '312900')
  assert one.images == (fixtures.picture(2),)


def test_livevqa_shows_options_if_asked(tmp_path):
  opened = fixtures.load('livevqa', fixtures.livevqa(tmp_path), options=True)
  one = opened.examples[0]
  assert one.question == 'Question 0, 1?\nOptions:\nA. 1\nB. 312,900\nC. 3'
  assert one.answers == ('312,900', '312900', 'B', 'B. 312,900')
  assert 'its options are shown' in opened.label


def test_a_part_of_livevqa_that_is_cut_off_leaves_the_others(
    tmp_path, monkeypatch
):
  fixtures.livevqa(tmp_path)
  path = tmp_path / 'Paper/benchmark.json'
  path.write_text(path.read_text()[:-20])
  opened = fixtures.load('livevqa', tmp_path)
  assert opened.n == 12
  (drop,) = opened.drops
  assert drop.reason == q.UNREADABLE and drop.where == str(path)
  monkeypatch.setattr(livevqa, 'MAX_FILE_BYTES', 10)
  with pytest.raises(UserError, match='bytes, over 10'):
    fixtures.load('livevqa', tmp_path)


def test_dynvqa_has_english_answers_first_and_numbers_too(tmp_path):
  opened = fixtures.load('dynvqa', fixtures.local_dynvqa(tmp_path))
  assert [e.answers for e in opened.examples] == [
      ('He has no children.', '莱昂纳多没有任何孩子。'),
      ('unknown', '未知'),
      ('0', 'zero', '零'),
      ('2.5',),
  ]
  assert opened.date == '202502'
  assert [drop.reason for drop in opened.drops] == [q.NO_ANSWER]
  assert opened.notes == ()
  (path,) = tmp_path.rglob('DynVQA_en.*.jsonl')
  path.write_text(path.read_text().replace('"unknown"', '"不确定"'))
  opened = fixtures.load('dynvqa', tmp_path)
  assert opened.notes[0].startswith('1 have answers in Chinese alone')


def test_dynvqa_has_versions(tmp_path, small):
  fixtures.local_dynvqa(tmp_path)
  fixtures.dynvqa(tmp_path, date='202412')
  fixtures.dynvqa(tmp_path, date='202506')
  assert not fixtures.load('dynvqa', tmp_path).label
  older = fixtures.load('dynvqa', tmp_path, date='202412')
  assert older.date == '202412'
  assert "version 202412, the paper's count is that of 202502" in older.label
  with pytest.raises(UserError, match='there are 202412, 202502, 202506'):
    fixtures.load('dynvqa', tmp_path, date='202401')


def test_infoseek_takes_the_published_subset_for_the_papers(tmp_path, small):
  fixtures.write(
      tmp_path / 'mmsearch_r1_infoseek_sub_2k.parquet',
      [fixtures.verl_row(i) for i in range(5)],
      fixtures.VERL,
  )
  opened = fixtures.load('infoseek', fixtures.small_infoseek(tmp_path))
  assert not opened.label
  assert 'said nowhere' in opened.notes[0]
  assert opened.examples[0].id == 'fvqa_test_0'


def test_a_list_of_ids_says_which(tmp_path, small):
  fixtures.small_infoseek(tmp_path)
  ids = tmp_path / 'ids.txt'
  names = [f'infoseek_val_{i:08}' for i in (3, 0)]
  ids.write_text('\n'.join(names) + '\n\n')
  opened = fixtures.load('infoseek', tmp_path, ids=str(ids))
  assert [e.id for e in opened.examples] == names[::-1]
  assert opened.label == "not the paper's: 2 items, the paper has 5"
  assert opened.notes == (f'2 of the 2 ids of {ids}',)
  ids.write_text(json.dumps([f'infoseek_val_{i:08}' for i in range(5)]))
  assert not fixtures.load('infoseek', tmp_path, ids=str(ids)).label
  ids.write_text(f'{names[0]}\nother\n')
  opened = fixtures.load('infoseek', tmp_path, ids=str(ids))
  assert f'1 ids of {ids} are not in it' in opened.label
  ids.write_text('')
  with pytest.raises(UserError, match='holds no ids'):
    fixtures.load('infoseek', tmp_path, ids=str(ids))
  with pytest.raises(UserError, match='cannot be read'):
    fixtures.load('infoseek', tmp_path, ids=str(tmp_path / 'none'))


def test_a_draw_is_the_seeds_alone(tmp_path, small, monkeypatch):
  folder = fixtures.livevqa(tmp_path)

  def ids(**options):
    return [e.id for e in fixtures.load('livevqa', folder, **options).examples]

  whole = ids()
  some = ids(n=6, seed=1)
  assert len(some) == 6 and ids(n=6, seed=1) == some
  assert [id for id in whole if id in some] == some
  assert set(ids(n=3, seed=1)) < set(some)
  assert ids(n=6, seed=2) != some
  label = fixtures.load('livevqa', folder, n=6, seed=1).label
  assert '6 of 18, drawn with seed 1' in label
  replace(monkeypatch, 'livevqa', n=6)
  assert ids(seed=1) == some
  label = fixtures.load('livevqa', folder, seed=1).label
  assert '6 of 18 drawn with seed 1' in label
  with pytest.raises(UserError, match='benchmark.n must be 0 or more'):
    fixtures.load('livevqa', folder, n=-1)


@pytest.mark.parametrize('name', fixtures.MAKERS)
def test_the_contents_are_kept_and_compared(tmp_path, name):
  folder = fixtures.MAKERS[name](tmp_path / 'a')
  run = {'workdir': tmp_path / 'run'}
  first = fixtures.load(name, folder, **run)
  assert len(first.digest) == 64
  # The same elsewhere is the same; a part of it has a record of its own.
  copy = shutil.copytree(folder, tmp_path / 'b')
  assert fixtures.load(name, copy, **run).digest == first.digest
  assert fixtures.load(name, copy, n=1, **run).digest != first.digest


@pytest.mark.parametrize(
    ('name', 'file', 'said'),
    [
        ('infoseek', 'oven_01000001.jpg', "1 changed (first 'infoseek_val_00"),
        ('livevqa', 'News_1.png', "2 changed (first 'News/News_1/level1')"),
        ('dynvqa', 'image_1.jpeg', "1 changed (first 'en1')"),
    ],
)
def test_another_picture_is_another_set(tmp_path, name, file, said):
  folder = fixtures.MAKERS[name](tmp_path / 'set')
  fixtures.load(name, folder, workdir=tmp_path)
  (path,) = folder.rglob(file)
  path.write_bytes(fixtures.picture(77))
  with pytest.raises(UserError) as caught:
    fixtures.load(name, folder, workdir=tmp_path)
  assert 'is not what it was when it was first loaded' in str(caught.value)
  assert said in str(caught.value)
  assert '\n' not in str(caught.value)


def test_every_part_of_an_item_counts(tmp_path):
  run = {'workdir': tmp_path / 'run'}
  folder = tmp_path / 'set'
  rows = [fixtures.verl_row(i) for i in range(3)]

  def digest(rows):
    fixtures.write(folder / 'fvqa_test.parquet', rows, fixtures.VERL)
    return fixtures.load('fvqa_test', folder).digest

  whole = digest(rows)
  prompt = [{'role': 'user', 'content': 'Another?'}]
  reward = {'ground_truth': 'another', 'candidate_answers': '[]'}
  pictures = [{'bytes': fixtures.picture(9), 'path': None}]
  others = [
      digest([fixtures.verl_row(0, **changed), *rows[1:]])
      for changed in (
          {'prompt': prompt},
          {'reward_model': reward},
          {'images': pictures},
          {'data_id': 'other'},
      )
  ]
  others += [digest(rows[1:]), digest(rows[::-1])]
  assert len({whole, *others}) == 7
  assert digest(rows) == whole
  fixtures.load('fvqa_test', folder, **run)
  digest([fixtures.verl_row(0, images=pictures), rows[1]])
  with pytest.raises(UserError) as caught:
    fixtures.load('fvqa_test', folder, **run)
  said = "1 changed (first 'fvqa_test_0'), 1 gone (first 'fvqa_test_2')"
  assert said in str(caught.value)
  (record,) = (tmp_path / 'run/benchmarks').glob('*.json')
  record.write_text('{}')
  with pytest.raises(UserError, match='digest is missing.; delete'):
    fixtures.load('fvqa_test', folder, **run)
  record.unlink()
  assert fixtures.load('fvqa_test', folder, **run).n == 2

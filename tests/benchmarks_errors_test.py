"""Sets that are not as they should be: one line each, and the rest usable."""

from __future__ import annotations

from huggingface_hub import constants
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from gog_jax.errors import UserError
from gog_jax.questions import questions as q
from tests import benchmark_fixtures as fixtures


@pytest.mark.parametrize(
    ('name', 'column', 'message'),
    [
        ('fvqa_test', 'prompt', 'a list of {role, content}'),
        ('fvqa_test', 'data_id', 'text'),
        ('simplevqa', 'image', 'base64'),
        ('simplevqa', 'language', 'text'),
        ('mmsearch', 'alternative_gt_answers', 'a list of texts'),
        ('mmsearch', 'query_image', '{bytes, path}'),
    ],
)
@pytest.mark.parametrize('how', ['renamed', 'other'])
def test_a_column_that_drifts_is_one_line(tmp_path, name, column, message, how):
  fixtures.MAKERS[name](tmp_path)
  for path in tmp_path.rglob('*.parquet'):
    table = pq.read_table(path)
    index = table.schema.get_field_index(column)
    if index < 0:
      continue
    if how == 'renamed':
      names = [f'{n}_2' if n == column else n for n in table.column_names]
      table = table.rename_columns(names)
    else:
      numbers = pa.array([1.5] * len(table))
      table = table.set_column(index, column, numbers)
    pq.write_table(table, path)
  with pytest.raises(UserError) as caught:
    fixtures.load(name, tmp_path)
  said = str(caught.value)
  found = f'has {table.column_names[0]}' if how == 'renamed' else 'is float'
  for part in (repr(column), message, name, '.parquet'):
    assert part in said
  assert found in said or how == 'renamed' and f'{column}_2' in said
  assert '\n' not in said


@pytest.mark.parametrize(
    ('name', 'old', 'new'),
    [
        ('livevqa', 'Ground_Truth_List', 'answers'),
        ('livevqa', 'level1_qa', 'level1_qas'),
        ('livevqa', '"question"', '"query"'),
        ('dynvqa', '"answer"', '"answers"'),
        ('dynvqa', 'image_url', 'image'),
        ('infoseek', 'data_id', 'id'),
    ],
)
def test_a_key_that_drifts_is_one_line(tmp_path, name, old, new):
  fixtures.MAKERS[name](tmp_path)
  for path in (*tmp_path.rglob('*.json'), *tmp_path.rglob('*.jsonl')):
    path.write_text(path.read_text().replace(old, new))
  key = old.strip('"')
  with pytest.raises(UserError, match=f'has no column .{key}') as caught:
    fixtures.load(name, tmp_path)
  assert new.strip('"') in str(caught.value)
  assert f'no version of {name} that is known' in str(caught.value)


def test_what_is_no_image_is_left_out(tmp_path):
  rows = [fixtures.verl_row(i) for i in range(3)]
  rows[1]['images'][0]['bytes'] = b'<html>gone</html>'
  fixtures.write(tmp_path / 'fvqa_test.parquet', rows, fixtures.VERL)
  opened = fixtures.load('fvqa_test', tmp_path)
  assert [e.id for e in opened.examples] == ['fvqa_test_0', 'fvqa_test_2']
  (drop,) = opened.drops
  assert drop.reason == q.NOT_AN_IMAGE and 'row 2' in drop.where
  assert '\n' not in str(drop)


@pytest.mark.parametrize('name', fixtures.MAKERS)
def test_an_empty_folder_is_one_line(tmp_path, name):
  with pytest.raises(UserError, match='holds n') as caught:
    fixtures.load(name, tmp_path)
  assert '\n' not in str(caught.value)


@pytest.mark.parametrize(
    ('name', 'path', 'message'),
    [
        ('fvqa', 'x', "no 'fvqa'; the nearest is 'fvqa_test' .known: fvq"),
        ('world', '', 'config.eval.benchmark'),
        ('mmsearch', '', 'its id on the hub, CaraJ/MMSearch'),
        ('livevqa', '/no/such', '/no/such does not exist: set config.bench'),
        ('fvqa_test', 'lmms-lab/FVQA', 'cannot be fetched .*benchmark.path'),
    ],
)
def test_what_cannot_be_opened_is_one_line(
    tmp_path, name, path, message, monkeypatch
):
  monkeypatch.setattr(constants, 'HF_HUB_CACHE', str(tmp_path))
  with pytest.raises(UserError, match=message) as caught:
    fixtures.open_benchmark(name, path)
  assert '\n' not in str(caught.value)


def test_a_cached_set_is_loaded_by_its_id(tmp_path, monkeypatch):
  monkeypatch.setattr(constants, 'HF_HUB_CACHE', str(tmp_path))
  commit = 'c0ffee' + '0' * 34
  repository = tmp_path / 'datasets--lmms-lab--FVQA'
  fixtures.fvqa(repository / 'snapshots' / commit)
  (repository / 'refs').mkdir()
  (repository / 'refs/main').write_text(commit)
  assert fixtures.open_benchmark('fvqa_test', 'lmms-lab/FVQA').n == 5

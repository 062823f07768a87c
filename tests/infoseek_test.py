"""InfoSeek's JSON lines, and images in the layouts in which OVEN's lie."""

from __future__ import annotations

import decimal
import json

import numpy as np
import pytest

from gog_jax.errors import UserError
from gog_jax.questions import answers
from gog_jax.questions import infoseek
from gog_jax.questions import questions as q
from gog_jax.storage import records as records_lib
from tests import benchmark_fixtures as fixtures

pytestmark = pytest.mark.quick


def read(folder, **options):
  found = infoseek.read(str(folder / 'infoseek_val.jsonl'), **options)
  return fixtures.with_images(found)


def test_images_are_found_in_buckets_and_flat_with_any_suffix(tmp_path):
  rows = [fixtures.infoseek_row(i) for i in range(12)]
  fixtures.infoseek(tmp_path, rows)
  records = read(tmp_path)
  assert records.drops == ()
  for i, example in enumerate(records.items):
    assert example.id == f'infoseek_val_{i:08}'
    assert example.images == (fixtures.picture(i),)
    assert example.answers == (f'Answer {i}', f'form {i}')
  elsewhere = tmp_path / 'elsewhere'
  (tmp_path / 'oven_images').rename(elsewhere)
  found = read(tmp_path, images=str(elsewhere)).items
  assert [e.images for e in found] == [
      (fixtures.picture(i),) for i in range(12)
  ]


def test_missing_images_are_counted(tmp_path):
  rows = [fixtures.infoseek_row(i) for i in range(4)]
  fixtures.infoseek(tmp_path, rows)
  next((tmp_path / 'oven_images').rglob('oven_01000001.*')).unlink()
  records = read(tmp_path)
  assert len(records.items) == 3
  assert records.reasons() == {q.MISSING_IMAGE: 1}
  assert "line 2: its image 'oven_01000001' is not in" in str(records.drops[0])


@pytest.mark.parametrize(
    ('answer', 'answer_eval', 'forms'),
    [
        (['a'], ['a', 'b', 'a'], ('a', 'b')),
        (['1955'], ['1954', '1955', '1956'], ('1955', '1954', '1956')),
        (
            ['1.5'],
            [{'wikidata': 1.5, 'range': [1.35, 1.65]}],
            ('1.5', 'any number from 1.35 to 1.65'),
        ),
        (
            ['12345678'],
            {'wikidata': 12345678.0, 'range': [11111110.2, 13580245.8]},
            ('12345678', 'any number from 11111110.2 to 13580245.8'),
        ),
        (
            ['199853.5'],
            [{'wikidata': 199853.5, 'range': [189860.82512, 209846.17499]}],
            ('199853.5', 'any number from 189860.82512 to 209846.17499'),
        ),
        ('a', None, ('a',)),
    ],
)
def test_answers_have_every_form(tmp_path, answer, answer_eval, forms):
  row = fixtures.infoseek_row(0, answer=answer, answer_eval=answer_eval)
  fixtures.infoseek(tmp_path, [row])
  assert read(tmp_path).items[0].answers == forms


def test_forms_of_what_is_no_text():
  assert answers.forms(None, [], {}, float('nan'), ' ') == ()
  assert answers.forms([0, [2.5, ['x']]], True) == ('0', '2.5', 'x', 'yes')


@pytest.mark.parametrize(
    ('number', 'form'),
    [
        (199853.5, '199853.5'), (0.1, '0.1'), (123456.789, '123456.789'),
        (2.0, '2'), (-5, '-5'), (1e-7, '0.0000001'), (1e16, '1' + '0' * 16),
        (12345678901234567890, '12345678901234567890'), (100, '100'),
        (decimal.Decimal('1234567.12345'), '1234567.12345'),
        (np.float32(0.1), '0.1'), (np.int64(7), '7'),
        (0.30000000000000004, '0.30000000000000004'),
    ],
)  # fmt: skip
def test_numbers_keep_every_digit(number, form):
  assert answers.forms(number) == (form,)


def test_lines_that_are_of_no_use(tmp_path):
  rows = [fixtures.infoseek_row(i) for i in range(6)]
  fixtures.infoseek(tmp_path, rows)
  (tmp_path / 'secret.jpg').write_bytes(fixtures.picture(9))
  rows[0] |= {'entity_id': 'Q1', 'entity_text': 'One'}  # As `_withkb` has it.
  rows[1] |= {'answer': None, 'answer_eval': None}
  rows[2]['image_id'] = '../secret'
  rows[3]['image_id'] = 7
  rows[4]['data_id'] = rows[0]['data_id']
  lines = [json.dumps(row).encode() for row in rows]
  lines += [b'{"cut', b'[1]', b'"\xff"', b'']
  path = tmp_path / 'infoseek_val.jsonl'
  path.write_bytes(b'\xef\xbb\xbf' + b'\n'.join(lines))
  records = read(tmp_path)
  assert [e.id for e in records.items] == [
      rows[0]['data_id'], rows[5]['data_id']
  ]
  assert records.reasons() == {
      records_lib.NOT_JSON: 2,
      q.BAD: 2,
      q.NO_ANSWER: 1,
      q.MISSING_IMAGE: 1,
      records_lib.DUPLICATE: 1,
  }
  assert not any('\n' in str(drop) for drop in records.drops)


def test_a_line_over_the_cap_is_passed_over(tmp_path, monkeypatch):
  monkeypatch.setattr(q, 'MAX_FIELD_BYTES', 1000)
  rows = [fixtures.infoseek_row(i) for i in range(3)]
  fixtures.infoseek(tmp_path, rows)
  rows[1]['question'] = 'x' * 5_000_000
  path = tmp_path / 'infoseek_val.jsonl'
  path.write_text('\n'.join(map(json.dumps, rows)))
  records = read(tmp_path)
  assert len(records.items) == 2
  n_bytes = len(json.dumps(rows[1])) + 1
  assert records.drops[0].reason == records_lib.TOO_LARGE
  assert f'has {n_bytes} bytes, over the 1000' in str(records.drops[0])


@pytest.mark.parametrize(
    ('column', 'value', 'message'),
    [
        ('answer', ..., "no column 'answer' .a list of texts.; it has data_id"),
        ('question', ..., "has no column 'question'"),
        ('question', ['q'], "'question' is list, expected text"),
        ('image_id', 7, "'image_id' is int, expected text"),
    ],
)
def test_columns_that_no_record_has_are_one_line(
    tmp_path, column, value, message
):
  rows = [fixtures.infoseek_row(i) for i in range(3)]
  fixtures.infoseek(tmp_path, rows)
  for row in rows:
    row.pop(column)
    if value is not ...:
      row[column] = value
  path = tmp_path / 'infoseek_val.jsonl'
  path.write_text('\n'.join(map(json.dumps, rows)))
  with pytest.raises(UserError, match=message) as caught:
    read(tmp_path)
  assert 'in all 3 records' in str(caught.value)
  assert '\n' not in str(caught.value)


def test_an_image_that_goes_is_one_line(tmp_path):
  fixtures.infoseek(tmp_path, [fixtures.infoseek_row(0)])
  items = read(tmp_path).items
  next((tmp_path / 'oven_images').rglob('oven_*')).unlink()
  with pytest.raises(UserError, match='cannot be read .*put it back'):
    items[0]

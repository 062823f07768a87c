"""`parquet:FILE`, in the columns of verl, EasyR1, TRL and ms-swift."""

from __future__ import annotations

import base64

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from gog_jax.errors import UserError
from gog_jax.questions import sources
from gog_jax.questions import verl
from tests import benchmark_fixtures as fixtures

pytestmark = pytest.mark.quick

PICTURES = [fixtures.picture(i) for i in range(3)]


def encoded(i):
  return base64.b64encode(PICTURES[i]).decode()


def opened(path, rows, schema=None):
  """The questions of a file without a schema but what its rows say."""
  pq.write_table(pa.Table.from_pylist(rows, schema=schema), path)
  return sources.open((f'parquet:{path}',), split='train', workdir='')


def read(path, rows, schema=None):
  return [
      (one.id, one.question, one.answers, one.images)
      for one in opened(path, rows, schema)
  ]


def test_verls_are_what_verl_reads(tmp_path):
  rows = [fixtures.verl_row(i) for i in range(3)]
  path = fixtures.write(tmp_path / 'a.parquet', rows, fixtures.VERL)
  one, two = (
      sources.open((f'{kind}:{path}',), split='train', workdir='')
      for kind in ('parquet', 'verl')
  )
  assert one.digest == two.digest and len(one) == 3
  assert one[0].answers == ('Answer 0', 'form 0')
  assert [e.search_required for e in one] == [True, False, True]


def test_easyr1(tmp_path):
  rows = [
      {'images': [{'bytes': PICTURES[i], 'path': None}],
       'problem': f'<image>How many? {i}', 'answer': str(i)}
      for i in range(2)
  ]  # fmt: skip
  assert read(tmp_path / 'geo.parquet', rows) == [
      (f'geo/{i}', f'How many? {i}', (str(i),), (PICTURES[i],))
      for i in range(2)
  ]


def test_trl(tmp_path):
  """Prompts are messages, whose content may be parts; image or images."""
  parts = [
      {'role': 'system', 'content': [{'type': 'text', 'text': 'Be kind.'}]},
      {'role': 'user', 'content': [
          {'type': 'image', 'text': None}, {'type': 'text', 'text': 'Who?'}
      ]},
  ]  # fmt: skip
  plain = [{'role': 'user', 'content': 'Who?'}]
  solution = '<think>Not <answer>x</answer>.</think> <answer> Ada </answer>'
  for name, prompt, shown in (
      ('a', parts, {'image': {'bytes': PICTURES[0], 'path': 'a.png'}}),
      ('b', plain, {'images': [{'bytes': PICTURES[0], 'path': None}]}),
      ('c', 'Who?', {'image': PICTURES[0]}),
  ):
    rows = [{'prompt': prompt, 'solution': solution} | shown]
    assert read(tmp_path / f'{name}.parquet', rows) == [
        (f'{name}/0', 'Who?', ('Ada',), (PICTURES[0],))
    ]


def test_ms_swift(tmp_path):
  (tmp_path / 'a.png').write_bytes(PICTURES[0])
  messages = [
      {'role': 'user', 'content': '<image>Who?'},
      {'role': 'assistant', 'content': 'Bob, I think.'},
  ]
  shown = (['a.png'], [encoded(1)], [f'data:image/png;base64,{encoded(2)}'])
  rows = [
      {'messages': messages, 'images': images, 'solution': 'Ada'}
      for images in shown
  ]
  asked = [('Who?', ('Ada',), (picture,)) for picture in PICTURES]
  assert [q[1:] for q in read(tmp_path / 'm.parquet', rows)] == asked
  rows = [
      {'query': 'Who?', 'images': images, 'solution': 'Ada'} for images in shown
  ]
  assert [q[1:] for q in read(tmp_path / 'q.parquet', rows)] == asked


def test_what_else_is_known_is_kept(tmp_path):
  row = {
      'id': 7, 'question': 'Who?', 'answers': ['Ada', 'A. L.'],
      'image': PICTURES[0], 'scope': 'mine', 'search_required': True,
      'gold_regions': [[0.0, 1.0, 2.0, 3.0]], 'hops': 2, 'category': ['x'],
  }  # fmt: skip
  (one,) = opened(tmp_path / 'a.parquet', [row])
  assert (one.id, one.answers, one.scope) == ('7', ('Ada', 'A. L.'), 'mine')
  assert (one.search_required, one.hops) == (True, 2)
  assert one.gold_regions == ((0.0, 1.0, 2.0, 3.0),)
  assert one.images == (PICTURES[0],)


ROW = {'question': 'Who?', 'answer': 'Ada', 'image': PICTURES[0]}


@pytest.mark.parametrize(
    ('row', 'words'),
    [
        (ROW | {'problem': 'Why?'},
         'has question and problem, each of which could be the question: leave '
         'one of them; it has question, answer, image, problem'),
        (ROW | {'reward_model': {'ground_truth': 'x'}},
         'has answer and reward_model, each of which could be the answer'),
        ({'text': 'Who?', 'answer': 'Ada', 'image': PICTURES[0]},
         "has no column 'question' (text or a list of {role, content}; or "
         'problem, query, prompt, messages); it has text, answer, image'),
        ({'question': 'Who?', 'answer': 'Ada'},
         "has no column 'images' (a list of {bytes, path}, one of them, bytes, "
         'or base64 text; or image); it has question, answer'),
        (ROW | {'answer': {'text': 'Ada'}},
         "column 'answer' is dict, expected text, a number or a list"),
    ],
)  # fmt: skip
def test_columns_that_could_be_two_or_are_none(tmp_path, row, words):
  with pytest.raises(UserError) as error:
    opened(tmp_path / 'a.parquet', [row])
  assert words in str(error.value) and '\n' not in str(error.value)
  assert 'a.parquet' in str(error.value)


def test_verl_reads_no_other_columns(tmp_path):
  path = fixtures.write(
      tmp_path / 'a.parquet',
      [ROW],
      pa.Table.from_pylist([ROW]).schema,
  )
  with pytest.raises(UserError, match="no column 'prompt' .*no version of"):
    verl.read(str(path))

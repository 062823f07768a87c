"""Questions in the words and types of others: read, or the field is named."""

from __future__ import annotations

import base64
import copy
import datetime
import decimal
import json

from hypothesis import given
from hypothesis import strategies as st
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from gog_jax.errors import UserError
from gog_jax.questions import sources
from tests import benchmark_fixtures as fixtures
from tests.chat_helpers import make_chat
from tests.chat_helpers import TOY

PICTURE = fixtures.picture(0)
INLINE = base64.b64encode(PICTURE).decode()
WHO = pa.array(['Who?'])
TEXTS = pa.dictionary(pa.int32(), pa.string())


@pytest.fixture(scope='module', name='folder')
def folder_of_one_image(tmp_path_factory):
  folder = tmp_path_factory.mktemp('questions')
  (folder / 'a.png').write_bytes(PICTURE)
  return folder


def open_one(name):
  (one,) = sources.open((name,), split='train', workdir='')
  return one


def of_table(folder, kind='parquet', **columns):
  plain = {
      'question': WHO, 'answer': pa.array(['Ada']), 'image': pa.array([PICTURE])
  }  # fmt: skip
  if kind == 'verl':
    plain = {}
  pq.write_table(pa.table({**plain, **columns}), folder / 'x.parquet')
  return open_one(f'{kind}:{folder / "x.parquet"}')


def messages(content, kind=None):
  said = [[{'role': 'user', 'content': content}]]
  if kind is None:
    return pa.array(said)
  row = pa.struct([('role', pa.string()), ('content', kind)])
  return pa.array(said, pa.list_(row, 1))


PARTS = [{'type': 'image', 'text': None}, {'type': 'text', 'text': 'Who?'}]
QUESTIONS = {
    'dictionary': WHO.dictionary_encode(),
    'large': WHO.cast(pa.large_string()),
    'view': WHO.cast(pa.string_view()),
    'binary': pa.array([b'Who?']),
    'large binary': pa.array([b'Who?'], pa.large_binary()),
    'messages': messages('Who?'),
    'fixed list of messages': messages('Who?', pa.string()),
    'messages of dictionaries': messages('Who?', TEXTS),
    'messages of views': messages('Who?', pa.string_view()),
    'messages of bytes': messages(b'Who?'),
    'parts': messages(PARTS),
    'parts that are texts': messages(['Who?']),
    'a part alone': messages({'type': 'text', 'text': 'Who?'}),
    'maps': pa.array(
        [[[('role', 'user'), ('content', 'Who?')]]],
        pa.list_(pa.map_(pa.string(), pa.string())),
    ),
}  # fmt: skip


@pytest.mark.parametrize('name', QUESTIONS)
def test_a_question_in_any_type_of_arrow(folder, name):
  one = of_table(folder, question=QUESTIONS[name])
  assert (one.question, one.answers, one.images) == (
      'Who?', ('Ada',), (PICTURE,),
  )  # fmt: skip


@pytest.mark.parametrize('name', QUESTIONS)
def test_a_prompt_of_verl_in_any_type_of_arrow(folder, name):
  if not pa.types.is_nested(QUESTIONS[name].type):
    pytest.skip('verl has messages')
  one = of_table(
      folder, 'verl', prompt=QUESTIONS[name],
      images=pa.array([[{'bytes': PICTURE, 'path': None}]]),
      reward_model=pa.array([{'ground_truth': 'Ada'}]),
  )  # fmt: skip
  assert (one.question, one.answers) == ('Who?', ('Ada',))


DAY = datetime.datetime(2024, 5, 1)


@pytest.mark.parametrize(
    ('answer', 'wanted'),
    [
        (pa.array([decimal.Decimal('3.50')]), ('3.50',)),
        (pa.array([decimal.Decimal('7')]), ('7',)),
        (pa.array([DAY]), ('2024-05-01',)),
        (pa.array([DAY], pa.timestamp('ns')), ('2024-05-01',)),
        (pa.array([DAY.date()]), ('2024-05-01',)),
        (pa.array([DAY.replace(hour=9)]), ('2024-05-01 09:00:00',)),
        (pa.array([[DAY.date()]]), ('2024-05-01',)),
        (pa.array([['a', 'b']], pa.list_(pa.string(), 2)), ('a', 'b')),
        (pa.array([['a']], pa.large_list(pa.large_string())), ('a',)),
        (pa.array([['a']], pa.list_(TEXTS)), ('a',)),
        (pa.array([b'a']), ('a',)),
        (pa.array(['["a", "b"]']), ('a', 'b')),
        (pa.array(['a']), ('a',)),
        (pa.array([129]), ('129',)),
        (pa.array([0.5], pa.float32()), ('0.5',)),
        (pa.array([True]), ('yes',)),
        (pa.array([0.1], pa.float32()), ('0.1',)),
        (pa.array([[1.1, 2.2]], pa.list_(pa.float32())), ('1.1', '2.2')),
        (pa.array([199853.55]), ('199853.55',)),
        (pa.array(['<answer> Ada </answer>']), ('Ada',)),
    ],
)
def test_an_answer_in_any_type_of_arrow(folder, answer, wanted):
  assert of_table(folder, answer=answer).answers == wanted
  reward = pa.StructArray.from_arrays(
      [pa.array(['Eve']), answer], ['ground_truth', 'candidate_answers']
  )
  one = of_table(
      folder, 'verl', prompt=messages('Who?'),
      images=pa.array([[{'bytes': PICTURE, 'path': None}]]),
      reward_model=reward,
  )  # fmt: skip
  assert one.answers == ('Eve', *wanted)


@pytest.mark.parametrize(
    'image',
    [
        pa.array([PICTURE], pa.large_binary()),
        pa.array([PICTURE], pa.binary_view()),
        pa.array([PICTURE], pa.binary(len(PICTURE))),
        pa.array([PICTURE]).dictionary_encode(),
        pa.array([{'bytes': PICTURE, 'path': 'a.png'}]),
        pa.array([{'bytes': None, 'path': 'a.png'}]),
        pa.array([[PICTURE]], pa.list_(pa.binary(), 1)),
        pa.array([INLINE], pa.large_string()),
        pa.array([[*PICTURE]], pa.list_(pa.uint8())),
    ],
)
def test_an_image_in_any_type_of_arrow(folder, image):
  assert of_table(folder, image=image).images == (PICTURE,)


@pytest.mark.parametrize(
    ('value', 'wanted'),
    [
        (7, '7'), (7.0, '7'), (0, '0'), ('7', '7'), (10**17, '1' + '0' * 17),
        (decimal.Decimal('7'), '7'), (None, 'x/0'), ('', 'x/0'),
    ],
)  # fmt: skip
def test_ids_that_are_numbers(folder, value, wanted):
  assert of_table(folder, id=pa.array([value])).id == wanted


@pytest.mark.parametrize(
    ('field', 'value', 'wanted'),
    [
        ('hops', 2.0, 2), ('hops', '2', 2), ('hops', 'two', None),
        ('hops', 1.5, None), ('hops', [1], None),
        ('search_required', 'true', True), ('search_required', 0, False),
        ('search_required', 'False', False), ('search_required', 'so', None),
        ('gold_regions', '[[0, 1, 2, 3]]', ((0.0, 1.0, 2.0, 3.0),)),
        ('gold_regions', [0, 1, 2, 3], ((0.0, 1.0, 2.0, 3.0),)),
        ('gold_regions', 'none', ()), ('gold_regions', [[1, 2]], ()),
        ('scope', 7, '7'), ('scope', ['a'], ''), ('scope', None, ''),
    ],
)  # fmt: skip
def test_one_bad_column_never_drops_the_row(folder, field, value, wanted):
  one = of_table(folder, **{field: pa.array([value])})
  assert getattr(one, field) == wanted
  row = {'question': 'Who?', 'answer': 'Ada', 'image': 'a.png', field: value}
  (folder / 'x.jsonl').write_text(json.dumps(row))
  assert getattr(open_one(f'jsonl:{folder / "x.jsonl"}'), field) == wanted


@pytest.mark.parametrize(
    ('question', 'n', 'wanted'),
    [
        ('what <image> is?', 1, ['what ', 0, ' is?']),
        ('is <image> older than <image>?', 2,
         ['is ', 0, ' older than ', 1, '?']),
        ('<image> or <image>', 2, [0, ' or ', 1]),
        ('which? <image>', 1, ['which? ', 0]),
        ('<image>\nwhich?', 1, [0, 'which?']),
        ('<image><image>which?', 2, [0, 1, 'which?']),
        ('which?', 2, [0, 1, 'which?']),
        ('what <image> is?', 2, [0, 1, 'what  is?']),  # Which is meant?
    ],
)  # fmt: skip
def test_an_image_in_the_middle_keeps_its_place(folder, question, n, wanted):
  row = {'question': question, 'answer': 'x', 'images': ['a.png'] * n}
  (folder / 'x.jsonl').write_text(json.dumps(row))
  one = open_one(f'jsonl:{folder / "x.jsonl"}')
  image = pa.array([[PICTURE] * n])
  again = of_table(folder, question=pa.array([question]), image=image)
  for example in (one, again):
    assert '<image>' not in example.question
    chat = make_chat(TOY, 'gog_toy')
    _, (_, parts), *_ = chat.messages(chat.prompt(example))
    views = [part for part in parts if not isinstance(part, str)]
    assert len(views) == n
    shown = [x if isinstance(x, str) else views.index(x) for x in parts]
    shown, want = (''.join(map(str, x)).split() for x in (shown, wanted))
    assert ''.join(shown) == ''.join(want)  # Spaces at its ends are lost.


# Questions made by rewriting a good one.

WORDS = st.text('abcdefgh xyz0123456789?!é東', min_size=1).filter(str.strip)
ANSWERS = st.text('abcdefg', min_size=1)


@st.composite
def plain_rows(draw):
  return {
      'id': draw(st.text('abc', min_size=1)), 'question': draw(WORDS),
      'answers': draw(st.lists(ANSWERS, min_size=1, unique=True)),
      'images': ['a.png'], 'hops': draw(st.integers(1, 5)),
      'search_required': draw(st.booleans()),
  }  # fmt: skip


def spelled(draw, row):
  """The same in other words, names and types."""
  row = copy.deepcopy(row)
  question, answers = row.pop('question'), row.pop('answers')
  name = draw(st.sampled_from(['question', 'problem', 'query', 'prompt']))
  parts = [{'type': 'text', 'text': question}]
  row[name] = draw(st.sampled_from([
      question, f'<image>{question}', parts, [{'type': 'image'}, *parts],
      [{'role': 'system', 'content': 'x'},
       {'role': 'user', 'content': question}],
      [{'role': 'user', 'content': parts}],
  ]))  # fmt: skip
  name = draw(st.sampled_from(['answers', 'answer', 'solution']))
  forms = [answers, json.dumps(answers)]
  row[name] = draw(st.sampled_from([*forms, *answers[: len(answers) == 1]]))
  del row['images']
  name = draw(st.sampled_from(['images', 'image']))
  row[name] = draw(st.sampled_from([
      ['a.png'], 'a.png', {'path': 'a.png', 'bytes': None},
      [{'bytes': INLINE, 'path': None}], f'data:image/png;base64,{INLINE}',
  ]))  # fmt: skip
  hops = row['hops']
  row['hops'] = draw(st.sampled_from([hops, float(hops), str(hops)]))
  needed = row['search_required']
  row['search_required'] = draw(
      st.sampled_from([needed, int(needed), str(needed), str(needed).lower()])
  )
  for name in draw(st.lists(st.sampled_from(['scope', 'extra', 'category']))):
    row[name] = None
  return row


def read_line(folder, row):
  (folder / 'row.jsonl').write_text(json.dumps(row))
  return read_row(f'jsonl:{folder / "row.jsonl"}')


def read_row(name):
  """What it means, or why it is dropped."""
  try:
    one = open_one(name)
  except UserError as error:
    assert '\n' not in str(error)
    return str(error)
  return {
      'id': one.id, 'question': one.question, 'answers': list(one.answers),
      'images': [image == PICTURE for image in one.images],
      'hops': one.hops, 'search_required': one.search_required,
  }  # fmt: skip


@pytest.mark.long
@given(st.data())
def test_equivalent_questions_have_one_meaning(folder, data):
  row = data.draw(plain_rows())
  changed = spelled(data.draw, row)
  want = {**row, 'question': row['question'].strip(), 'images': [True]}
  assert read_line(folder, changed) == want
  if isinstance(changed.get('answers', ['x']), str):
    return
  table = pa.Table.from_pylist([changed])
  pq.write_table(table, folder / 'row.parquet')
  assert read_row(f'parquet:{folder / "row.parquet"}') == want


@pytest.mark.long
@given(plain_rows(), st.data())
def test_a_damaged_question_is_read_or_names_the_field(folder, row, data):
  want = read_line(folder, row)
  field = data.draw(st.sampled_from(sorted(row)))
  how = data.draw(st.sampled_from(['drop', 'rename', 'retype', 'nest']))
  value = row.pop(field)
  if how == 'rename':
    row['zzz'] = value
  elif how == 'nest':
    row[field] = {'zzz': value}
  elif how == 'retype':
    others = [[], {}, [5], {'z': 1}, [None]]
    row[field] = data.draw(st.sampled_from(others))
    if field == 'answers' and row[field] == [5]:
      want = {**want, 'answers': ['5']}  # Which is what it says.
  got = read_line(folder, row)
  if isinstance(got, str):
    words = {'question': 'asks', 'answers': 'answer', 'images': 'image'}
    assert field in got or words.get(field, '?') in got
  else:
    assert field in ('id', 'hops', 'search_required') or got == want
    assert {**got, field: 0} == {**want, field: 0}

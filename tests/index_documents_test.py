"""Documents in the words of others: read to their meaning, or named."""

from __future__ import annotations

import json

from hypothesis import given
from hypothesis import strategies as st
import pytest

from gog_jax.errors import UserError
from gog_jax.index import corpora

PLAIN = {'id': '7', 'title': 'T', 'text': 'x', 'image': 'a.png'}


@pytest.fixture(scope='module', name='path')
def file_of_documents(tmp_path_factory):
  return tmp_path_factory.mktemp('docs') / 'c.jsonl'


def read(path, row, mark=b''):
  """What it means, or why it is refused."""
  path.write_bytes(mark + json.dumps(row).encode())
  try:
    (one,) = corpora.read_documents(path, {'a.png'})
  except UserError as error:
    assert '\n' not in str(error)
    return str(error)
  return {name: getattr(one, name) for name in PLAIN}


def without(*names, **more):
  return {k: v for k, v in PLAIN.items() if k not in names} | more


@pytest.mark.parametrize(
    'row',
    [
        PLAIN,
        without('id', id=7), without('id', id=7.0), without('id', _id='7'),
        without('id', docid=7), without('text', content='x'),
        without('text', page_content='x'), without('text', passage='x'),
        without('image', image_path='a.png'),
        {**PLAIN, 'contents': None}, {**PLAIN, 'score': None, 'more': [1]},
        without('title', 'text', contents='"T"\nx'),
        {'page_content': 'x', 'image': 'a.png',
         'metadata': {'title': 'T', 'id': 7}},
    ],
)  # fmt: skip
@pytest.mark.parametrize('mark', [b'', b'\xef\xbb\xbf'])
def test_documents_of_one_meaning(path, row, mark):
  assert read(path, row, mark) == PLAIN


def test_utf_16_is_said_in_a_line(path):
  path.write_bytes(json.dumps(PLAIN).encode('utf-16'))
  with pytest.raises(UserError, match='UTF-16: save it as UTF-8'):
    list(corpora.read_documents(path, {'a.png'}))


NAMES = {
    'id': ['id', '_id', 'docid', 'doc_id'], 'title': ['title'],
    'text': ['text', 'content', 'page_content', 'passage'],
    'image': ['image', 'image_path'],
}  # fmt: skip
WORDS = st.text('abc xyz é東"\n', min_size=1).filter(str.strip)


@st.composite
def documents(draw):
  number = draw(st.integers(0, 10**6))
  row = {
      'id': str(number), 'title': draw(WORDS), 'text': draw(WORDS),
      'image': 'a.png',
  }  # fmt: skip
  said = {draw(st.sampled_from(NAMES[k])): v for k, v in row.items()}
  if 'id' in said:
    said['id'] = draw(st.sampled_from([number, float(number), str(number)]))
  for name in draw(st.lists(st.sampled_from(['contents', 'url', 'score']))):
    said[name] = None
  if draw(st.booleans()):
    said['metadata'] = {'title': said.pop('title')}
  return row, said


@pytest.mark.long
@given(documents())
def test_equivalent_documents_have_one_meaning(path, pair):
  row, said = pair
  assert read(path, said) == row


@pytest.mark.long
@given(documents(), st.data())
def test_a_damaged_document_is_read_or_names_the_field(path, pair, data):
  row, _ = pair
  want = read(path, row)
  field = data.draw(st.sampled_from(['id', 'text', 'title', 'image']))
  how = data.draw(st.sampled_from(['drop', 'rename', 'retype', 'nest']))
  changed = dict(row)
  value = changed.pop(field)
  if how == 'rename':
    changed['zzz'] = value
  elif how == 'nest':
    changed[field] = {'zzz': value}
  elif how == 'retype':
    changed[field] = data.draw(st.sampled_from([5, True, [], {}, ['x']]))
  got = read(path, changed)
  if isinstance(got, str):
    assert f'"{field}"' in got or repr(changed[field]) in got
  else:  # A title and an image need not be there; another id is another.
    assert field in ('title', 'image') or how == 'retype'
    assert {**got, field: 0} == {**want, field: 0}

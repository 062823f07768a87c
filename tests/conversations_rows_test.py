"""Rows of training data, rewritten: read to their meaning, or named."""

from __future__ import annotations

import copy
import json

from hypothesis import given
from hypothesis import strategies as st
import pytest

from gog_jax.conversations.messages import IMAGE
from tests.foreign_helpers import CALL
from tests.foreign_helpers import function
from tests.foreign_helpers import make_folder
from tests.foreign_helpers import read_one
from tests.foreign_helpers import SEARCH


@pytest.fixture(scope='module', name='folder')
def folder_of_images(tmp_path_factory):
  return make_folder(tmp_path_factory.mktemp('data'))


WORDS = st.text(st.characters(codec='utf-8', exclude_categories=('Cs', 'Cc')))
TEXT = WORDS.filter(lambda text: text.strip() and '<' not in text)


@st.composite
def plain_rows(draw):
  """A row in ms-swift's words, of a meaning that is known."""
  thought, answer = draw(TEXT), draw(TEXT)
  messages = [{'role': 'user', 'content': IMAGE + draw(TEXT)}]
  for _ in range(draw(st.integers(0, 2))):
    call = draw(st.sampled_from([CALL, SEARCH]))
    messages += [
        {'role': 'assistant', 'reasoning_content': draw(TEXT),
         'tool_calls': [function(call, 'x')]},
        {'role': 'tool', 'content': draw(TEXT), 'tool_call_id': 'x'},
    ]  # fmt: skip
  messages += [
      {'role': 'assistant', 'content': answer, 'reasoning_content': thought}
  ]
  return {'id': 'x', 'messages': messages, 'images': ['images/a.png']}


def _rename(key, *names):
  def rewrite(draw, holder):
    if key in holder:
      holder[draw(st.sampled_from(names))] = holder.pop(key)

  return rewrite


def _to(key, change):
  def rewrite(draw, holder):
    del draw
    if holder.get(key) is not None:
      holder[key] = change(holder[key])

  return rewrite


def _inline(draw, holder):
  """The thought as it stands in the text."""
  del draw
  names = [name for name in ('content', 'value', 'text') if name in holder]
  name = names[0] if names else 'content'
  text = holder.get(name) or ''
  if 'reasoning_content' in holder and isinstance(text, str):
    thought = holder.pop('reasoning_content')
    holder[name] = f'<think>{thought}</think>\n{text}'


def _nulls(draw, holder):
  for name in draw(st.lists(st.sampled_from(['audio', 'videos', 'refusal']))):
    holder[name] = None


ROW_REWRITES = [
    _rename('images', 'image', 'img', 'image_path', 'imgs', 'image_paths'),
    _rename('messages', 'conversations', 'conversation', 'dialog'),
    _to('images', lambda x: x[0] if isinstance(x, list) else x),
    _to('images', lambda x: [{'path': x[0], 'bytes': None}]
        if isinstance(x, list) and isinstance(x[0], str) else x),
    _to('images', lambda x: json.dumps(x) if isinstance(x, list) else x),
    _to('messages', lambda x: json.dumps(x) if isinstance(x, list) else x),
    _to('id', lambda x: None),
    _nulls,
    lambda draw, row: row.setdefault('difficulty', draw(st.integers())),
]  # fmt: skip
ROLES = {
    'user': ('user', 'human', 'User'),
    'assistant': ('assistant', 'gpt', 'bot', 'Assistant'),
    'tool': ('tool', 'observation', 'tool_response'),
}
MESSAGE_REWRITES = [
    lambda draw, one: one.update(
        role=draw(st.sampled_from(ROLES.get(one['role'], (one['role'],))))
    ) if 'role' in one else None,
    _rename('role', 'from', 'speaker'),
    _rename('content', 'value', 'text'),
    _rename('reasoning_content', 'reasoning', 'thinking', 'thought'),
    _to('content', lambda x: [{'type': 'text', 'text': x}]
        if isinstance(x, str) else x),
    _to('content', lambda x: {'type': 'text', 'text': x}
        if isinstance(x, str) else x),
    _to('tool_calls', lambda x: x[0] if isinstance(x, list) else x),
    _to('tool_calls', lambda x: [
        {**one, 'function': {**one['function'], 'arguments': json.loads(
            one['function']['arguments'])}} for one in x
    ] if isinstance(x, list) and 'function' in x[0] and isinstance(
        x[0]['function']['arguments'], str) else x),
    _to('tool_calls', lambda x: [one.get('function', one) for one in x]
        if isinstance(x, list) and len(x) == 1 else x),
    _inline,
    _nulls,
]  # fmt: skip


@st.composite
def rewritten(draw):
  row = draw(plain_rows())
  changed = copy.deepcopy(row)
  for message in changed['messages']:
    for rewrite in draw(st.lists(st.sampled_from(MESSAGE_REWRITES))):
      rewrite(draw, message)
  for rewrite in draw(st.lists(st.sampled_from(ROW_REWRITES))):
    rewrite(draw, changed)
  return row, changed


@pytest.mark.long
@given(rewritten())
def test_equivalent_rows_are_read_to_one_meaning(folder, rows):
  row, changed = rows
  want = read_one(folder, row)
  assert not isinstance(want, str), want
  assert read_one(folder, changed) == want


# What the error calls a field whose own name nobody can be expected to see.
ALSO = {
    'images': ('image',), 'tool_calls': ('call', 'content'),
    'messages': ('message',), 'content': ('<image>',), 'function': ('call',),
    'arguments': ('call',), 'name': ('call',),
}  # fmt: skip


def _holders(value):
  """Every object in it that has fields."""
  if isinstance(value, dict):
    yield value
    value = list(value.values())
  if isinstance(value, list):
    for part in value:
      yield from _holders(part)


@st.composite
def damaged(draw):
  row = draw(plain_rows())
  changed = copy.deepcopy(row)
  holder = draw(st.sampled_from(list(_holders(changed))))
  field = draw(st.sampled_from(sorted(holder)))
  how = draw(st.sampled_from(['drop', 'rename', 'retype', 'nest']))
  value = holder.pop(field)
  if how == 'rename':
    holder['zzz'] = value
  elif how == 'retype':
    others = [5, True, [], {}, [5], 'x y', {'z': 1}]
    holder[field] = draw(st.sampled_from(others))
  elif how == 'nest':
    holder[field] = {'zzz': value}
  return row, changed, field, how


@pytest.mark.long
@given(damaged())
def test_a_damaged_row_is_read_or_names_the_field(folder, rows):
  row, changed, field, how = rows
  want, got = read_one(folder, row), read_one(folder, changed)
  if isinstance(got, str):
    words = (field, 'zzz', *ALSO.get(field, ()))
    assert any(word in got for word in words), (field, how, got)
  elif field in ('id', 'type', 'tool_call_id'):
    assert got == want
  elif how == 'drop' and field == 'reasoning_content':
    pass  # Nothing is left that could say it.
  elif how in ('retype', 'nest') and field in (
      'content', 'reasoning_content', 'name'
  ):  # fmt: skip
    assert '5' in str(got) or 'x y' in str(got) or 'z' in str(got)
  else:
    assert got == want or how == 'drop', (field, how, got)

"""Files of LLaMA-Factory and ms-swift: lossless, and damage costs one line."""

from __future__ import annotations

import dataclasses
import json

from hypothesis import given
from hypothesis import settings
from hypothesis import strategies as st
import pytest

from gog_jax.conversations import json_files
from gog_jax.conversations import layouts
from gog_jax.conversations.layouts import JOINT
from gog_jax.conversations.layouts import LAYOUTS
from gog_jax.conversations.layouts import SHAREGPT
from gog_jax.conversations.layouts import SWIFT
from gog_jax.conversations.messages import Conversation
from gog_jax.conversations.messages import escape
from gog_jax.conversations.messages import IMAGE
from gog_jax.conversations.messages import Message
from gog_jax.conversations.messages import Role
from gog_jax.conversations.messages import unescape
from gog_jax.errors import UserError
from tests import conversation_helpers as helpers
from tests.chat_helpers import CROP
from tests.chat_helpers import SCENE


@pytest.mark.parametrize('suffix', ['.json', '.jsonl'])
@pytest.mark.parametrize('layout', LAYOUTS)
def test_what_is_read_is_written_back(tmp_path, layout, suffix):
  make = getattr(helpers, layout)
  wanted = [
      make('a'),
      make('b\ud800', tools=None, note='\u2028 <tool_call>'),
      make('c', tools=[{'name': 'gaze'}]),
  ]
  path = helpers.save(tmp_path / 'in' / f'data{suffix}', []).with_suffix(suffix)
  path.write_text(
      ''.join(json.dumps(row) + '\n' for row in wanted)
      if suffix == '.jsonl'
      else json.dumps(wanted, indent=1)
  )
  found = json_files.read(path)
  assert not found.drops
  assert [one.id for one in found.items] == ['a', 'b\ud800', 'c']
  target = tmp_path / 'out' / f'other{suffix}'
  assert not json_files.write(target, found.items, LAYOUTS[layout]).drops
  assert helpers.rows_of(target) == wanted
  images = target.parent / 'images'
  assert (images / 'scene.png').read_bytes() == SCENE
  assert (images / 'crop.png').read_bytes() == CROP.data
  assert sorted(p.name for p in images.iterdir()) == ['crop.png', 'scene.png']


def test_from_one_layout_to_the_other_and_back(tmp_path):
  path = helpers.save(tmp_path / 'in' / 'data.json', [helpers.sharegpt()])
  swift = tmp_path / 'swift' / 'data.jsonl'
  json_files.write(swift, json_files.read(path).items, SWIFT)
  assert helpers.rows_of(swift) == [helpers.swift()]
  back = tmp_path / 'back' / 'data.json'
  json_files.write(back, json_files.read(swift).items, SHAREGPT)
  assert helpers.rows_of(back) == [helpers.sharegpt()]


def test_parallel_calls_become_a_list_and_their_replies_one(tmp_path):
  row = helpers.swift()
  row['messages'][4:4] = [row['messages'].pop(5)]
  path = helpers.save(tmp_path / 'in' / 'data.jsonl', [row])
  merged = tmp_path / 'out' / 'data.json'
  json_files.write(merged, json_files.read(path).items, SHAREGPT)
  (got,) = helpers.rows_of(merged)
  words = [one['from'] for one in got['conversations']]
  assert words == ['human', 'function_call', 'observation', 'gpt']
  call = got['conversations'][1]['value'].removeprefix(helpers.THOUGHT)
  assert [one['name'] for one in json.loads(call)] == ['gaze', 'text_search']
  reply = got['conversations'][2]['value']
  assert reply == f'<image>belwen barred blue circle{JOINT}belwen year 129'
  again = tmp_path / 'again.jsonl'
  json_files.write(again, json_files.read(merged).items, SWIFT)
  roles = [one['role'] for one in helpers.rows_of(again)[0]['messages']]
  assert roles == [one['role'] for one in row['messages']]


def test_llama_factory_finds_the_file(tmp_path):
  path = helpers.save(tmp_path / 'data.json', [helpers.sharegpt()])
  found = json_files.read(path)
  json_files.write(tmp_path / 'mine.json', found.items, SHAREGPT)
  info = json.loads((tmp_path / 'dataset_info.json').read_text())
  assert info['mine']['file_name'] == 'mine.json'
  assert info['mine']['formatting'] == 'sharegpt'
  assert info['mine']['columns'] == {
      'messages': 'conversations',
      'system': 'system',
      'tools': 'tools',
      'images': 'images',
  }
  assert len(json_files.read(tmp_path).items) == 1


def test_columns_and_words_are_those_of_dataset_info(tmp_path):
  row = helpers.sharegpt()
  row['chat'] = [
      {'who': {'human': 'me', 'gpt': 'it'}.get(one['from'], one['from']),
       'says': one['value']}
      for one in row.pop('conversations')
  ]  # fmt: skip
  row['pictures'] = row.pop('images')
  helpers.save(tmp_path / 'data.json', [row])
  info = {
      'mine': {
          'file_name': 'data.json',
          'formatting': 'sharegpt',
          'columns': {'messages': 'chat', 'images': 'pictures'},
          'tags': {
              'role_tag': 'who',
              'content_tag': 'says',
              'user_tag': 'me',
              'assistant_tag': 'it',
          },
      }
  }
  (tmp_path / 'dataset_info.json').write_text(json.dumps(info))
  (got,) = json_files.read(tmp_path).items
  plain = helpers.save(tmp_path / 'plain.json', [helpers.sharegpt()])
  (wanted,) = json_files.read(plain).items
  assert (got.messages, got.pictures) == (wanted.messages, wanted.pictures)
  info['other'] = info['mine']
  (tmp_path / 'dataset_info.json').write_text(json.dumps(info))
  with pytest.raises(UserError, match='describes 2 data sets'):
    json_files.read(tmp_path)


_TEXTS = st.text() | st.lists(
    st.sampled_from([
        '<image>', '<image\u200b>', '<video>', '\u200b', '<tool_call>',
        '<think>', '<tool_response>', '</tool_response>', '\n', '\u2028',
        '\ud800', '"', '\\', 'a',
    ])
).map(''.join)  # fmt: skip


@given(_TEXTS)
@settings(max_examples=200, deadline=None)
def test_escaped_text_shows_no_image_and_comes_back(text):
  assert IMAGE not in escape(text)
  assert unescape(escape(text)) == text


@given(question=_TEXTS, answer=_TEXTS, note=_TEXTS)
@settings(max_examples=100, deadline=None)
@pytest.mark.parametrize('layout', LAYOUTS.values(), ids=LAYOUTS)
def test_any_text_survives_a_file(
    tmp_path_factory, layout, question, answer, note
):
  folder = tmp_path_factory.getbasetemp()
  wanted = Conversation(
      id='x',
      messages=(
          Message(role=Role.USER, text=escape(question)),
          Message(role=Role.ASSISTANT, text=escape(answer)),
      ),
      columns={'id': 'x', 'note': note},
  )
  row = json.loads(json.dumps(layouts.write_row(wanted, layout, paths={})))
  got = layouts.read_row(row, layout, folder=folder, name='')
  assert got == wanted
  assert unescape(got.messages[0].text) == question


# Damage.


def _without(key, row):
  return {k: v for k, v in row.items() if k != key}


def _turns(row, *order):
  said = row['conversations']
  return row | {'conversations': [said[i] for i in order]}


DAMAGE = {
    'no image': helpers.sharegpt('x', images=['images/scene.png', 'gone.png']),
    'bad image': helpers.sharegpt('x', images=['images/scene.png', 'bad.png']),
    'remote image': helpers.sharegpt('x', images=['http://a/b.png', 'c.png']),
    'not a file': helpers.sharegpt('x', images=[{'bytes': 'x'}, 'c.png']),
    'images differ': helpers.sharegpt('x', images=['images/scene.png']),
    'duplicate id': helpers.sharegpt('first'),
    'turn order': _turns(helpers.sharegpt('x'), 0, 2, 1, 3, 4, 5),
    'no messages': _without('conversations', helpers.sharegpt('x'))
    | {'messages': []},
    'not a conversation': {'id': 'x', 'text': 'y'},
    'unknown role': helpers.sharegpt(
        'x', conversations=[{'from': 'nobody', 'value': ''}]
    ),
    'not text': helpers.sharegpt(
        'x', conversations=[{'from': 'human', 'value': ['a']}]
    ),
}


@pytest.mark.parametrize('reason', DAMAGE)
def test_a_record_of_no_use_is_one_line_and_the_rest_is_read(tmp_path, reason):
  rows_ = [helpers.sharegpt('first'), DAMAGE[reason], helpers.sharegpt('last')]
  path = helpers.save(tmp_path / 'data.jsonl', rows_)
  (tmp_path / 'bad.png').write_bytes(b'\x89PNG and no more')
  found = json_files.read(path)
  assert [one.id for one in found.items] == ['first', 'last']
  assert found.reasons() == {reason: 1}
  (drop,) = found.drops
  assert str(drop).startswith('data.jsonl, record 2: ')
  assert '\n' not in str(drop)


@pytest.mark.parametrize(
    'order',
    [
        (0,), (1, 0), (0, 0, 1), (0, 1, 1), (0, 1, 0, 5), (0, 5, 2, 5),
        (0, 1, 2), (0, 1, 5),
    ],
)  # fmt: skip
def test_turns_out_of_order(tmp_path, order):
  row = _turns(helpers.sharegpt('x'), *order)
  shown = sum(one['value'].count(IMAGE) for one in row['conversations'])
  row['images'] = ['images/scene.png'] * shown
  path = helpers.save(tmp_path / 'data.json', [row, helpers.sharegpt('ok')])
  found = json_files.read(path)
  assert found.reasons() == {'turn order': 1}
  assert len(found.items) == 1


@pytest.mark.parametrize('suffix', ['.json', '.jsonl'])
def test_a_file_that_is_cut_off_loses_its_last_record(tmp_path, suffix):
  path = helpers.save(
      tmp_path / f'data{suffix}', [helpers.sharegpt(name) for name in 'abc']
  )
  path.write_text(path.read_text()[:-30])
  found = json_files.read(path)
  assert [one.id for one in found.items] == ['a', 'b']
  assert found.reasons() == {'not JSON': 1}


@pytest.mark.slow
def test_a_field_of_a_gigabyte_is_not_read(tmp_path):
  path = helpers.save(tmp_path / 'data.jsonl', [helpers.sharegpt('a')])
  with path.open('r+b') as f:
    f.seek(0, 2)
    f.write(b'{"id": "huge", "conversations": "')
    f.seek(2**30, 1)  # A hole in the file: it takes no room.
    f.write(b'"}\n')
    f.write(json.dumps(helpers.sharegpt('b')).encode() + b'\n')
  found = json_files.read(path)
  assert [one.id for one in found.items] == ['a', 'b']
  (drop,) = found.drops
  assert drop.reason == 'too large' and '1073741' in drop.detail


@pytest.mark.parametrize('suffix', ['.json', '.jsonl'])
def test_a_long_record_is_left_out(tmp_path, monkeypatch, suffix):
  monkeypatch.setattr(json_files, 'MAX_RECORD_BYTES', 5000)
  path = helpers.save(
      tmp_path / f'data{suffix}',
      [helpers.sharegpt('a', note='x' * 9000), helpers.sharegpt('b')],
  )
  found = json_files.read(path)
  assert [one.id for one in found.items] == ['b']
  assert found.reasons() == {'too large': 1}


def test_a_picture_keeps_to_the_folder_and_replaces_no_other(tmp_path):
  path = helpers.save(tmp_path / 'in' / 'data.json', [helpers.sharegpt()])
  (conversation,) = json_files.read(path).items
  outside = dataclasses.replace(
      conversation.pictures[0], name='../../outside.png'
  )
  conversation = dataclasses.replace(
      conversation, pictures=(outside, conversation.pictures[1])
  )
  taken = tmp_path / 'out' / 'deep' / 'images' / 'crop.png'
  taken.parent.mkdir(parents=True)
  taken.write_bytes(b'another')
  target = tmp_path / 'out' / 'deep' / 'data.json'
  json_files.write(target, [conversation], SHAREGPT)
  assert not list(tmp_path.rglob('outside.png'))
  assert taken.read_bytes() == b'another'
  (got,) = json_files.read(target).items
  assert [p.read() for p in got.pictures] == [SCENE, CROP.data]


@pytest.mark.parametrize(
    ('name', 'content', 'words'),
    [
        ('gone.json', None, 'does not exist'),
        ('data.csv', b'a', 'neither a .json nor a .jsonl'),
        ('data.json', b'{"a": 1}', 'is no JSON list'),
        ('data.json', b'\xff\xfe', 'is UTF-16: save it as UTF-8'),
    ],
)
def test_files_of_another_kind(tmp_path, name, content, words):
  path = tmp_path / name
  if content is not None:
    path.write_bytes(content)
  with pytest.raises(UserError, match=words) as caught:
    json_files.read(path)
  assert '\n' not in str(caught.value)


def test_of_a_row_with_both_columns_sharegpt_is_read(tmp_path):
  turns = [('human', 'who?'), ('gpt', 'me')]
  row = {
      'conversations': [{'from': f, 'value': v} for f, v in turns],
      'messages': [{'role': 'user', 'content': 'other'}],
  }
  path = tmp_path / 'both.json'
  path.write_text(json.dumps([row]))
  (conversation,) = json_files.read(path).items
  assert conversation.messages[0].text == 'who?'

"""Rows of training data in the words of others, and what they mean."""

from __future__ import annotations

import copy
import json

from gog_jax.conversations import json_files
from gog_jax.conversations.messages import Role
from gog_jax.conversations.messages import split_thought
from tests import tiny

# 84 x 84 and 84 x 56 pixels.
PICTURES = {
    'a.png': tiny.picture(84, 84, 0),
    'b.png': tiny.picture(84, 56, 1),
}
CALL = {'name': 'gaze', 'arguments': {'bbox_2d': [10, 10, 50, 50]}}
SEARCH = {'name': 'text_search', 'arguments': {'query': 'q'}}


def make_folder(folder):
  (folder / 'images').mkdir()
  for name, data in PICTURES.items():
    (folder / 'images' / name).write_bytes(data)
  return folder


def read(folder, *rows, data_box='', prefix=b'', suffix='.jsonl'):
  path = folder / f'rows{suffix}'
  text = '\n'.join(map(json.dumps, rows))
  if suffix == '.json':
    text = json.dumps(rows)
  path.write_bytes(prefix + text.encode())
  return json_files.read(path, data_box=data_box)


def one(folder, row, **more):
  found = read(folder, row, **more)
  assert not found.drops, found.drops
  return found.items[0]


def meaning(told):
  """Thoughts apart from words, calls as objects; names of pictures."""
  said = []
  for message in told.messages:
    text = message.text
    if message.role == Role.CALL:
      text = json.loads(text)
      text = text.get('function', text)
      if isinstance(text['arguments'], str):
        text['arguments'] = json.loads(text['arguments'])
      text = {key: text[key] for key in ('name', 'arguments')}
    elif message.role == Role.ASSISTANT:
      text = split_thought(text)
    said.append((message.role, text))
  return said, [picture.name for picture in told.pictures]


def swift(*messages, images=('images/a.png',), **more):
  said = [
      {'role': role, 'content': content} for role, content in messages
  ]
  return {'messages': said, 'images': list(images), **more}


PLAIN = swift(
    ('user', '<image>which colour?'),
    ('assistant', '<think>because</think>\nblue'),
)


def edited(row=PLAIN, **changes):
  return {**copy.deepcopy(row), **changes}


def spoken(*pairs, names=('from', 'value'), column='conversations', **more):
  said = [dict(zip(names, pair, strict=True)) for pair in pairs]
  return {column: said, 'images': ['images/a.png'], **more}


ASKED, SAID = '<image>which colour?', '<think>because</think>\nblue'
IMAGE_PART = {'type': 'image'}
TEXT_PART = {'type': 'text', 'text': 'which colour?'}


def answered(**agent):
  row = edited()
  row['messages'][1] = {'role': 'assistant', **agent}
  return row


def asked(content, **more):
  row = edited(**more)
  row['messages'][0]['content'] = content
  return row


def without_images(row):
  return {key: value for key, value in row.items() if key != 'images'}


def openai(*calls, replies=(), content=None):
  said = [
      {'role': 'user', 'content': ASKED},
      {'role': 'assistant', 'content': content, 'tool_calls': list(calls)},
      *({'role': 'tool', **reply} for reply in replies),
      {'role': 'assistant', 'content': 'blue'},
  ]
  return edited(messages=said)


def function(call, id=None, text=True):
  arguments = call['arguments']
  return {
      'id': id, 'type': 'function',
      'function': {
          'name': call['name'],
          'arguments': json.dumps(arguments) if text else arguments,
      },
  }  # fmt: skip


OBJECTS = swift(
    ('user', '<image>find <ref-object>'),
    ('assistant', '<think>x</think><answer><bbox></answer>'),
)
REAL = {'ref': ['circle'], 'bbox': [[21, 42, 63, 84]]}


def read_one(folder, row):
  """What it means, or why it is dropped."""
  found = read(folder, row, data_box='original_pixels')
  if found.drops:
    assert '\n' not in str(found.drops[0])
    return str(found.drops[0])
  return meaning(found.items[0])

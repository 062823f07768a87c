"""Training data in the words of others is read to its meaning."""

from __future__ import annotations

import json

import pytest

from gog_jax.boxes import BoxSpec
from gog_jax.conversations import encode
from gog_jax.conversations import json_files
from gog_jax.conversations.messages import Role
from gog_jax.errors import UserError
from tests import chat_helpers
from tests.foreign_helpers import answered
from tests.foreign_helpers import ASKED
from tests.foreign_helpers import asked
from tests.foreign_helpers import CALL
from tests.foreign_helpers import edited
from tests.foreign_helpers import function
from tests.foreign_helpers import IMAGE_PART
from tests.foreign_helpers import make_folder
from tests.foreign_helpers import meaning
from tests.foreign_helpers import one
from tests.foreign_helpers import openai
from tests.foreign_helpers import PLAIN
from tests.foreign_helpers import read
from tests.foreign_helpers import SAID
from tests.foreign_helpers import SEARCH
from tests.foreign_helpers import spoken
from tests.foreign_helpers import TEXT_PART
from tests.foreign_helpers import without_images


@pytest.fixture(scope='module', name='folder')
def folder_of_images(tmp_path_factory):
  return make_folder(tmp_path_factory.mktemp('data'))


@pytest.fixture(scope='module', name='chat')
def toy_chat():
  return chat_helpers.make_chat(chat_helpers.TOY, 'gog_toy')


EQUAL = {
    'sharegpt': spoken(('human', ASKED), ('gpt', SAID)),
    'user': spoken(('user', ASKED), ('assistant', SAID)),
    'bot': spoken(('Human', ASKED), ('bot', SAID)),
    'conversation': spoken(
        ('human', ASKED), ('gpt', SAID), column='conversation'
    ),
    'dialog': spoken(
        ('user', ASKED), ('assistant', SAID),
        names=('role', 'content'), column='dialog',
    ),
    'speaker and text': spoken(
        ('user', ASKED), ('model', SAID),
        names=('speaker', 'text'), column='dialogue',
    ),
    'role and value': spoken(
        ('user', ASKED), ('assistant', SAID), names=('role', 'value')
    ),
    'messages as text': edited(messages=json.dumps(PLAIN['messages'])),
    'image': without_images(edited(image='images/a.png')),
    'img': without_images(edited(img=['images/a.png'])),
    'image_path': without_images(edited(image_path='images/a.png')),
    'image_paths': without_images(edited(image_paths=['images/a.png'])),
    'null images, then image': edited(images=None, image='images/a.png'),
    'images as text': edited(images='images/a.png'),
    'images as a list in text': edited(images='["images/a.png"]'),
    'path in an object': edited(images=[{'path': 'images/a.png'}]),
    'bytes null': edited(images=[{'bytes': None, 'path': 'images/a.png'}]),
    'url in an object': edited(images={'url': 'images/a.png'}),
    'windows': edited(images=['images\\a.png']),
    'image in its message': without_images(
        asked([{'type': 'image', 'image': 'images/a.png'}, TEXT_PART])
    ),
    'image_url': without_images(asked([
        {'type': 'image_url', 'image_url': {'url': 'images/a.png'}}, TEXT_PART
    ])),
    'parts, and a column': asked([IMAGE_PART, TEXT_PART]),
    'images of a message': without_images({'messages': [
        {'role': 'user', 'content': 'which colour?',
         'images': ['images/a.png']},
        PLAIN['messages'][1],
    ]}),
    'content in an object': answered(content={'type': 'text', 'text': SAID}),
    'numbered image': asked('<image_1>which colour?'),
    'image of phi': asked('<|image_1|>which colour?'),
    'image of qwen': asked(
        '<|vision_start|><|image_pad|><|vision_end|>which colour?'
    ),
    'reasoning_content': answered(content='blue', reasoning_content='because'),
    'reasoning': answered(content='blue', reasoning='because'),
    'thinking': answered(content='blue', thinking=' because\n'),
    'both thoughts': answered(content=SAID, reasoning_content='because'),
    'empty thought': answered(
        content='<think>\n</think>blue', reasoning_content='because'
    ),
    'thinking tags': answered(content='<Thinking>because</Thinking>blue'),
    'no opening tag': answered(content='because</think>blue'),
    'image in a pair of tags': asked('<image></image>which colour?'),
    'img with its path': asked('<img>images/a.png</img>which colour?'),
    'fields of chat logs': answered(
        content=SAID, lang='en', model_name='x', logprobs=[1], uuid='u'
    ),
    'label': edited(label=True),
    'nulls': edited(
        id=None, videos=None, audios=[], objects=None, tools=None, system=None
    ),
    'nulls of a message': answered(
        content=SAID, tool_calls=None, refusal=None, reasoning_content=None
    ),
    'harmless': edited(difficulty=3, source='x', lang={'a': 1}),
}  # fmt: skip


@pytest.mark.parametrize('name', EQUAL)
def test_rows_of_one_meaning_are_read_alike(folder, name):
  want = meaning(one(folder, edited()))
  assert want[1] == ['images/a.png']
  assert meaning(one(folder, EQUAL[name])) == want


def test_tags_in_capitals(folder):
  said, wanted = (
      one(folder, answered(content=f'<{think}>so</{think}><{tag}>1</{tag}>'))
      for think, tag in (('THINK', 'Answer'), ('think', 'answer'))
  )
  assert meaning(said) == meaning(wanted)


@pytest.mark.parametrize('prefix', [b'', b'\xef\xbb\xbf'])
@pytest.mark.parametrize('suffix', ['.json', '.jsonl'])
def test_a_byte_order_mark_is_no_text(folder, prefix, suffix):
  found = read(folder, PLAIN, prefix=prefix, suffix=suffix)
  assert len(found.items) == 1 and not found.drops


@pytest.mark.parametrize('suffix', ['.json', '.jsonl'])
@pytest.mark.parametrize('codec', ['utf-16', 'utf-16-be'])
def test_utf_16_is_said_in_a_line(folder, suffix, codec):
  path = folder / f'wide{suffix}'
  text = json.dumps([PLAIN] if suffix == '.json' else PLAIN)
  mark = '\ufeff' if codec == 'utf-16-be' else ''
  path.write_bytes((mark + text).encode(codec))
  with pytest.raises(UserError, match='UTF-16: save it as UTF-8') as caught:
    json_files.read(path)
  assert '\n' not in str(caught.value)


def test_ids_that_are_null_or_numbers(folder):
  found = read(folder, *[edited(id=x) for x in (None, None, '', 7, 0)])
  ids = ['rows/1', 'rows/2', 'rows/3', '7', '0']
  assert [told.id for told in found.items] == ids


@pytest.mark.parametrize(
    'calls',
    [
        [function(CALL, 'x'), function(SEARCH, 'y')],
        [function(CALL, 'x', text=False), function(SEARCH, 'y', text=False)],
    ],
)
@pytest.mark.parametrize('order', [1, -1])
def test_calls_and_replies_of_openai(folder, chat, calls, order):
  replies = [
      {'tool_call_id': 'x', 'content': 'of the gaze'},
      {'tool_call_id': 'y', 'content': [{'type': 'text', 'text': 'of q'}]},
  ][::order]
  told = one(
      folder,
      openai(*calls, replies=replies, content='<think>hm</think>'),
      data_box='original_pixels',
  )
  said, _ = meaning(told)
  assert said[1:] == [
      (Role.ASSISTANT, ('hm', '')),
      (Role.CALL, CALL),
      (Role.CALL, SEARCH),
      (Role.REPLY, 'of the gaze'),
      (Role.REPLY, 'of q'),
      (Role.ASSISTANT, (None, 'blue')),
  ]
  spec = BoxSpec(kind='resized_pixels', min_side=16)
  got = encode.encode(told, chat, spec, data_box='original_pixels')
  assert [call.name for call in got.turns[0].parsed.calls] == [
      'gaze', 'text_search',
  ]  # fmt: skip
  assert got.turns[0].parsed.thought == 'hm'


@pytest.mark.parametrize(
    ('field', 'value', 'trained'),
    [
        ('loss', False, False), ('loss', 0, False), ('loss', 'false', False),
        ('weight', 0, False), ('weight', 0.0, False), ('train', False, False),
        ('loss', True, True), ('loss', None, True), ('weight', 1, True),
    ],
)  # fmt: skip
def test_flags_say_what_is_trained(folder, chat, field, value, trained):
  row = answered(content='blue', **{field: value})
  spec = BoxSpec(kind='thousandths', min_side=1)
  got = encode.encode(one(folder, row), chat, spec)
  assert got.loss_mask.any() == trained

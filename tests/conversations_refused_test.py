"""Boxes in texts are filled; what cannot be used is dropped and named."""

from __future__ import annotations

import json

import pytest

from gog_jax.boxes import BoxSpec
from gog_jax.conversations import convert
from gog_jax.conversations import encode
from gog_jax.storage.records import Unusable
from tests import chat_helpers
from tests.foreign_helpers import answered
from tests.foreign_helpers import asked
from tests.foreign_helpers import CALL
from tests.foreign_helpers import edited
from tests.foreign_helpers import function
from tests.foreign_helpers import make_folder
from tests.foreign_helpers import OBJECTS
from tests.foreign_helpers import one
from tests.foreign_helpers import openai
from tests.foreign_helpers import read
from tests.foreign_helpers import REAL
from tests.foreign_helpers import SAID
from tests.foreign_helpers import SEARCH
from tests.foreign_helpers import swift
from tests.foreign_helpers import without_images


@pytest.fixture(scope='module', name='folder')
def folder_of_images(tmp_path_factory):
  return make_folder(tmp_path_factory.mktemp('data'))


@pytest.fixture(scope='module', name='chat')
def toy_chat():
  return chat_helpers.make_chat(chat_helpers.TOY, 'gog_toy')


@pytest.mark.parametrize(
    ('objects', 'more'),
    [
        (REAL, {}),
        ({**REAL, 'bbox_type': 'real', 'image_id': [0]}, {}),
        ({'ref': 'circle', 'bbox': [21, 42, 63, 84]}, {}),
        ({'ref': ['circle'], 'bbox': [[250, 500, 750, 1000]],
          'bbox_type': 'norm1000'}, {}),
        ({'ref': ['circle'], 'bbox': [[0.25, 0.5, 0.75, 1]],
          'bbox_type': 'norm1'}, {}),
        (json.dumps(REAL), {}),
        ([{'caption': 'circle', 'bbox': [21, 42, 63, 84],
           'bbox_type': 'real', 'image': 0}], {}),
        # Of the second image, which is seen at 84 x 56.
        ({'ref': ['circle'], 'bbox': [[21, 28, 63, 56]], 'image_id': 1},
         {'images': ['images/b.png', 'images/b.png']}),
    ],
)  # fmt: skip
@pytest.mark.parametrize(
    ('kind', 'wanted'),
    [
        ('thousandths', '[250,500,750,1000]'),
        ('original_pixels', None),
    ],
)
def test_boxes_of_ms_swift_are_written_in_the_policys_frame(
    folder, chat, objects, more, kind, wanted
):
  row = edited(OBJECTS, objects=objects, **more)
  if len(row['images']) == 2:
    row['messages'][0]['content'] = '<image><image>find <ref-object>'
  told = one(folder, row)
  got = encode.encode(told, chat, BoxSpec(kind=kind, min_side=1))
  second = len(row['images']) == 2
  wanted = wanted or ('[21,28,63,56]' if second else '[21,42,63,84]')
  assert got.answer == wanted
  assert 'find circle' in chat.decode(got.token_ids)
  assert '<bbox>' not in chat.decode(got.token_ids)


def test_several_boxes_are_filled_in_their_order(folder, chat):
  row = swift(
      ('user', '<image><ref-object> and <ref-object>'),
      ('assistant', '<bbox><bbox>'),
      ('user', 'and <bbox>?'),
      ('assistant', 'a <ref-object>'),
      objects={
          'ref': ['a<image>', 'b', 'c'],
          'bbox': [[0, 0, 21, 21], [21, 21, 42, 42], [42, 42, 84, 84]],
      },
  )
  spec = BoxSpec(kind='original_pixels', min_side=1)
  got = encode.encode(one(folder, row), chat, spec)
  answers = [turn.parsed.answer for turn in got.turns]
  assert answers == ['[0,0,21,21][21,21,42,42]', 'a c']
  text = chat.decode(got.token_ids)
  assert 'a<image> and b' in text and 'and [42,42,84,84]?' in text


def gazing(box, image=1, **arguments):
  arguments = {'bbox_2d': box, 'image': image, **arguments}
  return called('gaze', arguments)


def called(name, arguments):
  call = json.dumps({'name': name, 'arguments': arguments})
  return swift(
      ('user', '<image>which?'), ('tool_call', call),
      ('tool_response', 'crop'), ('assistant', 'blue'),
  )  # fmt: skip


def objects(**changes):
  return edited(OBJECTS, objects={**REAL, **changes})


REFUSED = {
    'corners swapped': (gazing([40, 40, 0, 0]), 'bad box', 'x1 < x2'),
    'empty': (gazing([4, 4, 4, 9]), 'bad box', 'x1 < x2'),
    'outside': (gazing([90, 0, 99, 9]), 'bad box', 'leaves the image'),
    'partly outside': (gazing([0, 0, 99, 9]), 'bad box', 'leaves the image'),
    'negative': (gazing([-1, 0, 9, 9]), 'bad box', 'leaves the image'),
    'fractions': (gazing([0.1, 0.1, 0.5, 1]), 'bad box', 'fraction'),
    'image 9 of 1': (gazing([0, 0, 9, 9], 9), 'bad box', 'no image 9'),
    'image 0': (gazing([0, 0, 9, 9], 0), 'bad call', 'image: 0'),
    'three numbers': (gazing([0, 0, 9]), 'bad call', 'bbox_2d'),
    'a box of words': (gazing(['0', 0, 9, 9]), 'bad call', 'bbox_2d'),
    'unknown argument': (gazing([0, 0, 9, 9], zoom=2), 'bad call', 'zoom'),
    'no query': (called('text_search', {}), 'bad call', 'query'),
    'empty query': (
        called('text_search', {'query': ' '}), 'bad call', 'query is empty'
    ),
    'long query': (
        called('text_search', {'query': 'x' * 5000}), 'bad call', 'longer'
    ),
    'arguments of a glance': (
        called('image_search', {'query': 'x'}), 'bad call', 'query'
    ),
    'video': (asked('<image><video>who?'), '<video>', '<video>'),
    'videos': (edited(videos=['a.mp4']), 'videos', "'videos'"),
    'audio': (asked('<image><audio>what?'), '<audio>', '<audio>'),
    'a part of video': (
        asked([{'type': 'video', 'video': 'a.mp4'}]), 'video', "'video'"
    ),
    'a part of audio': (
        asked([{'type': 'input_audio', 'input_audio': {}}]), 'input_audio',
        'input_audio',
    ),
    'img of qwen': (
        asked('<image><img>images/a.png</img>who?'), '<img>', 'images/a.png'
    ),
    'VIDEO': (asked('<image><VIDEO>who?'), '<VIDEO>', '<VIDEO>'),
    'audio of qwen': (
        asked('<image><|audio_bos|>what?'), '<|audio_bos|>', 'audio_bos'
    ),
    'BBOX': (asked('<image>what is in <BBOX>?'), '<BBOX>', '<BBOX>'),
    'another thought': (
        answered(content='◁think▷x◁/think▷blue'), '◁think▷', '◁think▷'
    ),
    'a rejected answer': (edited(kto_tag=False), 'rejected', 'not say'),
    'no objects': (OBJECTS, 'objects differ', '<ref-object>'),
    'objects null': (
        edited(OBJECTS, objects=None), 'objects differ', 'objects'
    ),
    'no ref': (objects(ref=[]), 'objects differ', '1 <ref-object>'),
    'two boxes': (
        objects(bbox=[[0, 0, 9, 9]] * 2), 'objects differ', '1 <bbox>'
    ),
    'objects swapped': (
        objects(bbox=[[9, 9, 0, 0]]), 'bad box', 'objects: bbox'
    ),
    'objects outside': (
        objects(bbox=[[0, 0, 85, 9]]), 'bad box', 'leaves the image'
    ),
    'unknown type': (objects(bbox_type='percent'), 'bad box', 'percent'),
    'unknown image': (objects(image_id=[4]), 'bad box', 'image_id 4'),
    'points': (objects(bbox=[[4, 5]]), 'bad box', 'four finite numbers'),
    'no known field': (
        answered(analysis='because', content=None), 'unknown field', 'analysis'
    ),
    'a field with a meaning': (
        answered(analysis='because', content='blue'), 'unknown field',
        'analysis',
    ),
    'two thoughts': (
        answered(content=SAID, reasoning='other'), 'two thoughts', 'reasoning'
    ),
    'a thought as a list': (
        answered(content='blue', reasoning=['x']), 'not text', 'reasoning'
    ),
    'a flag that is none': (
        answered(content='blue', loss='maybe'), 'bad flag', 'loss'
    ),
    'reply to nothing': (
        openai(
            function(CALL, 'x'), replies=[{'tool_call_id': 'z', 'content': ''}]
        ),
        'turn order', "tool_call_id 'z'",
    ),
    'replies to which': (
        openai(
            function(CALL, 'x'), function(SEARCH, 'y'),
            replies=[{'content': 'a'}, {'content': 'b'}],
        ),
        'turn order', 'tool_call_id None',
    ),
    'column unknown': (
        without_images(edited(shots=['images/a.png'])), 'images differ', 'shots'
    ),
}  # fmt: skip


@pytest.mark.parametrize('name', REFUSED)
def test_what_cannot_be_used_is_dropped_counted_and_named(folder, chat, name):
  row, reason, words = REFUSED[name]
  found = read(folder, row, edited(id='good'), data_box='original_pixels')
  if len(found.items) == 2:  # Known only where a model is.
    with pytest.raises(Unusable) as caught:
      spec = BoxSpec(kind='thousandths', min_side=1)
      encode.encode(found.items[0], chat, spec, data_box='original_pixels')
    error = caught.value
  else:
    assert [told.id for told in found.items] == ['good']
    (error,) = found.drops
  assert error.reason.startswith(reason) and words in str(error)
  assert '\n' not in str(error)


@pytest.mark.parametrize('form', ['tfds', 'swift'])
def test_conversion_drops_what_a_tool_would_refuse(folder, tmp_path, form):
  read(folder, edited(id='good'), *[row for row, *_ in REFUSED.values()])
  target = tmp_path / ('set' if form == 'tfds' else 'set.jsonl')
  done = convert.convert(
      folder / 'rows.jsonl', target, form=form, run=None,
      data_box='original_pixels',
  )  # fmt: skip
  reasons = {drop.reason for drop in done.drops}
  assert len(done.items) + len(done.drops) == 1 + len(REFUSED)
  assert {'bad box', 'bad call', 'videos', 'objects differ'} <= reasons

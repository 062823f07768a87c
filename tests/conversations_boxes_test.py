"""One set for every model: boxes from a teacher's frame into a policy's."""

from __future__ import annotations

import dataclasses
import json

import numpy as np
from PIL import Image
import pytest

from gog_jax import images
from gog_jax.boxes import BoxSpec
from gog_jax.chat import Chat
from gog_jax.chat import load_dialect
from gog_jax.conversations import encode
from gog_jax.conversations import layouts
from gog_jax.conversations.decode import decode
from gog_jax.conversations.layouts import LAYOUTS
from gog_jax.conversations.record import Record
from gog_jax.conversations.regions import FrameError
from gog_jax.images import ImageProcessor
from gog_jax.rollout.transcript import Transcript
from gog_jax.storage.records import Unusable
from gog_jax.tools import gaze
from gog_jax.types import StopReason
from gog_jax.types import TokenChunk
from gog_jax.types import ToolCall
from gog_jax.types import ToolResult
from gog_jax.types import Turn
from tests import conversation_helpers as helpers
from tests import tiny
from tests.chat_helpers import EXAMPLE
from tests.chat_helpers import hit
from tests.chat_helpers import TOOLS
from tests.chat_helpers import TOY

WIDTH, HEIGHT = 640, 426
SCENE = dataclasses.replace(EXAMPLE, images=(tiny.picture(WIDTH, HEIGHT, 0),))


@dataclasses.dataclass(frozen=True)
class Model:
  """How a model is asked, sees images and writes boxes."""

  chat: Chat
  box_spec: BoxSpec


def model(dialect, patch, kind, *, max_tokens=64, step=1) -> Model:
  processor = ImageProcessor(
      patch_size=patch,
      merge_size=2,
      temporal_patch_size=2,
      min_pixels=4 * (2 * patch) ** 2,
      max_pixels=max_tokens * (2 * patch) ** 2,
      image_mean=(0.5, 0.5, 0.5),
      image_std=(0.5, 0.5, 0.5),
  )
  chat = Chat(
      TOY, dialect=load_dialect(dialect), processor=processor, tools=TOOLS
  )
  return Model(chat, BoxSpec(kind=kind, min_side=2 * patch, step=step))


@pytest.fixture(scope='module', name='models')
def of_both_families_and_a_teacher():
  return {
      'qwen2_5_vl': model('gog', 14, 'resized_pixels'),
      'qwen3_vl': model('qwen3_vl_thinking', 16, 'thousandths'),
      'teacher': model('gog_remote', 14, 'thousandths', max_tokens=1024),
  }


def play(by: Model, *calls: ToolCall) -> Record:
  """Calls one after the other, with the tool's own crops, then an answer."""
  said = Transcript()
  said.append(by.chat.prompt(SCENE))

  def say(**turn):
    token_ids = by.chat.encode_turn(thought='see <image>', **turn)
    parsed = by.chat.parse(token_ids, truncated=False)
    assert parsed.format_error is None
    said.append(TokenChunk(token_ids=tuple(token_ids)), target=True)
    said.turns.append(Turn(parsed=parsed, n_sampled=len(token_ids)))

  for call in calls:
    say(calls=[call])
    result = ToolResult(hits=(hit('red <image> \ud800'),), n_searches=1)
    if call.name == 'gaze':
      view = gaze.cut(
          *gaze.region(
              call.arguments,
              said.chunk.images,
              box_spec=by.box_spec,
              seen_size=by.chat.processor.seen_size,
          )
      )
      result = dataclasses.replace(result, view=view)
    said.turns[-1] = dataclasses.replace(said.turns[-1], results=(result,))
    said.append(by.chat.observation([call], [result]))
  say(answer='132')
  return Record(
      example=SCENE,
      trajectory=said.trajectory('e', StopReason.ANSWER),
      facts={'kind': 'search'},
  )


def look(*box, image=1):
  return ToolCall(
      name='gaze', arguments={'bbox_2d': list(box), 'image': image}
  )


SEARCH = ToolCall(name='text_search', arguments={'query': 'q'})
# A region, a search, then a region of the crop: a quarter of it.
CALLS = (look(250, 250, 750, 500), SEARCH, look(500, 500, 1000, 1000, image=2))


def written(trajectory):
  """The boxes of all gazes, with the numbers of their images."""
  return [
      (call.arguments['bbox_2d'], call.arguments.get('image', 1))
      for turn in trajectory.turns
      for call in turn.parsed.calls
      if call.name == 'gaze'
  ]


def test_a_set_holds_original_pixels_of_the_root(models):
  told = decode(play(models['teacher'], *CALLS), *of(models['teacher']))
  calls = [
      json.loads(one.text) for one in told.messages if one.role == 'function'
  ]
  # 250 to 750 thousandths of 640, 250 to 500 of 426; the crop has 320 x 106
  # whole pixels from (160, 107) on.
  assert calls[0]['arguments'] == {
      'bbox_2d': [160, 106.5, 480, 213], 'image': 1
  }  # fmt: skip
  assert calls[2]['arguments'] == {
      'bbox_2d': [320, 160, 480, 213], 'image': 2
  }  # fmt: skip
  assert told.columns['box_frame'] == 'root_pixels'
  assert told.columns['answers'] == ['132']
  assert told.columns['facts'] == {'kind': 'search'}
  told.check()


def of(one: Model):
  return one.chat, one.box_spec


@pytest.mark.parametrize('name', ['qwen2_5_vl', 'qwen3_vl'])
def test_one_set_trains_both_families(models, name):
  told = decode(play(models['teacher'], *CALLS), *of(models['teacher']))
  policy = models[name]
  got = encode.encode(told, *of(policy))
  spec, seen_size = policy.box_spec, policy.chat.processor.seen_size
  seen = seen_size(WIDTH, HEIGHT)
  assert seen != (WIDTH, HEIGHT)  # Or any frame would do.
  # What a patch of the model covers, in original pixels.
  patch = max(
      policy.chat.processor.patch_size * size / side
      for size, side in zip((WIDTH, HEIGHT), seen)
  )
  wanted = [(160, 106.5, 480, 213), (320, 160, 480, 213)]
  for (box, number), want in zip(written(got), wanted, strict=True):
    view = got.images[number - 1]
    size = images.size_of(view.data)
    inner = spec.to_original(
        box, original_size=size, seen_size=seen_size(*size)
    )
    back = gaze.shifted(inner, view.box)
    assert max(abs(a - b) for a, b in zip(back, want)) < patch
  if name == 'qwen2_5_vl':  # By hand: 252 / 640 of 160, 168 / 426 of 106.5.
    assert seen == (252, 168)
    assert written(got)[0] == ([63, 42, 189, 84], 1)
  # Crops are the root's own pixels, and what a rollout of these calls shows.
  root = images.decode(SCENE.images[0])
  for view in got.images[1:]:
    assert view.root == 0
    np.testing.assert_array_equal(
        np.asarray(images.decode(view.data)),
        np.asarray(root.crop(tuple(map(round, view.box)))),
    )
  calls = [c for turn in got.turns for c in turn.parsed.calls]
  again = play(policy, *calls).trajectory
  np.testing.assert_array_equal(got.token_ids, again.token_ids)
  np.testing.assert_array_equal(got.loss_mask, again.loss_mask)
  assert (got.images, got.placements) == (again.images, again.placements)


@pytest.mark.parametrize('name', ['qwen2_5_vl', 'qwen3_vl', 'teacher'])
def test_there_and_back_is_the_same_token_by_token(models, name):
  one = models[name]
  whole = {'resized_pixels': (63, 42, 189, 84), 'thousandths': (9, 7, 333, 666)}
  record = play(
      one,
      look(*whole[one.box_spec.kind]),
      look(3, 5, 61, 57, image=2),
      look(1, 0, 50, 28, image=3),
  )
  got = encode.encode(decode(record, *of(one)), *of(one))
  want = record.trajectory
  np.testing.assert_array_equal(got.token_ids, want.token_ids)
  np.testing.assert_array_equal(got.loss_mask, want.loss_mask)
  assert (got.images, got.placements) == (want.images, want.placements)
  assert [t.parsed for t in got.turns] == [t.parsed for t in want.turns]


@pytest.mark.parametrize('layout', LAYOUTS)
def test_files_of_others_keep_all_of_it(models, layout, tmp_path):
  told = decode(play(models['teacher'], *CALLS), *of(models['teacher']))
  for picture in told.pictures:
    path = tmp_path / picture.name
    path.parent.mkdir(exist_ok=True)
    path.write_bytes(picture.data)
  row = layouts.write_row(
      told, LAYOUTS[layout], paths={p.name: p.name for p in told.pictures}
  )
  read = layouts.read_row(
      json.loads(json.dumps(row)), LAYOUTS[layout], folder=tmp_path, name=''
  )
  assert read.columns == told.columns
  want, got = (
      encode.encode(one, *of(models['qwen2_5_vl'])) for one in (told, read)
  )
  np.testing.assert_array_equal(got.token_ids, want.token_ids)
  assert got.images == want.images


@pytest.mark.parametrize(
    ('box', 'words'),
    [
        ([-1, 0, 500, 500], 'leaves the image'),
        ([0, 0, 1001, 500], r'leaves the image \[0,0,1000,1000\]'),
        ([500, 0, 400, 500], 'x1 < x2'),
    ],
)
def test_what_is_not_to_be_imitated_is_left_out(models, box, words):
  teacher = models['teacher']
  record = play(teacher, look(100, 100, 500, 500))
  (first, *turns) = record.trajectory.turns
  first = dataclasses.replace(
      first, parsed=dataclasses.replace(first.parsed, calls=(look(*box),))
  )
  trajectory = dataclasses.replace(record.trajectory, turns=(first, *turns))
  with pytest.raises(Unusable, match=words) as caught:
    decode(dataclasses.replace(record, trajectory=trajectory), *of(teacher))
  assert caught.value.reason == 'bad box'


def test_another_models_tokens_are_not_read(models):
  record = play(models['teacher'], SEARCH)
  with pytest.raises(Unusable, match='another model, dialect'):
    decode(record, *of(models['qwen2_5_vl']))


# Sets of others, which do not say what their boxes are in.


def foreign(folder, box, size=(1000, 500), **columns):
  row = helpers.sharegpt(**columns)
  call = {'name': 'gaze', 'arguments': {'bbox_2d': box}}
  row['conversations'][1]['value'] = json.dumps(call)
  path = helpers.save(folder / 'x.json', [row])
  data = images.encode_png(Image.new('RGB', size))
  (folder / 'images' / 'scene.png').write_bytes(data)
  return layouts.read_row(row, LAYOUTS['sharegpt'], folder=path.parent, name='')


@pytest.mark.parametrize(
    ('name', 'data_box', 'box', 'want'),
    [
        # 1000 x 500 pixels are seen as 308 x 140, see below.
        ('qwen2_5_vl', 'thousandths', [100, 500, 600, 1000],
         [31, 70, 185, 140]),
        ('qwen2_5_vl', 'original_pixels', [100, 250, 600, 500],
         [31, 70, 185, 140]),
        ('qwen2_5_vl', 'resized_pixels', [31, 70, 185, 140],
         [31, 70, 185, 140]),
        ('qwen3_vl', 'original_pixels', [100, 250, 600, 500],
         [100, 500, 600, 1000]),
        ('qwen3_vl', 'thousandths', [100, 500, 600, 1000],
         [100, 500, 600, 1000]),
    ],
)  # fmt: skip
def test_sets_of_others_say_their_frame(
    models, tmp_path, name, data_box, box, want
):
  policy = models[name]
  if name == 'qwen2_5_vl':
    assert policy.chat.processor.seen_size(1000, 500) == (308, 140)
  told = foreign(tmp_path, box)
  got = encode.encode(told, *of(policy), data_box=data_box)
  assert written(got) == [(want, 1)]
  # The image that they show stays the one they have.
  assert got.images[1].data == told.pictures[1].read()
  said = dataclasses.replace(
      told, columns={**told.columns, 'box_frame': data_box}
  )
  assert written(encode.encode(said, *of(policy))) == [(want, 1)]


def test_a_frame_that_is_not_known_stops_the_run(models, tmp_path):
  told = foreign(tmp_path, [1, 2, 30, 40])
  with pytest.raises(FrameError, match='sft.data_box=thousandths') as e:
    encode.encode(told, *of(models['qwen2_5_vl']))
  assert '\n' not in str(e.value)
  # How another model has resized the image cannot be known.
  with pytest.raises(FrameError, match='or resized_pixels for a model that'):
    encode.encode(told, *of(models['qwen3_vl']), data_box='resized_pixels')
  other = foreign(tmp_path, [1, 2, 30, 40], box_frame='percent')
  with pytest.raises(Unusable, match="unknown kind of box 'percent'"):
    encode.encode(other, *of(models['qwen3_vl']))


def test_boxes_that_leave_their_images_are_no_labels(models, tmp_path):
  told = foreign(tmp_path, [100, 100, 900, 600])
  with pytest.raises(Unusable, match='leaves the image') as caught:
    encode.encode(told, *of(models['qwen3_vl']), data_box='original_pixels')
  assert caught.value.reason == 'bad box'

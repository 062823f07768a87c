"""Trajectories on disk: what is read is what was written."""

import dataclasses
import json

import numpy as np
import pytest

from gog_jax.errors import UserError
from gog_jax.storage import trajectories as store
from gog_jax.types import Example
from gog_jax.types import Hit
from gog_jax.types import ParsedTurn
from gog_jax.types import Placement
from gog_jax.types import StopReason
from gog_jax.types import ToolCall
from gog_jax.types import ToolResult
from gog_jax.types import ToolStatus
from gog_jax.types import Trajectory
from gog_jax.types import Turn
from gog_jax.types import Verdict
from gog_jax.types import View

PNG = b'\x89PNG not really'
_CROP = b'\x89PNG a crop'
JPEG = b'\xff\xd8 a hit'


def make_trajectory(sample=0, seed=0):
  rng = np.random.default_rng(seed)
  root = View(data=PNG, root=0, box=(0, 0, 168, 168))
  crop = View(data=_CROP, root=0, box=(1.5, 2, 30.25, 40))
  gaze = ToolCall(
      name='gaze', arguments={'bbox_2d': [1, 2.5, 3, 4], 'image': 1}
  )
  # Lone surrogates and Unicode line ends, which a policy may well write.
  odd = ToolCall(
      name='x\u2028y', arguments={'q': 'a\ud800\x85 \u2029 "é'}, error='unknown'
  )
  hits = (
      Hit(title='t', text='one\ntwo', score=0.1, image=JPEG),
      Hit(title='', text='', score=-1e-300),
  )
  results = (
      ToolResult(
          status=ToolStatus.OK,
          hits=hits,
          view=crop,
          n_searches=1,
          latency_s=0.123456789,
          price=1e-4,
      ),
      ToolResult(status=ToolStatus.INFRA_ERROR, error='down'),
  )
  turns = (
      Turn(
          parsed=ParsedTurn(text='raw', thought='hm', calls=(gaze, odd)),
          results=results,
          n_sampled=7,
      ),
      Turn(parsed=ParsedTurn(text='', answer='é', format_error='bad')),
  )
  logprobs = -rng.exponential(size=50).astype(np.float32)
  logprobs[:3] = [0, np.float32(-1e-45), np.finfo(np.float32).min]
  return Trajectory(
      example_id='e',
      sample=sample,
      token_ids=rng.integers(0, 2**31 - 1, 50).astype(np.int32),
      loss_mask=rng.integers(0, 2, 50).astype(np.int8),
      sampler_logprobs=logprobs,
      images=(root, crop),
      placements=(
          Placement(start=3, image=0, grid=(1, 6, 6), n_tokens=9),
          Placement(start=30, image=1, grid=(1, 2, 4), n_tokens=2),
      ),
      turns=turns,
      stop_reason=StopReason.ANSWER,
      answer='é',
      seconds={'sample': 0.1, 'tools': 1 / 3},
      reward=0.1 + 0.2,
      reward_parts={'accuracy': 1.0, 'format': 0.0},
      verdict=Verdict(right=None, by='judge', error='down'),
      usage={'prompt_tokens': 3, 'price': 0.1},
  )


def bare():
  empty = np.zeros(0)
  return Trajectory(
      example_id='bare',
      sample=3,
      token_ids=empty.astype(np.int32),
      loss_mask=empty.astype(np.int8),
      sampler_logprobs=empty.astype(np.float32),
      images=(),
      placements=(),
      turns=(),
      stop_reason=StopReason.LENGTH,
  )


def assert_same(got, want):
  assert type(got) is type(want)
  for field in dataclasses.fields(Trajectory):
    left, right = getattr(got, field.name), getattr(want, field.name)
    if isinstance(right, np.ndarray):
      assert left.dtype == right.dtype, field.name
      assert left.tobytes() == right.tobytes(), field.name
    else:
      assert left == right, field.name
      assert type(left) is type(right), field.name


def test_round_trip_is_lossless_field_by_field(tmp_path):
  path = tmp_path / 'deep' / 'trajectories.jsonl'
  written = [make_trajectory(0, 1), bare(), make_trajectory(1, 2)]
  store.write(path, written)
  read = store.read(path, Trajectory)
  assert len(read) == 3
  for got, want in zip(read, written):
    assert_same(got, want)
  assert read[0].turns[0].results[0].status is ToolStatus.OK
  assert read[0].stop_reason is StopReason.ANSWER
  assert read[1].reward is None


def test_items_are_read_by_number_and_the_last_line_of_each_counts(tmp_path):
  path = tmp_path / 't.jsonl'
  store.write(path, [make_trajectory(i) for i in range(3)])
  lines = _lines(path)
  changed = lines[1].replace('"sample":1', '"sample":9')
  path.write_text(''.join([lines[2], lines[1], lines[0], changed]))
  assert [t.sample for t in store.read(path, Trajectory)] == [0, 9, 2]
  # Files of earlier versions number nothing: lines stand in their order.
  older = [
      line.replace(f'"item":{{"index":{i}}},', '')
      for i, line in enumerate(lines)
  ]
  assert '"item"' not in ''.join(older)
  path.write_text(''.join([older[2], older[0]]))
  assert [t.sample for t in store.read(path, Trajectory)] == [2, 0]


def test_images_are_stored_once_by_content_and_format(tmp_path):
  store.write(tmp_path / 't.jsonl', [make_trajectory(i) for i in range(4)])
  names = sorted(path.name for path in (tmp_path / 'images').iterdir())
  assert len(names) == 3
  assert sum(name.endswith('.jpg') for name in names) == 1
  assert {p.read_bytes() for p in (tmp_path / 'images').iterdir()} == {
      PNG, _CROP, JPEG,
  }


def test_examples_round_trip_beside_their_trajectories(tmp_path):
  examples = [
      Example(
          id='a',
          images=(PNG, JPEG),
          question='who\u2028? \ud800',
          answers=('x', 'y'),
          source='world',
          scope='world/1/test/0',
          search_required=True,
          gold_regions=((1.0, 2.5, 3.0, 4.0),),
          hops=2,
      ),
      Example(
          id='b', images=(), question='', answers=('z',), source='', scope=''
      ),
  ]
  store.write(tmp_path / 't.jsonl', [bare()], examples)
  assert store.read(tmp_path / 'examples.jsonl', Example) == examples


def test_write_replaces_a_file_whole(tmp_path):
  path = tmp_path / 't.jsonl'
  store.write(path, [make_trajectory(), bare()])

  def fails_midway():
    yield make_trajectory()
    raise RuntimeError

  with pytest.raises(RuntimeError):
    store.write(path, fails_midway())
  assert len(store.read(path, Trajectory)) == 2
  assert not list(tmp_path.rglob('*.partial'))


def _lines(path):
  return path.read_text().splitlines(keepends=True)


@pytest.mark.parametrize(
    ('damage', 'words'),
    [
        (lambda lines: [lines[0], lines[1][:-9]], 'line 2, is cut off'),
        (lambda lines: [lines[0][:40] + '\n', lines[1]], 'line 1, is not JSON'),
        (
            lambda lines: [
                lines[0], lines[1].replace('"version":1', '"version":7')
            ],
            'line 2, has version 7',
        ),
        (lambda lines: [lines[0], '[]\n'], 'line 2, has version None'),
        (lambda lines: ['{"version":1}\n', lines[1]], 'line 1, is damaged'),
        (
            lambda lines: [
                lines[0].replace('"loss_mask":[', '"loss_mask":[0,'), lines[1]
            ],
            'line 1, is damaged .*differ in size',
        ),
        (
            lambda lines: [lines[0].replace('"answer"', '"ansvver"'), lines[1]],
            'line 1, is damaged',
        ),
    ],
)
def test_damage_is_named_by_file_and_line(tmp_path, damage, words):
  path = tmp_path / 't.jsonl'
  store.write(path, [make_trajectory(), bare()])
  path.write_text(''.join(damage(_lines(path))))
  with pytest.raises(UserError, match=words) as caught:
    store.read(path, Trajectory)
  assert str(path) in str(caught.value)
  assert '\n' not in str(caught.value)


@pytest.mark.parametrize('damage', ['missing', 'changed'])
def test_a_missing_or_changed_image_is_named(tmp_path, damage):
  path = tmp_path / 't.jsonl'
  store.write(path, [bare(), make_trajectory()])
  image = next((tmp_path / 'images').glob('*.jpg'))
  if damage == 'missing':
    image.unlink()
  else:
    image.write_bytes(JPEG + b'!')
  with pytest.raises(UserError, match='line 2') as caught:
    store.read(path, Trajectory)
  assert image.name in str(caught.value)


def test_missing_file_and_unwritable_folder(tmp_path):
  with pytest.raises(UserError, match='does not exist'):
    store.read(tmp_path / 'none.jsonl', Trajectory)
  (tmp_path / 'file').write_text('')
  with pytest.raises(UserError, match='cannot write'):
    store.write(tmp_path / 'file' / 't.jsonl', [make_trajectory()])



def test_a_line_is_plain_json_that_others_can_read(tmp_path):
  store.write(tmp_path / 't.jsonl', [make_trajectory()])
  row = json.loads((tmp_path / 't.jsonl').read_text())
  assert row['turns'][0]['parsed']['calls'][0]['name'] == 'gaze'
  assert row['turns'][0]['results'][0]['status'] == 'ok'
  assert row['images'][0]['data'].startswith('images/')

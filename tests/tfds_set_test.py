"""A TFDS set of conversations: bit for bit, whole or absent, through Grain."""

from __future__ import annotations

import hashlib
import itertools
import json
import pathlib
import shutil

from PIL import Image
import pytest

from gog_jax import images
from gog_jax.conversations import tfds_set
from gog_jax.conversations.messages import Conversation
from gog_jax.conversations.messages import IMAGE
from gog_jax.conversations.messages import Message
from gog_jax.conversations.messages import Picture
from gog_jax.conversations.messages import Role
from gog_jax.errors import UserError
from gog_jax.train.pipeline import endless_batches
from tests import tiny
from tests.world_helpers import stdout_of

FACTS = {'kind': 'no_search', 'share': 0.1, 'notes': [None, 'é\ud800', 1]}
IMAGES = (
    tiny.picture(9, 7, 0),
    images.encode_jpeg(Image.new('RGB', (8, 8), 'red')),
)


def conversation(i: int) -> Conversation:
  shown = [IMAGES[n % 2] for n in range(i % 4)]  # Some of them twice.
  messages = [
      Message(role=Role.USER, text=IMAGE * len(shown) + 'who\u2028? \ud800'),
      Message(role=Role.ASSISTANT, text=f'{i}', extra={'loss': i % 2 == 0}),
  ]
  return Conversation(
      id=f'e{i}',
      messages=tuple(messages),
      pictures=tuple(
          Picture(name=f'images/{n}.png', data=data)
          for n, data in enumerate(shown)
      ),
      # A row of others may have no id but that of its place.
      columns={'facts': FACTS} | ({'id': f'e{i}'} if i % 2 else {}),
  )


SET = [conversation(i) for i in range(23)]


def digests(folder: pathlib.Path) -> dict[str, str]:
  return {
      str(path.relative_to(folder)): hashlib.sha256(
          path.read_bytes()
      ).hexdigest()
      for path in sorted(folder.rglob('*'))
      if path.is_file()
  }


@pytest.fixture(scope='module', name='folder')
def written(tmp_path_factory) -> pathlib.Path:
  folder = tmp_path_factory.mktemp('set')
  tfds_set.write(folder, SET, description='A set.', card='# Card\nof it')
  return folder


def test_records_come_back_bit_for_bit_and_in_order(folder):
  read = tfds_set.load(folder)
  assert len(read) == 23
  assert list(read) == SET
  assert read[-1] == SET[22]
  assert [one.id for one in read[1:3]] == ['e1', 'e2']
  with pytest.raises(IndexError):
    read[23]


def test_it_lies_where_tfds_looks_and_says_what_it_is(folder):
  path = folder / 'gog_instruct' / '2.0.0'
  assert (path / 'README.md').read_text() == '# Card\nof it\n'
  info = json.loads((path / 'dataset_info.json').read_text())
  assert info['description'] == 'A set.' and info['version'] == '2.0.0'
  assert info['fileFormat'] == 'array_record'
  assert list(path.glob('*.array_record-*'))
  assert not list(folder.glob('.*'))
  assert tfds_set.find(path) == path


def test_the_same_records_make_the_same_files(folder, tmp_path):
  tfds_set.write(tmp_path, SET, description='A set.', card='# Card\nof it')
  assert digests(tmp_path) == digests(folder)


def test_one_that_fails_half_way_leaves_the_old_one(tmp_path):
  tfds_set.write(tmp_path, SET[:3], description='old')
  before = digests(tmp_path)

  class Failing(list):

    def __getitem__(self, index):
      if index == 20:
        raise RuntimeError('killed')
      return super().__getitem__(index)

  for _ in range(2):  # The second finds what the first left.
    with pytest.raises(RuntimeError):
      tfds_set.write(tmp_path, Failing(SET), description='new')
    assert len(tfds_set.load(tmp_path)) == 3
  kept = {
      name: digest
      for name, digest in digests(tmp_path).items()
      if not name.startswith('.')
  }
  assert kept == before
  tfds_set.write(tmp_path, SET, description='new')
  assert len(tfds_set.load(tmp_path)) == 23
  assert not list(tmp_path.glob('.*'))


def test_what_a_user_can_mend_is_said_in_one_line(tmp_path, folder):
  with pytest.raises(UserError, match='holds no training data: name a'):
    tfds_set.load(tmp_path)
  with pytest.raises(UserError, match="no split 'test', only train"):
    tfds_set.load(folder, 'test')
  (tmp_path / 'file').write_text('')
  with pytest.raises(UserError, match='cannot write'):
    tfds_set.write(tmp_path / 'file', SET, description='')


def test_a_set_of_the_layout_before_gets_one_line(folder, tmp_path):
  shutil.copytree(folder, tmp_path / 'old')
  path = tmp_path / 'old' / 'gog_instruct'
  (path / '2.0.0').rename(path / '1.0.0')
  features = path / '1.0.0' / 'features.json'
  features.write_text(features.read_text().replace('messages', 'trajectory'))
  with pytest.raises(UserError, match='layout 1.0.0, .*make the set ag') as e:
    tfds_set.load(tmp_path / 'old')
  assert '\n' not in str(e.value)


def test_a_damaged_record_is_named(tmp_path):
  path = tfds_set.write(tmp_path, SET, description='')
  (data,) = path.glob('*.array_record-*')
  content = bytearray(data.read_bytes())
  content[len(content) // 2] ^= 0xFF
  data.write_bytes(content)
  with pytest.raises(UserError, match='record .* is damaged') as caught:
    list(tfds_set.load(tmp_path))
  assert '\n' not in str(caught.value)


def test_it_needs_neither_tensorflow_nor_torch(tmp_path):
  script = f"""
import sys
from tests import tfds_set_test
from gog_jax.conversations import tfds_set
tfds_set.write({str(tmp_path)!r}, tfds_set_test.SET, description='d')
len(list(tfds_set.load({str(tmp_path)!r})))
print(sorted({{'tensorflow', 'torch'}} & set(sys.modules)))
"""
  assert stdout_of(script).splitlines()[-1] == '[]'


# Through Grain.


def drawn(iterator, n):
  return [[one.id for one in batch] for batch in itertools.islice(iterator, n)]


def test_workers_keep_the_order_and_resume_in_the_middle(folder):
  items = tfds_set.load(folder)

  def batches(**options):
    return endless_batches(items, batch_size=6, seed=5, **options)

  alone = batches()
  want = drawn(alone, 4)
  state = json.loads(json.dumps(alone.get_state()))
  want += drawn(alone, 5)
  resumed = batches()
  resumed.set_state(state)
  assert drawn(resumed, 5) == want[4:]

  iterator = batches(workers=2)
  assert drawn(iterator, 4) == want[:4]
  state = json.loads(json.dumps(iterator.get_state()))
  drawn(iterator, 2)
  iterator.set_state(state)
  assert drawn(iterator, 5) == want[4:]
  iterator.close()
  for other in ({'workers': 3}, {}, {'workers': 1}):
    fresh = batches(**other)
    with pytest.raises(UserError, match='saved with 2 data workers') as caught:
      fresh.set_state(state)
    assert '\n' not in str(caught.value)
    fresh.close()

"""A local index on disk: rebuilt in part, replaced whole, damage seen."""

from __future__ import annotations

import json
import os
import pathlib
import shutil
import subprocess
import sys

import filelock
import pytest

from gog_jax import interrupt
from gog_jax.errors import UserError
from gog_jax.index import chunks
from gog_jax.index import descriptor
from gog_jax.index import features
from gog_jax.index import text_index
from gog_jax.index.backend import LocalIndex
from gog_jax.index.build import build
from tests.index_helpers import encoded
from tests.index_helpers import picture
from tests.index_helpers import ROOT
from tests.index_helpers import ThreeColours
from tests.index_helpers import write_docs
from tests.index_helpers import write_images

FEATURES = 'parts/features/*/*.safetensors'


@pytest.fixture(name='made')
def user_with_an_index(tmp_path):
  """(index, documents, images) of a small collection, built."""
  images = write_images(tmp_path / 'im', {f'{i}.png': i for i in range(5)})
  docs = write_docs(
      tmp_path / 'c.jsonl',
      {'id': 'a', 'title': 'Alpha', 'text': 'first words', 'image': '1.png'},
      {'id': 'b', 'title': 'Beta', 'text': 'other words'},
  )
  index = tmp_path / 'ix'
  build(str(index), docs=docs, images=str(images))
  return index, docs, images


@pytest.fixture(name='extracted')
def count_extractions(monkeypatch):
  """Sizes of the pictures whose features were computed, as it happens."""
  seen = []
  extract = descriptor.extract
  monkeypatch.setattr(
      descriptor, 'extract', lambda image: seen.append(1) or extract(image)
  )
  return seen


def again(made):
  index, docs, images = made
  return build(str(index), docs=str(docs), images=str(images))


def contents(folder: pathlib.Path) -> dict[str, bytes]:
  return {
      str(p.relative_to(folder)): p.read_bytes()
      for p in folder.rglob('*')
      if p.is_file()
  }


def test_nothing_changed_nothing_done(made, extracted):
  before = contents(made[0])
  summary = again(made)
  assert not summary.rebuilt and not extracted
  assert 'up to date, 2 documents, 5 images' in str(summary)
  assert contents(made[0]) == before


def test_only_what_changed_is_done(made, extracted):
  index, _, images = made
  first = LocalIndex(str(index)).version
  write_images(images, {'new.png': 50, '2.png': 51})
  (images / '3.png').unlink()
  summary = again(made)
  assert len(extracted) == 2 and summary.n_images == 5
  opened = LocalIndex(str(index))
  assert opened.version != first
  for seed, name in ((50, 'new.png'), (51, '2.png'), (0, '0.png')):
    assert opened.image(encoded(picture(seed)), 1)[0][0]['id'] == name
  assert opened.image(encoded(picture(3)), 1)[0][1].score < 0.5


def test_texts_are_kept_when_only_images_change(made, monkeypatch):
  index, docs, images = made
  write_images(images, {'new.png': 50})
  with monkeypatch.context() as patch:
    patch.setattr(text_index, 'build', None)  # Not called.
    assert again(made).rebuilt
  assert LocalIndex(str(index)).text('alpha', 1)[0][0]['id'] == 'a'
  with open(docs, 'a') as f:
    f.write('{"id":"c","text":"omega"}\n')
  again(made)
  assert LocalIndex(str(index)).text('omega', 1)[0][0]['id'] == 'c'


def test_a_renamed_image_is_not_done_again(made, extracted):
  index, _, images = made
  (images / '4.png').rename(images / 'four.png')
  again(made)
  assert not extracted
  found = LocalIndex(str(index)).image(encoded(picture(4)), 1)
  assert found[0][0]['title'] == 'four'


def test_equal_files_share_features(tmp_path, extracted):
  images = write_images(tmp_path / 'im', {'a.png': 1, 'b.png': 1})
  build(str(tmp_path / 'ix'), images=str(images))
  found = LocalIndex(str(tmp_path / 'ix')).image(encoded(picture(1)), 5)
  assert [p['id'] for p, _ in found] == ['a.png', 'b.png']
  (_, one), (_, other) = found
  assert one.score == other.score and len(extracted) == 2  # And the query.


def test_mostly_unused_chunks_go(made, extracted):
  index, _, images = made
  for name in ('0.png', '2.png', '3.png'):
    (images / name).unlink()
  [old] = index.glob(FEATURES)
  again(made)
  [new] = index.glob(FEATURES)
  assert new != old and len(extracted) == 2
  assert not again(made).rebuilt and len(extracted) == 2


def test_the_version_follows_the_inputs_alone(made, tmp_path, monkeypatch):
  index, docs, images = made
  version = again(made).version
  fresh = build(str(tmp_path / 'fresh'), docs=docs, images=str(images))
  assert fresh.version == version
  os.utime(images / '1.png', (1, 1))
  (images / 'notes.md').write_text('no image')
  assert again(made).version == version

  seen = {version}
  (images / '2.txt').write_text('a caption')
  seen.add(again(made).version)
  with open(docs, 'a') as f:
    f.write('{"id":"c","text":"more"}\n')
  seen.add(again(made).version)
  write_images(images, {'0.png': 9})
  seen.add(again(made).version)
  encoder = ThreeColours()
  added = build(str(index), docs=docs, images=str(images), encoder=encoder)
  seen.add(added.version)
  monkeypatch.setattr(descriptor, 'VERSION', 'other')
  seen.add(again(made).version)
  assert len(seen) == 6 and all(len(v) == 16 for v in seen)


def test_incremental_and_fresh_give_the_same_answers(made, tmp_path):
  index, docs, images = made
  write_images(images, {'00.png': 70, '9.png': 71})
  again(made)
  build(str(tmp_path / 'fresh'), docs=docs, images=str(images))
  query = encoded(picture(70).crop((10, 10, 100, 80)), 'JPEG', quality=50)
  one = LocalIndex(str(index)).image(query, 10)
  other = LocalIndex(str(tmp_path / 'fresh')).image(query, 10)
  assert one == other and one[0][0]['id'] == '00.png'


def test_an_open_index_outlives_its_replacement(made):
  index, docs, images = made
  old = LocalIndex(str(index))
  write_images(images, {f'{i}.png': 100 + i for i in range(5)})
  write_docs(pathlib.Path(docs), {'id': 'z', 'title': 'Zeta', 'text': 'omega'})
  again(made)
  assert len(list(index.glob('parts/texts-*'))) == 1
  assert old.text('alpha', 1)[0][0]['id'] == 'a'
  [(found, hit)] = old.image(encoded(picture(1)), 1)
  assert found['link'] == 'a' and hit.image[:2] == b'\xff\xd8'
  assert LocalIndex(str(index)).text('omega', 1)[0][0]['id'] == 'z'


def _cut(path):
  path.write_bytes(path.read_bytes()[:-7])


def _flip(path):
  data = bytearray(path.read_bytes())
  data[len(data) // 2] ^= 255
  path.write_bytes(data)


@pytest.mark.parametrize('harm', [_cut, _flip, pathlib.Path.unlink])
@pytest.mark.parametrize(
    'which',
    [
        'manifest.json',
        'parts/images-*/pictures.jsonl',
        'parts/images-*/local.faiss',
        'parts/texts-*/documents.jsonl',
        'parts/texts-*/vocab.index.json',
        FEATURES,
    ],
)
def test_damage_is_one_line_and_mended(made, which, harm):
  index, _, _ = made
  version = LocalIndex(str(index)).version
  [path] = index.glob(which)
  whole = path.read_bytes()
  harm(path)
  with pytest.raises(UserError) as error:
    LocalIndex(str(index))
  assert '\n' not in str(error.value)
  assert 'configs/index.py' in str(error.value)
  again(made)
  if which == FEATURES:
    assert path.read_bytes() == whole
  opened = LocalIndex(str(index))
  assert opened.version == version
  assert opened.image(encoded(picture(2)), 1)[0][0]['id'] == '2.png'


def test_another_format_is_refused(made):
  path = made[0] / 'manifest.json'
  row = json.loads(path.read_text())
  path.write_text(json.dumps(row | {'format': 99}))
  with pytest.raises(UserError, match='format must be one of 2, not 99'):
    LocalIndex(str(made[0]))


def test_nothing_there_is_said(tmp_path):
  with pytest.raises(UserError, match='there is no index.*--config.index='):
    LocalIndex(str(tmp_path))


def test_a_second_build_is_refused(made):
  with filelock.FileLock(made[0] / 'index.lock'):
    with pytest.raises(UserError, match='being built by another process'):
      again(made)
  assert not again(made).rebuilt


def test_an_interrupted_build_goes_on(made, extracted, monkeypatch):
  index, _, images = made
  before = LocalIndex(str(index)).version
  monkeypatch.setattr(chunks, 'SIZE', 4)
  write_images(images, {f'more{i}.png': 200 + i for i in range(10)})

  def stop_after_the_first_chunk():
    if extracted:
      raise interrupt.Interrupted(2)

  monkeypatch.setattr(interrupt, 'check', stop_after_the_first_chunk)
  with pytest.raises(interrupt.Interrupted):
    again(made)
  assert len(extracted) == 4
  assert LocalIndex(str(index)).version == before
  monkeypatch.setattr(interrupt, 'check', lambda: None)
  assert again(made).n_images == 15 and len(extracted) == 10


def test_the_encoder_must_be_the_same(made):
  index, docs, images = made
  build(str(index), docs=docs, images=str(images), encoder=ThreeColours())
  with pytest.raises(UserError, match='built with three-1 encoder.*none'):
    LocalIndex(str(index))
  LocalIndex(str(index), ThreeColours())


def test_other_peoples_files_stay(made):
  index, _, images = made
  (index / 'notes.txt').write_text('mine')
  (index / 'texts-mine').mkdir()
  write_images(images, {'0.png': 9})
  again(made)
  assert (index / 'notes.txt').exists() and (index / 'texts-mine').exists()


def test_the_command(made):
  index, docs, images = made
  shutil.rmtree(index)

  done = subprocess.run(
      [
          sys.executable, '-m', 'gog_jax.main', '--config=configs/index.py',
          f'--config.index={index}', f'--config.docs={docs}',
          f'--config.images={images}',
      ],
      cwd=ROOT, capture_output=True, text=True,
  )  # fmt: skip
  assert done.returncode == 0, done.stderr
  assert 'built, 2 documents, 5 images' in done.stdout


def test_chunks_hold_what_features_were(tmp_path):
  image = picture(1)
  images = write_images(tmp_path / 'im', {'a.png': 1})
  written = features.extract(tmp_path, images, ['a.png'], None)
  found = features.load(written.local, written.keys['a.png'])
  expected = descriptor.extract(image)
  assert [*found.frame] == [*expected.frame] == [320, 240]
  assert (found.descriptors == expected.descriptors).all()
  assert (found.keypoints == expected.keypoints).all()
  assert (found.colours == expected.colours).all()


@pytest.mark.parametrize(
    'name', ['photo.jpg', 'parts', 'manifest.json', 'a/b']
)
def test_a_folder_of_other_things_is_left_alone(tmp_path, name):
  docs = write_docs(tmp_path / 'c.jsonl', {'id': 1, 'text': 'a'})
  path = tmp_path / 'mine' / name
  path.parent.mkdir(parents=True)
  path.write_text('{"name": "another program"}')
  with pytest.raises(UserError, match='holds other things than an index'):
    build(str(tmp_path / 'mine'), docs=docs)
  assert path.read_text() == '{"name": "another program"}'
  assert {p.name for p in (tmp_path / 'mine').iterdir()} == {name.split('/')[0]}


def test_all_images_do_not_vanish_for_a_flag_forgotten(tmp_path):
  docs = write_docs(tmp_path / 'c.jsonl', {'id': 1, 'text': 'a'})
  images = write_images(tmp_path / 'im', {'1.png': 1})
  index = str(tmp_path / 'ix')
  made = build(index, docs=docs, images=str(images))
  (tmp_path / 'empty').mkdir()
  for more in ({}, {'images': str(tmp_path / 'empty')}):
    with pytest.raises(UserError, match='holds images, and now there are no'):
      build(index, docs=docs, **more)
  with pytest.raises(UserError, match='holds documents, and now'):
    build(index, images=str(images))
  assert not build(index, docs=docs, images=str(images)).rebuilt
  assert LocalIndex(index).version == f'index/{made.version}'


def test_a_place_that_cannot_be_written_is_one_line(tmp_path):
  docs = write_docs(tmp_path / 'c.jsonl', {'id': 1, 'text': 'a'})
  for place in (docs, f'{docs}/below'):
    with pytest.raises(UserError, match='give .* --config.index') as caught:
      build(place, docs=docs)
    assert '\n' not in str(caught.value)

"""The image encoder: batches, versions, shards, and folders that are no good.

Its numbers are compared with Hugging Face's in index_encoder_parity_test.py.
"""

from __future__ import annotations

import jax
import numpy as np
from PIL import Image
import pytest
import safetensors.numpy

from gog_jax.index.encoder import Encoder
from tests import index_encoder_helpers as tiny

FAMILIES = ('clip', 'siglip')
FC1 = 'vision_model.encoder.layers.1.mlp.fc1.weight'


@pytest.fixture(scope='module', params=FAMILIES)
def family(request):
  return request.param


@pytest.fixture(scope='module')
def encoder(family, tmp_path_factory):
  folder = tiny.write(tmp_path_factory.mktemp('encoder') / family, family)
  return Encoder(folder, batch_size=4)


def test_vectors_are_of_unit_length(encoder, family):
  vectors = encoder.encode(tiny.pictures())
  assert vectors.dtype == np.float32
  assert encoder.width == {'clip': 24, 'siglip': 32}[family]
  assert vectors.shape == (7, encoder.width)
  np.testing.assert_allclose(np.linalg.norm(vectors, axis=1), 1, atol=1e-6)


def test_the_batch_a_picture_is_in_changes_nothing(encoder):
  pictures = tiny.pictures()
  together = encoder.encode(pictures)  # 4 and 3 of 4.
  alone = np.concatenate([encoder.encode([one]) for one in pictures])
  np.testing.assert_allclose(alone, together, rtol=0, atol=1e-6)
  # The same rows of the same program: bit by bit.
  np.testing.assert_array_equal(encoder.encode(pictures[:2]), together[:2])
  np.testing.assert_array_equal(encoder.encode(pictures[4:6]), together[4:6])


def test_nothing_compiles_after_the_first_batch(tmp_path):
  compiled = []
  jax.monitoring.register_event_duration_secs_listener(
      lambda name, seconds, **_: compiled.append(name)
  )
  folder = tiny.write(tmp_path / 'clip', 'clip')
  encoder = Encoder(folder, batch_size=3)
  compiled.clear()
  encoder.encode([tiny.picture(20, 30)])
  assert [name for name in compiled if 'compile' in name]
  compiled.clear()
  for count in (1, 2, 3, 8):
    encoder.encode([tiny.picture(20 + i, 30) for i in range(count)])
  assert not [name for name in compiled if 'compile' in name]


def test_no_pictures(encoder):
  vectors = encoder.encode([])
  assert vectors.shape == (0, encoder.width)
  assert vectors.dtype == np.float32


def test_transparency_is_white(encoder):
  clear = Image.new('RGBA', (40, 30), (200, 0, 0, 0))
  white = Image.new('RGB', (40, 30), 'white')
  vectors = encoder.encode([clear, white])
  np.testing.assert_allclose(vectors[0], vectors[1], rtol=0, atol=1e-6)


@pytest.fixture
def folder(family, tmp_path):
  return tiny.write(tmp_path / family, family)


def version(folder):
  return Encoder(folder).version


def test_version(folder, family):
  first = version(folder)
  assert first.startswith(f'{family}/') and len(first) == len(family) + 17
  assert int(first.split('/')[1], 16)
  seen = {first}
  # What the vectors do not depend on does not count.
  weights = tiny.tensors(family)
  weights['text_model.embeddings.token_embedding.weight'] += 1
  tiny.write(folder, family, weights=weights)
  (folder / 'tokenizer.json').write_text('{}')
  assert version(folder) == first
  # A single number, wherever it is in the file.
  weights[FC1][-1, -1] += 1e-3
  tiny.write(folder, family, weights=weights)
  seen.add(version(folder))
  tiny.edit(
      folder / 'config.json',
      lambda raw: raw['vision_config'].update(layer_norm_eps=1e-3),
  )
  seen.add(version(folder))
  tiny.edit(
      folder / 'preprocessor_config.json', lambda raw: raw.update(resample=2)
  )
  seen.add(version(folder))
  assert len(seen) == 4


def test_siglip_has_no_projection(tmp_path):
  folder = tiny.write(tmp_path / 'siglip', 'siglip')
  first = version(folder)
  tiny.edit(
      folder / 'config.json', lambda raw: raw.update(projection_dim=None)
  )
  assert version(folder) == first


def test_the_batch_size_is_not_part_of_the_version(folder):
  other = Encoder(folder, batch_size=3)
  assert other.version == version(folder)


def test_shards(folder, family, encoder):
  weights = tiny.tensors(family)
  names = sorted(weights)
  shards = {'a.safetensors': names[::2], 'b.safetensors': names[1::2]}
  (folder / 'model.safetensors').unlink()
  for shard, keys in shards.items():
    data = safetensors.numpy.save({key: weights[key] for key in keys})
    (folder / shard).write_bytes(data)
  weight_map = {key: shard for shard, keys in shards.items() for key in keys}
  index = folder / 'model.safetensors.index.json'
  tiny.write_json(index, {'weight_map': weight_map})
  assert version(folder) == encoder.version
  (folder / 'b.safetensors').unlink()
  tiny.expect(folder, 'lacks the shard b.safetensors')


def test_half_precision(folder, family, encoder):
  weights = {k: x.astype(np.float16) for k, x in tiny.tensors(family).items()}
  tiny.write(folder, family, weights=weights)
  pictures = tiny.pictures()
  actual = Encoder(folder).encode(pictures)
  np.testing.assert_allclose(actual, encoder.encode(pictures), atol=0.01)


def test_position_ids_of_older_folders(folder, family, encoder):
  weights = tiny.tensors(family)
  ids = np.arange(9 + (family == 'clip'))[None]
  weights['vision_model.embeddings.position_ids'] = ids
  tiny.write(folder, family, weights=weights)
  assert version(folder) == encoder.version


def test_without_preprocessing_the_familys(folder, encoder):
  (folder / 'preprocessor_config.json').unlink()
  assert version(folder) == encoder.version


def test_all_processors_in_one_file(folder, family, encoder):
  (folder / 'preprocessor_config.json').write_text('{"size": 7}')
  processor = tiny.PREPROCESSORS[family]
  path = folder / 'processor_config.json'
  tiny.write_json(path, {'image_processor': processor, 'tokenizer': 1})
  assert version(folder) == encoder.version
  tiny.write_json(path, {'processor_class': 'CLIPProcessor'})
  tiny.expect(folder, 'preprocessor_config.json', 'makes pictures of a size')

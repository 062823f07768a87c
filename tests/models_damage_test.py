"""Damaged weights: what is wrong is said with the tensor and the file."""

from __future__ import annotations

import json
import struct

import ml_dtypes
import numpy as np
import pytest
import safetensors.numpy

from gog_jax import errors
from gog_jax import models
from gog_jax.models import sharding
from tests import helpers

NORM = 'model.norm.weight'


@pytest.fixture
def folder(tmp_path):
  """A model in several shards."""
  models.save_pretrained(
      helpers.tiny_model(helpers.tiny_config()),
      tmp_path,
      max_shard_bytes=60_000,
  )
  assert len(list(tmp_path.glob('*.safetensors'))) > 3
  return tmp_path


def weight_map(folder):
  text = (folder / 'model.safetensors.index.json').read_text()
  return json.loads(text)['weight_map']


def shard_of(folder, key):
  return folder / weight_map(folder)[key]


def edit(path, change):
  tensors = safetensors.numpy.load(path.read_bytes())
  change(tensors)
  path.write_bytes(safetensors.numpy.save(tensors))


def edit_map(folder, change):
  path = folder / 'model.safetensors.index.json'
  index = json.loads(path.read_text())
  change(index['weight_map'])
  path.write_text(json.dumps(index))


def edit_header(path, change):
  data = path.read_bytes()
  end = 8 + struct.unpack('<Q', data[:8])[0]
  header = json.loads(data[8:end])
  change(header)
  text = json.dumps(header).encode()
  path.write_bytes(struct.pack('<Q', len(text)) + text + data[end:])


def expect(folder, *words):
  with pytest.raises(errors.UserError) as raised:
    models.from_pretrained(folder)
  for word in words:
    assert word in str(raised.value)
  assert '\n' not in str(raised.value)


def test_missing_shard(folder):
  path = shard_of(folder, NORM)
  alone = {NORM}
  edit_map(folder, lambda names: [
      names.pop(key)
      for key, name in list(names.items())
      if name == path.name and key not in alone
  ])
  path.unlink()
  expect(folder, f'lacks the shard {path.name}', NORM)


def test_index_points_at_a_shard_without_the_tensor(folder):
  path = shard_of(folder, NORM)
  edit(path, lambda tensors: tensors.pop(NORM))
  expect(folder, str(path), f'differ in {NORM}')


def test_tensor_in_two_shards(folder):
  other = shard_of(folder, 'visual.blocks.0.attn.proj.bias')
  assert other != shard_of(folder, NORM)
  edit(other, lambda tensors: tensors.update({NORM: np.ones(64, np.float32)}))
  expect(folder, str(other), NORM)


def test_tensor_under_both_of_its_names(folder):
  path = shard_of(folder, NORM)
  twin = 'model.language_model.norm.weight'
  edit(path, lambda tensors: tensors.update({twin: tensors[NORM]}))
  edit_map(folder, lambda names: names.update({twin: path.name}))
  expect(folder, str(path), NORM, twin)


def test_misshapen(folder):
  path = shard_of(folder, NORM)
  edit(path, lambda tensors: tensors.update({NORM: np.ones(63, np.float32)}))
  expect(folder, f'{path}: {NORM} has shape [63]', '[64]')


@pytest.mark.parametrize(
    ('dtype', 'name'),
    [(np.int8, 'I8'), (ml_dtypes.float8_e4m3fn, 'F8_E4M3'), (np.int32, 'I32')],
)
def test_quantised(folder, dtype, name):
  path = shard_of(folder, NORM)
  edit(path, lambda tensors: tensors.update({NORM: np.ones(64, dtype)}))
  expect(folder, f'{path}: {NORM} has dtype {name}', 'quantised')


def test_what_is_no_number(folder):
  """In one layer of a parameter that is all layers', and in one that is not."""
  for key in ('model.layers.1.mlp.up_proj.weight', NORM):
    path = shard_of(folder, key)
    whole = path.read_bytes()

    def spoil(tensors, key=key):
      tensors[key] = tensors[key].copy()
      tensors[key].flat[3] = np.nan

    edit(path, spoil)
    expect(folder, f'{folder}: {key} holds non-finite values')
    path.write_bytes(whole)
  mesh = sharding.make_mesh(2, 2, 2)
  edit(path, spoil)
  with pytest.raises(errors.UserError, match=f': {NORM} holds non-finite'):
    models.from_pretrained(folder, mesh=mesh)


def test_a_head_that_config_says_is_the_embedding(folder):
  """transformers would take the head; nothing must take the other silently."""
  path = shard_of(folder, 'model.embed_tokens.weight')

  def add_head(tensors):
    tensors['lm_head.weight'] = tensors['model.embed_tokens.weight'].copy()
    tensors['lm_head.weight'][-1, -1] += 1

  edit(path, add_head)
  edit_map(folder, lambda names: names.update({'lm_head.weight': path.name}))
  expect(folder, 'lm_head.weight is not the embedding', 'tie_word_embeddings')


def test_cut_off_within_tensors(folder):
  path = shard_of(folder, NORM)
  data = path.read_bytes()
  start = 8 + struct.unpack('<Q', data[:8])[0]
  header = json.loads(data[8:start])
  end = header[NORM]['data_offsets'][1]
  path.write_bytes(data[: start + end - 1])
  gone = {
      key
      for key, entry in header.items()
      if key != '__metadata__' and entry['data_offsets'][1] >= end
  }
  expect(folder, str(path), 'cut off and lacks all or some of', min(gone))
  for key in header.keys() - gone:
    with pytest.raises(errors.UserError) as raised:
      models.from_pretrained(folder)
    assert key not in str(raised.value)


@pytest.mark.parametrize('n_bytes', [0, 5, 8, 100])
def test_cut_off_within_the_header(folder, n_bytes):
  path = shard_of(folder, NORM)
  path.write_bytes(path.read_bytes()[:n_bytes])
  expect(folder, str(path), 'header is cut off')


def test_no_safetensors_at_all(folder):
  path = shard_of(folder, NORM)
  path.write_bytes(b'<html>not found</html>')
  expect(folder, str(path), 'it is no safetensors file')


def test_bytes_too_many(folder):
  path = shard_of(folder, NORM)
  path.write_bytes(path.read_bytes() + b'123')
  expect(folder, str(path), 'file not fully covered')


@pytest.mark.parametrize(
    ('change', 'word'),
    [
        (lambda entry: entry.update(shape=[3]), 'invalid shape'),
        (lambda entry: entry.update(dtype='F64'), 'invalid shape'),
        (lambda entry: entry.update(shape=[-1, -64]), 'integer `-1`'),
        (
            lambda entry: entry.update(
                data_offsets=[n - 4 for n in entry['data_offsets']]
            ),
            f'invalid offset for tensor `{NORM}`',
        ),
        (lambda entry: entry.pop('shape'), "KeyError('shape')"),
    ],
)
def test_corrupt_header(folder, change, word):
  path = shard_of(folder, NORM)
  edit_header(path, lambda header: change(header[NORM]))
  expect(folder, str(path), word)


def test_only_pickled_weights(folder):
  for path in folder.glob('model*'):
    path.unlink()
  (folder / 'pytorch_model.bin').write_bytes(b'')
  expect(folder, 'others than safetensors are not read: convert them')

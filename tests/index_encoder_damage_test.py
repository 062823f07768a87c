"""Encoder folders that are no good: what is wrong is said in one line."""

from __future__ import annotations

import numpy as np
import pytest

from gog_jax import errors
from gog_jax.index.encoder import Encoder
from tests import index_encoder_helpers as tiny

FC1 = 'vision_model.encoder.layers.1.mlp.fc1.weight'
POSITIONS = 'vision_model.embeddings.position_embedding.weight'


@pytest.fixture(params=('clip', 'siglip'))
def family(request):
  return request.param


@pytest.fixture
def folder(family, tmp_path):
  return tiny.write(tmp_path / family, family)


@pytest.fixture
def clip(tmp_path):
  return tiny.write(tmp_path / 'clip', 'clip')


def change_weights(folder, family, change):
  weights = tiny.tensors(family)
  change(weights)
  tiny.write(folder, family, weights=weights)


def test_no_folder(tmp_path):
  tiny.expect(tmp_path / 'none', 'does not exist', 'Hugging Face folder')


def test_no_config(folder):
  (folder / 'config.json').unlink()
  tiny.expect(folder, 'config.json cannot be read (No such file')


@pytest.mark.parametrize(
    'name', ['config.json', 'preprocessor_config.json', 'processor_config.json']
)
@pytest.mark.parametrize(
    ('data', 'words'),
    [
        (b'{', 'cannot be read'),
        (b'\xff\xfe{', 'cannot be read'),
        (b'[]', 'must be an object'),
    ],
)
def test_no_json(clip, name, data, words):
  (clip / name).write_bytes(data)
  tiny.expect(clip, name, words)


def test_no_weights(folder):
  (folder / 'model.safetensors').rename(folder / 'pytorch_model.bin')
  tiny.expect(folder, 'holds no weights', 'convert them')


@pytest.mark.parametrize(
    ('family', 'key'),
    [('clip', 'embeddings.class_embedding'), ('siglip', 'head.probe')],
)
def test_missing(family, key, tmp_path):
  folder = tmp_path / family
  change_weights(folder, family, lambda all: all.pop(f'vision_model.{key}'))
  tiny.expect(folder, f'lacks {key}', 'do not belong together')


def test_missing_projection(clip):
  """Silently to do without would be another space of vectors."""
  key = 'visual_projection.weight'
  change_weights(clip, 'clip', lambda all: all.pop(key))
  tiny.expect(clip, f'lacks {key}')
  tiny.edit(clip / 'config.json', lambda raw: raw.pop('architectures'))
  assert Encoder(clip).width == 32


def test_unknown(folder, family):
  key = 'vision_model.encoder.layers.3.mlp.fc1.weight'
  change_weights(folder, family, lambda all: all.update({key: all[FC1]}))
  tiny.expect(folder, f'has unknown {key}')


def test_another_familys(clip):
  tiny.write(clip, 'clip', weights=tiny.tensors('siglip'))
  tiny.expect(clip, 'lacks', 'embeddings.class_embedding', 'has unknown')


@pytest.mark.parametrize('key', [FC1, POSITIONS])
def test_misshapen(folder, family, key):
  change_weights(
      folder, family, lambda all: all.update({key: all[key][:-1].copy()})
  )
  shape = list(tiny.shapes(family)[key])
  other = [shape[0] - 1, *shape[1:]]
  tiny.expect(folder, f'{key} has shape {other}', str(shape), 'config.json')


def test_quantised(folder, family):
  change_weights(
      folder, family, lambda all: all.update({FC1: all[FC1].astype(np.int8)})
  )
  tiny.expect(folder, f'{FC1} has dtype I8', 'quantised')


def test_quantised_by_config(folder):
  tiny.edit(
      folder / 'config.json',
      lambda raw: raw.update(quantization_config={'load_in_8bit': True}),
  )
  tiny.expect(folder, 'config.json', 'quantised')


@pytest.mark.parametrize('number', [np.nan, np.inf])
@pytest.mark.parametrize('key', [FC1, POSITIONS])
def test_what_is_no_number(folder, family, key, number):
  def spoil(weights):
    weights[key][2, 3] = number

  change_weights(folder, family, spoil)
  tiny.expect(
      folder, f'{key.removeprefix("vision_model.")} holds non-finite values'
  )


def test_cut_off(folder):
  path = folder / 'model.safetensors'
  path.write_bytes(path.read_bytes()[:-9])
  tiny.expect(folder, 'cut off')


def test_no_vector(clip):
  def spoil(weights):
    weights['visual_projection.weight'][:] = 0

  change_weights(clip, 'clip', spoil)
  encoder = Encoder(clip)
  with pytest.raises(errors.UserError, match='makes no vector'):
    encoder.encode(tiny.pictures())


@pytest.mark.parametrize(
    ('change', 'words'),
    [
        ({'model_type': 'qwen3_vl'}, "model_type 'qwen3_vl' is not supported"),
        ({'model_type': None}, 'model_type None'),
        ({'model_type': 'siglip2'}, 'NaFlex'),
        ({'model_type': 'siglip2_vision_model'}, 'fixed resolution'),
        ({'vision_config': [1]}, 'vision_config must be an object'),
        ({'projection_dim': 0}, 'projection_dim must be 1 or more'),
        ({'architectures': 5}, 'config.json'),
    ],
)
def test_config(clip, change, words):
  tiny.edit(clip / 'config.json', lambda raw: raw.update(change))
  tiny.expect(clip, words)


@pytest.mark.parametrize(
    ('change', 'words'),
    [
        ({'model_type': 'siglip2_vision_model'}, 'siglip2_vision_model'),
        ({'hidden_act': 'relu'}, "hidden_act must be one of quick_gelu"),
        ({'hidden_act': ['gelu']}, 'hidden_act'),
        ({'hidden_size': '32'}, "hidden_size must be a whole number"),
        ({'hidden_size': True}, "hidden_size must be a whole number"),
        ({'image_size': [30, 30]}, 'image_size must be a whole number'),
        ({'num_attention_heads': 5}, 'not a multiple'),
        ({'patch_size': 31}, 'below patch_size'),
        ({'num_channels': 1}, 'num_channels 1 is not supported'),
        ({'layer_norm_eps': 0}, 'layer_norm_eps must be more than 0'),
        ({'layer_norm_eps': None}, 'layer_norm_eps'),
        ({'vision_use_head': False}, 'vision_use_head'),
    ],
)
def test_vision_config(folder, change, words):
  tiny.edit(
      folder / 'config.json', lambda raw: raw['vision_config'].update(change)
  )
  tiny.expect(folder, words)


@pytest.mark.parametrize(
    ('change', 'words'),
    [
        ({'image_processor_type': 'ConvNextImageProcessor'}, 'ConvNext'),
        ({'image_processor_type': 'Siglip2ImageProcessor'}, 'Siglip2'),
        ({'image_processor_type': 4}, 'preprocessor_config.json'),
        ({'do_resize': False}, 'do_resize'),
        ({'do_pad': True}, 'do_pad'),
        ({'do_center_crop': False}, 'another for each'),
        ({'crop_size': {'height': 30, 'width': 31}}, '30 x 31'),
        ({'crop_size': {'shortest_edge': 30}}, 'another for each'),
        ({'crop_size': 'large'}, 'preprocessor_config.json'),
        ({'size': {'longest_edge': 30}}, 'longest_edge'),
        ({'size': {'shortest_edge': 30, 'longest_edge': 60}}, 'longest_edge'),
        ({'size': {'shortest_edge': 0}}, 'shortest_edge'),
        ({'size': {'shortest_edge': 30.5}}, '30.5'),
        ({'resample': 17}, 'resample must be from 0 to 5, not 17'),
        ({'resample': [3]}, 'resample'),
        ({'image_mean': [0.5, 0.5]}, 'image_mean must be a list of 3'),
        ({'image_mean': 'grey'}, 'image_mean must be a list'),
        ({'image_std': [0.5, 0.0, 0.5]}, 'image_std[1] must be more than 0'),
        ({'rescale_factor': 'none'}, 'rescale_factor'),
    ],
)
def test_preprocessor(clip, change, words):
  tiny.edit(
      clip / 'preprocessor_config.json', lambda raw: raw.update(change)
  )
  tiny.expect(clip, words)

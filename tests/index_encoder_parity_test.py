"""Our vectors against Hugging Face's, from a picture to its unit vector."""

from __future__ import annotations

import json

import numpy as np
import pytest

from gog_jax.index import encoder_config
from gog_jax.index import encoder_pixels
from gog_jax.index.encoder import Encoder
from tests import helpers
from tests import index_encoder_helpers as tiny

# Name: (class, activation).
MODELS = {
    'clip': ('CLIPModel', 'quick_gelu'),
    'clip-gelu': ('CLIPModel', 'gelu'),
    'clip-vision': ('CLIPVisionModel', 'quick_gelu'),
    'clip-vision-projection': ('CLIPVisionModelWithProjection', 'gelu'),
    'siglip': ('SiglipModel', 'gelu_pytorch_tanh'),
    'siglip-vision': ('SiglipVisionModel', 'gelu_pytorch_tanh'),
}
TOLERANCE = 1e-4


def hf_model(name):
  """A tiny model of theirs, every parameter of which is perturbed."""
  torch = helpers.require_torch()
  transformers = helpers.require('transformers')
  cls_name, activation = MODELS[name]
  cls = getattr(transformers, cls_name)
  vision = {**tiny.VISION, 'hidden_act': activation}
  if cls_name in ('CLIPModel', 'SiglipModel'):
    text = {
        'hidden_size': 16,
        'intermediate_size': 16,
        'num_hidden_layers': 1,
        'num_attention_heads': 2,
        'vocab_size': 60,
        'bos_token_id': 1,
        'eos_token_id': 2,
    }
    config = cls.config_class(
        vision_config=vision,
        text_config=text,
        projection_dim=tiny.PROJECTION,
    )
  else:
    config = cls.config_class(**vision, projection_dim=tiny.PROJECTION)
  torch.manual_seed(0)
  model = cls(config).eval()
  with torch.no_grad():
    for parameter in model.parameters():
      parameter.add_(0.2 * torch.randn_like(parameter))
  return model


def hf_processor(family, **settings):
  transformers = helpers.require('transformers')
  name = {'clip': 'CLIPImageProcessor', 'siglip': 'SiglipImageProcessor'}
  # Where torchvision is installed, the plain name is another's arithmetic.
  cls = getattr(transformers, name[family] + 'Pil')
  return cls(**{**tiny.PREPROCESSORS[family], **settings})


def hf_vectors(model, pixel_values):
  """float32[N, F] of unit length."""
  torch = helpers.require_torch()
  with torch.no_grad():
    pixel_values = torch.tensor(pixel_values)
    if hasattr(model, 'get_image_features'):
      vectors = model.get_image_features(pixel_values=pixel_values)
      vectors = vectors.pooler_output
    elif hasattr(model, 'visual_projection'):
      vectors = model(pixel_values=pixel_values).image_embeds
    else:
      vectors = model(pixel_values=pixel_values).pooler_output
  vectors = vectors.numpy()
  return vectors / np.linalg.norm(vectors, axis=-1, keepdims=True)


@pytest.mark.parametrize('name', MODELS)
def test_vectors(name, tmp_path):
  theirs = hf_model(name)
  processor = hf_processor(name.split('-')[0])
  theirs.save_pretrained(tmp_path)
  processor.save_pretrained(tmp_path)
  encoder = Encoder(tmp_path, batch_size=3)
  pictures = tiny.pictures()
  inputs = processor(images=pictures, return_tensors='np')
  expected = hf_vectors(theirs, inputs['pixel_values'])
  actual = encoder.encode(pictures)
  assert actual.dtype == np.float32
  assert actual.shape == expected.shape == (len(pictures), encoder.width)
  np.testing.assert_allclose(actual, expected, rtol=0, atol=TOLERANCE)
  # Or the tolerance would mean little: no two vectors are near each other.
  apart = np.abs(expected[:, None] - expected[None]).max(axis=-1)
  assert apart[~np.eye(len(apart), dtype=bool)].min() > 300 * TOLERANCE


@pytest.mark.parametrize(
    ('kind', 'cls'),
    [('clip', 'CLIPConfig'), ('siglip', 'SiglipConfig'),
     ('clip_vision_model', 'CLIPVisionConfig'),
     ('siglip_vision_model', 'SiglipVisionConfig')],
)  # fmt: skip
def test_sizes_that_a_file_leaves_out(kind, cls):
  """As published SigLIPs do, all of them."""
  theirs = getattr(helpers.require('transformers'), cls)()
  actual = encoder_config.from_dict({'model_type': kind})
  assert actual == encoder_config.from_dict(theirs.to_dict())
  theirs = getattr(theirs, 'vision_config', theirs)
  assert actual.width == theirs.hidden_size
  assert actual.patch_size == theirs.patch_size
  assert actual.activation == theirs.hidden_act
  assert actual.norm_eps == theirs.layer_norm_eps


@pytest.mark.parametrize('family', ['clip', 'siglip'])
def test_preprocessing_that_a_file_leaves_out(family):
  config = encoder_config.from_dict({'model_type': family})
  theirs = hf_processor(family)
  for key in tiny.PREPROCESSORS[family].keys() - {'image_processor_type'}:
    setattr(theirs, key, getattr(type(theirs), key))
  written = json.loads(theirs.to_json_string())
  assert encoder_pixels.from_dict({}, config) == encoder_pixels.from_dict(
      written, config
  )


SETTINGS = {
    'clip': ('clip', {}),
    'clip-bilinear': ('clip', {'resample': 2}),
    'clip-larger-edge': ('clip', {'size': {'shortest_edge': 37}}),
    'clip-padded': ('clip', {'size': {'shortest_edge': 23}}),
    'clip-stretched-then-cropped': (
        'clip', {'size': {'height': 41, 'width': 32}},
    ),
    'clip-not-cropped': (
        'clip',
        {'size': {'height': 30, 'width': 30}, 'do_center_crop': False},
    ),
    'clip-older': ('clip', {'size': 30, 'crop_size': 30}),
    'siglip': ('siglip', {}),
    'siglip-bilinear': ('siglip', {'resample': 2}),
    'siglip-other-numbers': (
        'siglip',
        {'rescale_factor': 1 / 127, 'image_mean': [1.0, 0.9, 0.8],
         'image_std': 0.7},
    ),
    'siglip-not-rescaled': ('siglip', {'do_rescale': False}),
    'siglip-not-normalised': ('siglip', {'do_normalize': False}),
}  # fmt: skip


def pixels(family, settings):
  config = encoder_config.from_dict(tiny.config_of(family))
  raw = {**tiny.PREPROCESSORS[family], **settings}
  return encoder_pixels.from_dict(raw, config)


def normalised(ours, picture):
  """float32[3, H, W], from the attributes as they are documented."""
  x = ours(picture) * ours.scale
  return ((x - np.array(ours.mean)) / np.array(ours.std)).transpose(2, 0, 1)


@pytest.mark.parametrize('name', SETTINGS)
def test_pixels(name):
  family, settings = SETTINGS[name]
  theirs, ours = hf_processor(family, **settings), pixels(family, settings)
  for picture in tiny.pictures():
    inputs = theirs(images=picture, return_tensors='np')
    (expected,) = inputs['pixel_values']
    np.testing.assert_allclose(
        normalised(ours, picture), expected, rtol=1e-5, atol=1e-5
    )


@pytest.mark.parametrize('size', [(2, 4000), (4000, 3)])
@pytest.mark.parametrize('edge', [30, 23])
def test_a_strip_is_resized_only_where_it_is_seen(size, edge, monkeypatch):
  """As the whole strip, but for rounding (Pillow may change its passes)."""
  ours = pixels('clip', {'size': {'shortest_edge': edge}})
  strip = tiny.picture(*size)
  whole = ours(strip).astype(float)
  assert whole.std() > 10
  monkeypatch.setattr(encoder_pixels, '_MOST_RESIZED', 30 * 30)
  seen = ours(strip)
  np.testing.assert_allclose(seen, whole, rtol=0, atol=8)
  assert np.abs(seen - whole).mean() < 1

"""Tiny CLIP and SigLIP folders, written without torch."""

from __future__ import annotations

import json

import numpy as np
from PIL import Image
import pytest
import safetensors.numpy

from gog_jax import errors
from gog_jax.index.encoder import Encoder

# 3 x 3 patches, and 6 rows and columns of pixels that are in none.
VISION = {
    'hidden_size': 32,
    'intermediate_size': 48,
    'num_hidden_layers': 3,
    'num_attention_heads': 4,
    'image_size': 30,
    'patch_size': 8,
}
PROJECTION = 24
CLIP_PREPROCESSOR = {
    'image_processor_type': 'CLIPImageProcessor',
    'size': {'shortest_edge': 30},
    'crop_size': {'height': 30, 'width': 30},
}
SIGLIP_PREPROCESSOR = {
    'image_processor_type': 'SiglipImageProcessor',
    'size': {'height': 30, 'width': 30},
}
PREPROCESSORS = {'clip': CLIP_PREPROCESSOR, 'siglip': SIGLIP_PREPROCESSOR}


def shapes(family):
  """Of the tensors in a published folder, of which some are the text's."""
  width, ffn = VISION['hidden_size'], VISION['intermediate_size']
  result = {
      'logit_scale': (),
      'text_model.embeddings.position_ids': (1, 7),
      'text_model.embeddings.token_embedding.weight': (50, width),
  }

  def add(name, *shape, bias=True):
    result[f'vision_model.{name}.weight'] = shape
    if bias:
      result[f'vision_model.{name}.bias'] = shape[:1]

  is_clip = family == 'clip'
  add('embeddings.patch_embedding', width, 3, 8, 8, bias=not is_clip)
  add('embeddings.position_embedding', 9 + is_clip, width, bias=False)
  for layer in range(VISION['num_hidden_layers']):
    of_layer = f'encoder.layers.{layer}.'
    for name in ('q_proj', 'k_proj', 'v_proj', 'out_proj'):
      add(f'{of_layer}self_attn.{name}', width, width)
    add(f'{of_layer}mlp.fc1', ffn, width)
    add(f'{of_layer}mlp.fc2', width, ffn)
    add(f'{of_layer}layer_norm1', width)
    add(f'{of_layer}layer_norm2', width)
  add('post_layernorm', width)
  if is_clip:
    result['vision_model.embeddings.class_embedding'] = (width,)
    add('pre_layrnorm', width)
    result['visual_projection.weight'] = (PROJECTION, width)
    return result
  result['vision_model.head.probe'] = (1, 1, width)
  result['vision_model.head.attention.in_proj_weight'] = (3 * width, width)
  result['vision_model.head.attention.in_proj_bias'] = (3 * width,)
  add('head.attention.out_proj', width, width)
  add('head.layernorm', width)
  add('head.mlp.fc1', ffn, width)
  add('head.mlp.fc2', width, ffn)
  return result


def tensors(family, *, seed=0):
  random = np.random.default_rng(seed)
  return {
      key: random.normal(0, 0.3, shape).astype(np.float32)
      for key, shape in shapes(family).items()
  }


def config_of(family):
  name = {'clip': 'CLIPModel', 'siglip': 'SiglipModel'}[family]
  return {
      'architectures': [name],
      'model_type': family,
      'projection_dim': PROJECTION,
      'text_config': {'hidden_size': 32},
      'vision_config': dict(VISION),
  }


def write(folder, family, *, weights=None, config=None):
  """Writes a folder; `weights` and `config` replace the usual ones."""
  folder.mkdir(exist_ok=True)
  weights = tensors(family) if weights is None else weights
  (folder / 'model.safetensors').write_bytes(safetensors.numpy.save(weights))
  write_json(folder / 'config.json', config or config_of(family))
  write_json(folder / 'preprocessor_config.json', PREPROCESSORS[family])
  return folder


def write_json(path, value):
  path.write_text(json.dumps(value))


def edit(path, change):
  """Changes the object in a JSON file."""
  raw = json.loads(path.read_text())
  change(raw)
  write_json(path, raw)


def expect(folder, *words):
  """The folder is refused in one line that has these words."""
  with pytest.raises(errors.UserError) as raised:
    Encoder(folder)
  for word in words:
    assert word in str(raised.value)
  assert '\n' not in str(raised.value)


def picture(width, height, *, mode='RGB', seed=0):
  """Coarse blocks of colour under fine noise."""
  random = np.random.default_rng(seed)
  n_channels = len(mode)
  coarse = random.integers(0, 256, (5, 4, n_channels)).astype(np.uint8)
  if n_channels == 1:
    coarse = coarse[..., 0]
  image = Image.fromarray(coarse).resize((width, height), 0)
  fine = random.integers(-20, 21, np.asarray(image).shape)
  noisy = np.clip(np.asarray(image) + fine, 0, 255).astype(np.uint8)
  assert Image.fromarray(noisy).mode == mode
  return Image.fromarray(noisy)


def pictures():
  """Wide, tall, square, tiny, grey, transparent."""
  return [
      picture(90, 41),
      picture(37, 64, seed=1),
      picture(30, 30, seed=2),
      picture(7, 5, seed=3),
      picture(50, 45, mode='L', seed=4),
      picture(44, 61, mode='RGBA', seed=5),
      picture(300, 40, seed=6).quantize(64),
  ]

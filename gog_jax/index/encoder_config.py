"""A CLIP or SigLIP folder's config.json -> the sizes of its vision tower."""

from __future__ import annotations

from collections.abc import Mapping
import dataclasses
import json
import math
from typing import Any

from etils import epath

from gog_jax.errors import UserError

ACTIVATIONS = ('quick_gelu', 'gelu', 'gelu_pytorch_tanh')

# What a config.json leaves out, transformers takes from here, too; that of a
# published SigLIP leaves out everything.
_FALLBACKS = {
    'clip': {
        'hidden_size': 768,
        'intermediate_size': 3072,
        'num_hidden_layers': 12,
        'num_attention_heads': 12,
        'num_channels': 3,
        'image_size': 224,
        'patch_size': 32,
        'hidden_act': 'quick_gelu',
        'layer_norm_eps': 1e-5,
    },
    'siglip': {
        'hidden_size': 768,
        'intermediate_size': 3072,
        'num_hidden_layers': 12,
        'num_attention_heads': 12,
        'num_channels': 3,
        'image_size': 224,
        'patch_size': 16,
        'hidden_act': 'gelu_pytorch_tanh',
        'layer_norm_eps': 1e-6,
    },
}
_PROJECTION_FALLBACK = 512
# These hold a projection, which must not be missing.
_PROJECTED = ('CLIPModel', 'CLIPVisionModelWithProjection')


@dataclasses.dataclass(frozen=True, kw_only=True)
class EncoderConfig:
  """Sizes of a vision tower.

  Attributes:
    family: 'clip' or 'siglip'.
    width: Of the residual stream.
    n_layers: Blocks.
    n_heads: Of each block, and of SigLIP's pooling.
    ffn: Width of the MLPs.
    image_size: Rows and columns of the pixels it sees.
    patch_size: Rows and columns of a patch; what is left over at the lower and
      right border is not looked at.
    activation: One of ACTIVATIONS.
    norm_eps: Of all norms.
    projection: Width of CLIP's projection, where the folder has one; 0 for
      SigLIP, which has none.
    needs_projection: Whether the folder has to have one.
  """

  family: str
  width: int
  n_layers: int
  n_heads: int
  ffn: int
  image_size: int
  patch_size: int
  activation: str
  norm_eps: float
  projection: int
  needs_projection: bool

  @property
  def n_patches(self) -> int:
    return (self.image_size // self.patch_size) ** 2


def from_folder(folder: epath.Path) -> EncoderConfig:
  """Reads `folder/config.json`.

  Raises:
    UserError: The file is missing, is not JSON, or describes another model.
  """
  path = folder / 'config.json'
  if not path.exists():
    raise UserError(
        f'{folder} holds no config.json: set the encoder to a Hugging Face '
        'folder of CLIP or SigLIP'
    )
  raw = read_json(path)
  try:
    return from_dict(raw)
  except (TypeError, ValueError) as error:
    raise UserError(f'{path}: {error}') from error


def read_json(path: epath.Path) -> dict[str, Any]:
  """The object in a JSON file.

  Raises:
    UserError: The file cannot be read, or holds something else.
  """
  try:
    raw = json.loads(path.read_text())
  except (OSError, ValueError) as error:
    raise UserError(
        f'{path} cannot be read as JSON ({error}): fetch it again'
    ) from error
  if not isinstance(raw, dict):
    raise UserError(f'{path} is not a JSON object: fetch it again')
  return raw


def from_dict(raw: Mapping[str, Any]) -> EncoderConfig:
  """Reads the contents of a config.json.

  Raises:
    ValueError: It describes something that is not supported.
    TypeError: As ValueError: a value is of the wrong kind.
  """
  kind = raw.get('model_type')
  if str(kind).startswith('siglip2'):
    raise ValueError(
        f'model_type {kind!r} (any resolution, NaFlex) is not supported: take '
        'a SigLIP2 of fixed resolution, whose model_type is siglip'
    )
  family = str(kind).removesuffix('_vision_model')
  if family not in _FALLBACKS:
    raise ValueError(
        f'model_type {kind!r} is not supported, only clip, clip_vision_model, '
        'siglip and siglip_vision_model'
    )
  if raw.get('quantization_config'):
    raise ValueError(
        'quantised weights are not read: take the folder of the model as it '
        'was trained'
    )
  given = raw
  if kind == family:  # With a text tower.
    given = raw.get('vision_config') or {}
    if not isinstance(given, Mapping):
      raise ValueError(f'vision_config must be an object, not {given!r}')
    inner = given.get('model_type', f'{family}_vision_model')
    if inner != f'{family}_vision_model':
      raise ValueError(f'vision_config: model_type {inner!r} is not supported')
  projection = 0
  if family == 'clip':
    projection = raw.get('projection_dim', _PROJECTION_FALLBACK)
    projection = whole('projection_dim', projection)
  return _read(
      family,
      {**_FALLBACKS[family], **given},
      projection=projection,
      needs_projection=any(
          name in _PROJECTED for name in raw.get('architectures') or ()
      ),
  )


def _read(
    family: str, given: Mapping[str, Any], **others: Any
) -> EncoderConfig:
  """Of the vision tower's own section."""
  sizes = {
      ours: whole(theirs, given[theirs])
      for ours, theirs in (
          ('width', 'hidden_size'),
          ('n_layers', 'num_hidden_layers'),
          ('n_heads', 'num_attention_heads'),
          ('ffn', 'intermediate_size'),
          ('image_size', 'image_size'),
          ('patch_size', 'patch_size'),
      )
  }
  if sizes['width'] % sizes['n_heads']:
    raise ValueError(
        f'hidden_size {sizes["width"]} is not a multiple of '
        f'num_attention_heads {sizes["n_heads"]}'
    )
  if sizes['image_size'] < sizes['patch_size']:
    raise ValueError(
        f'image_size {sizes["image_size"]} is below patch_size '
        f'{sizes["patch_size"]}'
    )
  if given['num_channels'] != 3:
    raise ValueError(
        f'num_channels {given["num_channels"]!r} is not supported, only 3'
    )
  if given['hidden_act'] not in ACTIVATIONS:
    raise ValueError(
        f'hidden_act {given["hidden_act"]!r} is not supported, only '
        f'{", ".join(ACTIVATIONS)}'
    )
  eps = given['layer_norm_eps']
  if type(eps) not in (int, float) or not 0 < eps < math.inf:
    raise ValueError(f'layer_norm_eps must be a positive number, not {eps!r}')
  if not given.get('vision_use_head', True):
    raise ValueError(
        'vision_use_head false is not supported: without its head the tower '
        'makes no vector of an image'
    )
  return EncoderConfig(
      family=family,
      **sizes,
      activation=given['hidden_act'],
      norm_eps=float(eps),
      **others,
  )


def whole(name: str, value: Any) -> int:
  """The value, if it is a whole number of at least 1."""
  if type(value) is not int or value < 1:  # True is no number.
    raise ValueError(
        f'{name} must be a whole number of at least 1, not {value!r}'
    )
  return value

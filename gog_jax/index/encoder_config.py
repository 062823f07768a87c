"""A CLIP or SigLIP folder's config.json -> the sizes of its vision tower."""

from __future__ import annotations

from collections.abc import Mapping
import dataclasses
from typing import Any, Literal

from etils import epath

from gog_jax.models.config import TowerConfig
from gog_jax.storage import files
from gog_jax.storage import typed

# What a config.json leaves out, transformers takes from here, too, and from the
# defaults of EncoderConfig; that of a published SigLIP leaves out everything.
_FALLBACKS = {
    'clip': {
        'patch_size': 32,
        'hidden_act': 'quick_gelu',
        'layer_norm_eps': 1e-5,
        'projection_dim': 512,
    },
    'siglip': {
        'patch_size': 16,
        'hidden_act': 'gelu_pytorch_tanh',
        'layer_norm_eps': 1e-6,
    },
}
# Our fields -> theirs.
_KEYS = {
    'width': 'hidden_size',
    'n_layers': 'num_hidden_layers',
    'n_heads': 'num_attention_heads',
    'ffn': 'intermediate_size',
    'activation': 'hidden_act',
    'norm_eps': 'layer_norm_eps',
    'projection': 'projection_dim',
}
# These hold a projection, which must not be missing.
_PROJECTED = {'CLIPModel', 'CLIPVisionModelWithProjection'}


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
    activation: Of the MLPs.
    norm_eps: Of all norms.
    projection: Width of CLIP's projection, where the folder has one; 0 for
      SigLIP, which has none.
    needs_projection: Whether the folder has to have one.
  """

  family: str
  width: typed.Positive = 768
  n_layers: typed.Positive = 12
  n_heads: typed.Positive = 12
  ffn: typed.Positive = 3072
  image_size: typed.Positive = 224
  patch_size: typed.Positive
  activation: Literal['quick_gelu', 'gelu', 'gelu_pytorch_tanh']
  norm_eps: typed.PositiveFloat
  projection: typed.Count
  needs_projection: bool

  def __post_init__(self):
    if self.family == 'clip' and not self.projection:
      raise ValueError('projection_dim must be 1 or more')
    if self.width % self.n_heads:
      raise ValueError(
          f'hidden_size {self.width} is not a multiple of num_attention_heads '
          f'{self.n_heads}'
      )
    if self.image_size < self.patch_size:
      raise ValueError(
          f'image_size {self.image_size} is below patch_size {self.patch_size}'
      )

  @property
  def tower(self) -> TowerConfig:
    """Of its blocks and norms."""
    return TowerConfig(
        width=self.width,
        n_layers=self.n_layers,
        n_heads=self.n_heads,
        n_kv_heads=self.n_heads,
        head_dim=self.width // self.n_heads,
        ffn=self.ffn,
        norm_eps=self.norm_eps,
        qkv_bias=True,
        other_bias=True,
        layer_norm=True,
        gated=False,
    )

  @property
  def n_patches(self) -> int:
    return (self.image_size // self.patch_size) ** 2


def from_folder(folder: epath.Path) -> EncoderConfig:
  """Reads `folder/config.json`.

  Raises:
    UserError: The file is missing, is not JSON, or describes another model.
  """
  path = folder / 'config.json'
  raw = files.read_json(
      path,
      advice='fetch it again, or set the encoder to a Hugging Face folder of '
      'CLIP or SigLIP',
  )
  with files.readable(path):
    return from_dict(raw)


def from_dict(raw: Mapping[str, Any]) -> EncoderConfig:
  """Reads the contents of a config.json.

  Raises:
    ValueError: It describes something that is not supported.
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
    given = typed.read(
        Mapping[str, Any], raw.get('vision_config') or {}, 'vision_config'
    )
    inner = given.get('model_type', f'{family}_vision_model')
    if inner != f'{family}_vision_model':
      raise ValueError(f'vision_config: model_type {inner!r} is not supported')
  given = {**_FALLBACKS[family], **given}
  for field, supported in (('num_channels', 3), ('vision_use_head', True)):
    if given.get(field, supported) != supported:
      raise ValueError(
          f'{field} {given[field]!r} is not supported, only {supported}'
      )
  projection = 0
  if family == 'clip':  # In the outer file, of one with a text tower.
    projection = raw.get('projection_dim', given['projection_dim'])
  classes = typed.read(
      list[str], raw.get('architectures') or [], 'architectures'
  )
  ours = {
      'family': family,
      'projection_dim': projection,
      'needs_projection': not _PROJECTED.isdisjoint(classes),
  }
  return typed.read(
      EncoderConfig, given | ours, keys=_KEYS, ignore_unknown=True
  )

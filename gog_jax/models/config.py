"""What a Qwen2.5-VL folder's config.json says, in our words.

Both generations of the file are read: the nested one (`text_config`,
`rope_parameters`) that transformers 5 writes, and the flat one
(`rope_scaling`, `in_chans`) that the published checkpoints carry.
"""

from __future__ import annotations

from collections.abc import Mapping
import dataclasses
import json
from typing import Any

from etils import epath

from gog_jax import errors

MODEL_TYPE = 'qwen2_5_vl'

# What a config.json leaves out, it leaves to the architecture. Everything
# that differs between published sizes has to be in the file.
_TEXT_FALLBACKS = {
    'rms_norm_eps': 1e-6,
    'hidden_act': 'silu',
    'rope_theta': 1e6,
    'mrope_section': (16, 24, 24),
}
_VISION_FALLBACKS = {
    'in_channels': 3,
    'patch_size': 14,
    'temporal_patch_size': 2,
    'spatial_merge_size': 2,
    'window_size': 112,
    'fullatt_block_indexes': (7, 15, 23, 31),
    'hidden_act': 'silu',
    'rope_theta': 1e4,
}


@dataclasses.dataclass(frozen=True, kw_only=True)
class TextConfig:
  """The decoder.

  Attributes:
    vocab_size: V.
    width: D.
    n_layers: L.
    n_heads: N, query heads.
    n_kv_heads: K, divides n_heads.
    head_dim: H.
    ffn: F.
    norm_eps: Added to the mean square before its root.
    rope_theta: Base of the rotary frequencies.
    mrope_sections: How many of the H / 2 frequencies follow the temporal,
      vertical and horizontal position.
  """

  vocab_size: int
  width: int
  n_layers: int
  n_heads: int
  n_kv_heads: int
  head_dim: int
  ffn: int
  norm_eps: float
  rope_theta: float
  mrope_sections: tuple[int, int, int]

  def __post_init__(self):
    if self.n_heads % self.n_kv_heads:
      raise ValueError(
          f'{self.n_kv_heads} key-value heads do not divide {self.n_heads}'
      )
    if len(self.mrope_sections) != 3:
      raise ValueError(f'mrope_section {self.mrope_sections} needs 3 parts')
    if 2 * sum(self.mrope_sections) != self.head_dim:
      raise ValueError(
          f'mrope_section {self.mrope_sections} does not sum to half of '
          f'head_dim {self.head_dim}'
      )


@dataclasses.dataclass(frozen=True, kw_only=True)
class VisionConfig:
  """The vision transformer.

  Attributes:
    width: Of its residual stream.
    n_layers: Depth.
    n_heads: Attention heads; every one has its own keys and values.
    ffn: Feed-forward width.
    out_width: Width of a merged feature, the decoder's D.
    in_channels: 3.
    patch_size: Side of a patch in pixels.
    temporal_patch_size: Frames per patch; a still image is repeated.
    merge_size: merge_size x merge_size patches become one feature.
    window_size: Side of an attention window in pixels.
    full_attention_layers: Layers that see the whole image.
    norm_eps: Added to the mean square before its root.
    rope_theta: Base of the rotary frequencies.
  """

  width: int
  n_layers: int
  n_heads: int
  ffn: int
  out_width: int
  in_channels: int
  patch_size: int
  temporal_patch_size: int
  merge_size: int
  window_size: int
  full_attention_layers: tuple[int, ...]
  norm_eps: float
  rope_theta: float

  def __post_init__(self):
    if self.width % (4 * self.n_heads):
      raise ValueError(
          f'vision width {self.width} is not a multiple of 4 x {self.n_heads} '
          'heads, which the two-dimensional rotation needs'
      )
    if self.window_size % (self.patch_size * self.merge_size):
      raise ValueError(
          f'window_size {self.window_size} is not a whole number of merged '
          f'patches ({self.patch_size * self.merge_size} pixels)'
      )

  @property
  def head_dim(self) -> int:
    return self.width // self.n_heads

  @property
  def patch_dim(self) -> int:
    """C: how many numbers a flattened patch holds."""
    return self.in_channels * self.temporal_patch_size * self.patch_size**2


@dataclasses.dataclass(frozen=True, kw_only=True)
class VLMConfig:
  """A vision-language model.

  Attributes:
    text: The decoder.
    vision: The vision transformer.
    tied: Whether the output head is the token embedding.
    image_token_id: The token whose embedding an image feature replaces.
    video_token_id: Reserved; videos are not supported.
    vision_start_token_id: Stands before an image.
    vision_end_token_id: Stands after it.
    eos_token_id: Ends a message; None where the file does not say.
    pad_token_id: Fills a batch; None where the file does not say.
  """

  text: TextConfig
  vision: VisionConfig
  tied: bool
  image_token_id: int
  video_token_id: int
  vision_start_token_id: int
  vision_end_token_id: int
  eos_token_id: int | None
  pad_token_id: int | None

  def __post_init__(self):
    if self.vision.out_width != self.text.width:
      raise ValueError(
          f'vision features of width {self.vision.out_width} do not fit a '
          f'decoder of width {self.text.width}'
      )

  @classmethod
  def from_folder(cls, folder: epath.PathLike) -> VLMConfig:
    """Reads `folder/config.json`.

    Raises:
      UserError: The folder or file is missing, is not JSON, describes another
        model, or leaves out what the architecture needs.
    """
    folder = epath.Path(folder)
    if not folder.is_dir():
      raise errors.UserError(
          f'model folder {folder} does not exist: set config.model.path to a '
          'local Hugging Face folder (config.json, *.safetensors, tokenizer)'
      )
    path = folder / 'config.json'
    if not path.exists():
      raise errors.UserError(
          f'{folder} holds no config.json: it is not a Hugging Face model '
          'folder; set config.model.path to one'
      )
    try:
      raw = json.loads(path.read_text())
    except (OSError, UnicodeDecodeError, json.JSONDecodeError) as error:
      raise errors.UserError(
          f'{path} cannot be read as JSON ({error}): fetch it again'
      ) from error
    if not isinstance(raw, dict):
      raise errors.UserError(f'{path} is not a JSON object: fetch it again')
    try:
      return cls.from_dict(raw)
    except KeyError as error:
      raise errors.UserError(
          f'{path} has no {error}: fetch it again'
      ) from error
    except (TypeError, ValueError) as error:
      raise errors.UserError(f'{path}: {error}') from error

  @classmethod
  def from_dict(cls, raw: Mapping[str, Any]) -> VLMConfig:
    """Reads the contents of a config.json.

    Raises:
      KeyError: A required key is missing.
      ValueError: The file describes something that is not supported.
    """
    model_type = raw.get('model_type')
    if model_type != MODEL_TYPE:
      raise ValueError(
          f'model_type {model_type!r} is not supported, only {MODEL_TYPE!r}'
      )
    text_raw = raw.get('text_config') or raw
    tied = raw.get(
        'tie_word_embeddings', text_raw.get('tie_word_embeddings', False)
    ) or bool(text_raw.get('tie_word_embeddings', False))
    return cls(
        text=_read_text(text_raw),
        vision=_read_vision(raw['vision_config']),
        tied=tied,
        image_token_id=raw['image_token_id'],
        video_token_id=raw['video_token_id'],
        vision_start_token_id=raw['vision_start_token_id'],
        vision_end_token_id=raw['vision_end_token_id'],
        eos_token_id=_token_id('eos_token_id', raw, text_raw),
        pad_token_id=_token_id('pad_token_id', raw, text_raw),
    )

  def to_dict(self) -> dict[str, Any]:
    """The config.json that transformers' Qwen2_5_VLConfig reads."""
    text, vision = self.text, self.vision
    return {
        'architectures': ['Qwen2_5_VLForConditionalGeneration'],
        'model_type': MODEL_TYPE,
        'tie_word_embeddings': self.tied,
        'image_token_id': self.image_token_id,
        'video_token_id': self.video_token_id,
        'vision_start_token_id': self.vision_start_token_id,
        'vision_end_token_id': self.vision_end_token_id,
        'text_config': {
            'model_type': f'{MODEL_TYPE}_text',
            'vocab_size': text.vocab_size,
            'hidden_size': text.width,
            'num_hidden_layers': text.n_layers,
            'num_attention_heads': text.n_heads,
            'num_key_value_heads': text.n_kv_heads,
            'intermediate_size': text.ffn,
            'rms_norm_eps': text.norm_eps,
            'hidden_act': 'silu',
            'rope_parameters': {
                'rope_type': 'default',
                'rope_theta': text.rope_theta,
                'mrope_section': list(text.mrope_sections),
            },
            'tie_word_embeddings': self.tied,
            'bos_token_id': None,
            'eos_token_id': self.eos_token_id,
            'pad_token_id': self.pad_token_id,
        },
        'vision_config': {
            'model_type': f'{MODEL_TYPE}_vision',
            'hidden_size': vision.width,
            'depth': vision.n_layers,
            'num_heads': vision.n_heads,
            'intermediate_size': vision.ffn,
            'out_hidden_size': vision.out_width,
            'in_channels': vision.in_channels,
            'patch_size': vision.patch_size,
            'temporal_patch_size': vision.temporal_patch_size,
            'spatial_merge_size': vision.merge_size,
            'window_size': vision.window_size,
            'fullatt_block_indexes': list(vision.full_attention_layers),
            'hidden_act': 'silu',
            'rope_parameters': {
                'rope_type': 'axial',
                'rope_theta': vision.rope_theta,
            },
        },
    }


def _token_id(name: str, *places: Mapping[str, Any]) -> int | None:
  """The first mention of a token; the first of several alternatives."""
  for raw in places:
    token_id = raw.get(name)
    if isinstance(token_id, list):
      token_id = token_id[0] if token_id else None
    if token_id is not None:
      return token_id
  return None


def _read_text(raw: Mapping[str, Any]) -> TextConfig:
  raw = {**_TEXT_FALLBACKS, **raw}
  rope = _rope(raw, supported=('default', 'mrope'))
  _check_activation(raw)
  if raw.get('use_sliding_window'):
    raise ValueError('use_sliding_window is not supported')
  n_heads = raw['num_attention_heads']
  return TextConfig(
      vocab_size=raw['vocab_size'],
      width=raw['hidden_size'],
      n_layers=raw['num_hidden_layers'],
      n_heads=n_heads,
      n_kv_heads=raw.get('num_key_value_heads') or n_heads,
      head_dim=raw['hidden_size'] // n_heads,
      ffn=raw['intermediate_size'],
      norm_eps=raw['rms_norm_eps'],
      rope_theta=float(rope['rope_theta']),
      mrope_sections=tuple(rope['mrope_section']),
  )


def _read_vision(raw: Mapping[str, Any]) -> VisionConfig:
  # The published files call the channels by an older name.
  channels = {'in_channels': raw['in_chans']} if 'in_chans' in raw else {}
  raw = {**_VISION_FALLBACKS, **channels, **raw}
  rope = _rope(raw, supported=('default', 'axial'))
  _check_activation(raw)
  return VisionConfig(
      width=raw['hidden_size'],
      n_layers=raw['depth'],
      n_heads=raw['num_heads'],
      ffn=raw['intermediate_size'],
      out_width=raw['out_hidden_size'],
      in_channels=raw['in_channels'],
      patch_size=raw['patch_size'],
      temporal_patch_size=raw['temporal_patch_size'],
      merge_size=raw['spatial_merge_size'],
      window_size=raw['window_size'],
      full_attention_layers=tuple(raw['fullatt_block_indexes']),
      norm_eps=1e-6,  # Fixed by the architecture; not a field of the file.
      rope_theta=float(rope['rope_theta']),
  )


def _rope(
    raw: Mapping[str, Any], *, supported: tuple[str, ...]
) -> Mapping[str, Any]:
  """Rotary settings, from wherever this generation of the file puts them."""
  rope = raw.get('rope_parameters') or raw.get('rope_scaling') or {}
  kind = rope.get('rope_type', rope.get('type', 'default'))
  if kind not in supported:
    raise ValueError(f'rope_type {kind!r} is not supported')
  return {**raw, **rope}


def _check_activation(raw: Mapping[str, Any]) -> None:
  if raw['hidden_act'] != 'silu':
    raise ValueError(f'hidden_act {raw["hidden_act"]!r} is not supported')

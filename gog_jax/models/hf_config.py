"""A Hugging Face folder's config.json <-> ours.

Both generations of the file are read: the nested one (`text_config`,
`rope_parameters`) that transformers 5 writes, and those of the published
checkpoints (`rope_scaling`; Qwen2.5-VL's are flat and say `in_chans`).
"""

from __future__ import annotations

from collections.abc import Mapping
import difflib
import json
from typing import Any

from etils import epath

from gog_jax import errors
from gog_jax.models import hub
from gog_jax.models.config import FAMILIES
from gog_jax.models.config import TextConfig
from gog_jax.models.config import VisionConfig
from gog_jax.models.config import VLMConfig

# The config.json of each published size, under a name of ours.
PUBLISHED = epath.Path(__file__).parents[1] / 'assets' / 'published'

# What a config.json leaves out, it leaves to the architecture. Everything
# that differs between published sizes has to be in the file.
_TEXT_FALLBACKS = {
    'qwen2_5_vl': {
        'rms_norm_eps': 1e-6,
        'hidden_act': 'silu',
        'rope_theta': 1e6,
        'mrope_section': (16, 24, 24),
    },
    'qwen3_vl': {
        'rms_norm_eps': 1e-6,
        'hidden_act': 'silu',
        'head_dim': 128,
        'mrope_section': (24, 20, 20),
    },
}
_VISION_FALLBACKS = {
    'qwen2_5_vl': {
        'in_channels': 3,
        'patch_size': 14,
        'temporal_patch_size': 2,
        'spatial_merge_size': 2,
        'window_size': 112,
        'fullatt_block_indexes': (7, 15, 23, 31),
        'hidden_act': 'silu',
        'rope_theta': 1e4,
    },
    'qwen3_vl': {
        'in_channels': 3,
        'patch_size': 16,
        'temporal_patch_size': 2,
        'spatial_merge_size': 2,
        'num_position_embeddings': 2304,
        'hidden_act': 'gelu_pytorch_tanh',
        'rope_theta': 1e4,
    },
}
_CLASSES = {
    'qwen2_5_vl': 'Qwen2_5_VLForConditionalGeneration',
    'qwen3_vl': 'Qwen3VLForConditionalGeneration',
}


def from_folder(folder: epath.PathLike) -> VLMConfig:
  """Reads `folder/config.json`; `folder` as in hub.local_folder.

  Raises:
    UserError: The folder or file is missing, is not JSON, describes another
      model, or leaves out what the architecture needs.
  """
  folder = hub.local_folder(folder)
  path = folder / 'config.json'
  if not path.exists():
    raise errors.UserError(
        f'{folder} holds no config.json: it is not a Hugging Face model '
        'folder, or the writing of one was interrupted; set '
        '--config.model.path to one'
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
    return from_dict(raw)
  except KeyError as error:
    raise errors.UserError(f'{path} has no {error}: fetch it again') from error
  except (TypeError, ValueError) as error:
    raise errors.UserError(f'{path}: {error}') from error


def published(name: str) -> VLMConfig:
  """Sizes of a published model, for which no weights are needed.

  Args:
    name: Such as 'qwen2_5_vl_7b' or 'qwen3_vl_8b': a folder of
      assets/published, the config.json of which is the published one.

  Raises:
    UserError: There is no such model; names the nearest.
  """
  names = sorted(path.name for path in PUBLISHED.iterdir())
  if name not in names:
    near = difflib.get_close_matches(name, names, 1, cutoff=0)
    raise errors.UserError(
        f'no published model is called {name!r}: did you mean {near[0]!r}? '
        f'There are {", ".join(names)}'
    )
  return from_folder(PUBLISHED / name)


def from_dict(raw: Mapping[str, Any]) -> VLMConfig:
  """Reads the contents of a config.json.

  Raises:
    KeyError: A required key is missing.
    ValueError: The file describes something that is not supported.
  """
  family = raw.get('model_type')
  if family not in FAMILIES:
    raise ValueError(
        f'model_type {family!r} is not supported, only {", ".join(FAMILIES)}'
    )
  text_raw = raw.get('text_config') or raw
  tied = raw.get(
      'tie_word_embeddings', text_raw.get('tie_word_embeddings', False)
  ) or bool(text_raw.get('tie_word_embeddings', False))
  return VLMConfig(
      family=family,
      text=_read_text(text_raw, family),
      vision=_read_vision(raw['vision_config'], family),
      tied=tied,
      image_token_id=raw['image_token_id'],
      video_token_id=raw['video_token_id'],
      vision_start_token_id=raw['vision_start_token_id'],
      vision_end_token_id=raw['vision_end_token_id'],
      eos_token_id=_token_id('eos_token_id', raw, text_raw),
      pad_token_id=_token_id('pad_token_id', raw, text_raw),
  )


def to_dict(config: VLMConfig) -> dict[str, Any]:
  """The config.json that transformers reads."""
  text, vision = config.text, config.vision
  rope_parameters: dict[str, Any] = {
      'rope_type': 'default',
      'rope_theta': text.rope_theta,
      'mrope_section': list(text.mrope_sections),
  }
  special: dict[str, Any] = {
      'window_size': vision.window_size,
      'fullatt_block_indexes': list(vision.full_attention_layers),
  }
  text_special: dict[str, Any] = {}
  if config.family == 'qwen3_vl':
    rope_parameters['mrope_interleaved'] = True
    text_special = {'head_dim': text.head_dim, 'attention_bias': False}
    special = {
        'num_position_embeddings': vision.n_positions,
        'deepstack_visual_indexes': list(vision.deepstack_layers),
    }
  return {
      'architectures': [_CLASSES[config.family]],
      'model_type': config.family,
      'tie_word_embeddings': config.tied,
      'image_token_id': config.image_token_id,
      'video_token_id': config.video_token_id,
      'vision_start_token_id': config.vision_start_token_id,
      'vision_end_token_id': config.vision_end_token_id,
      'text_config': {
          'model_type': f'{config.family}_text',
          'vocab_size': text.vocab_size,
          'hidden_size': text.width,
          'num_hidden_layers': text.n_layers,
          'num_attention_heads': text.n_heads,
          'num_key_value_heads': text.n_kv_heads,
          'intermediate_size': text.ffn,
          'rms_norm_eps': text.norm_eps,
          'hidden_act': 'silu',
          **text_special,
          'rope_parameters': rope_parameters,
          'tie_word_embeddings': config.tied,
          'bos_token_id': None,
          'eos_token_id': config.eos_token_id,
          'pad_token_id': config.pad_token_id,
      },
      'vision_config': {
          'model_type': f'{config.family}_vision',
          'hidden_size': vision.width,
          'depth': vision.n_layers,
          'num_heads': vision.n_heads,
          'intermediate_size': vision.ffn,
          'out_hidden_size': vision.out_width,
          'in_channels': vision.in_channels,
          'patch_size': vision.patch_size,
          'temporal_patch_size': vision.temporal_patch_size,
          'spatial_merge_size': vision.merge_size,
          **special,
          'hidden_act': _VISION_FALLBACKS[config.family]['hidden_act'],
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


def _read_text(raw: Mapping[str, Any], family: str) -> TextConfig:
  raw = {**_TEXT_FALLBACKS[family], **raw}
  rope = _rope(raw, supported=('default', 'mrope'))
  _check_activation(raw, 'silu')
  for field in ('use_sliding_window', 'attention_bias'):
    if raw.get(field):
      raise ValueError(f'{field} is not supported')
  qwen3 = family == 'qwen3_vl'
  n_heads = raw['num_attention_heads']
  if qwen3 and not rope.get('mrope_interleaved', True):
    raise ValueError('mrope_interleaved false is not supported for Qwen3-VL')
  return TextConfig(
      vocab_size=raw['vocab_size'],
      width=raw['hidden_size'],
      n_layers=raw['num_hidden_layers'],
      n_heads=n_heads,
      n_kv_heads=raw.get('num_key_value_heads') or n_heads,
      head_dim=raw['head_dim'] if qwen3 else raw['hidden_size'] // n_heads,
      ffn=raw['intermediate_size'],
      norm_eps=raw['rms_norm_eps'],
      rope_theta=float(rope['rope_theta']),
      mrope_sections=tuple(rope['mrope_section']),
      mrope_interleaved=qwen3,
      qkv_bias=not qwen3,
      qk_norm=qwen3,
  )


def _read_vision(raw: Mapping[str, Any], family: str) -> VisionConfig:
  fallbacks = _VISION_FALLBACKS[family]
  # The published files call the channels by an older name.
  channels = {'in_channels': raw['in_chans']} if 'in_chans' in raw else {}
  raw = {**fallbacks, **channels, **raw}
  rope = _rope(raw, supported=('default', 'axial'))
  _check_activation(raw, fallbacks['hidden_act'])
  qwen3 = family == 'qwen3_vl'
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
      window_size=None if qwen3 else raw['window_size'],
      full_attention_layers=(
          () if qwen3 else tuple(raw['fullatt_block_indexes'])
      ),
      n_positions=raw['num_position_embeddings'] if qwen3 else 0,
      deepstack_layers=(
          tuple(raw['deepstack_visual_indexes']) if qwen3 else ()
      ),
      layer_norm=qwen3,
      gated=not qwen3,
      patch_bias=qwen3,
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


def _check_activation(raw: Mapping[str, Any], expected: str) -> None:
  if raw['hidden_act'] != expected:
    raise ValueError(f'hidden_act {raw["hidden_act"]!r} is not supported')

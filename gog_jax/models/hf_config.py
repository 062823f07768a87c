"""A Hugging Face folder's config.json <-> ours.

Both generations of the file are read: the nested one (`text_config`,
`rope_parameters`) that transformers 5 writes, and those of the published
checkpoints (`rope_scaling`; Qwen2.5-VL's are flat and say `in_chans`).
"""

from __future__ import annotations

from collections.abc import Mapping
import difflib
import json
import math
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

# What a config.json leaves out, transformers takes from here, too. Everything
# that differs between published sizes has to be in the file.
_TEXT_FALLBACKS = {
    'qwen2_5_vl': {
        'rms_norm_eps': 1e-5,
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
  text_raw = _section(raw, 'text_config') or raw
  if 'vision_config' not in raw:
    raise KeyError('vision_config')
  text = _read_text(text_raw, family)
  tokens = {
      field: _whole(raw, field, 0)
      for field in (
          'image_token_id',
          'video_token_id',
          'vision_start_token_id',
          'vision_end_token_id',
      )
  }
  for field, token in tokens.items():
    if token >= text.vocab_size:
      raise ValueError(
          f'{field} is {token}, of a vocabulary of {text.vocab_size}'
      )
  return VLMConfig(
      family=family,
      text=text,
      vision=_read_vision(_section(raw, 'vision_config'), family),
      tied=any(_flag(x, 'tie_word_embeddings') for x in (raw, text_raw)),
      **tokens,
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
      return _as_whole(name, token_id, 0)
  return None


def _read_text(raw: Mapping[str, Any], family: str) -> TextConfig:
  raw = {**_TEXT_FALLBACKS[family], **raw}
  rope = _rope(raw, supported=('default', 'mrope'))
  _check_activation(raw, 'silu')
  for field in ('use_sliding_window', 'attention_bias'):
    if _flag(raw, field):
      raise ValueError(f'{field} is not supported')
  qwen3 = family == 'qwen3_vl'
  if qwen3 and not _flag(rope, 'mrope_interleaved', True):
    raise ValueError('mrope_interleaved false is not supported for Qwen3-VL')
  width = _whole(raw, 'hidden_size')
  n_heads = n_kv_heads = _whole(raw, 'num_attention_heads')
  if raw['num_key_value_heads'] is not None:
    n_kv_heads = _whole(raw, 'num_key_value_heads')
  sections = _wholes(rope, 'mrope_section')
  if len(sections) != 3:
    raise ValueError(f'mrope_section must have three parts, not {sections}')
  return TextConfig(
      vocab_size=_whole(raw, 'vocab_size'),
      width=width,
      n_layers=_whole(raw, 'num_hidden_layers'),
      n_heads=n_heads,
      n_kv_heads=n_kv_heads,
      head_dim=_whole(raw, 'head_dim') if qwen3 else width // n_heads,
      ffn=_whole(raw, 'intermediate_size'),
      norm_eps=_positive(raw, 'rms_norm_eps'),
      rope_theta=_positive(rope, 'rope_theta'),
      mrope_sections=sections,
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
      width=_whole(raw, 'hidden_size'),
      n_layers=_whole(raw, 'depth'),
      n_heads=_whole(raw, 'num_heads'),
      ffn=_whole(raw, 'intermediate_size'),
      out_width=_whole(raw, 'out_hidden_size'),
      in_channels=_whole(raw, 'in_channels'),
      patch_size=_whole(raw, 'patch_size'),
      temporal_patch_size=_whole(raw, 'temporal_patch_size'),
      merge_size=_whole(raw, 'spatial_merge_size'),
      window_size=None if qwen3 else _whole(raw, 'window_size'),
      full_attention_layers=(
          () if qwen3 else _wholes(raw, 'fullatt_block_indexes')
      ),
      n_positions=_whole(raw, 'num_position_embeddings') if qwen3 else 0,
      deepstack_layers=(
          _wholes(raw, 'deepstack_visual_indexes') if qwen3 else ()
      ),
      layer_norm=qwen3,
      gated=not qwen3,
      patch_bias=qwen3,
      norm_eps=1e-6,  # Fixed by the architecture; not a field of the file.
      rope_theta=_positive(rope, 'rope_theta'),
  )


def _rope(
    raw: Mapping[str, Any], *, supported: tuple[str, ...]
) -> Mapping[str, Any]:
  """Rotary settings, from wherever this generation of the file puts them."""
  rope = _section(raw, 'rope_parameters') or _section(raw, 'rope_scaling')
  kind = rope.get('rope_type', rope.get('type', 'default'))
  if kind not in supported:
    raise ValueError(f'rope_type {kind!r} is not supported')
  return {**raw, **rope}


def _check_activation(raw: Mapping[str, Any], expected: str) -> None:
  if raw['hidden_act'] != expected:
    raise ValueError(f'hidden_act {raw["hidden_act"]!r} is not supported')


def _section(raw: Mapping[str, Any], field: str) -> Mapping[str, Any]:
  """An object in the file; an empty one where there is none."""
  value = raw.get(field) or {}
  if not isinstance(value, Mapping):
    raise ValueError(f'{field} must be an object, not {value!r}')
  return value


def _whole(raw: Mapping[str, Any], field: str, least: int = 1) -> int:
  return _as_whole(field, raw[field], least)


def _as_whole(field: str, value: Any, least: int) -> int:
  if type(value) is not int or value < least:  # True is no number.
    raise ValueError(
        f'{field} must be a whole number of at least {least}, not {value!r}'
    )
  return value


def _wholes(raw: Mapping[str, Any], field: str) -> tuple[int, ...]:
  value = raw[field]
  if not isinstance(value, list | tuple):
    raise ValueError(f'{field} must be a list, not {value!r}')
  return tuple(_as_whole(field, one, 0) for one in value)


def _positive(raw: Mapping[str, Any], field: str) -> float:
  value = raw[field]
  if type(value) not in (int, float) or not 0 < value < math.inf:
    raise ValueError(f'{field} must be a positive number, not {value!r}')
  return float(value)


def _flag(
    raw: Mapping[str, Any], field: str, default: bool = False
) -> bool:
  value = raw.get(field)
  if value is None:
    return default
  if not isinstance(value, bool):
    raise ValueError(f'{field} must be true or false, not {value!r}')
  return value

"""A Hugging Face folder's config.json <-> ours.

Both generations of the file are read: the nested one (`text_config`,
`rope_parameters`) that transformers 5 writes, and those of the published
checkpoints (`rope_scaling`; Qwen2.5-VL's are flat and say `in_chans`).
"""

from __future__ import annotations

from collections.abc import Mapping
import dataclasses
import difflib
import json
import math
from typing import Any

from etils import epath

from gog_jax import errors
from gog_jax.models import hub
from gog_jax.models.config import TextConfig
from gog_jax.models.config import TowerConfig
from gog_jax.models.config import VisionConfig
from gog_jax.models.config import VLMConfig
from gog_jax.models.families import FAMILIES

# The config.json of each published size, under a name of ours.
PUBLISHED = epath.Path(__file__).parents[1] / 'assets' / 'published'

# Our fields -> theirs, of all families.
TEXT_KEYS = {
    'vocab_size': 'vocab_size',
    'width': 'hidden_size',
    'n_layers': 'num_hidden_layers',
    'n_heads': 'num_attention_heads',
    'n_kv_heads': 'num_key_value_heads',
    'ffn': 'intermediate_size',
    'norm_eps': 'rms_norm_eps',
}
VISION_KEYS = {
    'width': 'hidden_size',
    'n_layers': 'depth',
    'n_heads': 'num_heads',
    'ffn': 'intermediate_size',
    'out_width': 'out_hidden_size',
    'in_channels': 'in_channels',
    'patch_size': 'patch_size',
    'temporal_patch_size': 'temporal_patch_size',
    'merge_size': 'spatial_merge_size',
}
_TOKENS = (
    'image_token_id',
    'video_token_id',
    'vision_start_token_id',
    'vision_end_token_id',
)


def read_config(folder: epath.PathLike) -> VLMConfig:
  """Reads `folder/config.json`; `folder` as in hub.local_folder.

  Raises:
    UserError: The folder or file is missing, is not JSON, describes another
      model, or leaves out what the architecture needs.
  """
  folder = hub.local_folder(folder)
  path = folder / 'config.json'
  if not path.exists():
    raise errors.UserError(
        f'{folder} holds no config.json: set --config.model.path to a Hugging '
        'Face model folder (or was writing this one interrupted?)'
    )
  try:
    return from_dict(json.loads(path.read_text()))
  except (OSError, UnicodeDecodeError, json.JSONDecodeError) as error:
    raise errors.UserError(
        f'{path} cannot be read as JSON ({error}): fetch it again'
    ) from error
  except KeyError as error:
    raise errors.UserError(f'{path} has no {error}: fetch it again') from error
  except (TypeError, ValueError) as error:
    raise errors.UserError(f'{path}: {error}') from error


def published_config(name: str) -> VLMConfig:
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
  return read_config(PUBLISHED / name)


def from_dict(raw: Any) -> VLMConfig:
  """Reads the contents of a config.json.

  Raises:
    KeyError: A required key is missing.
    ValueError: The file describes something that is not supported.
  """
  if not isinstance(raw, Mapping):
    raise ValueError('not a JSON object')
  model_type = raw.get('model_type')
  if model_type not in FAMILIES:
    raise ValueError(
        f'model_type {model_type!r} is not supported, only '
        f'{", ".join(FAMILIES)}'
    )
  family = FAMILIES[model_type]
  text_raw = _section(raw, 'text_config') or raw
  vision_raw = _section(raw, 'vision_config')
  if not vision_raw:
    raise KeyError('vision_config')
  # The published files call the channels by an older name.
  if 'in_chans' in vision_raw:
    vision_raw = {'in_channels': vision_raw['in_chans'], **vision_raw}
  text = _tower(
      TextConfig,
      {**family.text_defaults, **text_raw},
      TEXT_KEYS | family.text_keys | {'mrope_sections': 'mrope_section'},
      family.text,
  )
  vision = _tower(
      VisionConfig,
      {**family.vision_defaults, **vision_raw},
      VISION_KEYS | family.vision_keys,
      family.vision,
  )
  tokens = {field: _whole(field, raw[field], 0) for field in _TOKENS}
  for field, token in tokens.items():
    if token >= text.vocab_size:
      raise ValueError(
          f'{field} is {token}, of a vocabulary of {text.vocab_size}'
      )
  return VLMConfig(
      family=model_type,
      text=text,
      vision=vision,
      tied=any(_flag(x, 'tie_word_embeddings') for x in (raw, text_raw)),
      **tokens,
      eos_token_id=_token_id('eos_token_id', raw, text_raw),
      pad_token_id=_token_id('pad_token_id', raw, text_raw),
  )


def to_dict(config: VLMConfig) -> dict[str, Any]:
  """The config.json that transformers reads."""
  family = FAMILIES[config.family]
  text, vision = config.text, config.vision
  interleaved = {'mrope_interleaved': True} if text.mrope_interleaved else {}
  return {
      'architectures': [family.hf_class],
      'model_type': config.family,
      'tie_word_embeddings': config.tied,
      **{field: getattr(config, field) for field in _TOKENS},
      'text_config': {
          'model_type': f'{config.family}_text',
          **_written(text, TEXT_KEYS | family.text_keys),
          **family.text_constants,
          'rope_parameters': {
              'rope_type': 'default',
              'rope_theta': text.rope_theta,
              'mrope_section': list(text.mrope_sections),
              **interleaved,
          },
          'tie_word_embeddings': config.tied,
          'bos_token_id': None,
          'eos_token_id': config.eos_token_id,
          'pad_token_id': config.pad_token_id,
      },
      'vision_config': {
          'model_type': f'{config.family}_vision',
          **_written(vision, VISION_KEYS | family.vision_keys),
          'rope_parameters': {
              'rope_type': 'axial',
              'rope_theta': vision.rope_theta,
          },
      },
  }


def _written(tower: TowerConfig, keys: Mapping[str, str]) -> dict[str, Any]:
  values = {key: getattr(tower, field) for field, key in keys.items()}
  return {**values, 'hidden_act': _activation(tower.gated)}


def _activation(gated: bool) -> str:
  return 'silu' if gated else 'gelu_pytorch_tanh'


def _token_id(name: str, *places: Mapping[str, Any]) -> int | None:
  """The first mention of a token; the first of several alternatives."""
  for raw in places:
    token_id = raw.get(name)
    if isinstance(token_id, list):
      token_id = token_id[0] if token_id else None
    if token_id is not None:
      return _whole(name, token_id, 0)
  return None


def _tower(
    cls: type[Any],
    raw: Mapping[str, Any],
    keys: Mapping[str, str],
    shared: Mapping[str, Any],
) -> Any:
  """A TextConfig or VisionConfig.

  Args:
    cls: Which.
    raw: Its section of the file, defaults filled in.
    keys: Its fields -> names in the section.
    shared: Its fields that the family fixes.
  """
  rope = _section(raw, 'rope_parameters') or _section(raw, 'rope_scaling')
  kind = rope.get('rope_type', rope.get('type', 'default'))
  if kind not in ('default', 'mrope' if cls is TextConfig else 'axial'):
    raise ValueError(f'rope_type {kind!r} is not supported')
  raw = {**raw, **rope}
  activation = _activation(shared.get('gated', True))
  if raw.get('hidden_act', activation) != activation:
    raise ValueError(f'hidden_act {raw["hidden_act"]!r} is not supported')
  for field in ('use_sliding_window', 'attention_bias'):
    if _flag(raw, field):
      raise ValueError(f'{field} is not supported')
  interleaved = shared.get('mrope_interleaved', False)
  if _flag(raw, 'mrope_interleaved', interleaved) != interleaved:
    raise ValueError(f'mrope_interleaved {not interleaved} is not supported')
  keys = {**keys, 'rope_theta': 'rope_theta'}
  kinds = {field.name: str(field.type) for field in dataclasses.fields(cls)}
  readers = {'int': _whole, 'int | None': _whole, 'float': _positive}
  values = {
      field: readers.get(kinds[field], _wholes)(key, raw[key])
      for field, key in keys.items()
      if field != 'n_kv_heads' or raw[key] is not None
  }
  heads = values['n_heads']
  implied = {'n_kv_heads': heads, 'head_dim': values['width'] // heads}
  return cls(**{**implied, **values, **shared})


def _section(raw: Mapping[str, Any], field: str) -> Mapping[str, Any]:
  """An object in the file; an empty one where there is none."""
  value = raw.get(field) or {}
  if not isinstance(value, Mapping):
    raise ValueError(f'{field} must be an object, not {value!r}')
  return value


def _whole(field: str, value: Any, least: int = 1) -> int:
  if type(value) is not int or value < least:  # True is no number.
    raise ValueError(
        f'{field} must be a whole number of at least {least}, not {value!r}'
    )
  return value


def _wholes(field: str, value: Any) -> tuple[int, ...]:
  if not isinstance(value, list | tuple):
    raise ValueError(f'{field} must be a list, not {value!r}')
  return tuple(_whole(field, one, 0) for one in value)


def _positive(field: str, value: Any) -> float:
  if type(value) not in (int, float) or not 0 < value < math.inf:
    raise ValueError(f'{field} must be a positive number, not {value!r}')
  return float(value)


def _flag(raw: Mapping[str, Any], field: str, default: bool = False) -> bool:
  value = raw.get(field)
  if value is None:
    return default
  if not isinstance(value, bool):
    raise ValueError(f'{field} must be true or false, not {value!r}')
  return value

"""A Hugging Face folder's config.json <-> ours.

Both generations of the file are read: the nested one (`text_config`,
`rope_parameters`) that transformers 5 writes, and those of the published
checkpoints (`rope_scaling`; Qwen2.5-VL's are flat and say `in_chans`).
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, TypeVar

from etils import epath

from gog_jax import errors
from gog_jax.models import folders
from gog_jax.models.config import TextConfig
from gog_jax.models.config import VisionConfig
from gog_jax.models.config import VLMConfig
from gog_jax.models.families import FAMILIES
from gog_jax.storage import files
from gog_jax.storage import typed

C = TypeVar('C', TextConfig, VisionConfig)

# The config.json of each published size, under a name of ours.
PUBLISHED = epath.Path(__file__).parents[1] / 'assets' / 'published'

_TOKENS = (
    'image_token_id',
    'video_token_id',
    'vision_start_token_id',
    'vision_end_token_id',
)


def read_config(folder: epath.PathLike) -> VLMConfig:
  """Reads `folder/config.json`; `folder` as in folders.local_folder.

  Raises:
    UserError: The folder or file is missing, is not JSON, describes another
      model, or leaves out what the architecture needs.
  """
  folder = folders.local_folder(folder)
  path = folder / 'config.json'
  raw = files.read_json(
      path,
      advice='fetch it again, or set --config.model.path to a Hugging Face '
      'model folder (was writing this one interrupted?)',
  )
  try:
    return from_dict(raw)
  except ValueError as error:
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
    raise errors.UserError(
        f'no published model is called {name!r}: did you mean '
        f'{errors.nearest(name, names)!r}? There are {", ".join(names)}'
    )
  return read_config(PUBLISHED / name)


def from_dict(raw: Mapping[str, Any]) -> VLMConfig:
  """Reads the contents of a config.json.

  Raises:
    ValueError: A required key is missing, or the file describes something that
      is not supported.
  """
  model_type = raw.get('model_type')
  if model_type not in list(FAMILIES):
    raise ValueError(
        f'model_type {model_type!r} is not supported, only '
        f'{", ".join(FAMILIES)}'
    )
  family = FAMILIES[model_type]
  text_raw = _section(raw, 'text_config') or raw
  vision_raw = _section(raw, 'vision_config')
  # The published files call the channels by an older name.
  if 'in_chans' in vision_raw:
    vision_raw = {'in_channels': vision_raw['in_chans'], **vision_raw}
  text = _tower(
      TextConfig,
      {**family.text_defaults, **text_raw, **_rope(raw, text_raw)},
      family.text_keys | {'mrope_sections': 'mrope_section'},
      family.text,
  )
  vision = _tower(
      VisionConfig,
      {**family.vision_defaults, **vision_raw, **_rope(vision_raw)},
      family.vision_keys,
      family.vision,
  )
  tied = [x.get('tie_word_embeddings') or False for x in (raw, text_raw)]
  ours = {
      'family': model_type,
      'text': text,
      'vision': vision,
      'tied': tied[0] or tied[1],
      'eos_token_id': _token_id('eos_token_id', raw, text_raw),
      'pad_token_id': _token_id('pad_token_id', raw, text_raw),
  }
  config = typed.read(VLMConfig, {**raw, **ours}, ignore_unknown=True)
  for field in _TOKENS:
    if getattr(config, field) >= text.vocab_size:
      raise ValueError(
          f'{field} is {getattr(config, field)}, of a vocabulary of '
          f'{text.vocab_size}'
      )
  return config


def to_dict(config: VLMConfig) -> dict[str, Any]:
  """The config.json that transformers reads."""
  family = FAMILIES[config.family]
  text, vision = config.text, config.vision
  interleaved = {'mrope_interleaved': True} if text.mrope_interleaved else {}

  def written(tower, keys):
    return {key: getattr(tower, field) for field, key in keys.items()}

  return {
      'architectures': [family.hf_class],
      'model_type': config.family,
      'tie_word_embeddings': config.tied,
      **{field: getattr(config, field) for field in _TOKENS},
      'text_config': {
          'model_type': f'{config.family}_text',
          **written(text, family.text_keys),
          'hidden_act': _activation(family.text),
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
          **written(vision, family.vision_keys),
          'hidden_act': _activation(family.vision),
          'rope_parameters': {
              'rope_type': 'axial',
              'rope_theta': vision.rope_theta,
          },
      },
  }


def _activation(tower: Mapping[str, Any]) -> str:
  return 'silu' if tower.get('gated', True) else 'gelu_pytorch_tanh'


def _token_id(name: str, *places: Mapping[str, Any]) -> Any:
  """The first mention of a token; the first of several alternatives."""
  for raw in places:
    token_id = raw.get(name)
    if isinstance(token_id, list):
      token_id = token_id[0] if token_id else None
    if token_id is not None:
      return token_id
  return None


def _tower(
    kind: type[C],
    raw: Mapping[str, Any],
    keys: Mapping[str, str],
    shared: Mapping[str, Any],
) -> C:
  """A TextConfig or VisionConfig.

  Args:
    kind: Which.
    raw: Its section of the file, defaults filled in.
    keys: Its fields -> names in the section.
    shared: Its fields that the family fixes.
  """
  raw = dict(raw)
  for field, supported in (
      ('rope_type', ('default', *['axial'] * (kind is VisionConfig))),
      ('factor', (1,)),  # Of a kind that is not named.
      ('hidden_act', (_activation(shared),)),
      ('use_sliding_window', (False,)),
      ('attention_bias', (False,)),
      ('mrope_interleaved', (shared.get('mrope_interleaved', False),)),
  ):
    if raw.get(field) not in (None, *supported):
      raise ValueError(f'{field} {raw[field]!r} is not supported')
  if other := set(raw.get('layer_types') or ()) - {'full_attention'}:
    raise ValueError(f'layer_types {min(other)!r} is not supported')
  width, n_heads = (
      typed.read(int, raw.get(key), key)
      for key in (keys['width'], keys['n_heads'])
  )
  raw.setdefault('head_dim', width // max(n_heads, 1))
  kv_heads = keys.get('n_kv_heads', 'n_kv_heads')
  if raw.get(kv_heads) is None:
    raw[kv_heads] = n_heads
  return typed.read(kind, {**raw, **shared}, keys=keys, ignore_unknown=True)


def _rope(*places: Mapping[str, Any]) -> dict[str, Any]:
  """The settings of rotary embeddings, wherever they are.

  Raises:
    ValueError: Two places disagree.
  """
  told: dict[str, Any] = {}
  for place in places:
    ropes = [_section(place, f'rope_{x}') for x in ('parameters', 'scaling')]
    for rope in ({'rope_theta': place.get('rope_theta')}, *ropes):
      for key, value in rope.items():
        key = 'rope_type' if key == 'type' else key
        value = 'default' if (key, value) == ('rope_type', 'mrope') else value
        if isinstance(value, Mapping):
          raise ValueError(f'rope settings of {key} alone are not supported')
        if value is not None and told.setdefault(key, value) != value:
          raise ValueError(
              f'{key} {value!r} in one place and {told[key]!r} in another, of '
              'rope_parameters and rope_scaling: leave the right one'
          )
  return told


def _section(raw: Mapping[str, Any], field: str) -> Mapping[str, Any]:
  """An object in the file; an empty one where there is none."""
  return typed.read(Mapping[str, Any], raw.get(field) or {}, field)

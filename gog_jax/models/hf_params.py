"""Hugging Face weights <-> ours: one table, read in both directions.

Differences: their layers are separate tensors, ours are stacked; their linear
weights are [out, in]; their vision blocks hold query, key and value in one
matrix; their patch embedding is a 3-D convolution. Their key names exist in
two layouts, of which the table has the older one: `load` reads both, `save`
writes the one that a family was published in.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
import contextlib
import json
import re
from typing import Any, NamedTuple

from etils import epath
import ml_dtypes
import numpy as np
import safetensors
import safetensors.numpy

from gog_jax import errors
from gog_jax.models import config as config_lib
from gog_jax.models import hf_config

# As in nnx.to_flat_state.
Path = tuple[Any, ...]

WEIGHTS = 'model.safetensors'
INDEX = 'model.safetensors.index.json'

# Tensors that a folder may hold beside the parameters.
_IGNORED = re.compile(r'(^|\.)rotary_(emb|pos_emb)\.inv_freq$')

# From the layout of transformers' classes since 4.52 to the published one.
_NEWER_LAYOUT = (
    ('model.language_model.', 'model.'),
    ('model.visual.', 'visual.'),
)


_MERGER = {
    'qwen2_5_vl': {'norm': 'ln_q', 'up': 'mlp.0', 'down': 'mlp.2'},
    'qwen3_vl': {'norm': 'norm', 'up': 'linear_fc1', 'down': 'linear_fc2'},
}
# Of the vision tower's blocks.
_MLP = {
    'qwen2_5_vl': {
        'gate': 'mlp.gate_proj',
        'up': 'mlp.up_proj',
        'down': 'mlp.down_proj',
    },
    'qwen3_vl': {'up': 'mlp.linear_fc1', 'down': 'mlp.linear_fc2'},
}


class Entry(NamedTuple):
  """Where one of our parameters comes from.

  Attributes:
    path: Ours.
    key: Theirs; {layer} where ours is stacked.
    n_layers: How many of theirs ours stacks; 0 if it is not stacked.
    part: (i, n): ours is the i-th of n equal parts of theirs, along axis 0.
    transposed: Whether theirs is [out, in] (a convolution is flattened).
  """

  path: Path
  key: str
  n_layers: int
  part: tuple[int, int]
  transposed: bool


def table(config: config_lib.VLMConfig) -> tuple[Entry, ...]:
  """Every parameter of the model, once."""
  return tuple(_entries(config))


def _entries(config: config_lib.VLMConfig) -> Iterator[Entry]:
  def linear(path, key, *, n_layers=0, part=(0, 1), bias=True):
    yield Entry((*path, 'kernel'), f'{key}.weight', n_layers, part, True)
    if bias:
      yield Entry((*path, 'bias'), f'{key}.bias', n_layers, part, False)

  def norm(path, key, *, n_layers=0, bias=False):
    yield Entry((*path, 'scale'), f'{key}.weight', n_layers, (0, 1), False)
    if bias:
      yield Entry((*path, 'bias'), f'{key}.bias', n_layers, (0, 1), False)

  n_layers = config.text.n_layers
  ours, theirs = ('text', 'blocks'), 'model.layers.{layer}'
  yield Entry(
      ('text', 'embedding'), 'model.embed_tokens.weight', 0, (0, 1), False
  )
  yield from norm(('text', 'norm'), 'model.norm')
  if not config.tied:
    yield Entry(('text', 'untied_head'), 'lm_head.weight', 0, (0, 1), True)
  for name, key in (
      ('attention_norm', 'input_layernorm'),
      ('mlp_norm', 'post_attention_layernorm'),
  ):
    yield from norm((*ours, name), f'{theirs}.{key}', n_layers=n_layers)
  if config.text.qk_norm:
    for name, key in (('query_norm', 'q_norm'), ('key_norm', 'k_norm')):
      yield from norm(
          (*ours, name), f'{theirs}.self_attn.{key}', n_layers=n_layers
      )
  qkv_bias = config.text.qkv_bias
  for name, key, bias in (
      ('query', 'self_attn.q_proj', qkv_bias),
      ('key', 'self_attn.k_proj', qkv_bias),
      ('value', 'self_attn.v_proj', qkv_bias),
      ('out', 'self_attn.o_proj', False),
      ('gate', 'mlp.gate_proj', False),
      ('up', 'mlp.up_proj', False),
      ('down', 'mlp.down_proj', False),
  ):
    yield from linear(
        (*ours, name), f'{theirs}.{key}', n_layers=n_layers, bias=bias
    )

  vision = config.vision
  n_layers = vision.n_layers
  ours, theirs = ('vision', 'blocks'), 'visual.blocks.{layer}'
  yield from linear(
      ('vision', 'patch_embed'),
      'visual.patch_embed.proj',
      bias=vision.patch_bias,
  )
  if vision.n_positions:
    yield Entry(
        ('vision', 'positions'), 'visual.pos_embed.weight', 0, (0, 1), False
    )
  names = _MERGER[config.family]
  mergers = [(('vision', 'merger'), 'visual.merger', 0)]
  if n_deep := len(vision.deepstack_layers):
    key = 'visual.deepstack_merger_list.{layer}'
    mergers.append((('vision', 'deepstack_mergers'), key, n_deep))
  for path, key, count in mergers:
    yield from norm(
        (*path, 'norm'),
        f'{key}.{names["norm"]}',
        n_layers=count,
        bias=vision.layer_norm,
    )
    for name in ('up', 'down'):
      yield from linear(
          (*path, name), f'{key}.{names[name]}', n_layers=count
      )
  for name, key in (('attention_norm', 'norm1'), ('mlp_norm', 'norm2')):
    yield from norm(
        (*ours, name),
        f'{theirs}.{key}',
        n_layers=n_layers,
        bias=vision.layer_norm,
    )
  for name, key, part in (
      ('query', 'attn.qkv', (0, 3)),
      ('key', 'attn.qkv', (1, 3)),
      ('value', 'attn.qkv', (2, 3)),
      ('out', 'attn.proj', (0, 1)),
      *((name, key, (0, 1)) for name, key in _MLP[config.family].items()),
  ):
    yield from linear(
        (*ours, name), f'{theirs}.{key}', n_layers=n_layers, part=part
    )


def _keys(entry: Entry) -> list[str]:
  """Their tensors that make up one of our parameters."""
  if not entry.n_layers:
    return [entry.key]
  return [entry.key.format(layer=i) for i in range(entry.n_layers)]


def load(
    folder: epath.PathLike,
    config: config_lib.VLMConfig,
    shapes: Mapping[Path, tuple[int, ...]],
    put: Callable[[Path, np.ndarray], Any],
) -> dict[Path, Any]:
  """Reads a folder's weights, one of our parameters at a time.

  Args:
    folder: With model.safetensors, or shards and their index.
    config: Of that folder.
    shapes: Our parameters and their shapes.
    put: Casts a parameter and places it; called as soon as it is read, so that
      the host never holds more than one.

  Returns:
    What `put` returned for each parameter.

  Raises:
    UserError: Weights are missing, incomplete, misshapen, corrupt, or hold
      tensors that the model has no place for.
  """
  folder = epath.Path(folder)
  entries = table(config)
  with contextlib.ExitStack() as stack:
    read = _open(folder, stack)
    expected = {key for entry in entries for key in _keys(entry)}
    # A tied model's folder may hold the head all the same.
    optional = {'lm_head.weight'} if config.tied else set()
    found = {key for key in read if not _IGNORED.search(key)}
    problems = []
    if missing := sorted(expected - found):
      problems.append(f'lacks {_some(missing)}')
    if extra := sorted(found - expected - optional):
      problems.append(f'has unknown {_some(extra)}')
    if problems:
      raise errors.UserError(
          f'{folder} {" and ".join(problems)}: config.json and weights do not '
          'belong together; fetch the folder again'
      )
    return {
        entry.path: put(
            entry.path, _assemble(entry, read, shapes[entry.path], folder)
        )
        for entry in entries
    }


def _open(
    folder: epath.Path, stack: contextlib.ExitStack
) -> dict[str, Callable[[], np.ndarray]]:
  """A reader for each tensor, by its name in the published layout."""
  if (folder / WEIGHTS).exists():
    names = [WEIGHTS]
  elif (folder / INDEX).exists():
    try:
      index = json.loads((folder / INDEX).read_text())
      names = sorted(set(index['weight_map'].values()))
    except (ValueError, KeyError, AttributeError, TypeError) as error:
      raise errors.UserError(
          f'{folder / INDEX} is damaged ({error!r}): fetch it again'
      ) from error
  else:
    raise errors.UserError(
        f'{folder} holds no weights ({WEIGHTS} or {INDEX}): download them '
        'into the folder, or set config.model.path to a folder that has them'
    )
  readers = {}
  for name in names:
    path = folder / name
    if not path.exists():
      raise errors.UserError(
          f'{folder} lacks the shard {name} that its index names: fetch it'
      )
    try:
      file = stack.enter_context(safetensors.safe_open(path, 'numpy'))
      keys = list(file.keys())
    except (OSError, safetensors.SafetensorError) as error:
      raise errors.UserError(
          f'{path} is damaged ({error}): fetch it again'
      ) from error
    for key in keys:
      readers[_published(key)] = lambda file=file, key=key: file.get_tensor(key)
  return readers


def _published(key: str) -> str:
  for newer, older in _NEWER_LAYOUT:
    if key.startswith(newer):
      return older + key.removeprefix(newer)
  return key


def _key_of_file(key: str, family: str) -> str:
  """The name under which a family was published."""
  if family == 'qwen2_5_vl' or key == 'lm_head.weight':
    return key
  for newer, older in _NEWER_LAYOUT:
    if key.startswith(older):
      return newer + key.removeprefix(older)
  raise ValueError(f'no name for {key}')


def _some(keys: list[str]) -> str:
  """The first few of many names."""
  more = f' and {len(keys) - 4} more' if len(keys) > 4 else ''
  return ', '.join(keys[:4]) + more


def _assemble(
    entry: Entry,
    read: Mapping[str, Callable[[], np.ndarray]],
    shape: tuple[int, ...],
    folder: epath.Path,
) -> np.ndarray:
  """One of our parameters, from theirs."""
  result = None
  keys = _keys(entry)
  one = shape[1:] if entry.n_layers else shape
  for layer, key in enumerate(keys):
    tensor = read[key]()
    index, n_parts = entry.part
    ours = tensor
    if entry.transposed:
      ours = tensor.reshape(len(tensor), -1).T
    whole = (*one[:-1], one[-1] * n_parts)  # Parts lie on our last axis.
    if ours.shape != whole:
      raise errors.UserError(
          f'{folder}: {key} has shape {list(tensor.shape)}, which does not fit '
          'config.json; fetch the folder again'
      )
    ours = ours[..., index * one[-1] : (index + 1) * one[-1]]
    if result is None:
      result = np.empty((len(keys), *one), ours.dtype)
    result[layer] = ours
  assert result is not None  # A tower has at least one layer.
  return result.reshape(shape)


def save(
    folder: epath.PathLike,
    config: config_lib.VLMConfig,
    params: Mapping[Path, np.ndarray],
    *,
    dtype: Any,
) -> None:
  """Writes config.json and model.safetensors as transformers reads them.

  Args:
    folder: Made if need be; other files in it are left alone.
    config: Becomes config.json.
    params: Our parameters, on the host.
    dtype: Of the file.
  """
  dtype = np.dtype(dtype)
  parts: dict[str, list[np.ndarray]] = {}
  for entry in table(config):
    value = np.asarray(params[entry.path]).astype(dtype)
    stacked = value if entry.n_layers else value[None]
    for key, ours in zip(_keys(entry), stacked, strict=True):
      # The table lists the parts of one tensor in their order.
      parts.setdefault(key, []).append(ours.T if entry.transposed else ours)
  tensors = {key: np.concatenate(arrays) for key, arrays in parts.items()}
  vision = config.vision
  conv = 'visual.patch_embed.proj.weight'
  tensors[conv] = tensors[conv].reshape(
      -1,
      vision.in_channels,
      vision.temporal_patch_size,
      vision.patch_size,
      vision.patch_size,
  )
  folder = epath.Path(folder)
  folder.mkdir(parents=True, exist_ok=True)
  data = safetensors.numpy.save(
      {
          _key_of_file(key, config.family): np.ascontiguousarray(value)
          for key, value in tensors.items()
      },
      metadata={'format': 'pt'},
  )
  (folder / WEIGHTS).write_bytes(data)
  names = {np.dtype(ml_dtypes.bfloat16): 'bfloat16'}
  raw = {**hf_config.to_dict(config), 'dtype': names.get(dtype, dtype.name)}
  (folder / 'config.json').write_text(json.dumps(raw, indent=2) + '\n')

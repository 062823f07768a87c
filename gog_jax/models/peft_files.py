"""LoRA adapters <-> the files of Hugging Face's `peft`.

Differences: their A is [r, in] and B [out, r], ours [in, r] and [r, out], of
all layers in one array; their modules have the names of transformers' classes;
their vision blocks hold query, key and value in one linear map `qkv`, on which
there is one adapter. To read it: the three share A, B's rows are split. To
write it: where the three A are one, that is undone; else they become one
adapter of rank 3 r, whose B is block-diagonal:

    A = [A_q; A_k; A_v]      B = diag(B_q, B_k, B_v)      alpha = 3 alpha

which is the same map, since alpha / rank is.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
import json
import re
from typing import Any

from etils import epath
import numpy as np
import safetensors.numpy

from gog_jax import errors
from gog_jax.models import hf_files
from gog_jax.models import hf_table
from gog_jax.models import layers
from gog_jax.models import lora
from gog_jax.models import vlm

CONFIG = 'adapter_config.json'
WEIGHTS = 'adapter_model.safetensors'

_PREFIX = 'base_model.model.'

# Fields of their config that change what an adapter computes, and the values
# for which it computes what ours does.
_SUPPORTED = {
    'peft_type': ('LORA',),
    # Others change the base's weights when they begin.
    'init_lora_weights': (True, False, 'gaussian', 'orthogonal', 'eva'),
    'use_rslora': (False, True, None),
    'bias': ('none',),
    'use_dora': (False, None),
    'modules_to_save': (None, []),
    'lora_bias': (False, None),
    'fan_in_fan_out': (False, None),
    'layer_replication': (None,),
    'target_parameters': (None, []),
    'trainable_token_indices': (None,),
    'use_qalora': (False, None),
    'use_bdlora': (None, False),
    'alora_invocation_tokens': (None,),
    'arrow_config': (None,),
    'kasa_config': (None,),
    'monteclora_config': (None,),
    'velora_config': (None,),
}


def save_adapters(
    model: vlm.VLM, folder: epath.PathLike, *, base: str | None = None
) -> None:
  """Writes a folder that peft.PeftModel.from_pretrained loads.

  Args:
    model: With adapters, not merged.
    folder: Made if need be; other files in it are left alone.
    base: Name or path of the base model, for whoever loads the folder.

  Raises:
    UserError: The folder cannot be written.
    ValueError: The model has no adapters.
  """
  tensors, ranks = {}, {}
  for key, linears in _modules(model):
    stacked_a, stacked_b = [], []
    for linear in linears:
      if linear.lora_a is not None and linear.lora_b is not None:
        stacked_a.append(np.asarray(linear.lora_a[...]))
        stacked_b.append(np.asarray(linear.lora_b[...]))
    if not stacked_a:
      continue
    scale = linears[0].lora_scale
    for layer in range(len(stacked_a[0])):
      parts_a = [a[layer].T for a in stacked_a]
      parts_b = [b[layer].T for b in stacked_b]
      if not any(x.any() for x in parts_a + parts_b):
        continue  # A layer that a loaded folder had nothing for.
      if all(np.array_equal(a, parts_a[0]) for a in parts_a):
        a, b = parts_a[0], np.concatenate(parts_b)
      else:
        a, b = np.concatenate(parts_a), _block_diagonal(parts_b)
      name = key.format(layer=layer)
      tensors[f'{_PREFIX}{name}.lora_A.weight'] = np.ascontiguousarray(a)
      tensors[f'{_PREFIX}{name}.lora_B.weight'] = np.ascontiguousarray(b)
      ranks[name] = (len(a), _number(len(a) * scale))
  if not ranks:
    raise ValueError('the model has no adapters: call models.add_lora first')
  pairs = list(ranks.values())
  rank, alpha = max(set(pairs), key=pairs.count)
  others = {name: pair for name, pair in ranks.items() if pair != (rank, alpha)}
  config = {
      'peft_type': 'LORA',
      'task_type': 'CAUSAL_LM',
      'base_model_name_or_path': base,
      'inference_mode': True,
      'r': rank,
      'lora_alpha': alpha,
      'lora_dropout': 0.0,
      'bias': 'none',
      # Whole names: they are found in one place only.
      'target_modules': sorted(ranks),
      'rank_pattern': {name: r for name, (r, _) in others.items()},
      'alpha_pattern': {name: a for name, (_, a) in others.items()},
  }
  folder = epath.Path(folder)
  data = safetensors.numpy.save(tensors, metadata={'format': 'pt'})
  try:
    folder.mkdir(parents=True, exist_ok=True)
    (folder / WEIGHTS).write_bytes(data)
    (folder / CONFIG).write_text(json.dumps(config, indent=2) + '\n')
  except OSError as error:
    raise errors.UserError(
        f'cannot write the adapters to {folder}: {error.strerror or error}'
    ) from error


def load_adapters(model: vlm.VLM, folder: epath.PathLike) -> None:
  """Puts the adapters of a peft folder on a model, in place.

  Linear maps that the folder has nothing for get no adapter: with q_proj and
  v_proj in it, only those are trained. Those of one kind are stacked over
  layers: where a folder has some layers of a kind only, the others' A and B are
  zero. They add nothing, get no gradient, and are not saved.

  They have the dtype that the files have: to train them on by other means than
  ours, which take float32 masters, cast them first.

  Args:
    model: Has none yet.
    folder: With adapter_config.json and adapter_model.safetensors.

  Raises:
    UserError: A file is missing or damaged, or the adapters are of a kind, a
      shape or for a module that the model has no place for.
    ValueError: The model has adapters already.
  """
  folder = epath.Path(folder)
  config, tensors = _read(folder)
  used, made = set(), []
  for key, linears in _modules(model):
    if linears[0].lora_a is not None:
      raise ValueError('the model has adapters already')
    n_layers = linears[0].kernel.shape[0]
    names = [key.format(layer=layer) for layer in range(n_layers)]
    pairs = {}
    for layer, name in enumerate(names):
      sides = [f'{_PREFIX}{name}.lora_{side}.weight' for side in 'AB']
      found = [side for side in sides if side in tensors]
      if not found:
        continue
      used.update(found)
      for side in sides:
        if side not in tensors:
          raise errors.UserError(f'{folder} lacks {side}: copy it again')
      pairs[layer] = [(side, tensors[side]) for side in sides]
    if pairs:
      scales = {_scale(config, names[layer], pairs[layer]) for layer in pairs}
      if len(scales) > 1:
        raise errors.UserError(
            f'{folder}: layers of {key} have different ranks or scales '
            '(rank_pattern, alpha_pattern), which is not supported'
        )
      made.append((linears, *_stack(linears, pairs, folder), scales.pop()[1]))
  if extra := sorted(tensors.keys() - used):
    more = f' and {len(extra) - 4} more' if len(extra) > 4 else ''
    raise errors.UserError(
        f'{folder} has unknown {", ".join(extra[:4])}{more}: either they were '
        'trained on another base model, or are of maps outside the blocks, '
        'which have no adapters here: then merge them into their base with '
        'PEFT (merge_and_unload)'
    )
  if not made:
    raise errors.UserError(f'{folder / WEIGHTS} holds no adapters')
  for linears, a, parts_b, scale in made:  # Only once all is well.
    for linear, b in zip(linears, parts_b, strict=True):
      lora.put_adapter(linear, a, b, scale)


def _modules(
    model: vlm.VLM,
) -> Iterator[tuple[str, list[layers.Linear]]]:
  """Each of their linear maps in blocks, {layer} in its name, and our parts."""
  parts: dict[str, list[layers.Linear]] = {}
  for entry in hf_table.table(model.config):
    tower, module, *name = entry.path
    if module == 'blocks' and name[-1] == 'kernel':
      key = entry.key.removesuffix('.weight')
      linear = getattr(getattr(model, tower).blocks, name[0])
      parts.setdefault(_in_memory(key), []).append(linear)
  yield from parts.items()


def _in_memory(key: str) -> str:
  """The table's name of a module as transformers' classes have it."""
  if key.startswith('visual.'):
    return f'model.{key}'
  return f'model.language_model.{key.removeprefix("model.")}'


def _read(
    folder: epath.Path,
) -> tuple[dict[str, Any], Mapping[str, hf_files.Tensor]]:
  for name in (CONFIG, WEIGHTS):
    if not (folder / name).exists():
      raise errors.UserError(
          f'{folder} holds no {name}: it is not a folder that peft saved, or '
          'not with safe_serialization'
      )
  damaged = lambda how: errors.UserError(
      f'{folder / CONFIG} is damaged ({how}): fetch it again'
  )
  try:
    config = json.loads((folder / CONFIG).read_text())
    ranks = [config['r'], *_patterns(config, 'rank_pattern')]
    alphas = [config['lora_alpha'], *_patterns(config, 'alpha_pattern')]
  except (ValueError, KeyError, TypeError, AttributeError, re.error) as error:
    raise damaged(repr(error)) from error
  for rank in ranks:
    if type(rank) is not int or rank < 1:
      raise damaged(f'a rank of {rank!r}')
  for alpha in alphas:
    if type(alpha) not in (int, float):
      raise damaged(f'an alpha of {alpha!r}')
  for field, supported in _SUPPORTED.items():
    if field in config and config[field] not in supported:
      raise errors.UserError(
          f'{folder / CONFIG}: {field} {config[field]!r} is not supported, '
          f'only {supported[0]!r}; merge the adapter into its base with PEFT '
          '(merge_and_unload) and load that'
      )
  return config, hf_files.read_header(folder / WEIGHTS)


def _patterns(config: Mapping[str, Any], field: str) -> list[Any]:
  """The values of a field that maps patterns of names to them."""
  patterns = config.get(field) or {}
  for pattern in patterns:
    re.compile(pattern)
  return list(patterns.values())


def _whole(tensor: hf_files.Tensor) -> np.ndarray:
  if tensor.dtype not in hf_files.DTYPES:
    raise errors.UserError(
        f'{tensor} is {tensor.dtype}; adapters are one of '
        f'{", ".join(hf_files.DTYPES)}'
    )
  array = np.empty(tensor.shape, hf_files.DTYPES[tensor.dtype])
  everything = [slice(None)] * len(tensor.shape)
  tensor.read(everything, array, transposed=False)
  return array


def _scale(
    config: Mapping[str, Any],
    name: str,
    pair: list[tuple[str, hf_files.Tensor]],
) -> tuple[int, float]:
  """Rank and scale of a module's adapter; patterns match ends of names."""

  def look_up(patterns, default):
    for pattern, value in (config.get(patterns) or {}).items():
      if re.match(rf'(.*\.)?({pattern})$', name):
        return value
    return config[default]

  rank = look_up('rank_pattern', 'r')
  alpha = look_up('alpha_pattern', 'lora_alpha')
  (key, a), _ = pair
  if a.shape[:1] != (rank,):
    raise errors.UserError(
        f'{key} has shape {list(a.shape)}, {CONFIG} says rank {rank}'
    )
  return rank, alpha / (rank**0.5 if config.get('use_rslora') else rank)


def _stack(
    linears: list[layers.Linear],
    pairs: Mapping[int, list[tuple[str, hf_files.Tensor]]],
    folder: epath.Path,
) -> tuple[np.ndarray, list[np.ndarray]]:
  """A [L, in, r], and B [L, r, out] of each part; zero where there is none.

  In the dtype of the files, or in float32 if there are several.
  """
  n_layers, in_width, out_width = linears[0].kernel.shape
  rank = next(iter(pairs.values()))[0][1].shape[0]
  dtypes = {tensor.dtype for pair in pairs.values() for _, tensor in pair}
  dtype = np.dtype(np.float32)
  if len(dtypes) == 1:
    dtype = hf_files.DTYPES.get(dtypes.pop(), dtype)
  a = np.zeros((n_layers, in_width, rank), dtype)
  b = np.zeros((n_layers, rank, len(linears) * out_width), dtype)
  for layer, pair in pairs.items():
    for (key, tensor), ours in zip(pair, (a, b), strict=True):
      if tensor.shape != ours.shape[:0:-1]:
        raise errors.UserError(
            f'{folder}: {key} has shape {list(tensor.shape)}, the model wants '
            f'{list(ours.shape[:0:-1])}'
        )
      ours[layer] = _whole(tensor).T
  return a, np.split(b, len(linears), axis=-1)


def _block_diagonal(blocks: list[np.ndarray]) -> np.ndarray:
  rows, columns = np.sum([block.shape for block in blocks], axis=0)
  result = np.zeros((rows, columns), blocks[0].dtype)
  row = column = 0
  for block in blocks:
    n, m = block.shape
    result[row : row + n, column : column + m] = block
    row, column = row + n, column + m
  return result


def _number(x: float) -> float:
  """16 in place of 16.0, as peft writes it."""
  return int(x) if x == int(x) else x

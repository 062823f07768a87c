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
      alpha = len(a) * scale
      # As peft writes it, 16 in place of 16.0.
      ranks[name] = (len(a), int(alpha) if alpha == int(alpha) else alpha)
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
  """
  folder = epath.Path(folder)
  config = _read_config(folder)
  unused = dict(hf_files.read_header(folder / WEIGHTS))
  made = []
  for key, linears in _modules(model):
    if linears[0].lora_a is not None:
      raise ValueError('the model has adapters already')
    pairs, scales = {}, set()
    for layer in range(linears[0].kernel.shape[0]):
      name = key.format(layer=layer)
      sides = [f'{_PREFIX}{name}.lora_{side}.weight' for side in 'AB']
      missing = [side for side in sides if side not in unused]
      if len(missing) == 2:
        continue
      if missing:
        raise errors.UserError(f'{folder} lacks {missing[0]}: copy it again')
      pairs[layer] = [unused.pop(side) for side in sides]
      scales.add(_scale(config, name, pairs[layer][0]))
    if len(scales) > 1:
      raise errors.UserError(
          f'{folder}: layers of {key} have different ranks or scales '
          '(rank_pattern, alpha_pattern), which is not supported'
      )
    if pairs:
      made.append((linears, *_stack(linears, pairs), scales.pop()[1]))
  if unused:
    raise errors.UserError(
        f'{folder} has unknown {hf_files.some(unused)}: adapters of another '
        'base model, or outside the blocks, are to be merged into their base '
        'with PEFT (merge_and_unload)'
    )
  if not made:
    raise errors.UserError(f'{folder / WEIGHTS} holds no adapters')
  for linears, a, parts_b, scale in made:  # Only once all is well.
    for linear, b in zip(linears, parts_b, strict=True):
      lora.put_adapter(linear, a, b, scale)


def _modules(
    model: vlm.VLM,
) -> Iterator[tuple[str, list[layers.Linear]]]:
  """(name with {layer}, our linear maps) of each of their maps in blocks."""
  parts: dict[str, list[layers.Linear]] = {}
  for entry in hf_table.table(model.config):
    tower, module, *name = entry.path
    if module == 'blocks' and name[-1] == 'kernel':
      key = hf_table.nested_key(entry.key.removesuffix('.weight'))
      linear = getattr(getattr(model, tower).blocks, name[0])
      parts.setdefault(key, []).append(linear)
  yield from parts.items()


def _read_config(folder: epath.Path) -> dict[str, Any]:
  for name in (CONFIG, WEIGHTS):
    if not (folder / name).exists():
      raise errors.UserError(
          f'{folder} holds no {name}: it is not a folder that peft saved, or '
          'not with safe_serialization'
      )
  try:
    config = json.loads((folder / CONFIG).read_text())
    for pattern in {**_patterns(config, 'rank'), **_patterns(config, 'alpha')}:
      re.compile(pattern)
    for rank in (config['r'], *_patterns(config, 'rank').values()):
      if type(rank) is not int or rank < 1:
        raise ValueError(f'a rank of {rank!r}')
    for alpha in (config['lora_alpha'], *_patterns(config, 'alpha').values()):
      if type(alpha) not in (int, float):
        raise ValueError(f'an alpha of {alpha!r}')
  except (ValueError, KeyError, TypeError, AttributeError, re.error) as error:
    raise errors.UserError(
        f'{folder / CONFIG} is damaged ({error}): fetch it again'
    ) from error
  for field, supported in _SUPPORTED.items():
    if field in config and config[field] not in supported:
      raise errors.UserError(
          f'{folder / CONFIG}: {field} {config[field]!r} is not supported, '
          f'only {supported[0]!r}; merge the adapter into its base with PEFT '
          '(merge_and_unload) and load that'
      )
  return config


def _patterns(config: Mapping[str, Any], of: str) -> Mapping[str, Any]:
  return config.get(f'{of}_pattern') or {}


def _scale(
    config: Mapping[str, Any],
    name: str,
    a: hf_files.Tensor,
) -> tuple[int, float]:
  """Rank and scale of a module's adapter; patterns match ends of names."""

  def look_up(of, default):
    for pattern, value in _patterns(config, of).items():
      if re.match(rf'(.*\.)?({pattern})$', name):
        return value
    return config[default]

  rank, alpha = look_up('rank', 'r'), look_up('alpha', 'lora_alpha')
  if a.shape[:1] != (rank,):
    raise errors.UserError(
        f'{a} has shape {list(a.shape)}, {CONFIG} says rank {rank}'
    )
  return rank, alpha / (rank**0.5 if config.get('use_rslora') else rank)


def _stack(
    linears: list[layers.Linear],
    pairs: Mapping[int, list[hf_files.Tensor]],
) -> tuple[np.ndarray, list[np.ndarray]]:
  """A [L, in, r], and B [L, r, out] of each part; zero where there is none.

  In the dtype of the files, or in float32 if there are several.
  """
  found = [tensor for pair in pairs.values() for tensor in pair]
  for tensor in found:
    if tensor.dtype not in hf_files.DTYPES:
      raise errors.UserError(
          f'{tensor} is {tensor.dtype}; adapters are one of '
          f'{", ".join(hf_files.DTYPES)}'
      )
  dtypes = {hf_files.DTYPES[tensor.dtype] for tensor in found}
  dtype = dtypes.pop() if len(dtypes) == 1 else np.dtype(np.float32)
  n_layers, in_width, out_width = linears[0].kernel.shape
  rank = found[0].shape[0]
  a = np.zeros((n_layers, in_width, rank), dtype)
  b = np.zeros((n_layers, rank, len(linears) * out_width), dtype)
  for layer, pair in pairs.items():
    for tensor, ours in zip(pair, (a, b), strict=True):
      if tensor.shape != ours.shape[:0:-1]:
        raise errors.UserError(
            f'{tensor} has shape {list(tensor.shape)}, the model wants '
            f'{list(ours.shape[:0:-1])}'
        )
      ours[layer] = tensor.rows(0, tensor.shape[0]).T
  return a, np.split(b, len(linears), axis=-1)


def _block_diagonal(blocks: list[np.ndarray]) -> np.ndarray:
  return np.block([
      [block if of is block else np.zeros((len(block), of.shape[1]), of.dtype)
       for of in blocks]
      for block in blocks
  ])  # fmt: skip

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

from collections.abc import Mapping
import dataclasses
import re
from typing import Literal

from etils import epath
import numpy as np
import safetensors.numpy
import scipy.linalg

from gog_jax import errors
from gog_jax.models import hf_files
from gog_jax.models import hf_table
from gog_jax.models import layers
from gog_jax.models import lora
from gog_jax.models import vlm
from gog_jax.storage import files
from gog_jax.storage import typed

CONFIG = 'adapter_config.json'
WEIGHTS = 'adapter_model.safetensors'

# Fields of their config that, beside those of _Config, do not change what an
# adapter computes; any other that is set may.
_IGNORED = (
    'task_type auto_mapping peft_version base_model_name_or_path revision '
    'inference_mode target_modules exclude_modules lora_dropout '
    'layers_to_transform layers_pattern megatron_core eva_config '
    'qalora_group_size ensure_weight_tying'
).split()
# Files with parameters, but for these, that a trainer saves to go on.
_STATE = re.compile(
    r'(optimizer|scheduler|scaler|rng_state|training_args|trainer_state)'
)
_PARAMETERS = ('.safetensors', '.bin', '.pt', '.pth', '.ckpt')
_MERGE = (
    'merge the adapter into its base with PEFT (merge_and_unload) and load that'
)


@dataclasses.dataclass(frozen=True, kw_only=True)
class _Config:
  """The fields that are read from adapter_config.json."""

  peft_type: Literal['LORA']
  r: typed.Positive
  lora_alpha: typed.Finite
  rank_pattern: Mapping[str, typed.Positive] = dataclasses.field(
      default_factory=dict
  )
  alpha_pattern: Mapping[str, typed.Finite] = dataclasses.field(
      default_factory=dict
  )
  use_rslora: bool = False
  bias: Literal['none'] = 'none'
  # Other initialisations change the base's weights.
  init_lora_weights: Literal[True, False, 'gaussian', 'orthogonal', 'eva'] = (
      True
  )

  def __post_init__(self):
    try:
      for pattern in [*self.rank_pattern, *self.alpha_pattern]:
        re.compile(pattern)
    except re.error as error:
      raise typed.FieldError(f'pattern {pattern!r}: {error}') from error

  def rank_and_scale(self, module: str) -> tuple[int, float]:
    """Of the adapter on `module`; patterns match the ends of names."""

    def look_up(patterns, default):
      for pattern, value in patterns.items():
        if re.match(rf'(.*\.)?({pattern})$', module):
          return value
      return default

    rank = look_up(self.rank_pattern, self.r)
    alpha = look_up(self.alpha_pattern, self.lora_alpha)
    return rank, alpha / (rank**0.5 if self.use_rslora else rank)


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
  for key, linears in _modules(model).items():
    stacks = [
        (np.asarray(linear.lora_a[...]), np.asarray(linear.lora_b[...]))
        for linear in linears
        if linear.lora_a is not None and linear.lora_b is not None
    ]
    for layer in range(len(stacks[0][0]) if stacks else 0):
      parts_a = [a[layer].T for a, _ in stacks]
      parts_b = [b[layer].T for _, b in stacks]
      if not any(x.any() for x in parts_a + parts_b):
        continue  # A layer that a loaded folder had nothing for.
      if all(np.array_equal(a, parts_a[0]) for a in parts_a):
        a, b = parts_a[0], np.concatenate(parts_b)
      else:
        a, b = np.concatenate(parts_a), scipy.linalg.block_diag(*parts_b)
      name = key.format(layer=layer)
      tensors.update(zip(_tensors(name), map(np.ascontiguousarray, (a, b))))
      alpha = len(a) * linears[0].lora_scale
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
  with files.writable(folder, 'choose another folder'):
    folder.mkdir(parents=True, exist_ok=True)
    (folder / WEIGHTS).write_bytes(data)
    files.write_json(folder / CONFIG, config)


def load_adapters(
    model: vlm.VLM, folder: epath.PathLike, *, alone: bool = False
) -> None:
  """Puts the adapters of a peft folder on a model, in place.

  Linear maps that the folder has nothing for get no adapter: with q_proj and
  v_proj in it, only those are trained. Those of one kind are stacked over
  layers: where a folder has some layers of a kind only, the others' A and B are
  zero. They add nothing, get no gradient, and are not saved.

  They have the files' dtype. Our trainer keeps float32 masters; cast them first
  to train them by other means.

  Args:
    model: Has none yet.
    folder: With adapter_config.json and adapter_model.safetensors, in either
      layout of names.
    alone: Whether to ignore other parameters that were saved beside them.

  Raises:
    UserError: A file is missing or damaged, or the adapters are of a kind, a
      shape or for a module that the model has no place for.
  """
  folder = epath.Path(folder)
  config = _read_config(folder)
  beside = [
      path.name
      for path in sorted(folder.iterdir())
      if path.suffix in _PARAMETERS
      and not path.name.startswith('adapter_model.')
      and not _STATE.match(path.name)
  ]
  if beside and not alone:
    raise errors.UserError(
        f'{folder} holds {", ".join(beside)} beside the adapter: parameters '
        'that were trained with it, and are not read. Merge all of it into one '
        'model with what trained it, or take the adapter alone with '
        '--config.rl.adapter_alone'
    )
  tensors, spelled = _tensors_of(folder)
  found, shapes = [], {}
  for key, linears in _modules(model).items():
    if linears[0].lora_a is not None:
      raise ValueError('the model has adapters already')
    n_layers, in_width, out_width = linears[0].kernel.shape
    names = [key.format(layer=layer) for layer in range(n_layers)]
    held = {
        layer: name
        for layer, name in enumerate(names)
        if not tensors.keys().isdisjoint(_tensors(name))
    }
    scales = {
        config.rank_and_scale(spelled[name]) for name in held.values()
    }
    if len(scales) > 1:
      raise errors.UserError(
          f'{folder}: layers of {key} have different ranks or scales '
          '(rank_pattern, alpha_pattern), which is not supported'
      )
    for rank, scale in scales:
      a, b = (rank, in_width), (len(linears) * out_width, rank)
      for name in held.values():
        shapes.update(zip(_tensors(name), (a, b)))
      found.append((linears, held, rank, scale))
  hf_files.check(
      folder,
      tensors,
      shapes,
      advice='adapters of another base model, or outside the blocks, are to be '
      'merged into their base with PEFT (merge_and_unload)',
  )
  if not found:
    raise errors.UserError(f'{folder / WEIGHTS} holds no adapters')
  for linears, held, rank, scale in found:
    a, b = _stack(linears, held, tensors, rank)
    for linear, part in zip(linears, np.split(b, len(linears), axis=-1)):
      lora.put_adapter(linear, a, part, scale)


def _tensors_of(
    folder: epath.Path,
) -> tuple[dict[str, hf_files.Tensor], dict[str, str]]:
  """The file's tensors by the names that peft gives them now; and modules.

  Those are by their names in the newer layout, as the file, whose config may
  name them, has them. A raw state dict says `lora_A.default.weight`.
  """
  tensors: dict[str, hf_files.Tensor] = {}
  names: dict[str, str] = {}
  for key, tensor in hf_files.read_header(folder / WEIGHTS).items():
    name = key.removeprefix('base_model.model.')
    module, dot, lora = name.partition('.lora_')
    newer = hf_table.nested_key(hf_table.published_key(module))
    if dot:
      names[newer] = module
      lora = re.sub(r'^([AB])\.[^.]+\.weight$', r'\1.weight', lora)
      key = f'base_model.model.{newer}.lora_{lora}'
    if key in tensors:
      raise errors.UserError(
          f'{tensor} and {tensors[key].key} are adapters of one module: leave '
          'those of one adapter in the folder'
      )
    tensors[key] = tensor
  return tensors, names


def _tensors(module: str) -> tuple[str, str]:
  """Names of the A and B of a module."""
  return (
      f'base_model.model.{module}.lora_A.weight',
      f'base_model.model.{module}.lora_B.weight',
  )


def _modules(model: vlm.VLM) -> dict[str, list[layers.Linear]]:
  """Each of their linear maps in blocks, with {layer} -> ours."""
  parts: dict[str, list[layers.Linear]] = {}
  for entry in hf_table.table(model.config):
    tower, module, *name = entry.path
    if module == 'blocks' and name[-1] == 'kernel':
      key = hf_table.nested_key(entry.key.removesuffix('.weight'))
      linear = getattr(getattr(model, tower).blocks, name[0])
      parts.setdefault(key, []).append(linear)
  return parts


def _read_config(folder: epath.Path) -> _Config:
  for name in (CONFIG, WEIGHTS):
    if not (folder / name).exists():
      raise errors.UserError(
          f'{folder} holds no {name}: it is not a folder that peft saved, or '
          'not with safe_serialization'
      )
  advice = f'fetch it again, or {_MERGE}'
  raw = files.read_json(folder / CONFIG, advice=advice)
  given = {field: value for field, value in raw.items() if value is not None}
  known = {field.name for field in dataclasses.fields(_Config)}
  for field, value in given.items():
    if value and field not in known and field not in _IGNORED:
      raise errors.UserError(
          f'{folder / CONFIG}: {field} {value!r} is not supported; {_MERGE}'
      )
  try:
    return typed.read(_Config, given, ignore_unknown=True)
  except typed.FieldError as error:
    raise errors.UserError(f'{folder / CONFIG}: {error}; {advice}') from error


def _stack(
    linears: list[layers.Linear],
    held: Mapping[int, str],
    tensors: Mapping[str, hf_files.Tensor],
    rank: int,
) -> tuple[np.ndarray, np.ndarray]:
  """A [L, in, r] and B [L, r, parts * out]; zero in layers without adapters.

  In the files' dtype; float32 if they have several.

  Args:
    linears: The parts of their module.
    held: Layer -> module, of those that have adapters.
    tensors: By name.
    rank: r.
  """
  dtypes = {
      hf_files.DTYPES[tensors[key].dtype]
      for name in held.values()
      for key in _tensors(name)
  }
  dtype = dtypes.pop() if len(dtypes) == 1 else np.dtype(np.float32)
  n_layers, in_width, out_width = linears[0].kernel.shape
  a = np.zeros((n_layers, in_width, rank), dtype)
  b = np.zeros((n_layers, rank, len(linears) * out_width), dtype)
  for layer, name in held.items():
    for key, ours in zip(_tensors(name), (a, b)):
      ours[layer] = tensors[key].map().T
  return a, b

"""The headers of weights files: what they hold, without reading it."""

from __future__ import annotations

from collections.abc import Iterable
import json
import math
from typing import NamedTuple

from etils import epath

from gog_jax.errors import UserError

_INDEX = 'model.safetensors.index.json'
_LFS = b'version https://git-lfs'


class Tensor(NamedTuple):
  """A tensor of a file: type as safetensors says it, e.g. 'BF16', and sizes."""

  dtype: str
  size: int
  n_bytes: int


def find(folder: epath.Path, names: Iterable[str]) -> list[epath.Path]:
  """The files that hold a model's weights.

  Args:
    folder: A model's.
    names: Of the files in it.

  Raises:
    UserError: There are none, or not all that the index names.
  """
  names = set(names)
  if 'model.safetensors' in names:
    return [folder / 'model.safetensors']
  if _INDEX in names:
    try:
      index = json.loads((folder / _INDEX).read_text())
      shards = sorted(set(index['weight_map'].values()))
    except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
      raise UserError(
          f'weights: {folder / _INDEX} is damaged; fetch it again'
      ) from error
    if lost := [name for name in shards if name not in names]:
      raise UserError(
          f'weights: {len(lost)} of {len(shards)} shards are missing, '
          f'{", ".join(lost[:3])}; fetch them'
      )
    return [folder / name for name in shards]
  if others := sorted(n for n in names if n.endswith(('.bin', '.gguf'))):
    raise UserError(
        f'weights: {others[0]} is no safetensors file; fetch the model in '
        'safetensors, or save it so with transformers (save_pretrained)'
    )
  raise UserError(
      f'weights: none in {folder} (model.safetensors, or shards and '
      f'{_INDEX}); download them'
  )


def read_header(path: epath.Path) -> dict[str, Tensor]:
  """A file's tensors by name.

  Raises:
    UserError: It is not a safetensors file, or is cut off.
  """
  with path.open('rb') as file:
    start = file.read(8)
    n_header = int.from_bytes(start, 'little')
    n_file = path.stat().length
    if _LFS.startswith(start) and start:
      raise UserError(
          f'weights: {path.name} is a Git LFS pointer, not the weights; run '
          'git lfs pull'
      )
    if len(start) < 8 or not 2 <= n_header <= n_file - 8:
      raise UserError(
          f'weights: {path.name} ({n_file} bytes) is no safetensors file or is '
          'cut off; fetch it again'
      )
    header = file.read(n_header)
  tensors, end = {}, 0
  try:
    for name, entry in json.loads(header).items():
      if name == '__metadata__':
        continue
      low, high = entry['data_offsets']
      size = math.prod(entry['shape'])
      tensors[name] = Tensor(entry['dtype'], size, high - low)
      end = max(end, high)
  except (ValueError, KeyError, TypeError, AttributeError) as error:
    raise UserError(
        f'weights: {path.name} has a damaged header; fetch it again'
    ) from error
  if 8 + n_header + end != n_file:
    raise UserError(
        f'weights: {path.name} has {n_file} bytes and should have '
        f'{8 + n_header + end}; fetch it again'
    )
  return tensors


def published(key: str) -> str:
  """A tensor's name in the older of the two layouts, as hf_params' table."""
  for newer, older in (
      ('model.language_model.', 'model.'),
      ('model.visual.', 'visual.'),
  ):
    if key.startswith(newer):
      return older + key.removeprefix(newer)
  return key

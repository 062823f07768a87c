"""A CLIP or SigLIP folder's weights -> the vision tower.

The text tower, if there is one, is not looked at.
"""

from __future__ import annotations

from collections.abc import Iterator
import hashlib
from typing import Any

from etils import epath
from flax import nnx
import jax.numpy as jnp
import numpy as np

from gog_jax.errors import UserError
from gog_jax.index import encoder_config
from gog_jax.index.encoder_model import Tower
from gog_jax.models import hf_files
from gog_jax.models.hf_table import Entry

_PREFIX = 'vision_model.'
_PROJECTION = 'visual_projection.weight'
_CONVOLUTION = 'embeddings.patch_embedding.weight'
# Of older folders: 0, 1, 2, ...
_POSITION_IDS = 'embeddings.position_ids'
_BLOCK = 'encoder.layers.{layer}.'


def load(
    folder: epath.Path, config: encoder_config.EncoderConfig
) -> tuple[Tower, bytes]:
  """Returns the tower, and a digest of its parameters.

  Args:
    folder: With model.safetensors, or shards and their index.
    config: Of that folder.

  Raises:
    UserError: Weights are missing, incomplete, misshapen, quantised, damaged,
      no numbers, or of another vision tower; names tensors and files.
  """
  tensors = _vision_tensors(folder)
  projected = config.family == 'clip' and (
      _PROJECTION in tensors or config.needs_projection
  )
  abstract = nnx.eval_shape(lambda: Tower(config, projected=projected))
  graphdef, state = nnx.split(abstract)
  flat = dict(nnx.to_flat_state(state))
  entries = list(_table(config, projected=projected))
  shapes = {path: leaf.get_value().shape for path, leaf in flat.items()}
  assert shapes.keys() == {entry.path for entry in entries}
  _check(folder, config, tensors, entries, shapes)
  digest = hashlib.sha256()
  for entry in entries:
    array = _read(entry, tensors, shapes[entry.path])
    _check_finite(folder, entry, array)
    digest.update(array.data)
    flat[entry.path] = flat[entry.path].replace(jnp.asarray(array))
  tower = nnx.merge(graphdef, nnx.from_flat_state(flat))
  return tower, digest.digest()


def _vision_tensors(folder: epath.Path) -> dict[str, hf_files.Tensor]:
  """The vision tower's, without their prefix, and the projection."""
  tensors = {tensor.key: tensor for tensor in hf_files.tensors(folder)}
  inside = {
      key.removeprefix(_PREFIX): tensor
      for key, tensor in tensors.items()
      if key.startswith(_PREFIX)
  }
  if inside and _PROJECTION in tensors:
    inside[_PROJECTION] = tensors[_PROJECTION]
  # A vision tower saved alone has no prefix.
  inside = inside or tensors
  inside.pop(_POSITION_IDS, None)
  return inside


def _table(
    config: encoder_config.EncoderConfig, *, projected: bool
) -> Iterator[Entry]:
  """Every parameter of the tower, once."""

  def linear(path, key, *, n_layers=0, bias=True):
    yield Entry((*path, 'kernel'), f'{key}.weight', n_layers, (0, 1), True)
    if bias:
      yield Entry((*path, 'bias'), f'{key}.bias', n_layers, (0, 1), False)

  def norm(path, key, *, n_layers=0):
    yield Entry((*path, 'scale'), f'{key}.weight', n_layers, (0, 1), False)
    yield Entry((*path, 'bias'), f'{key}.bias', n_layers, (0, 1), False)

  def alone(path, key):
    yield Entry(path, key, 0, (0, 1), False)

  is_clip = config.family == 'clip'
  yield from linear(
      ('patch_embed',), 'embeddings.patch_embedding', bias=not is_clip
  )
  yield from alone(('positions',), 'embeddings.position_embedding.weight')
  n_layers = config.n_layers
  for name, key in (('attention_norm', '1'), ('mlp_norm', '2')):
    yield from norm(
        ('blocks', name), f'{_BLOCK}layer_norm{key}', n_layers=n_layers
    )
  for name, key in (
      ('query', 'self_attn.q_proj'),
      ('key', 'self_attn.k_proj'),
      ('value', 'self_attn.v_proj'),
      ('out', 'self_attn.out_proj'),
      ('up', 'mlp.fc1'),
      ('down', 'mlp.fc2'),
  ):
    yield from linear(('blocks', name), f'{_BLOCK}{key}', n_layers=n_layers)
  yield from norm(('norm',), 'post_layernorm')
  if is_clip:
    yield from alone(('class_token',), 'embeddings.class_embedding')
    yield from norm(('pre_norm',), 'pre_layrnorm')  # Their spelling.
    if projected:
      key = _PROJECTION.removesuffix('.weight')
      yield from linear(('projection',), key, bias=False)
    return
  yield from alone(('pool', 'probe'), 'head.probe')
  for part, name in enumerate(('query', 'key', 'value')):
    for ours, theirs in (('kernel', 'weight'), ('bias', 'bias')):
      yield Entry(
          ('pool', name, ours),
          f'head.attention.in_proj_{theirs}',
          0,
          (part, 3),
          ours == 'kernel',
      )
  yield from linear(('pool', 'out'), 'head.attention.out_proj')
  yield from norm(('pool', 'mlp_norm'), 'head.layernorm')
  yield from linear(('pool', 'up'), 'head.mlp.fc1')
  yield from linear(('pool', 'down'), 'head.mlp.fc2')


def _check(
    folder: epath.Path,
    config: encoder_config.EncoderConfig,
    tensors: dict[str, hf_files.Tensor],
    entries: list[Entry],
    shapes: dict[Any, tuple[int, ...]],
) -> None:
  """Raises a UserError unless the tensors are those of the table."""
  expected = {
      key: _their_shape(entry, shapes[entry.path], config.patch_size)
      for entry in entries
      for key in entry.keys
  }
  hf_files.check(folder, tensors, expected, what=' in its vision tower')


def _their_shape(
    entry: Entry, shape: tuple[int, ...], patch_size: int
) -> tuple[int, ...]:
  """Of each of their tensors, where our parameter has `shape`."""
  *rest, last = shape[1:] if entry.n_layers else shape
  last *= entry.part[1]
  if entry.key == _CONVOLUTION:
    return (last, 3, patch_size, patch_size)
  return (last, *rest) if entry.transposed else (*rest, last)


def _read(
    entry: Entry, tensors: dict[str, hf_files.Tensor], shape: tuple[int, ...]
) -> np.ndarray:
  """A parameter, float32."""
  index = tuple(slice(0, n) for n in shape)
  numbers, theirs = entry.their_index(index, shape)
  result = np.empty(shape, np.float32)
  stacked = result if entry.n_layers else result[None]
  for number, out in zip(numbers, stacked, strict=True):
    tensor = tensors[entry.keys[number]]
    tensor.read(theirs, out, transposed=entry.transposed)
  return result


def _check_finite(folder: epath.Path, entry: Entry, array: np.ndarray) -> None:
  stacked = array if entry.n_layers else array[None]
  bad = [
      key
      for key, one in zip(entry.keys, stacked, strict=True)
      if not np.isfinite(one).all()
  ]
  if bad:
    raise UserError(
        f'{folder}: {hf_files.some(bad)} holds non-finite values: fetch the '
        'folder again'
    )

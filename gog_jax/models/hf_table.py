"""Hugging Face's tensors <-> our parameters: one table, read both ways.

Differences: their layers are separate tensors, ours are stacked; their linear
weights are [out, in]; their vision blocks hold query, key and value in one
matrix; their patch embedding is a 3-D convolution. Their key names exist in
two layouts, of which the table has the older one: either is read, and written
is the one that a family was published in.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
import functools
import re
from typing import Any, NamedTuple

from flax import nnx
import jax.numpy as jnp

from gog_jax.models import config as config_lib
from gog_jax.models import vlm
from gog_jax.models.families import FAMILIES

# As in nnx.to_flat_state.
Path = tuple[Any, ...]

# Buffers that a folder may hold in addition to the parameters: transformers
# ignores them, too, and computes them anew.
IGNORED = re.compile(
    r'(^|\.)((original_)?inv_freq|(cos|sin)_cached|position_ids)$'
)

# From the layout of transformers' classes since 4.52 to the published one.
_NEWER_LAYOUT = {'model.language_model.': 'model.', 'model.visual.': 'visual.'}


class Entry(NamedTuple):
  """Where one of our parameters comes from.

  Attributes:
    path: Of our parameter.
    key: Of their tensor, with {layer} where ours stacks one of each layer.
    n_layers: Tensors that ours stacks; 0 if it is not stacked.
    part: (i, n): ours is the i-th of n equal parts of theirs, along axis 0.
    transposed: Whether theirs is [out, in] (a convolution is flattened).
    shape: Of each of their tensors.
  """

  path: Path
  key: str
  n_layers: int
  part: tuple[int, int]
  transposed: bool
  shape: tuple[int, ...]

  @property
  def keys(self) -> list[str]:
    """Their tensors, one for each of our layers."""
    if not self.n_layers:
      return [self.key]
    return [self.key.format(layer=i) for i in range(self.n_layers)]

  def their_index(
      self, index: tuple[slice, ...], shape: tuple[int, ...]
  ) -> tuple[range, tuple[slice, ...]]:
    """Where in their tensors a slice of our parameter is.

    Args:
      index: A slice of each axis of our parameter, of step 1.
      shape: Of our parameter.

    Returns:
      Which of `keys`, and a slice of each axis of those tensors (rows and
      columns of a flattened convolution).
    """
    bounds = [s.indices(n) for s, n in zip(index, shape, strict=True)]
    layers = range(*bounds.pop(0)) if self.n_layers else range(1)
    *rest, (start, stop, _) = bounds
    offset = self.part[0] * shape[-1]  # Parts lie on our last axis.
    theirs = [*(slice(*b) for b in rest), slice(start + offset, stop + offset)]
    return layers, tuple(theirs[::-1] if self.transposed else theirs)


def entries(
    modules: Mapping[str, str],
    model: nnx.Module,
    *,
    convolution: tuple[int, ...],
) -> tuple[Entry, ...]:
  """Every parameter of a model, once.

  Args:
    modules: Our modules -> theirs, with {layer} where ours stacks one of each
      layer; a bare parameter -> the name of its tensor. 'weight' or 'bias'
      follows after a dot, or after the '_' that a name ends in. Several of ours
      that are one of theirs are its equal parts, in this order. Those that the
      model lacks are skipped.
    model: May be abstract.
    convolution: Channels and sides of the kernel that `patch_embed` flattens.
  """
  flat = nnx.to_flat_state(nnx.state(model))
  parameters = {path: x.get_value().shape for path, x in flat}
  found = []
  for module, theirs in modules.items():
    same = [ours for ours, other in modules.items() if other == theirs]
    dot = '' if theirs.endswith('_') else '.'
    for leaf, key in (
        ((), theirs),
        (('kernel',), f'{theirs}{dot}weight'),
        (('scale',), f'{theirs}{dot}weight'),
        (('bias',), f'{theirs}{dot}bias'),
    ):
      path = (*module.split('.'), *leaf)
      if path not in parameters:
        continue
      shape = parameters[path]
      n_layers = shape[0] if '{layer}' in key else 0
      *rest, last = shape[1:] if n_layers else shape
      last *= len(same)
      transposed = path[-1] in ('kernel', 'untied_head')
      if path[-2:] == ('patch_embed', 'kernel'):
        rest = convolution
      found.append(
          Entry(
              path=path,
              key=key,
              n_layers=n_layers,
              part=(same.index(module), len(same)),
              transposed=transposed,
              shape=(last, *rest) if transposed else (*rest, last),
          )
      )
  assert {entry.path for entry in found} == parameters.keys()
  return tuple(found)


def their_shapes(table: Iterable[Entry]) -> dict[str, tuple[int, ...]]:
  """Shapes of their tensors, by name in the table."""
  return {key: entry.shape for entry in table for key in entry.keys}


@functools.cache
def table(config: config_lib.VLMConfig) -> tuple[Entry, ...]:
  """Every parameter of a vision-language model, once."""
  vision = config.vision
  return entries(
      FAMILIES[config.family].modules,
      vlm.abstract(config, dtype=jnp.float32),
      convolution=(
          vision.in_channels,
          vision.temporal_patch_size,
          vision.patch_size,
          vision.patch_size,
      ),
  )


def published_key(key: str) -> str:
  """A name of either layout, in the table's."""
  return _renamed(key, _NEWER_LAYOUT)


def nested_key(key: str) -> str:
  """A name of the table, in the newer layout."""
  return _renamed(key, {older: newer for newer, older in _NEWER_LAYOUT.items()})


def _renamed(key: str, prefixes: Mapping[str, str]) -> str:
  for old, new in prefixes.items():
    if key.startswith(old):
      return new + key.removeprefix(old)
  return key


def file_key(key: str, family: str) -> str:
  """A name of the table, in the layout that the family was published in."""
  return nested_key(key) if FAMILIES[family].nested_keys else key

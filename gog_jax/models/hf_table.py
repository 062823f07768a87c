"""Hugging Face's tensors <-> our parameters: one table, read both ways.

Differences: their layers are separate tensors, ours are stacked; their linear
weights are [out, in]; their vision blocks hold query, key and value in one
matrix; their patch embedding is a 3-D convolution. Their key names exist in
two layouts, of which the table has the older one: either is read, and written
is the one that a family was published in.
"""

from __future__ import annotations

from collections.abc import Iterator
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

# Tensors that a folder may hold beside the parameters.
IGNORED = re.compile(r'(^|\.)rotary_(emb|pos_emb)\.inv_freq$')

# From the layout of transformers' classes since 4.52 to the published one.
_NEWER_LAYOUT = (
    ('model.language_model.', 'model.'),
    ('model.visual.', 'visual.'),
)

HEAD = 'lm_head.weight'
EMBEDDING = 'model.embed_tokens.weight'
_CONVOLUTION = 'visual.patch_embed.proj.weight'

# Our modules -> theirs, of all families. Those that a model lacks (a norm of
# queries, an untied head) are skipped.
MODULES = {
    'text.embedding': 'model.embed_tokens',
    'text.norm': 'model.norm',
    'text.untied_head': 'lm_head',
    'text.blocks.attention_norm': 'model.layers.{layer}.input_layernorm',
    'text.blocks.mlp_norm': 'model.layers.{layer}.post_attention_layernorm',
    'text.blocks.query_norm': 'model.layers.{layer}.self_attn.q_norm',
    'text.blocks.key_norm': 'model.layers.{layer}.self_attn.k_norm',
    'text.blocks.query': 'model.layers.{layer}.self_attn.q_proj',
    'text.blocks.key': 'model.layers.{layer}.self_attn.k_proj',
    'text.blocks.value': 'model.layers.{layer}.self_attn.v_proj',
    'text.blocks.out': 'model.layers.{layer}.self_attn.o_proj',
    'text.blocks.gate': 'model.layers.{layer}.mlp.gate_proj',
    'text.blocks.up': 'model.layers.{layer}.mlp.up_proj',
    'text.blocks.down': 'model.layers.{layer}.mlp.down_proj',
    'vision.patch_embed': 'visual.patch_embed.proj',
    'vision.blocks.attention_norm': 'visual.blocks.{layer}.norm1',
    'vision.blocks.mlp_norm': 'visual.blocks.{layer}.norm2',
    # Several of ours that are one of theirs are its equal parts, in this order.
    'vision.blocks.query': 'visual.blocks.{layer}.attn.qkv',
    'vision.blocks.key': 'visual.blocks.{layer}.attn.qkv',
    'vision.blocks.value': 'visual.blocks.{layer}.attn.qkv',
    'vision.blocks.out': 'visual.blocks.{layer}.attn.proj',
}


class Entry(NamedTuple):
  """Where one of our parameters comes from.

  Attributes:
    path: Of our parameter.
    key: Of their tensor, with {layer} where ours stacks one of each layer.
    n_layers: Tensors that ours stacks; 0 if it is not stacked.
    part: (i, n): ours is the i-th of n equal parts of theirs, along axis 0.
    transposed: Whether theirs is [out, in] (a convolution is flattened).
  """

  path: Path
  key: str
  n_layers: int
  part: tuple[int, int]
  transposed: bool

  @property
  def keys(self) -> list[str]:
    """Their tensors, one for each of our layers."""
    if not self.n_layers:
      return [self.key]
    return [self.key.format(layer=i) for i in range(self.n_layers)]

  def their_shape(
      self, shape: tuple[int, ...], vision: config_lib.VisionConfig
  ) -> tuple[int, ...]:
    """Of each of their tensors, where our parameter has `shape`."""
    *rest, last = shape[1:] if self.n_layers else shape
    last *= self.part[1]
    if self.key == _CONVOLUTION:
      sides = (vision.patch_size,) * 2
      return (last, vision.in_channels, vision.temporal_patch_size, *sides)
    return (last, *rest) if self.transposed else (*rest, last)

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


@functools.cache
def shapes(config: config_lib.VLMConfig) -> dict[Path, tuple[int, ...]]:
  """Shapes of all our parameters."""
  state = nnx.state(vlm.abstract(config, dtype=jnp.float32))
  return {path: x.get_value().shape for path, x in nnx.to_flat_state(state)}


@functools.cache
def table(config: config_lib.VLMConfig) -> tuple[Entry, ...]:
  """Every parameter of the model, once."""
  entries = tuple(_entries(config))
  assert {entry.path for entry in entries} == shapes(config).keys()
  return entries


def _entries(config: config_lib.VLMConfig) -> Iterator[Entry]:
  parameters = shapes(config)
  modules = {**MODULES, **FAMILIES[config.family].modules}
  for module, key in modules.items():
    same = [ours for ours, theirs in modules.items() if theirs == key]
    for leaf, kind in (
        ((), 'weight'),
        (('kernel',), 'weight'),
        (('scale',), 'weight'),
        (('bias',), 'bias'),
    ):
      path = (*module.split('.'), *leaf)
      if path not in parameters:
        continue
      yield Entry(
          path=path,
          key=f'{key}.{kind}',
          n_layers=parameters[path][0] if '{layer}' in key else 0,
          part=(same.index(module), len(same)),
          transposed=leaf == ('kernel',) or module == 'text.untied_head',
      )


def their_shapes(config: config_lib.VLMConfig) -> dict[str, tuple[int, ...]]:
  """Shapes of their tensors, by name in the table."""
  ours = shapes(config)
  return {
      key: entry.their_shape(ours[entry.path], config.vision)
      for entry in table(config)
      for key in entry.keys
  }


def published_key(key: str) -> str:
  """A name of either layout, in the table's."""
  for newer, older in _NEWER_LAYOUT:
    if key.startswith(newer):
      return older + key.removeprefix(newer)
  return key


def nested_key(key: str) -> str:
  """A name of the table, in the newer layout."""
  for newer, older in _NEWER_LAYOUT:
    if key.startswith(older):
      return newer + key.removeprefix(older)
  return key


def file_key(key: str, family: str) -> str:
  """A name of the table, in the layout that the family was published in."""
  return nested_key(key) if FAMILIES[family].nested_keys else key

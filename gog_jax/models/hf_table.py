"""Hugging Face's tensors <-> our parameters: one table, read both ways.

Differences: their layers are separate tensors, ours are stacked; their linear
weights are [out, in]; their vision blocks hold query, key and value in one
matrix; their patch embedding is a 3-D convolution. Their key names exist in
two layouts, of which the table has the older one: either is read, and written
is the one that a family was published in.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
import re
from typing import Any, NamedTuple

from gog_jax.models import config as config_lib

# As in nnx.to_flat_state.
Path = tuple[Any, ...]

# Tensors that a folder may hold beside the parameters.
IGNORED = re.compile(r'(^|\.)rotary_(emb|pos_emb)\.inv_freq$')

# From the layout of transformers' classes since 4.52 to the published one.
_NEWER_LAYOUT = (
    ('model.language_model.', 'model.'),
    ('model.visual.', 'visual.'),
)

_CONVOLUTION = 'visual.patch_embed.proj.weight'

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
      side = vision.patch_size
      return (
          last, vision.in_channels, vision.temporal_patch_size, side, side
      )  # fmt: skip
    return (last, *rest) if self.transposed else (*rest, last)

  def their_index(
      self, index: tuple[slice, ...], shape: tuple[int, ...]
  ) -> tuple[range, tuple[slice, ...]]:
    """What of theirs makes up a part of ours.

    Args:
      index: A slice of each axis of our parameter, of step 1.
      shape: Of our parameter.

    Returns:
      Which of `keys`, and a slice of each axis of these tensors; of rows and
      columns where they are convolutions.
    """
    bounds = [s.indices(n) for s, n in zip(index, shape, strict=True)]
    layers = range(*bounds.pop(0)) if self.n_layers else range(1)
    *rest, (start, stop, _) = bounds
    skipped = self.part[0] * shape[-1]  # Parts lie on our last axis.
    own = [slice(*b) for b in rest] + [slice(start + skipped, stop + skipped)]
    return layers, tuple(own[::-1] if self.transposed else own)


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


def their_shapes(
    config: config_lib.VLMConfig, shapes: Mapping[Path, tuple[int, ...]]
) -> dict[str, tuple[int, ...]]:
  """Every tensor of theirs, by its name in the table, from our shapes."""
  return {
      key: entry.their_shape(shapes[entry.path], config.vision)
      for entry in table(config)
      for key in entry.keys
  }


def published_key(key: str) -> str:
  """A name of either layout, in the table's."""
  for newer, older in _NEWER_LAYOUT:
    if key.startswith(newer):
      return older + key.removeprefix(newer)
  return key


def file_key(key: str, family: str) -> str:
  """A name of the table, in the layout that the family was published in."""
  if family == 'qwen2_5_vl' or key == 'lm_head.weight':
    return key
  for newer, older in _NEWER_LAYOUT:
    if key.startswith(older):
      return newer + key.removeprefix(older)
  raise ValueError(f'no name for {key}')

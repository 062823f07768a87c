"""The vision towers of CLIP and SigLIP: pixels -> one vector an image.

CLIP puts a class token before the patches and takes its final state; in SigLIP
a learned query attends to the patches. Weights come from a Hugging Face folder,
whose text tower, if there is one, is ignored.

Axis letters: B image, T token, S query, D width.
"""

from __future__ import annotations

from collections.abc import Callable
import hashlib

from etils import epath
from flax import nnx
import jax
import jax.numpy as jnp
from jaxtyping import Array, Float
import numpy as np

from gog_jax.index import encoder_config
from gog_jax.models import hf_files
from gog_jax.models import hf_params
from gog_jax.models import hf_table
from gog_jax.models import layers

_ACTIVATIONS: dict[str, Callable[[jax.Array], jax.Array]] = {
    'quick_gelu': lambda x: x * jax.nn.sigmoid(1.702 * x),
    'gelu': lambda x: jax.nn.gelu(x, approximate=False),
    'gelu_pytorch_tanh': lambda x: jax.nn.gelu(x, approximate=True),
}

_PREFIX = 'vision_model.'
_PROJECTION = 'visual_projection'
# Of older folders: 0, 1, 2, ...
_POSITION_IDS = 'embeddings.position_ids'
_BLOCK = 'encoder.layers.{layer}.'
# Our modules -> theirs, of both families, as hf_table.entries takes them.
_MODULES = {
    'patch_embed': 'embeddings.patch_embedding',
    'positions': 'embeddings.position_embedding.weight',
    'blocks.attention_norm': f'{_BLOCK}layer_norm1',
    'blocks.mlp_norm': f'{_BLOCK}layer_norm2',
    'blocks.query': f'{_BLOCK}self_attn.q_proj',
    'blocks.key': f'{_BLOCK}self_attn.k_proj',
    'blocks.value': f'{_BLOCK}self_attn.v_proj',
    'blocks.out': f'{_BLOCK}self_attn.out_proj',
    'blocks.up': f'{_BLOCK}mlp.fc1',
    'blocks.down': f'{_BLOCK}mlp.fc2',
    'norm': 'post_layernorm',
    # CLIP's.
    'class_token': 'embeddings.class_embedding',
    'pre_norm': 'pre_layrnorm',  # Their spelling.
    'projection': _PROJECTION,
    # SigLIP's.
    'pool.probe': 'head.probe',
    'pool.query': 'head.attention.in_proj_',
    'pool.key': 'head.attention.in_proj_',
    'pool.value': 'head.attention.in_proj_',
    'pool.out': 'head.attention.out_proj',
    'pool.mlp_norm': 'head.layernorm',
    'pool.up': 'head.mlp.fc1',
    'pool.down': 'head.mlp.fc2',
}


class Tower(nnx.Module):
  """A vision transformer in float32, to be filled by `load`."""

  def __init__(self, config: encoder_config.EncoderConfig, *, projected: bool):
    """Makes one of zeros.

    Args:
      config: Its sizes.
      projected: Whether CLIP's projection follows.
    """
    self.config = config
    width = config.width
    is_clip = config.family == 'clip'
    self.patch_embed = _linear(
        3 * config.patch_size**2, width, bias=not is_clip
    )
    self.positions = _zeros(config.n_patches + is_clip, width)
    self.blocks = layers.Block(
        config.tower,
        dtype=jnp.float32,
        draw=_draw,
        residual_gain=1.0,
    )
    self.norm = _norm(config)
    self.class_token = nnx.data(_zeros(width) if is_clip else None)
    self.pre_norm = nnx.data(_norm(config) if is_clip else None)
    self.pool = nnx.data(None if is_clip else Pool(config))
    self.projection = nnx.data(None)
    if projected:
      self.projection = _linear(width, config.projection, bias=False)

  @property
  def out_width(self) -> int:
    """Of the vectors."""
    if self.projection is None:
      return self.config.width
    return self.config.projection

  def __call__(self, pixels: Float[Array, 'B Y X 3']) -> jax.Array:
    """float32[B, F] from normalised pixels."""
    config = self.config
    x = self.patch_embed(_patches(pixels, config.patch_size))
    if self.class_token is not None and self.pre_norm is not None:
      first = jnp.broadcast_to(
          self.class_token[...], (len(x), 1, config.width)
      )
      x = jnp.concatenate([first, x], axis=1) + self.positions[...]
      x = self.pre_norm(x)
    else:
      x += self.positions[...]

    def step(x: jax.Array, block: layers.Block) -> jax.Array:
      y = block.attention_norm(x)
      x += _attended(block, block.query(y), y, config.n_heads)
      return x + _mlp(block, block.mlp_norm(x), config.activation)

    x = layers.run_blocks(step, x, self.blocks, layers.Execution())
    if self.pool is not None:
      return self.pool(self.norm(x))
    x = self.norm(x[:, 0])
    return x if self.projection is None else self.projection(x)


class Pool(nnx.Module):
  """Attention of one learned query, then an MLP: SigLIP's head."""

  def __init__(self, config: encoder_config.EncoderConfig):
    self.config = config
    width = config.width
    self.probe = _zeros(1, 1, width)
    self.query = _linear(width, width)
    self.key = _linear(width, width)
    self.value = _linear(width, width)
    self.out = _linear(width, width)
    self.mlp_norm = _norm(config)
    self.up = _linear(width, config.ffn)
    self.down = _linear(config.ffn, width)

  def __call__(self, x: Float[Array, 'B T D']) -> Float[Array, 'B D']:
    query = self.query(self.probe[...])
    query = jnp.broadcast_to(query, (len(x), *query.shape[1:]))
    x = _attended(self, query, x, self.config.n_heads)[:, 0]
    return x + _mlp(self, self.mlp_norm(x), self.config.activation)


def _attended(
    of: layers.Block | Pool,
    query: Float[Array, 'B S D'],
    x: Float[Array, 'B T D'],
    n_heads: int,
) -> Float[Array, 'B S D']:
  """What `query` finds in `x`, without masks."""
  query, key, value = (
      y.reshape(*y.shape[:-1], n_heads, -1)
      for y in (query, of.key(x), of.value(x))
  )
  found = jax.nn.dot_product_attention(query, key, value)
  return of.out(found.reshape(*found.shape[:-2], -1))


def _mlp(
    of: layers.Block | Pool, x: Float[Array, '*B D'], activation: str
) -> jax.Array:
  return of.down(_ACTIVATIONS[activation](of.up(x)))


def _patches(pixels: Float[Array, 'B Y X 3'], size: int) -> jax.Array:
  """float[B, T, 3 * size^2], each in the order of a convolution's kernel.

  What is left over at the lower and right border is cut off.
  """
  n_rows, n_columns = (n // size for n in pixels.shape[1:3])
  x = pixels[:, : n_rows * size, : n_columns * size]
  x = x.reshape(len(x), n_rows, size, n_columns, size, 3)
  x = x.transpose(0, 1, 3, 5, 2, 4)
  return x.reshape(len(x), n_rows * n_columns, -1)


def _draw(shape: tuple[int, ...], _: float) -> jax.Array:
  return jnp.zeros(shape)


def _zeros(*shape: int) -> nnx.Param:
  return nnx.Param(jnp.zeros(shape, jnp.float32))


def _linear(in_width: int, out_width: int, *, bias: bool = True):
  return layers.Linear(
      in_width,
      out_width,
      axes=('embed', 'embed'),
      bias=bias,
      stack=(),
      dtype=jnp.float32,
      draw=_draw,
  )


def _norm(config: encoder_config.EncoderConfig) -> layers.Norm:
  return layers.Norm(config.width, config.tower, stack=(), dtype=jnp.float32)


def load(
    folder: epath.Path, config: encoder_config.EncoderConfig
) -> tuple[Tower, bytes]:
  """Returns the tower, and a digest of its parameters.

  Args:
    folder: With model.safetensors, or shards and their index.
    config: Of that folder.

  Raises:
    UserError: Weights are missing, incomplete, misshapen, quantised, damaged,
      non-finite, or of another vision tower; names tensors and files.
  """
  tensors = _vision_tensors(folder)
  projected = config.family == 'clip' and (
      f'{_PROJECTION}.weight' in tensors or config.needs_projection
  )
  tower = nnx.eval_shape(lambda: Tower(config, projected=projected))
  table = hf_table.entries(
      _MODULES, tower, convolution=(3, config.patch_size, config.patch_size)
  )
  hf_files.check(folder, tensors, hf_table.their_shapes(table))
  tower = hf_params.load(tower, table, tensors, folder=folder)
  params = dict(nnx.to_flat_state(nnx.state(tower)))
  digest = hashlib.sha256()
  for entry in table:
    digest.update(np.asarray(params[entry.path].get_value()).data)
  return tower, digest.digest()


def _vision_tensors(folder: epath.Path) -> dict[str, hf_files.Tensor]:
  """The vision tower's, without their prefix, and the projection."""
  tensors = {tensor.key: tensor for tensor in hf_files.tensors(folder)}
  vision = {
      key.removeprefix(_PREFIX): tensor
      for key, tensor in tensors.items()
      if key.startswith((_PREFIX, f'{_PROJECTION}.'))
  }
  # A vision tower saved alone has no prefix.
  if not any(key.startswith(_PREFIX) for key in tensors):
    vision = tensors
  vision.pop(_POSITION_IDS, None)
  return vision

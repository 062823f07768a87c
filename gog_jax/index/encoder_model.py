"""The vision towers of CLIP and SigLIP: pixels -> one vector an image.

CLIP puts a class token before the patches and takes its final state; in SigLIP
a learned query attends to the patches.

Axis letters: B image, T token, D width, N heads, H head dimension.
"""

from __future__ import annotations

from collections.abc import Callable

from flax import nnx
import jax
import jax.numpy as jnp
from jaxtyping import Array, Float

from gog_jax.index import encoder_config
from gog_jax.models import layers

_ACTIVATIONS: dict[str, Callable[[jax.Array], jax.Array]] = {
    'quick_gelu': lambda x: x * jax.nn.sigmoid(1.702 * x),
    'gelu': lambda x: jax.nn.gelu(x, approximate=False),
    'gelu_pytorch_tanh': lambda x: jax.nn.gelu(x, approximate=True),
}


class Tower(nnx.Module):
  """A vision transformer in float32, to be filled by encoder_weights."""

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
      heads = (*y.shape[:-1], config.n_heads, -1)
      attended = jax.nn.dot_product_attention(
          block.query(y).reshape(heads),
          block.key(y).reshape(heads),
          block.value(y).reshape(heads),
      )
      x += block.out(attended.reshape(x.shape))
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
    heads = (*x.shape[:-1], self.config.n_heads, -1)
    query = self.query(self.probe[...])
    query = jnp.broadcast_to(query, (len(x), *query.shape[1:]))
    attended = jax.nn.dot_product_attention(
        query.reshape(len(x), 1, *heads[2:]),
        self.key(x).reshape(heads),
        self.value(x).reshape(heads),
    )
    x = self.out(attended.reshape(len(x), -1))
    return x + _mlp(self, self.mlp_norm(x), self.config.activation)


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

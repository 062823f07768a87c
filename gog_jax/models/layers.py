"""Norms, linear maps and the transformer block of both towers.

Axis letters: B row, T query time, S key time, D width, N query heads, K
key-value heads, H head dimension, F feed-forward width, L layers, r rank.

Parameters of all blocks of a tower are stacked on a leading L axis, so that
training can scan over them; a block as called here is one slice. Every
parameter carries its logical axes as `axes` metadata, which `sharding` maps to
mesh axes. (The name is ours on purpose: flax's own `out_sharding` would try to
place arrays the moment they are made.)
"""

from __future__ import annotations

from collections.abc import Callable
import functools
from typing import Any, NamedTuple, TypeVar

from flax import nnx
import jax
from jax import lax
import jax.numpy as jnp
from jaxtyping import Array, Float
import numpy as np

from gog_jax.models import config as config_lib
from gog_jax.models import rope

# Makes initial values: (shape, standard deviation) -> array.
Draw = Callable[[tuple[int, ...], float], Any]

# What goes from layer to layer.
Carry = TypeVar('Carry')

REMAT_POLICIES = ('none', 'full', 'dots')


class Execution(NamedTuple):
  """How a tower runs, never what it computes.

  Attributes:
    scan: One compiled body for all layers (quick to compile), or one copy per
      layer.
    remat: What the backward pass keeps of a layer: 'none' recomputes nothing,
      'full' recomputes everything, 'dots' keeps the outputs of matrix products
      with parameters.
    attention: One of attention.BACKENDS.
  """

  scan: bool = True
  remat: str = 'none'
  attention: str = 'xla'


@jax.custom_vjp
def matmul(
    x: Float[Array, '*B D'], kernel: Float[Array, 'D F']
) -> Float[Array, '*B F']:
  """x @ kernel. For the kernel's gradient the narrower factor is transposed.

  JAX by itself always transposes the cotangent. On a CPU that is a copy, and
  up to 3 times as wide as x's (a toy's MLP, backward too, takes 0.7 as long).
  """
  return x @ kernel


def _matmul_forward(x, kernel):
  return x @ kernel, (x, kernel)


def _matmul_backward(kept, cotangent):
  x, kernel = kept
  rows = tuple(range(x.ndim - 1))
  product = lambda a, b: lax.dot_general(a, b, ((rows, rows), ((), ())))
  if kernel.shape[0] < kernel.shape[1]:
    of_kernel = product(x, cotangent)
  else:
    of_kernel = product(cotangent, x).T
  return cotangent @ kernel.T, of_kernel


matmul.defvjp(_matmul_forward, _matmul_backward)


class Norm(nnx.Module):
  """RMSNorm, x / rms(x) * scale; or LayerNorm, (x - mean) / std * scale + bias.

  In float32.
  """

  def __init__(
      self,
      width: int,
      config: config_lib.TowerConfig,
      *,
      stack: tuple[int, ...],
      dtype: Any,
  ):
    self.eps = config.norm_eps
    shape, axes = (*stack, width), (*_stacked(stack), 'norm')
    self.scale = nnx.Param(jnp.ones(shape, dtype), axes=axes)
    self.bias: nnx.Param | None = nnx.data(None)
    if config.layer_norm:
      self.bias = nnx.Param(jnp.zeros(shape, dtype), axes=axes)

  def __call__(self, x: Float[Array, '*B D']) -> jax.Array:
    y = x.astype(jnp.float32)
    if self.bias is not None:
      y -= jnp.mean(y, axis=-1, keepdims=True)
    y *= lax.rsqrt(jnp.mean(y * y, axis=-1, keepdims=True) + self.eps)
    if self.bias is None:
      return y.astype(x.dtype) * self.scale[...].astype(x.dtype)
    y = y * self.scale[...].astype(y.dtype) + self.bias[...].astype(y.dtype)
    return y.astype(x.dtype)


class Linear(nnx.Module):
  """x @ kernel [+ bias] [+ (x @ lora_a) @ lora_b * lora_scale].

  The kernel is [in, out] and is cast to the activations' dtype, so adapters
  may be kept in float32 beside a bfloat16 base.
  """

  def __init__(
      self,
      in_width: int,
      out_width: int,
      *,
      axes: tuple[str, str],
      bias: bool,
      stack: tuple[int, ...],
      dtype: Any,
      draw: Draw,
      gain: float = 1.0,
  ):
    """Makes a layer with kernel ~ N(0, gain^2 / in_width) and bias 0."""
    kernel = draw((*stack, in_width, out_width), gain * in_width**-0.5)
    self.kernel = nnx.Param(
        jnp.asarray(kernel, dtype), axes=(*_stacked(stack), *axes)
    )
    # nnx.data: filled later by lora.add_lora, so not a static attribute.
    self.bias: nnx.Param | None = nnx.data(None)
    self.lora_a: nnx.LoRAParam | None = nnx.data(None)
    self.lora_b: nnx.LoRAParam | None = nnx.data(None)
    self.lora_scale = 0.0
    if bias:
      self.bias = nnx.Param(
          jnp.zeros((*stack, out_width), dtype),
          axes=(*_stacked(stack), axes[1]),
      )

  def __call__(self, x: Float[Array, '*B D']) -> jax.Array:
    y = matmul(x, self.kernel[...].astype(x.dtype))
    if self.lora_a is not None and self.lora_b is not None:
      low = x @ self.lora_a[...].astype(x.dtype)
      y += low @ self.lora_b[...].astype(x.dtype) * self.lora_scale
    if self.bias is not None:
      y += self.bias[...].astype(x.dtype)
    return y


class Block(nnx.Module):
  """A pre-norm transformer block with grouped-query attention.

  In two halves, so that a decoder can put its cache between them:

      query, key, value = block.project(x, rotary)
      x = block.finish(x, attention(query, key, value, ...))
  """

  def __init__(
      self,
      config: config_lib.TowerConfig,
      *,
      dtype: Any,
      draw: Draw,
      residual_gain: float,
  ):
    """Makes L blocks.

    What they add to the residual stream starts small: the 2 L terms add up to
    about `residual_gain`.
    """
    width, ffn, head_dim = config.width, config.ffn, config.head_dim
    stack = (config.n_layers,)
    self.head_dim = head_dim
    linear = functools.partial(Linear, stack=stack, dtype=dtype, draw=draw)
    qkv = functools.partial(linear, bias=config.qkv_bias)
    other = functools.partial(linear, bias=config.other_bias)
    norm = functools.partial(Norm, config=config, stack=stack, dtype=dtype)
    small = residual_gain * (2 * config.n_layers) ** -0.5
    q_width, kv_width = config.n_heads * head_dim, config.n_kv_heads * head_dim
    self.attention_norm = norm(width)
    self.query = qkv(width, q_width, axes=('embed', 'heads'))
    self.key = qkv(width, kv_width, axes=('embed', 'kv_heads'))
    self.value = qkv(width, kv_width, axes=('embed', 'kv_heads'))
    self.out = other(q_width, width, axes=('heads', 'embed'), gain=small)
    self.query_norm = norm(head_dim) if config.qk_norm else None
    self.key_norm = norm(head_dim) if config.qk_norm else None
    self.mlp_norm = norm(width)
    self.gate = nnx.data(None)
    if config.gated:
      self.gate = other(width, ffn, axes=('embed', 'ffn'))
    self.up = other(width, ffn, axes=('embed', 'ffn'))
    self.down = other(ffn, width, axes=('ffn', 'embed'), gain=small)

  def project(
      self, x: Float[Array, 'B T D'], rotary: rope.Rotary
  ) -> tuple[jax.Array, jax.Array, jax.Array]:
    """Rotated queries [B, T, N, H], rotated keys and values [B, T, K, H]."""
    x = self.attention_norm(x)
    heads = (*x.shape[:-1], -1, self.head_dim)
    query = self.query(x).reshape(heads)
    key = self.key(x).reshape(heads)
    if self.query_norm is not None and self.key_norm is not None:
      query, key = self.query_norm(query), self.key_norm(key)
    return (
        rope.rotate(query, rotary),
        rope.rotate(key, rotary),
        self.value(x).reshape(heads),
    )

  def finish(
      self, x: Float[Array, 'B T D'], attended: Float[Array, 'B T N H']
  ) -> jax.Array:
    """Adds the output of attention, then that of the MLP: [B, T, D]."""
    x += self.out(attended.reshape(*x.shape[:-1], -1))
    y = self.mlp_norm(x)
    if self.gate is None:
      y = jax.nn.gelu(self.up(y), approximate=True)
    else:
      y = jax.nn.silu(self.gate(y)) * self.up(y)
    return x + self.down(y)


def run_blocks(
    step: Callable[[Carry, Any], Carry],
    x: Carry,
    layers: Any,
    how: Execution,
) -> Carry:
  """Applies x = step(x, layer) for each slice of `layers`, first to last.

  Args:
    step: One layer.
    x: The residual stream, or a pytree that holds it.
    layers: A pytree (a Block, or a tuple that holds one) stacked on axis 0.
    how: Whether to scan, and what to recompute.

  Raises:
    ValueError: An unknown remat policy.
  """
  if how.remat not in REMAT_POLICIES:
    raise ValueError(f'remat {how.remat!r} is not one of {REMAT_POLICIES}')
  if how.remat != 'none':
    policy = None
    if how.remat == 'dots':
      policy = jax.checkpoint_policies.dots_with_no_batch_dims_saveable
    # A scan's body cannot be merged with the forward pass by accident.
    step = jax.checkpoint(step, policy=policy, prevent_cse=not how.scan)
  if how.scan:
    return lax.scan(lambda x, layer: (step(x, layer), None), x, layers)[0]
  for index in range(len(jax.tree.leaves(layers)[0])):
    x = step(x, layer_slice(layers, index))
  return x


def layer_slice(layers: Any, index: int | slice) -> Any:
  """One layer of a pytree stacked on axis 0, or a stack of some."""
  return jax.tree.map(lambda leaf: leaf[index], layers)


def _stacked(stack: tuple[int, ...]) -> tuple[str, ...]:
  return ('layers',) * np.size(stack)

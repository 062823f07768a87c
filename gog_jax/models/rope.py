"""Rotary positions: three axes for the decoder, two for the images.

A text token's three positions (time, height, width) are equal. An image at
position p spans p in time, p .. p + h - 1 down and p .. p + w - 1 across, and
the text after it goes on at p + max(h, w): positions advance more slowly than
tokens. Where a conversation stands is therefore state of its own
(`next_position`), which cannot be recovered from the token count.
"""

from __future__ import annotations

from collections.abc import Sequence

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, Int
import numpy as np

from gog_jax import types

# The cosine and sine of every rotation angle, float32[B, T, H / 2] each.
Rotary = tuple[jax.Array, jax.Array]


def mrope_positions(
    n_tokens: int,
    placements: Sequence[types.Placement],
    *,
    merge_size: int,
    start: int = 0,
) -> tuple[np.ndarray, int]:
  """Positions of a chunk of tokens, on the host.

  Two text tokens, an image of 4 x 6 patches (2 x 3 features), one text token:

      time    0 1 2 2 2 2 2 2 5
      height  0 1 2 2 2 3 3 3 5
      width   0 1 2 3 4 2 3 4 5      next position: 6

  Args:
    n_tokens: T, of this chunk.
    placements: The chunk's images; starts count from the chunk's first token.
    merge_size: Patches per feature, along one side.
    start: Position of the chunk's first token: what the call for the chunk
      before it returned.

  Returns:
    int32[3, T] and the position of the token that follows the chunk.

  Raises:
    ValueError: Placements overlap, leave the chunk, or disagree with their
      own grids.
  """
  parts = []
  token, position = 0, start
  for placement in sorted(placements, key=lambda p: p.start):
    t, h, w = placement.grid
    h, w = h // merge_size, w // merge_size
    if placement.n_tokens != t * h * w:
      raise ValueError(f'{placement} should have {t * h * w} tokens')
    if placement.start < token or placement.start + t * h * w > n_tokens:
      raise ValueError(f'{placement} overlaps another or leaves the chunk')
    n_text = placement.start - token
    parts.append(_text_positions(position, n_text))
    position += n_text
    parts.append(np.indices((t, h, w)).reshape(3, -1) + position)
    position += max(h, w)
    token = placement.start + placement.n_tokens
  parts.append(_text_positions(position, n_tokens - token))
  position += n_tokens - token
  return np.concatenate(parts, axis=1).astype(np.int32), position


def _text_positions(start: int, n: int) -> np.ndarray:
  return np.broadcast_to(np.arange(start, start + n), (3, n))


def mrope(
    positions: Int[Array, 'B 3 T'],
    *,
    head_dim: int,
    theta: float,
    sections: tuple[int, int, int],
    interleaved: bool,
) -> Rotary:
  """Rotations of the decoder's queries and keys.

  Of the H / 2 frequencies `sections` turn with the temporal, the vertical and
  the horizontal position: three chunks one after the other (Qwen2-VL, arXiv
  2409.12191, section 2.1), or interleaved, t h w t h w ..., and what is left
  over at the end with the temporal one (Qwen3-VL, arXiv 2511.21631).
  """
  if interleaved:
    axes = np.zeros(head_dim // 2, np.int32)
    for axis in (1, 2):
      axes[axis : 3 * sections[axis] : 3] = axis
  else:
    axes = np.repeat(np.arange(3), sections)
  of_frequency = positions[:, axes].swapaxes(1, 2).astype(jnp.float32)
  angles = of_frequency * _frequencies(head_dim, theta)
  return jnp.cos(angles), jnp.sin(angles)


def image_rotary(
    coords: Int[Array, 'B P 2'], *, head_dim: int, theta: float
) -> Rotary:
  """Rotations of the vision transformer: half by row, half by column."""
  frequencies = _frequencies(head_dim // 2, theta)
  angles = coords[..., None].astype(jnp.float32) * frequencies
  angles = angles.reshape(*coords.shape[:-1], head_dim // 2)
  return jnp.cos(angles), jnp.sin(angles)


def rotate(x: Float[Array, 'B T N H'], rotary: Rotary) -> jax.Array:
  """Turns each pair (x[i], x[i + H / 2]) by its angle, in float32."""
  cos, sin = (part[:, :, None, :] for part in rotary)
  first, second = jnp.split(x.astype(jnp.float32), 2, axis=-1)
  turned = jnp.concatenate(
      [first * cos - second * sin, second * cos + first * sin], axis=-1
  )
  return turned.astype(x.dtype)


def _frequencies(dim: int, theta: float) -> np.ndarray:
  """Rotations per position, fastest first: float32[dim / 2]."""
  exponents = np.arange(0, dim, 2, dtype=np.float32) / dim
  return (1.0 / theta**exponents).astype(np.float32)

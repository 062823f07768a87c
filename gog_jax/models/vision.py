"""Qwen2.5-VL's vision transformer, over packed rows of patches.

Hugging Face's image processor already orders patches so that each merge_size x
merge_size group is contiguous; rows here keep that order. Most layers attend
within windows. Hugging Face sorts the patches by window first and sorts the
features back at the end; attention, norms and the MLP do not depend on the
order of their tokens, so masking by equal window ids gives the same numbers
without either permutation.
"""

from __future__ import annotations

from collections.abc import Sequence
import functools
from typing import Any, NamedTuple

from flax import nnx
import jax
import jax.numpy as jnp
from jaxtyping import Array, Float
import numpy as np

from gog_jax.models import config as config_lib
from gog_jax.models import layers
from gog_jax.models import rope


class VisionInputs(NamedTuple):
  """Patches of all images of each row, end to end, then padding.

  Attributes:
    patches: float[B, P, C], as the image processor normalises them.
    coords: int32[B, P, 2], row and column of each patch in its image.
    image_ids: int32[B, P], from 1 within a row; 0 is padding, which is thereby
      an image of its own: it attends to itself and to nothing that counts.
    window_ids: int32[B, P], unique within an image.
  """

  patches: Any
  coords: Any
  image_ids: Any
  window_ids: Any


class Merger(nnx.Module):
  """merge_size x merge_size patches -> one feature of the decoder's width."""

  def __init__(
      self, config: config_lib.VisionConfig, *, dtype: Any, draw: layers.Draw
  ):
    self.group = config.merge_size**2
    width = config.width * self.group
    kwargs = {'bias': True, 'stack': (), 'dtype': dtype, 'draw': draw}
    self.norm = layers.RMSNorm(
        config.width, eps=config.norm_eps, stack=(), dtype=dtype
    )
    self.up = layers.Linear(width, width, axes=('embed', 'ffn'), **kwargs)
    # Features stand among token embeddings, which start smaller still.
    self.down = layers.Linear(
        width, config.out_width, axes=('ffn', 'embed'), gain=0.3, **kwargs
    )

  def __call__(self, x: Float[Array, 'B P D']) -> jax.Array:
    n_rows, n_patches, width = x.shape
    x = self.norm(x).reshape(
        n_rows, n_patches // self.group, self.group * width
    )
    return self.down(jax.nn.gelu(self.up(x), approximate=False))


class VisionTower(nnx.Module):
  """Patches -> features, one per merge_size x merge_size patches."""

  def __init__(
      self, config: config_lib.VisionConfig, *, dtype: Any, draw: layers.Draw
  ):
    self.config = config
    # The published weights hold a 3-D convolution whose stride is its kernel:
    # a linear map of the flattened patch.
    self.patch_embed = layers.Linear(
        config.patch_dim,
        config.width,
        axes=('patch', 'embed'),
        bias=False,
        stack=(),
        dtype=dtype,
        draw=draw,
    )
    self.blocks = layers.Block(
        width=config.width,
        n_heads=config.n_heads,
        n_kv_heads=config.n_heads,
        head_dim=config.head_dim,
        ffn=config.ffn,
        norm_eps=config.norm_eps,
        qkv_bias=True,
        other_bias=True,
        n_layers=config.n_layers,
        dtype=dtype,
        draw=draw,
        residual_gain=1.0,
    )
    self.merger = Merger(config, dtype=dtype, draw=draw)

  def __call__(
      self, inputs: VisionInputs, *, dtype: Any, scan: bool, remat: str
  ) -> Float[Array, 'B M D']:
    """Features in the order of their patches; M = P / merge_size^2.

    Args:
      inputs: P must be a multiple of merge_size^2, and so must each image.
      dtype: Of the activations.
      scan: As in layers.run_blocks.
      remat: As in layers.run_blocks.
    """
    config = self.config
    rotary = rope.image_rotary(
        inputs.coords, head_dim=config.head_dim, theta=config.rope_theta
    )
    same_image = _equal_pairs(inputs.image_ids)
    same_window = same_image & _equal_pairs(inputs.window_ids)
    sees_all = np.isin(
        np.arange(config.n_layers), config.full_attention_layers
    )

    def step(x, layer: tuple[layers.Block, Any]):
      block, sees_all = layer
      mask = jnp.where(sees_all, same_image, same_window)
      attended = layers.attention(*block.project(x, rotary), mask)
      return block.finish(x, attended)

    x = self.patch_embed(inputs.patches.astype(dtype))
    x = layers.run_blocks(
        step, x, (self.blocks, sees_all), scan=scan, remat=remat
    )
    return self.merger(x)


def _equal_pairs(ids: jax.Array) -> jax.Array:
  """bool[B, P, P]: whether two patches carry the same id."""
  return ids[:, :, None] == ids[:, None, :]


@functools.lru_cache(maxsize=4096)
def patch_layout(
    grid: tuple[int, int, int], config: config_lib.VisionConfig
) -> tuple[np.ndarray, np.ndarray]:
  """Where the patches of one image lie, in the processor's order.

  A 2 x 4 grid with merge_size 2 and windows of one merged patch:

      patch    0    1    2    3  |  4    5    6    7
      row      0    0    1    1  |  0    0    1    1
      column   0    1    0    1  |  2    3    2    3
      window   0    0    0    0  |  1    1    1    1

  Windows start at the upper left; those at the right and lower border may be
  partial.

  Args:
    grid: (t, h, w) in patches.
    config: Of the vision transformer.

  Returns:
    coords int32[P, 2] and window_ids int32[P], read-only.

  Raises:
    ValueError: The grid is a video's, or no whole number of merged patches.
  """
  t, h, w = grid
  merge = config.merge_size
  if t != 1 or h % merge or w % merge:
    raise ValueError(f'grid {grid} is not that of a still image')
  rows, columns = np.indices((h, w), dtype=np.int32).reshape(
      2, h // merge, merge, w // merge, merge
  ).swapaxes(2, 3).reshape(2, -1)
  side = config.window_size // config.patch_size  # In patches.
  windows_across = -(-w // side)
  window_ids = rows // side * windows_across + columns // side
  coords = np.stack([rows, columns], axis=-1)
  coords.flags.writeable = window_ids.flags.writeable = False
  return coords, window_ids


def pack_images(
    rows: Sequence[Sequence[tuple[np.ndarray, tuple[int, int, int]]]],
    *,
    n_patches: int,
    config: config_lib.VisionConfig,
) -> VisionInputs:
  """Lays each row's images end to end, on the host.

  The features of a row's image i start at the number of patches of images
  0 .. i - 1, divided by merge_size^2.

  Args:
    rows: For each row its images: (patches float[P_i, C], grid).
    n_patches: P, to which every row is padded.
    config: Of the vision transformer.

  Raises:
    ValueError: A row does not fit, or patches disagree with their grid.
  """
  shape = (len(rows), n_patches)
  inputs = VisionInputs(
      patches=np.zeros((*shape, config.patch_dim), np.float32),
      coords=np.zeros((*shape, 2), np.int32),
      image_ids=np.zeros(shape, np.int32),
      window_ids=np.zeros(shape, np.int32),
  )
  for row, images in enumerate(rows):
    start = 0
    for image_id, (patches, grid) in enumerate(images, start=1):
      coords, window_ids = patch_layout(tuple(grid), config)
      part = np.s_[row, start : start + len(coords)]
      start += len(coords)
      if start > n_patches:
        raise ValueError(f'row {row} needs more than {n_patches} patches')
      inputs.patches[part] = patches
      inputs.coords[part] = coords
      inputs.image_ids[part] = image_id
      inputs.window_ids[part] = window_ids
  return inputs

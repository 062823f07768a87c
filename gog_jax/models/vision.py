"""The vision transformers, over packed rows of patches.

Hugging Face's image processor already orders patches so that each merge_size x
merge_size group is contiguous. Most of Qwen2.5-VL's layers attend within
windows: there the host sorts each image's patches by window, so that a window
is a contiguous segment like an image, and the features are sorted back at the
end.

Qwen3-VL has no windows; it adds learned positions to the patches, and takes
features after some layers as well (deepstack).
"""

from __future__ import annotations

from collections.abc import Sequence
import functools
import itertools
from typing import Any, NamedTuple

from flax import nnx
import jax
from jax import lax
import jax.numpy as jnp
from jaxtyping import Array, Float, Int
import numpy as np

from gog_jax.models import attention as attention_lib
from gog_jax.models import config as config_lib
from gog_jax.models import layers
from gog_jax.models import rope
from gog_jax.models import sharding

# The patches of an image, float[P, C], and its grid.
ImagePatches = tuple[np.ndarray, tuple[int, int, int]]


class VisionInputs(NamedTuple):
  """Patches of all images of each row, end to end, then padding.

  Those of an image are in the processor's order; where the model has windows,
  sorted by window.

  Attributes:
    patches: float[B, P, C], as the image processor normalises them.
    coords: int32[B, P, 2], row and column of each patch in its image.
    image_ids: int32[B, P], from 1 within a row; 0 is padding, which attends to
      itself alone, like an image.
    window_ids: int32[B, P], from 1 within a row; 0 is padding.
    sizes: int32[B, P, 2], rows and columns of each patch's image; 0 at padding.
    order: int32[B, M], where among the merged patches each feature stands, in
      the processor's order.
  """

  patches: Any
  coords: Any
  image_ids: Any
  window_ids: Any
  sizes: Any
  order: Any


class Merger(nnx.Module):
  """merge_size x merge_size patches -> one feature of the decoder's width."""

  def __init__(
      self,
      config: config_lib.VisionConfig,
      *,
      dtype: Any,
      draw: layers.Draw,
      norm_merged: bool,
      stack: tuple[int, ...],
  ):
    """Makes one, or a stack of them.

    Args:
      config: Of the tower.
      dtype: Of the parameters.
      draw: Makes the initial values.
      norm_merged: Whether patches are normalised together, merged, or each.
      stack: (), or (how many,).
    """
    self.group = config.merge_size**2
    self.norm_merged = norm_merged
    width = config.width * self.group
    kwargs = {'bias': True, 'stack': stack, 'dtype': dtype, 'draw': draw}
    self.norm = layers.Norm(
        width if norm_merged else config.width,
        config,
        stack=stack,
        dtype=dtype,
    )
    self.up = layers.Linear(width, width, axes=('embed', 'ffn'), **kwargs)
    # Features stand among token embeddings, which start smaller still.
    self.down = layers.Linear(
        width, config.out_width, axes=('ffn', 'embed'), gain=0.3, **kwargs
    )

  def __call__(self, x: Float[Array, 'B P D']) -> jax.Array:
    n_rows, n_patches, width = x.shape
    merged = (n_rows, n_patches // self.group, self.group * width)
    if self.norm_merged:
      x = self.norm(x.reshape(merged))
    else:
      x = self.norm(x).reshape(merged)
    return self.down(jax.nn.gelu(self.up(x), approximate=False))


class VisionTower(nnx.Module):
  """Patches -> features, one per merge_size x merge_size patches."""

  def __init__(
      self, config: config_lib.VisionConfig, *, dtype: Any, draw: layers.Draw
  ):
    self.config = config
    kwargs = {'dtype': dtype, 'draw': draw}
    # The published weights hold a 3-D convolution whose stride is its kernel:
    # a linear map of the flattened patch.
    self.patch_embed = layers.Linear(
        config.patch_dim,
        config.width,
        axes=('patch', 'embed'),
        bias=config.patch_bias,
        stack=(),
        **kwargs,
    )
    self.blocks = layers.Block(config, residual_gain=1.0, **kwargs)
    self.merger = Merger(config, norm_merged=False, stack=(), **kwargs)
    self.positions = nnx.data(None)
    self.deepstack_mergers = nnx.data(None)
    if config.n_positions:
      shape = (config.n_positions, config.width)
      table = jnp.asarray(draw(shape, config.width**-0.5), dtype)
      self.positions = nnx.Param(table, axes=('patch', 'embed'))
    if config.deepstack_layers:
      self.deepstack_mergers = Merger(
          config,
          norm_merged=True,
          stack=(len(config.deepstack_layers),),
          **kwargs,
      )

  def __call__(
      self,
      inputs: VisionInputs,
      how: layers.Execution = layers.Execution(),
      *,
      longest_image: int | None = None,
  ) -> Float[Array, 'B M F']:
    """Features in the processor's order of patches; M = P / merge_size^2.

    Args:
      inputs: P must be a multiple of merge_size^2, and so must each image.
      how: Windows always take attention 'xla'.
      longest_image: No image has more patches; a bound makes rows of several
        images cheaper.
    """
    config = self.config
    rotary = rope.image_rotary(
        inputs.coords, head_dim=config.head_dim, theta=config.rope_theta
    )
    # Read only where there are windows.
    sees_all = np.isin(np.arange(config.n_layers), config.full_attention_layers)
    attention_in = functools.partial(
        attention_lib.segment_attention, causal=False
    )
    of_image = functools.partial(
        attention_in,
        segment_ids=inputs.image_ids,
        longest=longest_image,
        backend=how.attention,
    )
    # A window has few patches: a block of queries and its neighbours.
    of_window = functools.partial(
        attention_in,
        segment_ids=inputs.window_ids,
        longest=config.window_patches,
    )

    def attend(sees_all, *projected):
      if not config.window_size:
        return of_image(*projected)
      if config.masks_windows(inputs.patches.shape[1]):
        ids = jnp.where(sees_all, inputs.image_ids, inputs.window_ids)
        return attention_in(*projected, segment_ids=ids)
      return lax.cond(sees_all, of_image, of_window, *projected)

    def step(x, layer: tuple[layers.Block, Any]):
      block, sees_all = layer
      attended = attend(sees_all, *block.project(x, rotary))
      return sharding.constrain_rows(block.finish(x, attended))

    dtype = self.patch_embed.kernel.dtype
    x = self.patch_embed(inputs.patches.astype(dtype))
    if self.positions is not None:
      x += _learned_positions(
          # Small; split by widths, what is looked up would travel instead.
          sharding.constrain_whole(self.positions[...]),
          inputs.coords,
          inputs.sizes,
          side=config.position_side,
      ).astype(dtype)
    # In parts that end where features are taken. (Carried along by one scan,
    # what is taken would be kept after every layer for the backward pass.)
    ends = [layer + 1 for layer in config.deepstack_layers]
    taken = []
    for start, end in itertools.pairwise([0, *ends, config.n_layers]):
      x = layers.run_blocks(
          step,
          x,
          layers.layer_slice((self.blocks, sees_all), slice(start, end)),
          how,
      )
      taken.append(x)
    features = [self.merger(x)]
    for index, after in enumerate(taken[:-1]):
      merger = layers.layer_slice(self.deepstack_mergers, index)
      features.append(merger(after))
    features = jnp.concatenate(features, axis=-1)
    if not config.window_size:
      return features  # Nothing was sorted.
    return jnp.take_along_axis(features, inputs.order[..., None], axis=1)


def _learned_positions(
    table: Float[Array, 'S D'],
    coords: Int[Array, 'B P 2'],
    sizes: Int[Array, 'B P 2'],
    *,
    side: int,
) -> Float[Array, 'B P D']:
  """A square table stretched bilinearly over each image, corners aligned."""
  # Multiplied before it is divided: an image as large as the table meets its
  # rows exactly.
  at = coords.astype(jnp.float32) * (side - 1) / jnp.maximum(sizes - 1, 1)
  low = jnp.floor(at)
  share = at - low
  low = low.astype(jnp.int32)
  high = jnp.minimum(low + 1, side - 1)
  total = 0.0
  for row, of_row in ((low, 1 - share), (high, share)):
    for column, of_column in ((low, 1 - share), (high, share)):
      near = table[row[..., 0] * side + column[..., 1]]
      weight = of_row[..., 0] * of_column[..., 1]
      total += near.astype(jnp.float32) * weight[..., None]
  return total


@functools.lru_cache(maxsize=4096)
def patch_layout(
    grid: tuple[int, int, int], config: config_lib.VisionConfig
) -> tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray]:
  """Where the patches of one image lie, in the processor's order.

  A 2 x 4 grid with merge_size 2 and windows of one merged patch:

      patch    0    1    2    3  |  4    5    6    7
      row      0    0    1    1  |  0    0    1    1
      column   0    1    0    1  |  2    3    2    3
      window   0    0    0    0  |  1    1    1    1

  Windows start at the upper left; those at the right and lower border may be
  partial. Without windows all are in window 0.

  Args:
    grid: (t, h, w) in patches.
    config: Of the vision transformer.

  Returns:
    coords int32[P, 2] and window_ids int32[P]; by_window int[P], the patches
    sorted by window, and order int32[P / merge_size^2], where each merged patch
    has gone. Read-only.

  Raises:
    ValueError: The grid is a video's, or no whole number of merged patches.
  """
  t, h, w = grid
  merge = config.merge_size
  if t != 1 or min(h, w) < 1 or h % merge or w % merge:
    raise ValueError(
        f'grid {grid} is not that of a still image, with rows and columns that '
        f'{merge} divides'
    )
  rows, columns = np.indices((h, w), dtype=np.int32).reshape(
      2, h // merge, merge, w // merge, merge
  ).swapaxes(2, 3).reshape(2, -1)
  window_ids = np.zeros_like(rows)
  if config.window_size:
    side = config.window_size // config.patch_size  # In patches.
    windows_across = -(-w // side)
    window_ids = rows // side * windows_across + columns // side
  # Stable: merged patches stay together.
  by_window = np.argsort(window_ids, kind='stable')
  order = np.argsort(by_window[:: merge**2] // merge**2).astype(np.int32)
  coords = np.stack([rows, columns], axis=-1)
  for array in (coords, window_ids, by_window, order):
    array.flags.writeable = False
  return coords, window_ids, by_window, order


def pack_images(
    rows: Sequence[Sequence[ImagePatches]],
    *,
    n_patches: int,
    config: config_lib.VisionConfig,
    dtype: Any = np.float32,
) -> VisionInputs:
  """Lays each row's images end to end, on the host.

  The features of a row's image i start at the number of patches of images
  0 .. i - 1, divided by merge_size^2.

  Args:
    rows: The images of each row.
    n_patches: P, to which every row is padded.
    config: Of the vision transformer.
    dtype: Of patches: that of activations, to which the tower casts them, is
      the least that devices have to be sent.

  Raises:
    ValueError: A row does not fit, or patches disagree with their grid.
  """
  shape = (len(rows), n_patches)
  merge = config.merge_size**2
  inputs = VisionInputs(
      patches=np.zeros((*shape, config.patch_dim), dtype),
      coords=np.zeros((*shape, 2), np.int32),
      image_ids=np.zeros(shape, np.int32),
      window_ids=np.zeros(shape, np.int32),
      sizes=np.zeros((*shape, 2), np.int32),
      order=np.zeros((len(rows), n_patches // merge), np.int32),
  )
  for row, images in enumerate(rows):
    start = n_windows = 0
    for image_id, (patches, grid) in enumerate(images, start=1):
      coords, window_ids, by_window, order = patch_layout(tuple(grid), config)
      end = start + len(coords)
      if end > n_patches:
        raise ValueError(f'row {row} needs more than {n_patches} patches')
      part = np.s_[row, start:end]
      inputs.patches[part] = patches[by_window]
      inputs.coords[part] = coords[by_window]
      inputs.image_ids[part] = image_id
      inputs.window_ids[part] = window_ids[by_window] + n_windows + 1
      inputs.sizes[part] = grid[1:]
      inputs.order[row, start // merge : end // merge] = order + start // merge
      start = end
      n_windows += int(window_ids.max()) + 1
  return inputs

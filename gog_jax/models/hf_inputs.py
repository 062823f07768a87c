"""What a Hugging Face processor returns -> what the model takes.

Their images are one list for the whole batch, in the order of the image tokens
of its rows; ours belong to their row. Which tokens are an image's follows from
the ids and the grids, and so do positions: `mm_token_type_ids` is not needed.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any, NamedTuple

import numpy as np

from gog_jax import types
from gog_jax.models import config as config_lib
from gog_jax.models import rope
from gog_jax.models import vision

Grid = tuple[int, int, int]
Image = tuple[np.ndarray, Grid]


class Inputs(NamedTuple):
  """Arguments of VLM.encode_images and VLM.hidden.

  Attributes:
    tokens: int32[B, T].
    positions: int32[B, 3, T], 0 at padding.
    segment_ids: int32[B, T], 1 where the mask is.
    image_index: int32[B, T], -1 for text.
    vision: The images of each row; None where there are none.
  """

  # NumPy on the host, jax.Array in jit.
  tokens: Any
  positions: Any
  segment_ids: Any
  image_index: Any
  vision: vision.VisionInputs | None


def from_processor(
    config: config_lib.VLMConfig,
    input_ids: Any,
    attention_mask: Any = None,
    pixel_values: Any = None,
    image_grid_thw: Any = None,
) -> Inputs:
  """Checks the arrays of a batch and lays them out, on the host.

  Args:
    config: Of the model.
    input_ids: int[B, T].
    attention_mask: [B, T], 1, or 0 at padding, which may be on either side;
      None for no padding.
    pixel_values: float[sum of P, C], the patches of all images in order.
    image_grid_thw: int[I, 3], their grids.

  Raises:
    ValueError: Shapes, images and image tokens do not belong together.
  """
  tokens = _token_ids(input_ids, config.text.vocab_size)
  valid = np.ones(tokens.shape, bool)
  if attention_mask is not None:
    mask = np.asarray(attention_mask)
    valid = mask.astype(bool)
    if (mask != valid).any():
      raise ValueError(
          'attention_mask must hold 1, or 0 at padding: pass the one that the '
          'processor returns'
      )
    if valid.shape != tokens.shape:
      raise ValueError(
          f'attention_mask has shape {list(valid.shape)}, input_ids has '
          f'{list(tokens.shape)}: pass both of one batch'
      )
  images = _images(pixel_values, image_grid_thw, config.vision)
  positions = np.zeros((len(tokens), 3, tokens.shape[1]), np.int32)
  image_index = np.full(tokens.shape, -1, np.int32)
  rows, following = [], enumerate(images)
  for row, mask in enumerate(valid):
    is_image = tokens[row][mask] == config.image_token_id
    row_images, placements = _place(
        np.flatnonzero(is_image),
        following,
        row=row,
        n_images=len(images),
        merge_size=config.vision.merge_size,
    )
    rows.append(row_images)
    positions[row][:, mask], _ = rope.mrope_positions(
        int(mask.sum()), placements, merge_size=config.vision.merge_size
    )
    image_index[row, mask] = np.where(is_image, np.cumsum(is_image) - 1, -1)
  if left := sum(1 for _ in following):
    raise ValueError(
        f'{left} of {len(images)} images have no image token '
        f'({config.image_token_id}) in input_ids: pass the ids and images of '
        'one call of the processor'
    )
  inputs = None
  if images:
    most = max(sum(len(patches) for patches, _ in row) for row in rows)
    inputs = vision.pack_images(rows, n_patches=most, config=config.vision)
  return Inputs(
      tokens, positions, valid.astype(np.int32), image_index, inputs
  )


def _token_ids(input_ids: Any, vocab_size: int) -> np.ndarray:
  """int32[B, T], each an id that the embedding has."""
  wanted = 'input_ids must be int[B, T]'
  try:
    tokens = np.asarray(input_ids)
  except ValueError as error:  # Rows of unequal lengths.
    raise ValueError(
        f'{wanted}, rows of one length: ask the processor for padding=True '
        "and return_tensors='np'"
    ) from error
  if tokens.ndim != 2 or not tokens.size:
    raise ValueError(
        f'{wanted}, not of shape {list(tokens.shape)}: one conversation is a '
        'batch of one, input_ids[None]'
    )
  if not np.issubdtype(tokens.dtype, np.integer):
    raise ValueError(f'{wanted}, not {tokens.dtype}')
  for token in (tokens.min(), tokens.max()):
    if not 0 <= token < vocab_size:
      raise ValueError(
          f'input_ids holds {token}, the model has ids 0 .. {vocab_size - 1}: '
          "use the model folder's own processor"
      )
  return tokens.astype(np.int32)


def _images(
    pixel_values: Any, image_grid_thw: Any, config: config_lib.VisionConfig
) -> list[Image]:
  """The batch's images in order, each with its grid."""
  if (pixel_values is None) != (image_grid_thw is None):
    given, lacking = 'pixel_values', 'image_grid_thw'
    if pixel_values is None:
      given, lacking = lacking, given
    raise ValueError(
        f'{given} without {lacking}: pass both, as the processor returns them'
    )
  if pixel_values is None:
    return []
  patches, grids = np.asarray(pixel_values), np.asarray(image_grid_thw)
  if grids.ndim != 2 or grids.shape[1] != 3:
    raise ValueError(
        f'image_grid_thw must be int[I, 3], not of shape {list(grids.shape)}'
    )
  if not np.issubdtype(grids.dtype, np.integer):
    raise ValueError(f'image_grid_thw must be int[I, 3], not {grids.dtype}')
  for grid in grids.tolist():
    if min(grid) < 1 or grid[1] % config.merge_size or (
        grid[2] % config.merge_size
    ):
      raise ValueError(
          f'image_grid_thw holds {grid}, not 1 or more frames of rows and '
          f'columns that {config.merge_size} divides: use the model folder\'s '
          'own processor'
      )
  if patches.ndim != 2 or patches.shape[1] != config.patch_dim:
    raise ValueError(
        f'pixel_values must be float[P, {config.patch_dim}] for patch_size '
        f'{config.patch_size}, {config.in_channels} channels and '
        f'temporal_patch_size {config.temporal_patch_size}, not of shape '
        f"{list(patches.shape)}: use the model folder's own processor"
    )
  sizes = grids.prod(axis=1)
  if sizes.sum() != len(patches):
    raise ValueError(
        f'image_grid_thw has grids of {sizes.sum()} patches, pixel_values has '
        f'{len(patches)}: pass both of one call of the processor'
    )
  if not len(grids):
    return []
  parts = np.split(patches, np.cumsum(sizes)[:-1])
  grids = [(int(t), int(h), int(w)) for t, h, w in grids]
  return list(zip(parts, grids, strict=True))


def _place(
    starts: np.ndarray,
    following: Iterator[tuple[int, Image]],
    *,
    row: int,
    n_images: int,
    merge_size: int,
) -> tuple[list[Image], Sequence[types.Placement]]:
  """Gives a row's image tokens, at `starts`, to the images that come next."""
  row_images, placements = [], []
  while starts.size:
    number, image = next(following, (n_images, None))
    if image is None:
      raise ValueError(
          f'row {row} has {starts.size} image tokens more than the '
          f'{n_images} images have features: pass pixel_values and '
          'image_grid_thw of every image'
      )
    patches, grid = image
    n_tokens = len(patches) // merge_size**2
    here, starts = starts[:n_tokens], starts[n_tokens:]
    if len(here) < n_tokens:
      raise ValueError(
          f'image {number} of grid {grid} has {n_tokens} features, row {row} '
          f'has {len(here)} image tokens left: pass the ids and images of one '
          'call of the processor (was the row truncated?)'
      )
    if here[-1] - here[0] >= n_tokens:
      raise ValueError(
          f'the {n_tokens} tokens of image {number} in row {row} do not stand '
          'together: something was inserted among them'
      )
    placements.append(
        types.Placement(
            start=int(here[0]),
            image=len(row_images),
            grid=grid,
            n_tokens=n_tokens,
        )
    )
    row_images.append(image)
  return row_images, placements

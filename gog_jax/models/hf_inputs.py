"""What a Hugging Face processor returns -> what the model takes.

Their images are one list for the whole batch, in the order of the image tokens
of its rows; ours belong to their row. Which tokens are an image's follows from
the ids and the grids, and so do positions: `mm_token_type_ids` is not needed.
"""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np

from gog_jax import types
from gog_jax.models import config as config_lib
from gog_jax.models import rope
from gog_jax.models import vision


class Inputs(NamedTuple):
  """Arguments of VisionTower and of TextTower.hidden.

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
    attention_mask: Any,
    pixel_values: Any,
    image_grid_thw: Any,
) -> Inputs:
  """Checks the arrays of a batch and lays them out, on the host.

  Arguments are those of VLM.__call__.

  Raises:
    ValueError: Shapes, images and image tokens do not belong together.
  """
  tokens = _token_ids(input_ids, config.text.vocab_size)
  valid = np.ones(tokens.shape, bool)
  if attention_mask is not None:
    mask = np.asarray(attention_mask)
    valid = mask.astype(bool)
    if valid.shape != tokens.shape or (mask != valid).any():
      raise ValueError(
          f'attention_mask must hold 1, or 0 at padding, and have the shape of '
          f'input_ids, {list(tokens.shape)}, not {list(mask.shape)}: pass both '
          'of one call of the processor'
      )
  images = _images(pixel_values, image_grid_thw, config.vision)
  is_image = valid & (tokens == config.image_token_id)
  merge_size = config.vision.merge_size
  n_features = sum(len(patches) for patches, _ in images) // merge_size**2
  if is_image.sum() != n_features:
    raise ValueError(
        f'input_ids has {is_image.sum()} image tokens, the {len(images)} '
        f'images have {n_features} features: pass ids and images of one call '
        'of the processor (was a row truncated?)'
    )
  rows: list[list[vision.ImagePatches]] = [[] for _ in tokens]
  placements: list[list[types.Placement]] = [[] for _ in tokens]
  at = np.argwhere(is_image)
  in_row = valid.cumsum(axis=1) - 1  # Which of the row's valid tokens it is.
  for patches, grid in images:
    own, at = np.split(at, [len(patches) // merge_size**2])
    row, starts = own[0, 0], in_row[tuple(own.T)]
    if (own[:, 0] != row).any() or (np.diff(starts) != 1).any():
      raise ValueError(
          f'the {len(own)} tokens of image {len(rows[row])} of row {row} do '
          'not stand together: pass ids and images of one call of the processor'
      )
    placement = types.Placement(
        start=int(starts[0]), image=len(rows[row]), grid=grid, n_tokens=len(own)
    )
    placements[row].append(placement)
    rows[row].append((patches, grid))
  positions = np.zeros((len(tokens), 3, tokens.shape[1]), np.int32)
  for row, mask in enumerate(valid):
    positions[row][:, mask], _ = rope.mrope_positions(
        int(mask.sum()), placements[row], merge_size=merge_size
    )
  inputs = None
  if images:
    most = max(sum(len(patches) for patches, _ in row) for row in rows)
    inputs = vision.pack_images(rows, n_patches=most, config=config.vision)
  return Inputs(
      tokens=tokens,
      positions=positions,
      segment_ids=valid.astype(np.int32),
      image_index=np.where(is_image, is_image.cumsum(axis=1) - 1, -1).astype(
          np.int32
      ),
      vision=inputs,
  )


def _token_ids(input_ids: Any, vocab_size: int) -> np.ndarray:
  """int32[B, T], each an id that the embedding has."""
  try:
    tokens = np.asarray(input_ids)
  except ValueError as error:  # Rows of unequal lengths.
    raise ValueError(
        'input_ids must be int[B, T], rows of one length: ask the processor '
        "for padding=True and return_tensors='np'"
    ) from error
  if tokens.ndim != 2 or not tokens.size or tokens.dtype.kind not in 'iu':
    raise ValueError(
        f'input_ids must be int[B, T], not {_kind(tokens)}: one conversation '
        'is a batch of one, input_ids[None]'
    )
  for token in (tokens.min(), tokens.max()):
    if not 0 <= token < vocab_size:
      raise ValueError(
          f'input_ids holds {token}, the model has ids 0 .. {vocab_size - 1}: '
          "use the model folder's own processor"
      )
  return tokens.astype(np.int32)


def _images(
    pixel_values: Any, image_grid_thw: Any, config: config_lib.VisionConfig
) -> list[vision.ImagePatches]:
  """The batch's images in order, each with its grid."""
  if (pixel_values is None) != (image_grid_thw is None):
    raise ValueError(
        'pixel_values and image_grid_thw belong together: pass both, as the '
        'processor returns them'
    )
  if pixel_values is None:
    return []
  patches, grids = np.asarray(pixel_values), np.asarray(image_grid_thw)
  if grids.shape != (len(grids), 3) or grids.dtype.kind not in 'iu':
    raise ValueError(f'image_grid_thw must be int[I, 3], not {_kind(grids)}')
  for grid in grids.tolist():
    vision.patch_layout(tuple(grid), config)  # Checks it.
  if patches.ndim != 2 or patches.shape[1] != config.patch_dim:
    raise ValueError(
        f'pixel_values must be float[P, {config.patch_dim}] for patch_size '
        f'{config.patch_size}, {config.in_channels} channels and '
        f'temporal_patch_size {config.temporal_patch_size}, not '
        f'{_kind(patches)}'
    )
  sizes = grids.prod(axis=1)
  if sizes.sum() != len(patches):
    raise ValueError(
        f'image_grid_thw has grids of {sizes.sum()} patches, pixel_values has '
        f'{len(patches)}: pass both of one call of the processor'
    )
  parts = np.split(patches, np.cumsum(sizes))[: len(grids)]
  return list(zip(parts, map(tuple, grids.tolist()), strict=True))


def _kind(array: np.ndarray) -> str:
  """Dtype and shape, such as 'int64[2, 3]'."""
  return f'{array.dtype}{list(array.shape)}'

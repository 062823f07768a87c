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

Image = tuple[np.ndarray, tuple[int, int, int]]


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
  merge_size = config.vision.merge_size
  is_image = valid & (tokens == config.image_token_id)
  rows, placements = _place(images, is_image, valid, merge_size=merge_size)
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
  merge_size = config.merge_size
  for t, h, w in grids.tolist():
    if min(t, h, w) < 1 or h % merge_size or w % merge_size:
      raise ValueError(
          f'image_grid_thw holds {[t, h, w]}, not 1 or more frames of rows and '
          f'columns that {merge_size} divides: use the model folder\'s own '
          'processor'
      )
  if patches.ndim != 2 or patches.shape[1] != config.patch_dim:
    raise ValueError(
        f'pixel_values must be float[P, {config.patch_dim}] for patch_size '
        f'{config.patch_size}, {config.in_channels} channels and '
        f'temporal_patch_size {config.temporal_patch_size}, not of shape '
        f'{list(patches.shape)}'
    )
  sizes = grids.prod(axis=1)
  if sizes.sum() != len(patches):
    raise ValueError(
        f'image_grid_thw has grids of {sizes.sum()} patches, pixel_values has '
        f'{len(patches)}: pass both of one call of the processor'
    )
  parts = np.split(patches, np.cumsum(sizes))[: len(grids)]
  return [
      (part, (t, h, w))
      for part, (t, h, w) in zip(parts, grids.tolist(), strict=True)
  ]


def _place(
    images: list[Image],
    is_image: np.ndarray,
    valid: np.ndarray,
    *,
    merge_size: int,
) -> tuple[list[list[Image]], list[list[types.Placement]]]:
  """Gives each image, in order, the next of the image tokens.

  Args:
    images: Of the batch.
    is_image: bool[B, T], where the image tokens are.
    valid: bool[B, T].
    merge_size: Patches per feature, along one side.

  Returns:
    The images of each row, and where among its valid tokens they stand.
  """
  rows, columns = np.nonzero(is_image)
  starts = valid.cumsum(axis=1)[rows, columns] - 1
  sizes = [len(patches) // merge_size**2 for patches, _ in images]
  if len(rows) != sum(sizes):
    raise ValueError(
        f'input_ids has {len(rows)} image tokens, the {len(images)} images '
        f'have {sum(sizes)} features: pass ids and images of one call of the '
        'processor (was a row truncated?)'
    )
  row_images = [[] for _ in valid]
  placements = [[] for _ in valid]
  end = 0
  for number, (image, n_tokens) in enumerate(zip(images, sizes, strict=True)):
    first, end = end, end + n_tokens
    row, start = int(rows[first]), int(starts[first])
    if (rows[end - 1], starts[end - 1]) != (row, start + n_tokens - 1):
      raise ValueError(
          f'the {n_tokens} tokens of image {number}, from row {row} on, do not '
          'stand together: pass ids and images of one call of the processor'
      )
    placements[row].append(
        types.Placement(
            start=start,
            image=len(row_images[row]),
            grid=image[1],
            n_tokens=n_tokens,
        )
    )
    row_images[row].append(image)
  return row_images, placements

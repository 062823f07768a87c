"""Our logits against transformers', on a folder's own weights and a picture."""

from __future__ import annotations

import jax
import jax.numpy as jnp
import numpy as np

from gog_jax import models
from gog_jax.errors import UserError
from gog_jax.images import decode
from gog_jax.models.families import FAMILIES
from gog_jax.run import Run

# Largest difference of a logit that rounding explains, absolute or in standard
# deviations of the logits, whichever is more: ten times what random weights of
# full size show in float32. In bfloat16 the verdict is on first choices alone.
_TOLERANCE = 2e-4
_TOP_1 = {'float32': 1.0, 'bfloat16': 0.9}


def compare(run: Run, picture: bytes, prompt: str) -> tuple[bool, str]:
  """Whether the two agree, and how they differ.

  Takes memory for the model, ours and then theirs, and for the logits of all
  positions, several times.

  Raises:
    ImportError: torch or transformers is not installed.
    UserError: Model, tokenizer and image processor do not fit each other.
  """
  import torch
  import transformers
  from transformers.models.qwen2_vl import image_processing_pil_qwen2_vl

  folder, config, dtype = run.model_folder, run.model_config, run.dtype.name
  patches, grid = run.processor.patches(picture)
  # Without torchvision this is the one that transformers has.
  theirs_of = image_processing_pil_qwen2_vl.Qwen2VLImageProcessorPil
  inputs = theirs_of.from_pretrained(folder)(
      decode(picture),
      size={
          'shortest_edge': run.processor.min_pixels,
          'longest_edge': run.processor.max_pixels,
      },
      return_tensors='np',
  )
  same = grid == tuple(
      inputs['image_grid_thw'][0].tolist()
  ) and np.array_equal(patches, inputs['pixel_values'])
  pad = config.image_token_id
  tokens = np.array([[
      config.vision_start_token_id,
      *[pad] * (len(patches) // config.vision.merge_size**2),
      config.vision_end_token_id,
      *run.chat.codec.encode_text(prompt),
  ]])
  mask, grids = np.ones_like(tokens), np.array([grid])
  ours, _ = models.from_pretrained(folder, dtype=run.dtype, mesh=run.mesh)
  try:
    # Accelerators round the factors of float32 products otherwise.
    exact = 'highest' if dtype == 'float32' else None
    with jax.default_matmul_precision(exact):
      mine = ours(tokens, mask, patches, grids)
  except ValueError as error:
    raise UserError(
        f'{folder}: its model does not take what its tokenizer and its image '
        f'processor make ({error})'
    ) from error
  mine = np.asarray(mine.astype(jnp.float32))
  del ours  # Theirs needs as much memory again.
  cls = getattr(transformers, FAMILIES[config.family].hf_class)
  model = cls.from_pretrained(folder, dtype=getattr(torch, dtype)).eval()
  with torch.no_grad():
    logits = model(
        input_ids=torch.tensor(tokens),
        attention_mask=torch.tensor(mask),
        pixel_values=torch.tensor(patches),
        image_grid_thw=torch.tensor(grids),
        # Without these transformers silently takes other positions.
        mm_token_type_ids=torch.tensor(tokens == pad).int(),
    ).logits
  theirs = logits.float().numpy()
  worst = np.abs(mine - theirs).max(axis=-1)[0]
  allowed = _TOLERANCE * max(1, theirs.std())
  # As good as theirs: of two alike, rounding may take either.
  chosen = np.take_along_axis(theirs, mine.argmax(-1)[..., None], -1)[..., 0]
  top_1 = float((theirs.max(-1) - chosen <= 2 * allowed).mean())
  agree = same and top_1 >= _TOP_1[dtype]
  if dtype == 'float32':
    agree = agree and bool(worst.max() <= allowed)
  return agree, (
      f'image processor {"equal" if same else "DIFFERENT"}, grid {grid}; '
      f'{tokens.size} positions in {dtype}: largest difference '
      f'{worst.max():.2e} at position {worst.argmax()}, mean '
      f'{np.abs(mine - theirs).mean():.2e}, same first choice {top_1:.1%}, '
      f'their standard deviation {theirs.std():.2f}'
  )

"""Our logits against transformers', on a folder's own weights and one photo.

    python scripts/check_parity.py FOLDER --image=photo.jpg [--dtype=float32] \
      [--prompt='What is this?'] [--max_image_tokens=1024]

Takes memory for the model and for the logits of all positions, several times.
Exit code 0: they agree; 1: they differ; 2: something is missing.
"""

from __future__ import annotations

import argparse
import pathlib
import sys

import jax.numpy as jnp
import numpy as np

from gog_jax import models
from gog_jax.chat.codec import Codec
from gog_jax.errors import UserError
from gog_jax.images import decode
from gog_jax.images import ImageProcessor
from gog_jax.models.families import FAMILIES

# Largest difference of a logit that rounding explains, absolute or in standard
# deviations of the logits, whichever is more: ten times what random weights of
# full size show in float32. In bfloat16 the verdict is on first choices alone.
_TOLERANCE = 2e-4
_TOP_1 = {'float32': 1.0, 'bfloat16': 0.9}


def check(
    folder: str, *, image: str, prompt: str, dtype: str, max_image_tokens: int
) -> bool:
  """Prints how the two differ; returns whether they agree.

  Raises:
    UserError: A file is missing or damaged, or torch is not installed.
  """
  try:
    import torch
    import transformers
    from transformers.models.qwen2_vl import image_processing_pil_qwen2_vl
  except ImportError as error:
    raise UserError(
        f'{error.name} is missing, and this compares with it; pip install '
        'torch transformers'
    ) from error
  try:
    data = pathlib.Path(image).read_bytes()
  except OSError as error:
    raise UserError(
        f'{image} cannot be read ({error.strerror}); give --image=FILE'
    ) from error
  folder = str(models.local_folder(folder))
  ours, config = models.from_pretrained(folder, dtype=jnp.dtype(dtype))
  processor = ImageProcessor.from_folder(folder, max_tokens=max_image_tokens)
  patches, grid = processor.patches(data)
  # Without torchvision this is the one that transformers has.
  theirs_of = image_processing_pil_qwen2_vl.Qwen2VLImageProcessorPil
  inputs = theirs_of.from_pretrained(folder)(
      decode(data),
      size={
          'shortest_edge': processor.min_pixels,
          'longest_edge': processor.max_pixels,
      },
      return_tensors='np',
  )
  same = grid == tuple(
      inputs['image_grid_thw'][0].tolist()
  ) and np.array_equal(patches, inputs['pixel_values'])
  print(f'image processor: {"equal" if same else "DIFFERENT"}, grid {grid}')

  n_pads = len(patches) // config.vision.merge_size**2
  start, end, pad = (
      config.vision_start_token_id,
      config.vision_end_token_id,
      config.image_token_id,
  )
  text = list(Codec(folder).encode_text(prompt))
  tokens = np.array([[start, *[pad] * n_pads, end, *text]])
  mask = np.ones_like(tokens)
  grids = np.array([grid])
  try:
    mine = np.asarray(ours(tokens, mask, patches, grids), np.float32)
  except ValueError as error:
    raise UserError(
        f'{folder}: its model does not take what its tokenizer and its image '
        f'processor make ({error})'
    ) from error
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
  print(
      f'{tokens.size} positions in {dtype}: largest difference '
      f'{worst.max():.2e} at position {worst.argmax()}, mean '
      f'{np.abs(mine - theirs).mean():.2e}, same first choice {top_1:.1%}, '
      f'their standard deviation {theirs.std():.2f}'
  )
  agree = same and top_1 >= _TOP_1[dtype]
  if dtype == 'float32':
    agree = agree and bool(worst.max() <= allowed)
  print('verdict: they agree' if agree else 'verdict: THEY DIFFER')
  return agree


def main(argv: list[str] | None = None) -> int:
  parser = argparse.ArgumentParser(description=(__doc__ or '').split('\n')[0])
  parser.add_argument('folder')
  parser.add_argument('--image', required=True)
  parser.add_argument('--prompt', default='What is this?')
  parser.add_argument(
      '--max_image_tokens', type=int, default=1024, help='the image is shrunk'
  )
  parser.add_argument('--dtype', default='float32', choices=sorted(_TOP_1))
  args = parser.parse_args(argv)
  try:
    agree = check(
        args.folder,
        image=args.image,
        prompt=args.prompt,
        dtype=args.dtype,
        max_image_tokens=args.max_image_tokens,
    )
  except UserError as error:
    print(f'check_parity: {error}', file=sys.stderr)
    return 2
  return 0 if agree else 1


if __name__ == '__main__':
  sys.exit(main())

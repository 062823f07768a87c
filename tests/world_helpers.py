"""Questions of the embedded world, and the pixels of their scenes."""

from __future__ import annotations

import io

import numpy as np
from PIL import Image

from gog_jax.world import knowledge
from gog_jax.world import questions


def pixels_of(data: bytes) -> np.ndarray:
  with Image.open(io.BytesIO(data)) as image:
    assert image.format == 'PNG'
    assert image.mode == 'RGB'
    return np.asarray(image).astype(int)


def questions_of(
    split: str, n: int, first: int = 0
) -> list[questions.Question]:
  return [
      questions.make_question(
          knowledge.make_scope(split, first + i // 16), i % 16
      )
      for i in range(n)
  ]

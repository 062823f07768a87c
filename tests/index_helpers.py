"""Small pictures and documents for the tests of the local index."""

from __future__ import annotations

import io
import json
import pathlib

import numpy as np
from PIL import Image

ROOT = pathlib.Path(__file__).parents[1]


def picture(seed: int, width: int = 120, height: int = 90) -> Image.Image:
  """A picture of its own: blots of colour, the same for the same seed."""
  random = np.random.default_rng(seed)
  coarse = random.integers(256, size=(9, 12, 3)).astype(np.uint8)
  return Image.fromarray(coarse).resize(
      (width, height), Image.Resampling.BICUBIC
  )


def encoded(image: Image.Image, kind: str = 'PNG', **options) -> bytes:
  buffer = io.BytesIO()
  image.save(buffer, format=kind, **options)
  return buffer.getvalue()


def write_images(folder: pathlib.Path, names: dict[str, int]) -> pathlib.Path:
  """A folder of pictures by name and seed."""
  for name, seed in names.items():
    path = folder / name
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(encoded(picture(seed)))
  return folder


def write_docs(path: pathlib.Path, *rows) -> str:
  """A file of JSON lines; a row that is text is written as it is."""
  lines = [r if isinstance(r, str) else json.dumps(r) for r in rows]
  path.write_text('\n'.join(lines) + '\n')
  return str(path)


class ThreeColours:
  """An encoder for tests: the mean colour."""

  version = 'three-1'
  width = 3

  def encode(self, pictures: list[Image.Image]) -> np.ndarray:
    means = [np.asarray(p, np.float32).mean(axis=(0, 1)) for p in pictures]
    vectors = np.array(means) + 1
    return vectors / np.linalg.norm(vectors, axis=1, keepdims=True)

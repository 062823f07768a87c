"""Features on disk: files of up to 64 images, never changed in place.

A chunk is a safetensors file whose tensors are named IMAGE/FEATURE. It is named
after the images it holds, lies in the folder of its features' version, and is
written atomically. Images are identified by the SHA-256 of their files, so that
a renamed image keeps its features.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping
import contextlib
import pathlib

import numpy as np
import safetensors
import safetensors.numpy

from gog_jax.index import manifest
from gog_jax.storage import files

SIZE = 64
# A chunk is rewritten once less than this share of its images is in use.
_MIN_USED = 0.5

Tensors = Mapping[str, np.ndarray]


class Chunks:
  """The chunks of one version; safe to read from several threads."""

  def __init__(
      self, index: pathlib.Path, version: str, images: Collection[str]
  ):
    """Opens the chunks that hold features of these images.

    Images of damaged or mostly unused chunks count as missing, so that they
    are written anew and the chunk can go.
    """
    self._folder = index / manifest.FEATURES / version
    self._where: dict[str, tuple[pathlib.Path, safetensors.safe_open]] = {}
    for path in sorted(self._folder.glob('*.safetensors')):
      with contextlib.suppress(OSError, safetensors.SafetensorError):
        file = safetensors.safe_open(path, framework='np')
        held = {name.partition('/')[0] for name in file.keys()}
        if len(held.intersection(images)) >= _MIN_USED * len(held):
          self._where.update(dict.fromkeys(held, (path, file)))

  def __contains__(self, image: str) -> bool:
    return image in self._where

  def paths(self, images: Iterable[str]) -> set[pathlib.Path]:
    """The files that hold these images."""
    return {self._where[image][0] for image in images}

  def get(self, image: str, feature: str) -> np.ndarray:
    """Reads a feature; KeyError if the image is missing."""
    return self._where[image][1].get_tensor(f'{image}/{feature}')

  def n_rows(self, image: str, feature: str) -> int:
    """How long a feature is, without reading it."""
    return self._where[image][1].get_slice(f'{image}/{feature}').get_shape()[0]

  def write(self, images: Mapping[str, Tensors]) -> None:
    """Commits the features of images, by their names, as one chunk."""
    if not images:
      return
    path = self._folder / f'{manifest.digest(" ".join(images))}.safetensors'
    tensors = {
        f'{image}/{feature}': values
        for image, features in images.items()
        for feature, values in features.items()
    }
    files.write_atomic(path, safetensors.numpy.save(tensors))
    file = safetensors.safe_open(path, framework='np')
    self._where.update(dict.fromkeys(images, (path, file)))

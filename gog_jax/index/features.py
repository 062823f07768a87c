"""From image files to features in chunks, each image once.

An interrupted build loses at most one chunk.
"""

from __future__ import annotations

from collections.abc import Mapping
import concurrent.futures
import hashlib
import os
import pathlib
from typing import Protocol

import cv2
import numpy as np
from PIL import Image

from gog_jax import images
from gog_jax import interrupt
from gog_jax.errors import UserError
from gog_jax.index import chunks
from gog_jax.index import descriptor
from gog_jax.storage import metrics

# Kinds of chunks.
LOCAL = 'local'
ENCODED = 'encoded'
_MAX_WORKERS = 8


class ImageEncoder(Protocol):
  """Turns pictures into vectors that are near for like things.

  Attributes:
    version: Changes with the vectors.
    width: Of a vector.
  """

  @property
  def version(self) -> str:
    ...

  @property
  def width(self) -> int:
    ...

  def encode(self, pictures: list[Image.Image]) -> np.ndarray:
    """float32[n, width], each of length 1."""
    ...


def stores(
    index: pathlib.Path, encoder: ImageEncoder | None
) -> dict[str, chunks.ChunkStore]:
  """The stores that an index needs, by kind."""
  versions = {LOCAL: descriptor.VERSION}
  if encoder is not None:
    versions[ENCODED] = encoder.version
  return {
      kind: chunks.ChunkStore(index, kind=kind, version=version)
      for kind, version in versions.items()
  }


def key_of(data: bytes) -> str:
  return hashlib.sha256(data).hexdigest()


def keys_of(
    folder: pathlib.Path, names: list[str]
) -> tuple[dict[str, str], dict[str, str]]:
  """Digests of the image files by name, and why others cannot be read."""
  keys, bad = {}, {}
  with metrics.Progress('hash', total=len(names)) as progress:
    for name in names:
      interrupt.check()
      try:
        keys[name] = key_of((folder / name).read_bytes())
      except OSError as error:
        bad[name] = str(error.strerror)
      progress.advance()
  return keys, bad


def update(
    folder: pathlib.Path,
    keys: Mapping[str, str],
    where: Mapping[str, chunks.ChunkStore],
    encoder: ImageEncoder | None,
) -> dict[str, str]:
  """Writes the features of all images that lack any.

  Args:
    folder: Of the images.
    keys: Digests by name.
    where: The stores, as `stores` gives.
    encoder: As given to `stores`.

  Returns:
    Why images could not be read, by name.

  Raises:
    UserError: An image changed since its digest was taken.
  """
  for store in where.values():
    store.choose(set(keys.values()))
  # One name for each digest is enough.
  names = {key: name for name, key in sorted(keys.items(), reverse=True)}
  lacking = sorted(
      name
      for key, name in names.items()
      if any(key not in store for store in where.values())
  )
  bad: dict[str, str] = {}
  threads = cv2.getNumThreads()
  # One image a thread is faster than all threads on one image.
  cv2.setNumThreads(1)
  try:
    workers = min(_MAX_WORKERS, os.cpu_count() or 1)
    with (
        concurrent.futures.ThreadPoolExecutor(workers) as pool,
        metrics.Progress('images', total=len(lacking)) as progress,
    ):
      for start in range(0, len(lacking), chunks.SIZE):
        interrupt.check()
        part = lacking[start : start + chunks.SIZE]
        _commit(folder, {n: keys[n] for n in part}, where, encoder, pool, bad)
        progress.advance(len(part))
  finally:
    cv2.setNumThreads(threads)
  reasons = {keys[name]: reason for name, reason in bad.items()}
  return {n: reasons[key] for n, key in keys.items() if key in reasons}


def _commit(folder, keys, where, encoder, pool, bad: dict[str, str]) -> None:
  """Writes one chunk of each kind; those already there are left out."""
  local, encoded = where[LOCAL], where.get(ENCODED)

  def load(name: str) -> tuple[Image.Image | None, chunks.Tensors] | None:
    try:
      data = (folder / name).read_bytes()
    except OSError:
      data = b''
    if key_of(data) != keys[name]:
      raise UserError(
          f'{folder / name} changed while the index was built; run it again'
      )
    try:
      picture = images.decode(data)
    except UserError as error:
      # The reason alone: what to do about an example is no help here.
      reason = str(error).partition(' (')[2].rpartition(');')[0]
      bad[name] = reason or str(error)
      return None
    tensors = {} if keys[name] in local else _tensors(picture)
    kept = encoded is not None and keys[name] not in encoded
    return picture if kept else None, tensors

  loaded = [
      (keys[name], *found)
      for name, found in zip(keys, pool.map(load, keys), strict=True)
      if found
  ]
  if done := [(key, tensors) for key, _, tensors in loaded if tensors]:
    local.write(done)
  if pictures := {key: picture for key, picture, _ in loaded if picture}:
    vectors = encoder.encode(list(pictures.values())).astype(np.float32)
    encoded.write([
        (key, {'vectors': vector})
        for key, vector in zip(pictures, vectors, strict=True)
    ])


def _tensors(picture: Image.Image) -> chunks.Tensors:
  features = descriptor.extract(picture)
  return {
      'frames': np.array(features.frame, np.int32),
      'keypoints*': features.keypoints,
      'descriptors*': features.descriptors,
      'colours': features.colours,
      'thumbnails*': np.frombuffer(descriptor.thumbnail(picture), np.uint8),
  }


def load(chunk: chunks.Chunk, row: int) -> descriptor.Features:
  """An image's features, read back."""
  width, height = chunk.rows('frames', row)
  return descriptor.Features(
      frame=(int(width), int(height)),
      keypoints=chunk.rows('keypoints', row),
      descriptors=chunk.rows('descriptors', row),
      colours=chunk.rows('colours', row),
  )

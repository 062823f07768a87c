"""From image files to features in chunks, each image once.

An interrupted build loses at most one chunk.
"""

from __future__ import annotations

from collections.abc import Collection, Sequence
import concurrent.futures
import dataclasses
import hashlib
import os
import pathlib

import cv2
import numpy as np
from PIL import Image

from gog_jax import images
from gog_jax import interrupt
from gog_jax.errors import UserError
from gog_jax.index import chunks
from gog_jax.index import descriptor
from gog_jax.index.encoder import Encoder
from gog_jax.storage import metrics

_MAX_WORKERS = 8


@dataclasses.dataclass(frozen=True, kw_only=True)
class Extracted:
  """The features of a folder's image files.

  Attributes:
    keys: SHA-256 of each file that could be read, by name.
    unreadable: Why the others could not be read, by name.
    local: Local descriptors, colours and thumbnails, by key.
    encoded: The encoder's vectors, by key; None without an encoder.
  """

  keys: dict[str, str]
  unreadable: dict[str, str]
  local: chunks.Chunks
  encoded: chunks.Chunks | None

  def paths(self, keys: Collection[str]) -> set[pathlib.Path]:
    """The files that hold these features."""
    encoded = self.encoded.paths(keys) if self.encoded is not None else set()
    return self.local.paths(keys) | encoded


def extract(
    index: pathlib.Path,
    folder: pathlib.Path,
    names: Sequence[str],
    encoder: Encoder | None,
) -> Extracted:
  """Opens the features of image files, and writes those that are missing.

  Raises:
    UserError: An image changed since its digest was taken.
    Interrupted: Between chunks.
  """
  keys, unreadable = _hash(folder, names)
  used = set(keys.values())
  local = chunks.Chunks(index, descriptor.VERSION, used)
  encoded = chunks.Chunks(index, encoder.version, used) if encoder else None
  stores = [local, encoded] if encoded is not None else [local]
  bad: dict[str, str] = {}

  def load(name: str) -> tuple[str, chunks.Tensors, Image.Image | None]:
    """The image's key, its missing local features, its picture if to encode."""
    key = keys[name]
    try:
      data = (folder / name).read_bytes()
    except OSError:
      data = b''
    if _digest(data) != key:
      raise UserError(
          f'{folder / name} changed while the index was built; run it again'
      )
    try:
      picture = images.decode(data)
    except UserError as error:
      # The reason alone: what to do about an example is no help here.
      bad[key] = str(error).partition(' (')[2].rpartition(');')[0]
      return key, {}, None
    features = {} if key in local else _local_features(picture)
    kept = encoded is not None and key not in encoded
    return key, features, picture if kept else None

  # One of several equal files is enough.
  lacking = sorted({
      key: name
      for name, key in reversed(keys.items())
      if not all(key in store for store in stores)
  }.values())
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
        loaded = list(pool.map(load, part))
        local.write({key: found for key, found, _ in loaded if found})
        pictures = {key: picture for key, _, picture in loaded if picture}
        if encoder and encoded is not None and pictures:
          vectors = encoder.encode(list(pictures.values()))
          encoded.write({
              key: {'vector': vector}
              for key, vector in zip(pictures, vectors, strict=True)
          })
        progress.advance(len(part))
  finally:
    cv2.setNumThreads(threads)
  unreadable |= {name: bad[key] for name, key in keys.items() if key in bad}
  return Extracted(
      keys=keys, unreadable=unreadable, local=local, encoded=encoded
  )


def _hash(
    folder: pathlib.Path, names: Sequence[str]
) -> tuple[dict[str, str], dict[str, str]]:
  """Digests of the image files by name, and why others cannot be read."""
  keys, unreadable = {}, {}
  with metrics.Progress('hash', total=len(names)) as progress:
    for name in names:
      interrupt.check()
      try:
        keys[name] = _digest((folder / name).read_bytes())
      except OSError as error:
        unreadable[name] = str(error.strerror)
      progress.advance()
  return keys, unreadable


def _local_features(picture: Image.Image) -> chunks.Tensors:
  thumbnail = np.frombuffer(descriptor.thumbnail(picture), np.uint8)
  return {**vars(descriptor.extract(picture)), 'thumbnail': thumbnail}


def load(local: chunks.Chunks, key: str) -> descriptor.Features:
  """An image's local features, read back."""
  names = [field.name for field in dataclasses.fields(descriptor.Features)]
  return descriptor.Features(**{name: local.get(key, name) for name in names})


def _digest(data: bytes) -> str:
  return hashlib.sha256(data).hexdigest()

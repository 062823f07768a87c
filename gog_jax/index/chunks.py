"""Features on disk: whole files of up to 64 images, never changed in place.

A chunk is one safetensors file. It is named after the kind of feature, its
version and the images it holds, and appears by a rename once it is complete,
so that a kill leaves no half-written one. Images are identified by the SHA-256
of their files: a renamed image keeps its features.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
import hashlib
import json
import os
import pathlib

import numpy as np
import safetensors
import safetensors.numpy

SIZE = 64
FOLDER = 'features'
# A chunk is rewritten once less than this share of its images is in use.
_MIN_USED = 0.5

# What opening a damaged chunk raises.
DAMAGE = (
    OSError,
    ValueError,
    KeyError,
    TypeError,
    safetensors.SafetensorError,
)
_DTYPES = {'U8': np.uint8, 'I32': np.int32, 'F32': np.float32}

Tensors = Mapping[str, np.ndarray]


class Chunk:
  """One file, opened: whole tensors and rows are read as they are asked for.

  A tensor either has one row for each image; or, if there is a tensor of its
  name plus '_ends', some rows for each, which end there.
  """

  def __init__(self, path: pathlib.Path):
    """Opens a chunk.

    Raises:
      safetensors.SafetensorError: It is damaged.
    """
    self.path = path
    self._file = safetensors.safe_open(path, framework='np')
    about = json.loads(self._file.metadata()['about'])
    self.version: str = about['version']
    self.keys: list[str] = about['keys']
    names = self._file.keys()
    self._ends = {
        name: self._file.get_tensor(f'{name}_ends')
        for name in names
        if f'{name}_ends' in names
    }

  def rows(self, name: str, image: int) -> np.ndarray:
    """The image's rows of a tensor, or its row."""
    ends = self._ends.get(name)
    if ends is None:
      return self._slice(name, image, image + 1)[0]
    return self._slice(name, ends[image - 1] if image else 0, ends[image])

  def _slice(self, name: str, start: int, end: int) -> np.ndarray:
    rows = self._file.get_slice(name)
    if start == end:  # The library refuses to cut nothing off the end.
      return np.zeros((0, *rows.get_shape()[1:]), _DTYPES[rows.get_dtype()])
    return rows[int(start) : int(end)]


class ChunkStore:
  """All chunks of one kind and version in an index."""

  def __init__(self, index: pathlib.Path, *, kind: str, version: str):
    self._folder = index / FOLDER
    self.kind = kind
    self.version = version
    self._folder.mkdir(parents=True, exist_ok=True)
    for path in self._folder.glob(f'{kind}-*.partial'):
      path.unlink()
    self._chunks: list[Chunk] = []
    self._where: dict[str, tuple[Chunk, int]] = {}
    for path in sorted(self._folder.glob(f'{kind}-*.safetensors')):
      try:
        chunk = Chunk(path)
      except DAMAGE:
        path.unlink()  # Damaged: its images are done again.
        continue
      if chunk.version == version:
        self._chunks.append(chunk)

  def choose(self, live: set[str]) -> None:
    """Looks up the images in use, in the chunks that hold most of such.

    Those of mostly unused chunks count as missing, so that they are written
    anew and the chunk can go.
    """
    used = [
        (sum(key in live for key in chunk.keys) / len(chunk.keys), chunk)
        for chunk in self._chunks
    ]
    self._where = {}
    for share, chunk in sorted(used, key=lambda pair: pair[0]):
      if share >= _MIN_USED:
        self._add(chunk)

  def __contains__(self, key: str) -> bool:
    """Whether an image's features are there, once `choose` was called."""
    return key in self._where

  def find(self, key: str) -> tuple[Chunk, int]:
    """The chunk that holds an image, and its row there."""
    return self._where[key]

  def write(self, images: Sequence[tuple[str, Tensors]]) -> None:
    """Commits images: (key, tensors by name, one row or several) each.

    Of a tensor whose name ends in '*', each image has as many rows as it likes.
    """
    keys = [key for key, _ in images]
    tensors: dict[str, np.ndarray] = {}
    for name in images[0][1]:
      parts = [values[name] for _, values in images]
      if name.endswith('*'):
        plain = name.removesuffix('*')
        tensors[plain] = np.concatenate(parts)
        tensors[f'{plain}_ends'] = np.cumsum([len(part) for part in parts])
      else:
        tensors[name] = np.stack(parts)
    digest = hashlib.sha256(' '.join([self.version, *keys]).encode())
    name = f'{self.kind}-{digest.hexdigest()[:16]}.safetensors'
    path = self._folder / name
    partial = path.with_name(name + '.partial')
    # One entry, since the order of several would vary.
    about = json.dumps({'version': self.version, 'keys': keys})
    with partial.open('wb') as f:
      f.write(safetensors.numpy.save(tensors, {'about': about}))
      f.flush()
      os.fsync(f.fileno())
    partial.replace(path)
    self._add(Chunk(path))

  def _add(self, chunk: Chunk) -> None:
    for row, key in enumerate(chunk.keys):
      self._where[key] = (chunk, row)


def delete_unnamed(index: pathlib.Path, named: Iterable[str]) -> None:
  """Deletes chunks that the manifest does not name."""
  kept = set(named)
  for path in (index / FOLDER).glob('*-*.safetensors*'):
    if f'{FOLDER}/{path.name}' not in kept:
      path.unlink()

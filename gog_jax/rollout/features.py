"""Image features, cached between turns: each image is encoded once."""

from __future__ import annotations

from collections.abc import Iterable
import dataclasses
import functools
import hashlib
from typing import Any

from flax import nnx
import jax
import numpy as np

from gog_jax.images import ImageProcessor
from gog_jax.models import sharding
from gog_jax.models.config import VisionConfig
from gog_jax.models.layers import Execution
from gog_jax.models.vision import pack_images
from gog_jax.models.vision import VisionInputs

_IMAGES_AT_ONCE = 8
# Bytes of image features that the host caches.
_FEATURE_BYTES = 2**30


def images_at_once(mesh: jax.sharding.Mesh | None) -> int:
  """Rows of the ViT, the same number on each device."""
  if mesh is None:
    return _IMAGES_AT_ONCE
  return sharding.next_multiple(_IMAGES_AT_ONCE, mesh)


@dataclasses.dataclass
class FeatureCache:
  """Features [N, F] by the content of the image file, in the ViT's dtype.

  Attributes:
    processor: Makes patches; those of its largest image are the ViT's shape.
    config: The ViT's.
    attention: One of attention.BACKENDS.
    images_at_once: Rows of the ViT.
    dtype: Of activations.
  """

  processor: ImageProcessor
  config: VisionConfig
  attention: str
  images_at_once: int
  dtype: Any
  _kept: dict[bytes, np.ndarray] = dataclasses.field(default_factory=dict)

  def __getitem__(self, data: bytes) -> np.ndarray:
    return self._kept[hashlib.sha256(data).digest()]

  def clear(self) -> None:
    """Drops everything: the ViT has changed."""
    self._kept.clear()

  def add(self, graph, state, images: Iterable[bytes]) -> None:
    """Encodes the image files that are not cached, a few at a time."""
    new = {hashlib.sha256(data).digest(): data for data in images}
    items = [item for item in new.items() if item[0] not in self._kept]
    merge = self.processor.merge_size**2
    for first in range(0, len(items), self.images_at_once):
      some = items[first : first + self.images_at_once]
      rows = [[self.processor.patches(data)] for _, data in some]
      vision = pack_images(
          rows + [[]] * (self.images_at_once - len(rows)),
          n_patches=self.processor.max_patches,
          config=self.config,
          dtype=self.dtype,
      )
      features = encode(graph, state, vision, attention=self.attention)
      features = np.asarray(features)
      for (key, _), [(patches, _)], row in zip(some, rows, features):
        # A copy: a view would keep the whole padded batch alive.
        self._kept[key] = row[: len(patches) // merge].copy()

  def forget_oldest(self) -> None:
    """Drops the oldest features beyond the limit."""
    n_bytes = sum(features.nbytes for features in self._kept.values())
    for key in list(self._kept):
      if n_bytes <= _FEATURE_BYTES:
        break
      n_bytes -= self._kept.pop(key).nbytes


@functools.partial(jax.jit, static_argnums=0, static_argnames=('attention',))
def encode(graph, state, vision: VisionInputs, *, attention: str) -> jax.Array:
  """The ViT's output for packed images, [B, N, F]."""
  return nnx.merge(graph, state).vision(
      vision, Execution(attention=attention)
  )

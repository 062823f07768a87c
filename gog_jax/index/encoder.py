"""Pictures -> unit vectors whose dot products are similarities.

    encoder = Encoder('/models/siglip2-base-patch16-224')
    vectors = encoder.encode(pictures)
    likeness = vectors @ vectors.T

The vision tower of CLIP or SigLIP, from a Hugging Face folder. A SigLIP2 of
fixed resolution is a SigLIP by its config.json.
"""

from __future__ import annotations

from collections.abc import Sequence
import hashlib

from etils import epath
from flax import nnx
import jax
import jax.numpy as jnp
import numpy as np
from PIL import Image

from gog_jax.errors import UserError
from gog_jax.index import encoder_config
from gog_jax.index import encoder_model
from gog_jax.index import encoder_pixels


class Encoder:
  """A vision tower with its preprocessing, on the default device.

  Attributes:
    version: 'clip/' or 'siglip/' and 16 hex digits, which change with the
      weights, the config and the preprocessing: vectors of one version can be
      compared, others cannot.
    width: Of the vectors.
  """

  def __init__(self, folder: epath.PathLike, *, batch_size: int = 16):
    """Loads an encoder.

    Args:
      folder: With config.json, model.safetensors or shards and their index,
        and preprocessor_config.json; without the last, pictures are prepared
        as the family's are.
      batch_size: How many pictures the device is given at a time.

    Raises:
      UserError: The folder is missing, incomplete, damaged, or of a model that
        is not supported.
    """
    folder = epath.Path(folder)
    if not folder.is_dir():
      raise UserError(
          f'encoder folder {str(folder)!r} does not exist: set it to a local '
          'Hugging Face folder of CLIP or SigLIP (config.json, *.safetensors)'
      )
    config = encoder_config.from_folder(folder)
    pixels = encoder_pixels.from_folder(folder, config)
    tower, digest = encoder_model.load(folder, config)
    settings = hashlib.sha256(f'{config} {pixels}'.encode() + digest)
    self.version = f'{config.family}/{settings.hexdigest()[:16]}'
    self.width = tower.out_width
    self._pixels = pixels
    self._batch_size = batch_size
    graphdef, self._params = nnx.split(tower)
    mean, std = (np.array(x, np.float32) for x in (pixels.mean, pixels.std))

    def run(params, batch):
      x = (batch.astype(jnp.float32) * np.float32(pixels.scale) - mean) / std
      # Some devices multiply float32 with fewer bits; an index is searched on
      # others than it was built on.
      with jax.default_matmul_precision('float32'):
        x = nnx.merge(graphdef, params)(x)
      return x / jnp.linalg.norm(x, axis=-1, keepdims=True)

    self._run = jax.jit(run)

  def encode(self, pictures: Sequence[Image.Image]) -> np.ndarray:
    """Returns float32[N, width] of unit length, in the pictures' order.

    Pictures of any size and mode, as PIL has them; they should be upright.

    Raises:
      UserError: The weights make no vector of a picture.
    """
    size, side = self._batch_size, self._pixels.side
    parts = []
    for start in range(0, len(pictures), size):
      # The last batch is as large as the others: one program for all.
      batch = np.zeros((size, side, side, 3), np.uint8)
      for row, picture in enumerate(pictures[start : start + size]):
        batch[row] = self._pixels(picture)
      parts.append(self._run(self._params, batch))
    vectors = np.concatenate(
        [np.zeros((0, self.width), np.float32), *map(np.asarray, parts)]
    )[: len(pictures)]
    if not np.isfinite(vectors).all():
      raise UserError(
          f'encoder {self.version} makes no vector of a picture (its length is '
          'zero or infinite): its weights are damaged; fetch the folder again'
      )
    return vectors

"""Pictures -> the pixels that a CLIP or SigLIP tower sees.

The arithmetic is that of Hugging Face's image processors on Pillow, pixel for
pixel; it is written here because importing theirs imports torch.
"""

from __future__ import annotations

from collections.abc import Mapping
import dataclasses
from typing import Annotated, Any, Literal

from etils import epath
import numpy as np
from PIL import Image

from gog_jax import images
from gog_jax.index import encoder_config
from gog_jax.storage import files
from gog_jax.storage import typed

# What a preprocessor_config.json leaves out, transformers takes from here, too.
_SIDE = 224
_FALLBACKS = {
    'clip': {
        'do_center_crop': True,
        'image_mean': (0.48145466, 0.4578275, 0.40821073),
        'image_std': (0.26862954, 0.26130258, 0.27577711),
    },
    'siglip': {
        'do_center_crop': False,
        'image_mean': (0.5, 0.5, 0.5),
        'image_std': (0.5, 0.5, 0.5),
    },
}
# A picture that would be resized to more than this before it is cropped is
# resized only where it is seen: of a strip, the rest can be gigabytes.
_MOST_RESIZED = 2**24


@dataclasses.dataclass(frozen=True, kw_only=True)
class _Settings:
  """What is read of a preprocessor_config.json; `resample` is Pillow's."""

  size: Any
  crop_size: Any
  image_mean: tuple[typed.Finite, typed.Finite, typed.Finite]
  image_std: tuple[
      typed.PositiveFloat, typed.PositiveFloat, typed.PositiveFloat
  ]
  do_resize: Literal[True] = True
  do_pad: Literal[False] = False
  do_center_crop: bool
  resample: Annotated[int, typed.between(0, 5)] = 3
  do_rescale: bool = True
  rescale_factor: typed.Finite = 1 / 255
  do_normalize: bool = True


@dataclasses.dataclass(frozen=True, kw_only=True)
class Pixels:
  """Resizes and crops; how to normalise is left to the device.

  Attributes:
    side: Rows and columns of the result.
    shortest_edge: To which pictures are resized with their aspect ratio kept;
      None where they are stretched to `stretched`.
    stretched: Rows and columns to which they are, or None.
    resample: Pillow's filter.
    scale: What 8-bit values are multiplied by.
    mean: Of each channel, subtracted thereafter.
    std: Of each channel, divided by thereafter.
  """

  side: int
  shortest_edge: int | None
  stretched: tuple[int, int] | None
  resample: int
  scale: float
  mean: tuple[float, ...]
  std: tuple[float, ...]

  def __call__(self, picture: Image.Image) -> np.ndarray:
    """Returns uint8[side, side, 3]; black where a crop exceeds the picture."""
    picture = images.to_rgb(picture)
    columns, rows = self._resized(*picture.size)
    left, top = (columns - self.side) // 2, (rows - self.side) // 2
    right, bottom = left + self.side, top + self.side
    seen = (0, 0, columns, rows)
    if columns * rows > _MOST_RESIZED:
      # Equal but for rounding (Pillow chooses its passes by the sizes), so only
      # where there is need.
      seen = (
          max(left, 0), max(top, 0), min(right, columns), min(bottom, rows)
      )  # fmt: skip
    picture = picture.resize(
        (seen[2] - seen[0], seen[3] - seen[1]),
        Image.Resampling(self.resample),
        box=(
            seen[0] * picture.width / columns,
            seen[1] * picture.height / rows,
            seen[2] * picture.width / columns,
            seen[3] * picture.height / rows,
        ),
    )
    x, y = seen[:2]
    return np.asarray(picture.crop((left - x, top - y, right - x, bottom - y)))

  def _resized(self, width: int, height: int) -> tuple[int, int]:
    if self.stretched is not None:
      rows, columns = self.stretched
      return columns, rows
    assert self.shortest_edge is not None
    short, long = sorted((width, height))
    longer = int(self.shortest_edge * long / short)
    if width <= height:
      return self.shortest_edge, longer
    return longer, self.shortest_edge


def from_folder(
    folder: epath.Path, config: encoder_config.EncoderConfig
) -> Pixels:
  """Reads a folder's settings; the family's defaults if it has none.

  Raises:
    UserError: The file is not JSON, or asks for something else than pictures of
      the size that the tower sees.
  """
  settings = images.processor_settings(folder)
  if settings is None:
    return from_dict({}, config, fallback=config.image_size)
  path, raw = settings
  with files.readable(path):
    return from_dict(raw, config)


def from_dict(
    raw: Mapping[str, Any],
    config: encoder_config.EncoderConfig,
    *,
    fallback: int = _SIDE,
) -> Pixels:
  """Reads the contents of a preprocessor_config.json.

  Args:
    raw: The contents.
    config: Of the tower.
    fallback: Pixels a side, where it does not say.

  Raises:
    ValueError: It asks for something that is not supported.
  """
  kind = raw.get('image_processor_type') or raw.get('feature_extractor_type')
  family = _family(str(kind)) if kind else config.family
  given = {key: value for key, value in raw.items() if value is not None}
  for name in ('image_mean', 'image_std'):
    if isinstance(given.get(name), int | float):  # Of all channels.
      given[name] = [given[name]] * 3
  square = {'height': fallback, 'width': fallback}
  size = {'shortest_edge': fallback} if family == 'clip' else square
  given = {'size': size, 'crop_size': square} | _FALLBACKS[family] | given
  c = typed.read(_Settings, given, ignore_unknown=True)
  shortest_edge, stretched = _size(c.size)
  seen = _size(c.crop_size, square=True)[1] if c.do_center_crop else stretched
  side = config.image_size
  if seen != (side, side):
    made = 'another for each' if seen is None else f'{seen[0]} x {seen[1]}'
    raise ValueError(
        f'makes pictures of a size ({made}) that is not the {side} x {side} of '
        "config.json: copy both from the model's page"
    )
  return Pixels(
      side=side,
      shortest_edge=shortest_edge,
      stretched=stretched,
      resample=c.resample,
      scale=c.rescale_factor if c.do_rescale else 1.0,
      mean=c.image_mean if c.do_normalize else (0.0,) * 3,
      std=c.image_std if c.do_normalize else (1.0,) * 3,
  )


def _family(kind: str) -> str:
  """The family of a processor, by its class name."""
  for start, family in (
      ('CLIPImage', 'clip'),
      ('CLIPFeature', 'clip'),
      ('SiglipImage', 'siglip'),
  ):
    if kind.startswith(start):
      return family
  raise ValueError(
      f'image_processor_type {kind!r} is not supported, only '
      'CLIPImageProcessor and SiglipImageProcessor'
  )


def _size(
    size: Any, *, square: bool = False
) -> tuple[int | None, tuple[int, int] | None]:
  """(shortest edge, None), or (None, (rows, columns)).

  Args:
    size: As the file has it.
    square: Whether a number alone is both sides, not the shortest edge.
  """
  if isinstance(size, int):
    names = ('height', 'width') if square else ('shortest_edge',)
    size = dict.fromkeys(names, size)
  sides = typed.read(dict[str, typed.Positive | None], size, 'size')
  given = {name: side for name, side in sides.items() if side is not None}
  if given.keys() == {'shortest_edge'}:
    return given['shortest_edge'], None
  if given.keys() == {'height', 'width'}:
    return None, (given['height'], given['width'])
  raise ValueError(
      f'a size of {size!r} is not supported, only shortest_edge, or height and '
      'width'
  )

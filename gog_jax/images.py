"""Image files in, patches out: the pixels a policy sees.

The arithmetic is that of Hugging Face's Qwen2-VL image processor, number for
number. It is written here because importing theirs imports torch, and because
theirs lets very long and thin images exceed its own cap on pixels, which
static shapes cannot afford.
"""

from __future__ import annotations

from collections.abc import Iterator
import contextlib
import dataclasses
import functools
import io
import math
import struct
from typing import Annotated, Any, Literal
import warnings
import zlib

from etils import epath
import numpy as np
from PIL import Image

from gog_jax.errors import UserError
from gog_jax.storage import files
from gog_jax.storage import typed

# Hugging Face's processor refuses longer and thinner images.
MAX_ASPECT = 200
# Below Pillow's own limit, so that a decompression bomb gets our own error.
MAX_DECODED_PIXELS = 80_000_000
# Pillow reads more, some by running programs (Ghostscript for EPS).
KINDS = (
    'PNG', 'JPEG', 'WEBP', 'GIF', 'BMP', 'TIFF', 'AVIF', 'JPEG2000', 'PPM',
)  # fmt: skip
# Whatever Pillow warns about is either refused here in one line, or harmless.
warnings.filterwarnings('ignore', module=r'PIL\.')
_RESCALED = typed.Bound('1/255', lambda x: abs(x * 255 - 1) <= 1e-6)
_COPY = "copy it from the model's page"
_EXIF_MARKS = (b'eXIf', b'exif', b'xmp')
_ORIENTATION = 0x0112
# What undoes each orientation. (ImageOps.exif_transpose also rewrites all other
# tags, and fails where one of them is damaged.)
_UPRIGHT = {
    2: Image.Transpose.FLIP_LEFT_RIGHT,
    3: Image.Transpose.ROTATE_180,
    4: Image.Transpose.FLIP_TOP_BOTTOM,
    5: Image.Transpose.TRANSPOSE,
    6: Image.Transpose.ROTATE_270,
    7: Image.Transpose.TRANSVERSE,
    8: Image.Transpose.ROTATE_90,
}
# What Pillow raises, format by format, on bytes that are not what they claim.
_DECODE_ERRORS = (
    OSError, EOFError, SyntaxError, ValueError, OverflowError, RuntimeError,
    TypeError, struct.error, zlib.error, Image.DecompressionBombError,
    Image.DecompressionBombWarning,
)  # fmt: skip


def decode(data: bytes) -> Image.Image:
  """Returns the picture as RGB, upright, without transparency.

  EXIF orientation is applied; alpha is composited on white; 16-bit grey is
  scaled to 8 bits, floating-point grey from [0, 1] or else taken as [0, 255];
  of an animation the first frame is taken.

  Args:
    data: An encoded image file: PNG, JPEG, WebP, GIF, BMP, TIFF, AVIF,
      JPEG 2000 or PPM.

  Raises:
    UserError: The bytes are not an image, are cut off, hold grey values beyond
      these ranges, or would unpack to more than MAX_DECODED_PIXELS.
  """
  with _reading(data) as image:
    image.load()
    turn = _UPRIGHT.get(image.getexif().get(_ORIENTATION, 1))
    if turn is not None:
      image = image.transpose(turn)
    if image.mode.startswith(('I', 'F')):
      image = _eight_bits(image)
    return to_rgb(image)


def to_rgb(image: Image.Image) -> Image.Image:
  """Returns the picture as RGB; transparency is composited on white."""
  if image.has_transparency_data:
    image = image.convert('RGBA')
    white = Image.new('RGBA', image.size, 'white')
    image = Image.alpha_composite(white, image)
  return image.convert('RGB')


def _eight_bits(image: Image.Image) -> Image.Image:
  """Grey of more than 8 bits, of integers or floating-point numbers."""
  grey = np.asarray(image, dtype=np.float64)
  low, high = grey.min(), grey.max()
  limit = 65535 if image.mode.startswith('I') else 255
  if not (low >= 0 and high <= limit):  # NaN fails as well.
    raise ValueError(
        f'grey from {low:g} to {high:g}, not within 0 to {limit}; save it with '
        '8 bits a channel'
    )
  if image.mode.startswith('I'):
    grey = grey // 256
  elif high <= 1:
    grey = grey * 255
  return Image.fromarray(np.rint(grey).astype(np.uint8))


def encode_png(image: Image.Image) -> bytes:
  """Returns the image as a PNG file; equal pixels give equal bytes."""
  buffer = io.BytesIO()
  image.save(buffer, format='PNG')
  return buffer.getvalue()


def encode_jpeg(image: Image.Image, *, quality: int = 95) -> bytes:
  """Returns an RGB image as a JPEG file, by default of high quality."""
  buffer = io.BytesIO()
  image.save(buffer, format='JPEG', quality=quality)
  return buffer.getvalue()


# Few entries: each holds on to the whole file.
@functools.lru_cache(maxsize=256)
def size_of(data: bytes) -> tuple[int, int]:
  """Returns (width, height) of `decode(data)` from the file's header alone.

  Raises:
    UserError: The header is not an image's.
  """
  with _reading(data) as image:
    width, height = image.size
    # Orientations 5 to 8 turn the picture by a quarter; of a TIFF, Pillow's
    # size has it turned already. It unpacks a whole PNG to look for EXIF
    # behind the pixels: only if there is any.
    marked = image.format != 'TIFF'
    if image.format == 'PNG':
      marked = any(mark in data for mark in _EXIF_MARKS)
    turned = marked and image.getexif().get(_ORIENTATION, 1) in (5, 6, 7, 8)
    return (height, width) if turned else (width, height)


def kind_of(data: bytes) -> str | None:
  """Returns 'png' or 'jpeg' where any reader sees what `decode` gives.

  None for other formats, and for files with an orientation, transparency or
  colours other than RGB and grey, on which readers differ.

  Raises:
    UserError: The header is not an image's.
  """
  with _reading(data) as image:
    plain = (
        image.format in ('PNG', 'JPEG')
        and image.mode in ('RGB', 'L')
        and not image.has_transparency_data
        and image.getexif().get(_ORIENTATION, 1) == 1
    )
    return str(image.format).lower() if plain else None


@contextlib.contextmanager
def _reading(data: bytes) -> Iterator[Image.Image]:
  """Opens an image; what Pillow raises inside becomes a UserError."""
  try:
    image = Image.open(io.BytesIO(data), formats=_known_formats())
    if image.width * image.height > MAX_DECODED_PIXELS:
      raise ValueError(
          f'{image.width} x {image.height} pixels are more than '
          f'{MAX_DECODED_PIXELS}'
      )
    yield image
  except _DECODE_ERRORS as error:
    if isinstance(error, Image.UnidentifiedImageError):
      reason = 'no known image format'  # Pillow's text names a memory address.
    else:
      reason = str(error).splitlines()[0] if str(error) else repr(error)
    raise UserError(
        f'cannot read an image of {len(data)} bytes ({reason}); '
        'replace the file or drop the example'
    ) from error


@functools.cache
def _known_formats() -> list[str]:
  """Those of KINDS that this Pillow was built with."""
  Image.init()
  return [name for name in KINDS if name in Image.OPEN]


@dataclasses.dataclass(frozen=True, kw_only=True)
class ImageProcessor:
  """Turns an image file into the patches of a Qwen-VL vision tower.

  `C = 3 * temporal_patch_size * patch_size ** 2` values a patch. The patches
  of one merged token (merge_size x merge_size of them) are neighbours in the
  output, so that token i owns patches [i * merge_size ** 2, ...).

  Attributes:
    patch_size: Side of a patch in pixels.
    merge_size: Patches along either side of a token.
    temporal_patch_size: Frames per patch.
    min_pixels: The least of an image; max_pixels where that is less.
    max_pixels: The most of an image.
    image_mean: Of each channel, subtracted.
    image_std: Of each channel, divided by.

  The other fields have the only values that the arithmetic here supports;
  resampling is bicubic.
  """

  do_resize: Literal[True] = True
  do_rescale: Literal[True] = True
  do_normalize: Literal[True] = True
  resample: Literal[3] = 3
  rescale_factor: Annotated[float, _RESCALED] = 1 / 255
  patch_size: typed.Positive
  merge_size: typed.Positive
  temporal_patch_size: typed.Positive
  min_pixels: typed.Positive
  max_pixels: typed.Positive
  image_mean: tuple[typed.Finite, typed.Finite, typed.Finite]
  image_std: tuple[
      typed.PositiveFloat, typed.PositiveFloat, typed.PositiveFloat
  ]

  def __post_init__(self):
    if self.max_pixels < self.unit**2:
      raise UserError(
          f'max_pixels {self.max_pixels} is below one image token '
          f'({self.unit} x {self.unit} pixels); raise the cap on image tokens'
      )

  @property
  def unit(self) -> int:
    """Side of the square that becomes a token, in pixels."""
    return self.patch_size * self.merge_size

  @property
  def max_patches(self) -> int:
    """The most patches of an image."""
    return self.max_pixels // self.unit**2 * self.merge_size**2

  @functools.cached_property
  def _table(self) -> np.ndarray:
    """float32[256, 3]: the normalised value of each that a channel can take.

    Same operations in the same precisions as Hugging Face's, hence the same
    last bit.
    """
    values = (np.arange(256, dtype=np.float64) * (1 / 255)).astype(np.float32)
    mean, std = np.array([self.image_mean, self.image_std], np.float32)
    return (values[:, None] - mean) / std

  @classmethod
  def from_folder(
      cls, folder: epath.PathLike, *, max_tokens: int | None = None
  ) -> ImageProcessor:
    """Reads a model folder's settings of its image processor.

    Args:
      folder: As `processor_settings` reads it.
      max_tokens: Lowers the file's cap on an image's size; never raises it.

    Raises:
      UserError: The file is missing, is not JSON, lacks a key, or asks for
        something this processor does not do.
    """
    settings = processor_settings(epath.Path(folder))
    if settings is None:
      raise UserError(
          f'{folder} holds neither preprocessor_config.json nor a '
          f'processor_config.json with an image_processor; {_COPY}'
      )
    path, config = settings
    try:
      # Older folders name the bounds outright, newer ones as areas of "edges".
      size = typed.read(dict[str, Any], config.get('size') or {}, 'size')
      bounds = {
          'min_pixels': config.get('min_pixels') or size.get('shortest_edge'),
          'max_pixels': config.get('max_pixels') or size.get('longest_edge'),
      }
      processor = typed.read(cls, {**config, **bounds}, ignore_unknown=True)
    except typed.FieldError as error:
      raise UserError(f'{path}: {error}; {_COPY}') from error
    if max_tokens is None:
      return processor
    most = min(processor.max_pixels, max_tokens * processor.unit**2)
    return dataclasses.replace(processor, max_pixels=most)

  def seen_size(self, width: int, height: int) -> tuple[int, int]:
    """Returns (width, height) of the image as the model sees it, in pixels.

    Both are multiples of patch_size * merge_size, the aspect ratio is about
    kept, and the area lies within [min_pixels, max_pixels] where that is
    possible. Of a strip so thin that the rule would exceed max_pixels, the
    long side is cut down further.

    Raises:
      UserError: One side is over MAX_ASPECT times the other.
    """
    if max(width, height) > MAX_ASPECT * min(width, height):
      raise UserError(
          f'an image of {width} x {height} pixels is more than {MAX_ASPECT} '
          'times as long as wide; crop it or drop the example'
      )
    unit = self.unit
    least = min(self.min_pixels, self.max_pixels)
    # Python's round: halves go to the even neighbour, as in the original.
    rows, columns = round(height / unit), round(width / unit)
    if rows * columns * unit**2 > self.max_pixels:
      shrink = math.sqrt(height * width / self.max_pixels)
      rows = max(1, math.floor(height / shrink / unit))
      columns = max(1, math.floor(width / shrink / unit))
    elif rows * columns * unit**2 < least:
      grow = math.sqrt(least / (height * width))
      rows = math.ceil(height * grow / unit)
      columns = math.ceil(width * grow / unit)
    cap = self.max_pixels // unit**2
    if rows > columns:
      rows = min(rows, max(1, cap // columns))
    else:
      columns = min(columns, max(1, cap // rows))
    return columns * unit, rows * unit

  def grid(self, width: int, height: int) -> tuple[int, int, int]:
    """Returns (1, h, w): the image's patches per frame, column and row."""
    seen_width, seen_height = self.seen_size(width, height)
    return 1, seen_height // self.patch_size, seen_width // self.patch_size

  def n_tokens(self, width: int, height: int) -> int:
    """Returns how many tokens the image takes in the language model."""
    _, rows, columns = self.grid(width, height)
    return rows * columns // self.merge_size**2

  def patches(self, data: bytes) -> tuple[np.ndarray, tuple[int, int, int]]:
    """Returns float32[h * w, C] normalised patches and the grid (1, h, w).

    Raises:
      UserError: As `decode` and `seen_size`.
    """
    image = decode(data)
    size = self.seen_size(*image.size)
    if size != image.size:
      image = image.resize(size, Image.Resampling.BICUBIC)
    pixels = np.asarray(image)  # uint8[rows, columns, 3]
    p, m = self.patch_size, self.merge_size
    rows, columns = size[1] // p, size[0] // p
    # Rows, columns of merge blocks; rows, columns of patches within a block;
    # channel; rows, columns of pixels within a patch.
    pixels = pixels.reshape(rows // m, m, p, columns // m, m, p, 3)
    pixels = pixels.transpose(0, 3, 1, 4, 6, 2, 5)
    channel = np.arange(3)[:, None, None]
    pixels = self._table[pixels, channel]
    # A still image is a film that repeats its only frame.
    pixels = pixels[:, :, :, :, :, None]
    pixels = np.repeat(pixels, self.temporal_patch_size, axis=5)
    return pixels.reshape(rows * columns, -1), (1, rows, columns)


@dataclasses.dataclass(frozen=True)
class _Processors:
  """What is read of processor_config.json."""

  image_processor: dict[str, Any] | None = None


def processor_settings(
    folder: epath.Path,
) -> tuple[epath.Path, dict[str, Any]] | None:
  """A folder's settings of its image processor, and the file they are in.

  They are in preprocessor_config.json or, as newer transformers save them, in
  processor_config.json with all processors, which comes first.

  Raises:
    UserError: The file cannot be read.
  """
  path = folder / 'processor_config.json'
  if path.exists():
    found = files.read_json(
        path, _Processors, ignore_unknown=True, advice=_COPY
    ).image_processor
    if found is not None:
      return path, found
  path = folder / 'preprocessor_config.json'
  if path.exists():
    return path, files.read_json(path, advice=_COPY)
  return None

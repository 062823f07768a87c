"""Image files of every kind: read as they look, or refused in one line."""

from __future__ import annotations

import io
import struct
import subprocess
import sys
import zlib

import numpy as np
from PIL import Image
import pytest

from gog_jax import images
from gog_jax.errors import UserError
from tests.images_test import file_of
from tests.images_test import noise

RED = (200, 30, 40)


def png(width: int, height: int, *, depth: int, rows: bytes) -> bytes:
  """A PNG of RGB values, written by hand."""

  def chunk(kind: bytes, body: bytes) -> bytes:
    check = struct.pack('>I', zlib.crc32(kind + body))
    return struct.pack('>I', len(body)) + kind + body + check

  header = struct.pack('>IIBBBBB', width, height, depth, 2, 0, 0, 0)
  return (
      b'\x89PNG\r\n\x1a\n'
      + chunk(b'IHDR', header)
      + chunk(b'IDAT', zlib.compress(rows))
      + chunk(b'IEND', b'')
  )


def animation(kind: str) -> bytes:
  frames = [Image.new('RGB', (8, 6), color) for color in (RED, 'blue')]
  buffer = io.BytesIO()
  frames[0].save(
      buffer, kind, save_all=True, append_images=frames[1:], duration=99
  )
  return buffer.getvalue()


def grey(values, dtype, kind: str = 'TIFF') -> bytes:
  return file_of(Image.fromarray(np.array([values], dtype)), kind)


def first_row(data: bytes) -> list[list[int]]:
  image = images.decode(data)
  assert image.mode == 'RGB'
  assert image.size == images.size_of(data)
  return np.asarray(image)[0].tolist()


def refused(data: bytes, *, size_too: bool = False) -> str:
  """The one line of decode; size_of says the same or sees no fault."""
  with pytest.raises(UserError) as caught:
    images.decode(data)
  line = str(caught.value)
  assert '\n' not in line and line.endswith('replace the file or drop the '
                                            'example')
  if size_too:
    with pytest.raises(UserError):
      images.size_of(data)
  return line


def test_one_colour_in_every_mode():
  picture = Image.new('RGB', (8, 6), RED)
  for mode, kind, options in (
      ('RGB', 'PNG', {}),
      ('RGB', 'JPEG', {'quality': 98}),
      ('RGB', 'WEBP', {'lossless': True}),
      ('RGB', 'PPM', {}),
      ('RGBA', 'PNG', {}),
      ('P', 'GIF', {}),
      ('P', 'PNG', {}),
      # Adobe's JPEGs hold ink inverted; Pillow writes them so, too.
      ('CMYK', 'JPEG', {'quality': 98}),
      ('CMYK', 'TIFF', {}),
      ('LAB', 'TIFF', {}),
      ('YCbCr', 'TIFF', {}),
  ):
    image = picture.quantize() if mode == 'P' else picture.convert(mode)
    row = first_row(file_of(image, kind, **options))
    np.testing.assert_allclose(row, [RED] * 8, atol=3, err_msg=f'{mode} {kind}')
  assert b'Adobe' in file_of(picture.convert('CMYK'), 'JPEG')
  for kind in ('GIF', 'WEBP', 'PNG'):  # The first frame.
    row = first_row(animation(kind))
    np.testing.assert_allclose(row, [RED] * 8, atol=3, err_msg=kind)


def test_transparency_in_every_mode_becomes_white():
  picture = Image.new('RGBA', (2, 1), (0, 0, 0, 255))
  picture.putpixel((1, 0), (0, 0, 0, 0))
  half = Image.new('LA', (2, 1), (100, 255))
  half.putpixel((1, 0), (0, 127))
  assert first_row(file_of(picture)) == [[0] * 3, [255] * 3]
  assert first_row(file_of(half)) == [[100] * 3, [128] * 3]
  palette = Image.new('P', (2, 1))
  palette.putpalette([0, 0, 0, 9, 9, 9])
  palette.putpixel((1, 0), 1)
  for kind in ('PNG', 'GIF'):
    assert first_row(file_of(palette, kind)) == [[0] * 3, [9] * 3]
    assert first_row(file_of(palette, kind, transparency=1)) == [
        [0] * 3, [255] * 3,
    ]  # fmt: skip


def test_depths():
  rows = b'\0' + struct.pack('>HHHHHH', 65535, 32768, 128, 0, 256, 65280)
  assert first_row(png(2, 1, depth=16, rows=rows)) == [
      [255, 128, 0], [0, 1, 255],
  ]  # fmt: skip
  bits = Image.new('1', (2, 1))
  bits.putpixel((1, 0), 1)
  assert first_row(file_of(bits)) == [[0] * 3, [255] * 3]
  for kind in ('PNG', 'TIFF'):
    data = grey([0, 128 << 8, 65535], np.uint16, kind)
    assert first_row(data) == [[0] * 3, [128] * 3, [255] * 3]
  assert first_row(grey([0, 256, 65535], np.int32)) == [
      [0] * 3, [1] * 3, [255] * 3,
  ]  # fmt: skip
  assert first_row(grey([0, 0.5, 1], np.float32)) == [
      [0] * 3, [128] * 3, [255] * 3,
  ]  # fmt: skip
  assert first_row(grey([0, 1, 200.4], np.float32)) == [
      [0] * 3, [1] * 3, [200] * 3,
  ]  # fmt: skip


@pytest.mark.parametrize(
    ('values', 'dtype'),
    [
        ([-1, 0], np.int32),
        ([0, 70000], np.int32),
        ([0, 256], np.float32),
        ([0, np.nan], np.float32),
        ([0, np.inf], np.float32),
    ],
)
def test_grey_whose_white_is_unknown_is_refused(values, dtype):
  assert '8 bits a channel' in refused(grey(values, dtype))


def test_all_orientations():
  """Eight files that ought to look alike: what EXIF is for."""
  upright = Image.new('RGB', (48, 32), 'black')
  upright.paste('white', (0, 0, 24, 16))
  upright.paste('red', (24, 0, 48, 16))
  undo = {
      2: (Image.Transpose.FLIP_LEFT_RIGHT,),
      3: (Image.Transpose.ROTATE_180,),
      4: (Image.Transpose.FLIP_TOP_BOTTOM,),
      5: (Image.Transpose.TRANSPOSE,),
      6: (Image.Transpose.ROTATE_90,),
      7: (Image.Transpose.TRANSVERSE,),
      8: (Image.Transpose.ROTATE_270,),
  }
  for orientation in range(1, 9):
    stored = upright
    for step in undo.get(orientation, ()):
      stored = stored.transpose(step)
    exif = Image.Exif()
    exif[0x0112] = orientation
    for kind in ('PNG', 'WEBP', 'TIFF', 'JPEG'):
      options = {'WEBP': {'lossless': True}, 'JPEG': {'quality': 98}}
      data = file_of(stored, kind, exif=exif, **options.get(kind, {}))
      seen = images.decode(data)
      assert seen.size == images.size_of(data) == (48, 32), (orientation, kind)
      # Away from edges, which a JPEG blurs.
      for at, color in (((6, 6), (255,) * 3), ((42, 6), (255, 0, 0))):
        there = np.asarray(seen)[at[1], at[0]]
        what = f'{orientation} {kind}'
        np.testing.assert_allclose(there, color, atol=8, err_msg=what)


def test_a_pixel_thin():
  processor = images.ImageProcessor(
      patch_size=16, merge_size=2, temporal_patch_size=2, min_pixels=65536,
      max_pixels=2**20, image_mean=(0.5,) * 3, image_std=(0.5,) * 3,
  )  # fmt: skip
  for size in ((1, 1), (3, 1), (1, 3), (1, 200), (200, 1)):
    patches, (_, rows, columns) = processor.patches(file_of(noise(*size)))
    assert patches.shape == (rows * columns, 3 * 2 * 16 * 16)
    assert 65536 <= rows * columns * 256 <= 2**20
  for size in ((1, 500), (500, 1)):
    with pytest.raises(UserError, match='200 times as long as wide; crop it'):
      processor.patches(file_of(noise(*size)))


@pytest.mark.parametrize('size', [(100_000, 100_000), (10_000, 10_000)])
def test_a_header_that_claims_too_much(size):
  """Refused from the header: there is no memory for what it promises."""
  data = png(*size, depth=8, rows=bytes(10))
  assert len(data) < 100
  assert 'pixels' in refused(data, size_too=True)


@pytest.mark.parametrize(
    'kind', ['PNG', 'JPEG', 'WEBP', 'GIF', 'BMP', 'TIFF', 'AVIF']
)
def test_cut_off_and_followed_by_garbage(kind):
  try:
    data = file_of(noise(40, 30), kind)
  except (KeyError, OSError):
    pytest.skip(f'this Pillow writes no {kind}')
  for length in (20, 40, len(data) // 2, len(data) * 4 // 5):
    refused(data[:length])
  whole = images.decode(data + b'garbage\xff\xd8' * 50)
  np.testing.assert_array_equal(whole, images.decode(data))


@pytest.mark.parametrize('kind', ['PNG', 'JPEG', 'WEBP', 'TIFF', 'AVIF'])
def test_flipped_bytes(kind):
  """A picture, or one line: nothing else, whatever is damaged."""
  exif = Image.Exif()
  exif.update({0x0112: 6, 0x010E: 'a text', 0x011A: 72.0})
  if kind != 'TIFF':  # Pillow cannot write these there.
    exif[0x8769] = {0x9003: '2020', 0x829A: 0.01, 0x9286: b'abc'}
  try:
    data = file_of(noise(32, 24), kind, exif=exif)
  except (KeyError, OSError):
    pytest.skip(f'this Pillow writes no {kind}')
  random = np.random.default_rng(0)
  n_read = 0
  for _ in range(400):
    damaged = bytearray(data)
    for at in random.integers(min(len(data), 600), size=random.integers(1, 4)):
      damaged[at] = random.integers(256)
    for look in (images.decode, images.size_of):
      try:
        look(bytes(damaged))
        n_read += 1
      except UserError as error:
        assert '\n' not in str(error)
  assert n_read


def test_a_strange_tag_does_not_cost_the_picture():
  exif = Image.Exif()
  exif.update({0x0112: 6, 0x011A: 72.0})
  data = file_of(noise(32, 24), 'JPEG', exif=exif)
  # A rational that is called a text: Pillow cannot write it again.
  at = data.index(bytes.fromhex('011a0005'))
  damaged = data[: at + 2] + bytes.fromhex('0002') + data[at + 4 :]
  np.testing.assert_array_equal(images.decode(damaged), images.decode(data))


def test_what_is_no_image():
  for data in (
      b'',
      b'hello',
      b'<svg xmlns="http://www.w3.org/2000/svg"></svg>',
      b'%PDF-1.7\n',
      # Pillow would run Ghostscript on it, if there is one.
      b'%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 9 9\n%%EndComments\n',
  ):
    line = refused(data, size_too=True)
    assert f'{len(data)} bytes (no known image format)' in line


def test_pillow_adds_no_lines_of_its_own():
  """Its warnings would stand before the one line that says what to do."""
  data = png(10_000, 10_000, depth=8, rows=bytes(10))
  code = f"""
from gog_jax import images
try:
  images.decode({data!r})
except images.UserError:
  pass
"""
  done = subprocess.run(
      [sys.executable, '-c', code], capture_output=True, text=True, check=True
  )
  assert done.stderr == ''

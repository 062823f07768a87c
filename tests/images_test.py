"""Images: equal to Hugging Face's processor, and honest about bad files."""

from __future__ import annotations

import io
import json
from typing import Any
import warnings

import numpy as np
from PIL import Image
import pytest

from gog_jax import images
from gog_jax.errors import UserError
from tests import helpers

QWEN2_5: dict[str, Any] = {
    'patch_size': 14,
    'merge_size': 2,
    'temporal_patch_size': 2,
    'min_pixels': 3136,
    'max_pixels': 12845056,
    'image_mean': [0.48145466, 0.4578275, 0.40821073],
    'image_std': [0.26862954, 0.26130258, 0.27577711],
}
QWEN3: dict[str, Any] = {
    'patch_size': 16,
    'merge_size': 2,
    'temporal_patch_size': 2,
    'min_pixels': 65536,
    'max_pixels': 16777216,
    'image_mean': [0.5, 0.5, 0.5],
    'image_std': [0.5, 0.5, 0.5],
}
TOY: dict[str, Any] = QWEN2_5 | {'max_pixels': 84 * 84}


def noise(width: int, height: int, *, seed: int = 0) -> Image.Image:
  rng = np.random.default_rng(seed)
  return Image.fromarray(rng.integers(0, 256, (height, width, 3), np.uint8))


def file_of(image: Image.Image, kind: str = 'PNG', **options) -> bytes:
  buffer = io.BytesIO()
  image.save(buffer, format=kind, **options)
  return buffer.getvalue()


@pytest.fixture(scope='module')
def oracle():
  """Hugging Face's processor; it wants no torch, but imports it if it can."""
  module = helpers.require(
      'transformers.models.qwen2_vl.image_processing_pil_qwen2_vl'
  )
  return module.Qwen2VLImageProcessorPil


@pytest.mark.parametrize('settings', [QWEN2_5, QWEN3, TOY])
@pytest.mark.parametrize(
    'size',
    [
        (168, 168), (84, 84), (300, 201), (41, 97), (640, 33), (7, 5),
        # Heights of 1 and 3 could be taken for channels.
        (1, 1), (3, 1), (1, 3), (3, 3), (90, 1), (2, 90),
        # One unit of either family, halves of one, and a step beside.
        (28, 32), (42, 48), (14, 16), (70, 80), (71, 81),
    ],
)  # fmt: skip
def test_patches_equal_hugging_face(oracle, settings, size):
  image = noise(*size)
  if settings is TOY and size in ((640, 33), (90, 1), (2, 90)):
    pytest.skip('Hugging Face exceeds its own cap; tested below')
  ours, grid = images.ImageProcessor(**settings).patches(file_of(image))
  theirs = oracle(**settings)(image, return_tensors='np')
  assert grid == tuple(theirs['image_grid_thw'][0].tolist())
  assert ours.dtype == np.float32
  np.testing.assert_array_equal(ours, theirs['pixel_values'])


@pytest.mark.parametrize('mode', ['RGBA', 'LA', 'P', 'L', '1', 'CMYK'])
def test_modes_equal_hugging_face(oracle, mode):
  image = noise(90, 60).convert(mode)
  if 'A' in mode:
    image.putalpha(noise(90, 60, seed=1).convert('L'))
  data = file_of(image, 'TIFF' if mode == 'CMYK' else 'PNG')
  ours, grid = images.ImageProcessor(**QWEN3).patches(data)
  theirs = oracle(**QWEN3)(image, return_tensors='np')
  assert grid == tuple(theirs['image_grid_thw'][0].tolist())
  np.testing.assert_array_equal(ours, theirs['pixel_values'])


@pytest.mark.parametrize('settings', [QWEN2_5, QWEN3])
def test_patches_equal_hugging_face_under_a_lower_cap(oracle, settings):
  """What max_image_tokens does: the same as lowering theirs."""
  unit = settings['patch_size'] * settings['merge_size']
  capped = settings | {'max_pixels': 64 * unit**2, 'min_pixels': 3136}
  rng = np.random.default_rng(1)
  for width, height in rng.integers(10, 700, (12, 2)).tolist():
    image = noise(width, height)
    ours, grid = images.ImageProcessor(**capped).patches(file_of(image))
    theirs = oracle(**capped)(image, return_tensors='np')
    assert grid == tuple(theirs['image_grid_thw'][0].tolist())
    assert len(ours) <= 64 * 4
    np.testing.assert_array_equal(ours, theirs['pixel_values'])


def test_seen_size_equals_hugging_face_over_many_sizes(oracle):
  rng = np.random.default_rng(0)
  for settings in (QWEN2_5, QWEN3, TOY):
    processor = images.ImageProcessor(**settings)
    theirs = oracle(**settings)
    capped = 0
    for width, height in np.exp(rng.uniform(2.5, 7.5, (300, 2))).astype(int):
      count = theirs.get_number_of_image_patches(int(height), int(width))
      if count * settings['patch_size'] ** 2 > settings['max_pixels']:
        capped += 1  # Their strip is over the cap; ours must not be.
        count = None
      _, rows, columns = processor.grid(int(width), int(height))
      assert count in (None, rows * columns)
      assert rows * columns * settings['patch_size'] ** 2 <= (
          settings['max_pixels']
      )
    assert capped < 150


def test_a_strip_stays_under_the_cap():
  processor = images.ImageProcessor(**TOY)
  # By the plain rule: 28 rows, 39 columns of units; the cap is 9 units.
  assert processor.seen_size(1100, 10) == (252, 28)
  assert processor.n_tokens(1100, 10) == 9
  assert processor.patches(file_of(noise(1100, 10)))[1] == (1, 2, 18)


def test_merged_tokens_own_neighbouring_patches():
  # Four blocks of 28 x 28 of one grey each: token i is of one grey.
  grey = np.array([[10, 60], [120, 250]], np.uint8)
  picture = np.repeat(np.repeat(grey, 28, axis=0), 28, axis=1)
  processor = images.ImageProcessor(
      **(TOY | {'image_mean': [0, 0, 0], 'image_std': [1, 1, 1]})
  )
  patches, grid = processor.patches(file_of(Image.fromarray(picture)))
  assert grid == (1, 4, 4)
  tokens = patches.reshape(4, 4, -1) * 255
  np.testing.assert_allclose(tokens.min(axis=(1, 2)), [10, 60, 120, 250], 1e-6)
  np.testing.assert_allclose(tokens.max(axis=(1, 2)), [10, 60, 120, 250], 1e-6)


@pytest.mark.parametrize('kind', ['sizes', 'edges'])
def test_from_folder(tmp_path, kind):
  config = dict(TOY)
  if kind == 'edges':
    config['size'] = {
        'shortest_edge': config.pop('min_pixels'),
        'longest_edge': config.pop('max_pixels'),
    }
  (tmp_path / 'preprocessor_config.json').write_text(json.dumps(config))
  processor = images.ImageProcessor.from_folder(tmp_path)
  assert (processor.min_pixels, processor.max_pixels) == (3136, 7056)
  assert processor.merge_size == 2
  lower = images.ImageProcessor.from_folder(tmp_path, max_tokens=2)
  assert lower.n_tokens(168, 168) == 1
  # The cap of the file is what the model was trained with: never raised.
  higher = images.ImageProcessor.from_folder(tmp_path, max_tokens=1275)
  assert higher.n_tokens(1680, 1680) == 9
  with pytest.raises(UserError, match='one image token'):
    images.ImageProcessor.from_folder(tmp_path, max_tokens=0)


def test_from_a_folder_of_newer_transformers(tmp_path):
  """All processors in one file, which comes first; or one without images."""
  one = {'processor_class': 'Qwen3VLProcessor'}
  settings = {'size': {'shortest_edge': 65536, 'longest_edge': 16777216}}
  settings |= {k: v for k, v in QWEN3.items() if not k.endswith('pixels')}
  path = tmp_path / 'processor_config.json'
  path.write_text(json.dumps(one | {'image_processor': settings}))
  assert images.ImageProcessor.from_folder(tmp_path).patch_size == 16
  (tmp_path / 'preprocessor_config.json').write_text(json.dumps(QWEN2_5))
  assert images.ImageProcessor.from_folder(tmp_path).patch_size == 16
  path.write_text(json.dumps(one))
  assert images.ImageProcessor.from_folder(tmp_path).patch_size == 14


@pytest.mark.parametrize('family', [QWEN2_5, QWEN3])
def test_the_cap_on_image_tokens(tmp_path, family):
  """As run.py sets it from max_image_tokens, on Qwen3-VL's units too."""
  (tmp_path / 'preprocessor_config.json').write_text(json.dumps(family))
  for cap in (1, 9, 1024):
    processor = images.ImageProcessor.from_folder(tmp_path, max_tokens=cap)
    counts = [
        processor.n_tokens(*size)
        for size in ((4000, 3000), (3000, 16), (16, 3000), (1, 1), (640, 480))
    ]
    assert max(counts) <= cap
    assert counts[0] > 0.6 * cap


@pytest.mark.parametrize(
    ('text', 'reason'),
    [
        (None, 'neither preprocessor_config.json nor'),
        ('{', 'cannot be read'),
        ('[]', 'must be an object'),
        ('{}', 'patch_size'),
        ('{"min_pixels": 1, "max_pixels": 9}', 'patch_size'),
        ('{"do_resize": false}', 'do_resize'),
        ('{"resample": 2}', 'resample must be one of 3, not 2'),
        ('{"rescale_factor": 1}', 'rescale_factor'),
        (json.dumps(TOY | {'patch_size': '14'}), 'must be a whole number'),
        (json.dumps(TOY | {'image_mean': [0, 0, np.nan]}), 'must be finite'),
    ],
)
def test_bad_folders_end_in_one_line(tmp_path, text, reason):
  if text is not None:
    (tmp_path / 'preprocessor_config.json').write_text(text)
  with pytest.raises(UserError, match=reason) as caught:
    images.ImageProcessor.from_folder(tmp_path)
  assert '\n' not in str(caught.value)
  assert str(tmp_path) in str(caught.value)


def test_transparency_becomes_white():
  image = Image.new('RGBA', (2, 1), (200, 0, 0, 255))
  image.putpixel((1, 0), (0, 0, 0, 0))
  picture = np.asarray(images.decode(file_of(image)))
  assert picture.tolist() == [[[200, 0, 0], [255, 255, 255]]]
  palette = image.quantize()
  picture = np.asarray(images.decode(file_of(palette, transparency=None)))
  assert picture.shape == (1, 2, 3)


def test_sixteen_bit_grey_keeps_its_brightness():
  grey = np.array([[0, 128 << 8, 65535]], np.uint16)
  picture = np.asarray(images.decode(file_of(Image.fromarray(grey))))
  assert picture[0, :, 0].tolist() == [0, 128, 255]


def test_exif_orientation_is_honoured():
  exif = Image.Exif()
  exif[0x0112] = 6  # Turn by a quarter, clockwise.
  image = Image.new('RGB', (32, 16), 'black')
  image.paste('white', (0, 0, 16, 16))  # The left half; above, once turned.
  data = file_of(image, 'JPEG', exif=exif, quality=95)
  assert images.decode(data).size == images.size_of(data) == (16, 32)
  picture = np.asarray(images.decode(data))
  assert picture[:12].mean() > 240 and picture[-12:].mean() < 15


@pytest.mark.parametrize('kind', ['PNG', 'JPEG', 'WEBP', 'GIF', 'BMP'])
def test_size_of_agrees_with_decode(kind):
  data = file_of(noise(37, 21), kind)
  assert images.size_of(data) == images.decode(data).size == (37, 21)


def test_png_round_trip_is_lossless_and_deterministic():
  image = noise(9, 7)
  data = images.encode_png(image)
  assert data == images.encode_png(image)
  np.testing.assert_array_equal(images.decode(data), image)


def test_broken_files_end_in_one_line():
  good = {kind: file_of(noise(64, 64), kind) for kind in ('PNG', 'JPEG')}
  bad = [b'', b'no image at all', b'\x89PNG\r\n\x1a\n']
  bad += [data[: len(data) // 2] for data in good.values()]
  bad += [good['PNG'][:60] + b'\0' * 9 + good['PNG'][69:]]
  for data in bad:
    with pytest.raises(UserError, match=f'image of {len(data)} bytes') as error:
      images.decode(data)
    assert '\n' not in str(error.value) and '0x' not in str(error.value)
  with pytest.raises(UserError, match='no known image format'):
    images.size_of(b'no image at all')


def test_a_bomb_is_refused_before_it_unpacks():
  data = file_of(Image.new('1', (10_000, 9_000)))
  assert len(data) < 20_000
  with warnings.catch_warnings():
    warnings.simplefilter('ignore', Image.DecompressionBombWarning)
    for read in (images.decode, images.size_of):
      with pytest.raises(UserError, match='10000 x 9000 pixels'):
        read(data)


def test_thinner_than_any_model_takes():
  processor = images.ImageProcessor(**TOY)
  with pytest.raises(UserError, match='200 times'):
    processor.seen_size(2001, 10)
  assert processor.seen_size(2000, 10) == (252, 28)

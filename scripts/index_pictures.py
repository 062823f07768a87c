"""Photographs, distractors made from them, and queries whose answer is known.

Everything is drawn from the generator that is passed in: equal seeds, equal
bytes.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
import colorsys
import io
import pathlib

import numpy as np
from PIL import Image
from PIL import ImageDraw
import skimage.data
import sklearn.datasets

Photos = Mapping[str, Image.Image]
Random = np.random.Generator

# Of what scikit-image bundles. The rest are drawings, charts, masks, scans of
# text, pictures below 200 pixels, or files of other kinds.
_SKIMAGE = (
    'astronaut.png', 'brick.png', 'camera.png', 'cell.png', 'chelsea.png',
    'clock_motion.png', 'coffee.png', 'coins.png', 'grass.png', 'gravel.png',
    'hubble_deep_field.jpg', 'ihc.png', 'moon.png', 'motorcycle_left.png',
    'motorcycle_right.png', 'retina.jpg', 'rocket.jpg',
)  # fmt: skip
_SKLEARN = ('china.jpg', 'flower.jpg')
_MIN_SIDE = 200
# Mean difference of a channel, of 255, that makes a recolouring visible.
_VISIBLE = 25


def photographs(max_side: int | None = None) -> dict[str, Image.Image]:
  """Those that scikit-image and scikit-learn bundle, by name, in RGB.

  Args:
    max_side: In pixels; larger ones are shrunk to it.
  """
  folders = (
      (pathlib.Path(skimage.data.__file__).parent, _SKIMAGE),
      (pathlib.Path(sklearn.datasets.__file__).parent / 'images', _SKLEARN),
  )
  photos = {}
  for folder, names in folders:
    for name in names:
      if not (folder / name).exists():
        continue  # Other releases bundle others.
      image = Image.open(folder / name).convert('RGB')
      if min(image.size) >= _MIN_SIDE:
        if max_side is not None:
          image.thumbnail((max_side, max_side))
        photos[pathlib.Path(name).stem] = image
  return photos


def jpeg(image: Image.Image, quality: int = 90) -> bytes:
  buffer = io.BytesIO()
  image.save(buffer, format='JPEG', quality=quality)
  return buffer.getvalue()


def png(image: Image.Image) -> bytes:
  buffer = io.BytesIO()
  image.save(buffer, format='PNG', compress_level=1)
  return buffer.getvalue()


def distractors(
    photos: Photos, n: int, random: Random
) -> Iterator[tuple[str, bytes]]:
  """`n` different pictures made of photographs, as names and JPEG files."""
  makers = (_part, _recolour, _collage)
  seen = set()
  for i in range(n):
    maker = makers[i % len(makers)]
    data = jpeg(maker(photos, random))
    while data in seen:  # There is one negative of each.
      data = jpeg(maker(photos, random))
    seen.add(data)
    yield f'{maker.__name__.strip("_")}_{i:05d}', data


def _pick(photos: Photos, random: Random) -> Image.Image:
  return photos[sorted(photos)[random.integers(len(photos))]]


def _part(photos: Photos, random: Random) -> Image.Image:
  """A crop of 10 to 50 percent of a photograph's area."""
  photo = _pick(photos, random)
  side = np.sqrt(random.uniform(0.1, 0.5))
  stretch = random.uniform(0.8, 1.25)
  w = int(photo.width * min(1, side * stretch))
  h = int(photo.height * min(1, side / stretch))
  x = int(random.integers(photo.width - w + 1))
  y = int(random.integers(photo.height - h + 1))
  return photo.crop((x, y, x + w, y + h))


def _recolour(photos: Photos, random: Random) -> Image.Image:
  """A photograph in other colours: hue, channels, negative, or a tint."""
  while True:
    photo = np.asarray(_pick(photos, random))
    match random.integers(4):
      case 0:
        hsv = np.asarray(Image.fromarray(photo).convert('HSV')).copy()
        hsv[..., 0] += random.integers(40, 216, dtype=np.uint8)
        changed = np.asarray(Image.fromarray(hsv, 'HSV').convert('RGB'))
      case 1:
        orders = ([1, 2, 0], [2, 0, 1], [2, 1, 0], [1, 0, 2], [0, 2, 1])
        changed = photo[..., orders[random.integers(len(orders))]]
      case 2:
        changed = 255 - photo
      case _:
        tint = colorsys.hsv_to_rgb(random.uniform(), 0.7, 1.0)
        changed = (photo * np.array(tint)).astype(np.uint8)
    if np.abs(photo.astype(int) - changed).mean() >= _VISIBLE:
      return Image.fromarray(changed)


def _collage(photos: Photos, random: Random) -> Image.Image:
  """Two to six photographs side by side."""
  columns, rows = ((2, 1), (3, 1), (2, 2), (5, 1), (3, 2))[random.integers(5)]
  cell = random.integers(150, 320), random.integers(150, 320)
  names = random.choice(sorted(photos), columns * rows, replace=False)
  return _grid([photos[n] for n in names], columns, cell, random)


def _grid(images, columns: int, cell, random: Random) -> Image.Image:
  w, h = int(cell[0]), int(cell[1])
  rows = len(images) // columns
  canvas = Image.new('RGB', (w * columns, h * rows))
  for i, image in enumerate(images):
    tile = _fill(image, w, h, random)
    canvas.paste(tile, (i % columns * w, i // columns * h))
  return canvas


def _fill(image: Image.Image, w: int, h: int, random: Random) -> Image.Image:
  """The image at a size: stretched a little, then its middle cut out."""
  wanted = w / h
  stretch = random.uniform(1, 1.25)  # Of proportions, at most.
  shape = image.width / image.height
  shape = float(np.clip(wanted, shape / stretch, shape * stretch))
  scale = max(w / shape, h)
  size = max(w, round(scale * shape)), max(h, round(scale))
  image = image.resize(size, Image.Resampling.BICUBIC)
  x, y = (image.width - w) // 2, (image.height - h) // 2
  return image.crop((x, y, x + w, y + h))


def scene(photos: Photos, random: Random) -> Image.Image:
  """One of many: a gradient, coarse noise, shapes, a piece of a photograph."""
  w, h = int(random.integers(320, 641)), int(random.integers(240, 481))
  corners = random.integers(256, size=(2, 2, 3), dtype=np.uint8)
  image = Image.fromarray(corners).resize((w, h), Image.Resampling.BILINEAR)
  grain = int(random.integers(4, 40))
  noise = random.integers(256, size=(h // grain + 1, w // grain + 1, 3))
  noise = Image.fromarray(noise.astype(np.uint8))
  image = Image.blend(image, noise.resize((w, h)), random.uniform(0.1, 0.6))
  draw = ImageDraw.Draw(image)
  for _ in range(random.integers(3, 15)):
    left, right = sorted(int(x) for x in random.integers(w, size=2))
    top, bottom = sorted(int(y) for y in random.integers(h, size=2))
    box = (left, top, right, bottom)
    colour = tuple(int(c) for c in random.integers(256, size=3))
    if random.integers(2):
      draw.rectangle(box, fill=colour)
    else:
      draw.ellipse(box, fill=colour)
  piece = _part(photos, random)
  piece.thumbnail((w // 2, h // 2))
  place = int(random.integers(w // 2)), int(random.integers(h // 2))
  image.paste(piece, place)
  return image


def rescaled(path: pathlib.Path, random: Random) -> tuple[bytes, str]:
  """A query that asks for a file: scaled and recompressed; and its name."""
  with Image.open(path) as image:
    scale = 2 ** random.uniform(-1, 1)
    size = round(image.width * scale), round(image.height * scale)
    return jpeg(image.resize(size, Image.Resampling.BICUBIC), 50), path.name


# A query's kind: (photos, name, random) -> the encoded query.
Maker = Callable[[Photos, str, Random], bytes]


def whole(photos: Photos, name: str, random: Random) -> bytes:
  """The whole photograph at half to twice its size, JPEG quality 50."""
  photo = photos[name]
  scale = 2 ** random.uniform(-1, 1)
  size = round(photo.width * scale), round(photo.height * scale)
  return jpeg(photo.resize(size, Image.Resampling.BICUBIC), 50)


def rotated(photos: Photos, name: str, random: Random) -> bytes:
  """Turned by up to five degrees, black in the corners, quality 50."""
  photo = photos[name]
  angle = random.uniform(-5, 5)
  return jpeg(photo.rotate(angle, Image.Resampling.BICUBIC), 50)


def shifted(photos: Photos, name: str, random: Random) -> bytes:
  """Moved by up to eight percent: one edge is lost, grey comes in."""
  photo = photos[name]
  x = round(photo.width * random.uniform(-0.08, 0.08))
  y = round(photo.height * random.uniform(-0.08, 0.08))
  canvas = Image.new('RGB', photo.size, (128, 128, 128))
  canvas.paste(photo, (x, y))
  return jpeg(canvas, 50)


def four_photos(
    photos: Photos, name: str, random: Random
) -> tuple[Image.Image, tuple[int, int, int, int]]:
  """A composite that holds the photograph, and the box of its quadrant.

  The composite has been a JPEG file, of quality 80.
  """
  others = [n for n in sorted(photos) if n != name]
  names = list(random.choice(others, 3, replace=False))
  place = int(random.integers(4))
  names.insert(place, name)
  w, h = int(random.integers(240, 481)), int(random.integers(200, 401))
  image = _grid([photos[n] for n in names], 2, (w, h), random)
  x, y = place % 2 * w, place // 2 * h
  return Image.open(io.BytesIO(jpeg(image, 80))), (x, y, x + w, y + h)


def crop_of_composite(photos: Photos, name: str, random: Random) -> bytes:
  """A box around one of four photos, slightly loose or cut off, as PNG.

  At least 15 percent of the composite.
  """
  image, box = four_photos(photos, name, random)
  w, h = box[2] - box[0], box[3] - box[1]
  while True:
    left, up, right, down = random.uniform(-0.08, 0.10, 4)
    crop = (
        max(0, round(box[0] + left * w)),
        max(0, round(box[1] + up * h)),
        min(image.width, round(box[2] - right * w)),
        min(image.height, round(box[3] - down * h)),
    )
    area = (crop[2] - crop[0]) * (crop[3] - crop[1])
    if area >= 0.15 * image.width * image.height:
      return png(image.crop(crop))


def whole_composite(photos: Photos, name: str, random: Random) -> bytes:
  """All four photos: the asked one is no better an answer than the others."""
  return png(four_photos(photos, name, random)[0])


KINDS: dict[str, Maker] = {
    'whole': whole,
    'crop of a composite': crop_of_composite,
    'rotated': rotated,
    'shifted': shifted,
    'whole composite': whole_composite,
}

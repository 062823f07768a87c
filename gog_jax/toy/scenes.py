"""Pictures of coloured emblems on lit grey clutter, drawn with Pillow.

Every emblem wears a grey badge. Its pattern is made of lines one pixel wide: at
half the size, as the toy sees a scene, all badges are the same grey, and only a
crop of the scene's own pixels shows which it is. Emblems that differ in nothing
else are twins: a glance cannot tell them apart, a gaze can.

Coordinates are pixels of the scene as stored, (x1, y1, x2, y2) with x2 and y2
just outside. No smoothing and blocky noise keep a file near eleven kilobytes.
"""

from __future__ import annotations

import dataclasses
import functools
import io
import math

import numpy as np
from PIL import Image
from PIL import ImageDraw

from gog_jax.toy import vocabulary
from gog_jax.types import Box

SIZE = 168  # Pixels of a scene's side.
_N_THINGS = 7  # Rectangles of the clutter.
_LIGHT = 32  # How far light moves a channel (0 to 255) along an axis.
# Emblems stand on a grid of this many pixels, half a patch of the toy model,
# and each, unless big, inside one plot, the area of one visual token: questions
# should be hard because of what has to be found, not of what has to be seen.
_CELL = 14
_PLOT = 4  # Cells.
# Sides of emblems in cells: usual ones, then the two of a `main` scene.
_LEAST, _MOST, _BIG, _SMALL = 3, 4, 8, 2
SIDES = tuple(_CELL * cells for cells in range(_LEAST, _MOST + 1))
BIG_SIDE = _CELL * _BIG
MOST_EMBLEMS = 6  # For which there is room.
_RGB = {
    'red': (222, 24, 24),
    'orange': (255, 138, 0),
    'yellow': (250, 226, 0),
    'green': (0, 158, 46),
    'cyan': (0, 208, 224),
    'blue': (24, 56, 232),
    'purple': (126, 22, 170),
    'pink': (255, 118, 196),
}
_BLACK = (8, 8, 8)
_GREY, _CONTRAST = 128, 110  # A badge's grey, and how far its lines differ.
_BADGE = 0.36  # A badge's share of an emblem's side.


@dataclasses.dataclass(frozen=True, order=True)
class Identity:
  """What an emblem looks like.

  Attributes:
    colour, shape: What a glance shows.
    pattern: The badge's, which only a gaze shows.
  """

  colour: str
  shape: str
  pattern: str

  def looks_like(self, other: Identity) -> bool:
    """Whether a glance cannot tell them apart."""
    return (self.colour, self.shape) == (other.colour, other.shape)

  def describe(self, template: str, **slots: str) -> str:
    """Fills colour, shape, pattern and other slots into a sentence."""
    return template.format(**dataclasses.asdict(self), **slots)

  def hit(self, name: str, match: str) -> str:
    """What an image search that finds it says."""
    return self.describe(vocabulary.IMAGE_HIT, name=name, match=match)


@dataclasses.dataclass(frozen=True)
class Emblem:
  """An identity at a place; `box` in pixels of the scene."""

  identity: Identity
  box: Box

  @property
  def centre(self) -> tuple[float, float]:
    x1, y1, x2, y2 = self.box
    return (x1 + x2) / 2, (y1 + y2) / 2


@dataclasses.dataclass(frozen=True, kw_only=True)
class Scene:
  """A picture as a PNG file and what stands where.

  Attributes:
    data: PNG, SIZE x SIZE, RGB.
    emblems: In no order that the picture shows; of a `main` scene the first
      is big and the second small.
    main: Whether one big emblem fills most of the picture.
  """

  data: bytes
  emblems: tuple[Emblem, ...]
  main: bool


IDENTITIES = tuple(
    Identity(colour, shape, pattern)
    for colour in vocabulary.COLOURS
    for shape in vocabulary.SHAPES
    for pattern in vocabulary.PATTERNS
)


def _star() -> tuple[tuple[float, float], ...]:
  corners = []
  for index in range(10):
    radius = 0.27 if index % 2 else 0.55
    angle = math.pi * index / 5
    x = 0.5 + radius * math.sin(angle)
    y = 0.54 - radius * math.cos(angle)
    corners.append((min(max(x, 0.0), 1.0), min(max(y, 0.0), 1.0)))
  return tuple(corners)


_LOW, _HIGH = 0.31, 0.69  # Edges of a cross's arms.
# Corners of polygonal shapes in the unit square.
_POLYGONS = {
    'triangle': ((0.5, 0.0), (1.0, 1.0), (0.0, 1.0)),
    'diamond': ((0.5, 0.0), (1.0, 0.5), (0.5, 1.0), (0.0, 0.5)),
    'cross': (
        (_LOW, 0), (_HIGH, 0), (_HIGH, _LOW), (1, _LOW), (1, _HIGH),
        (_HIGH, _HIGH), (_HIGH, 1), (_LOW, 1), (_LOW, _HIGH), (0, _HIGH),
        (0, _LOW), (_LOW, _LOW),
    ),
    'star': _star(),
}  # fmt: skip


def _badge(pattern: str, side: int) -> Image.Image:
  """Returns a badge; every 2 x 2 pixels of it have the same mean."""
  sign = np.where(np.arange(side) % 2, -1.0, 1.0)
  # Lines fade towards the rim, or their ends would show at half the size.
  depth = np.minimum(np.arange(side) // 2, np.arange(side)[::-1] // 2)
  lines = sign * np.minimum((depth + 0.5) / 4, 1.0)
  values = np.full((side, side), float(_GREY))
  if pattern == 'striped':
    values += _CONTRAST * lines[:, None]
  elif pattern == 'barred':
    values += _CONTRAST * lines[None, :]
  return Image.fromarray(np.round(values).astype(np.uint8)).convert('RGB')


@functools.lru_cache(maxsize=1024)
def _stamp(identity: Identity, side: int) -> tuple[Image.Image, Image.Image]:
  """Returns an emblem of `side` pixels and the mask of its outline."""
  mask = Image.new('L', (side, side), 0)
  inner = Image.new('L', (side, side), 0)
  rim = max(1, round(side / 24))
  for image, inset in ((mask, 0), (inner, rim)):
    draw = ImageDraw.Draw(image)
    low, span = inset, side - 1 - 2 * inset
    if identity.shape == 'circle':
      draw.ellipse((low, low, low + span, low + span), fill=255)
    elif identity.shape == 'square':
      # Shrunk, so that a square is no bigger than the other shapes.
      edge = round(0.06 * side)
      draw.rectangle(
          (low + edge, low + edge, low + span - edge, low + span - edge),
          fill=255,
      )
    else:
      corners = _POLYGONS[identity.shape]
      draw.polygon(
          [(low + x * span, low + y * span) for x, y in corners], fill=255
      )
  paint = Image.new('RGB', (side, side), _RGB[identity.colour])
  badge = _badge(identity.pattern, 2 * round(_BADGE * side / 2))
  middle = {'triangle': 0.64, 'star': 0.56}.get(identity.shape, 0.5)
  # Even numbers: each pair of lines is one line at half the size.
  left = 2 * round((side / 2 - badge.width / 2) / 2)
  top = 2 * round((middle * side - badge.width / 2) / 2)
  paint.paste(badge, (left, top))
  stamp = Image.new('RGB', (side, side), _BLACK)
  stamp.paste(paint, (0, 0), inner)
  return stamp, mask


def _clutter(rng: np.random.Generator) -> np.ndarray:
  """Draws blocky noise with a few rectangles and bars, uint8[SIZE, SIZE]."""
  cells = rng.integers(168, 196, size=(SIZE // 8, SIZE // 8), dtype=np.uint8)
  grey = np.ascontiguousarray(np.kron(cells, np.ones((8, 8), np.uint8)))
  low = rng.random((_N_THINGS, 2))
  span = 0.06 + 0.3 * rng.random((_N_THINGS, 2))
  shades = rng.integers(120, 226, size=_N_THINGS)
  for (x, y), (w, h), shade in zip(low, span, shades, strict=True):
    top, left = int(y * SIZE), int(x * SIZE)
    grey[top : top + int(h * SIZE), left : left + int(w * SIZE)] = shade
  return grey


@functools.lru_cache(maxsize=1)
def _lighting() -> np.ndarray:
  """Returns what light adds, float32[SIZE, SIZE, 3].

  Warm from the left and cold from the right, green from above and purple from
  below. In Qwen2.5-VL every position is relative: on even grey nothing would
  tell a small model where a patch is. Colour, unlike lightness, is not
  confounded with the clutter.
  """
  across = np.linspace(-_LIGHT, _LIGHT, SIZE, dtype=np.float32)
  columns = across[None, :, None] * np.array((-1, 0, 1), np.float32)
  rows = across[:, None, None] * np.array((0.5, -1, 0.5), np.float32)
  return columns + rows


def backdrop(rng: np.random.Generator) -> Image.Image:
  """Draws what stands behind emblems: clutter as the light shows it."""
  pixels = np.asarray(_clutter(rng), np.float32)[..., None] + _lighting()
  return Image.fromarray(np.clip(pixels, 0, 255).astype(np.uint8))


def draw_emblem(
    image: Image.Image, identity: Identity, x: int, y: int, side: int
) -> Box:
  """Draws an emblem at (x, y) into `image`; returns its tight box."""
  stamp, mask = _stamp(identity, side)
  image.paste(stamp, (x, y), mask)
  bounds = mask.getbbox()
  assert bounds is not None  # Every shape paints something.
  left, top, right, bottom = bounds
  return float(x + left), float(y + top), float(x + right), float(y + bottom)


def encode_png(image: Image.Image) -> bytes:
  """Encodes quickly; the pictures are made of flat areas."""
  buffer = io.BytesIO()
  image.save(buffer, 'PNG', compress_level=3)
  return buffer.getvalue()


def _draw_cell(rng: np.random.Generator, cells: int) -> int:
  """Draws where an emblem of that many cells starts along an axis."""
  if cells > _PLOT:
    return int(rng.integers(SIZE // _CELL - cells + 1))
  plot = int(rng.integers(SIZE // _CELL // _PLOT))
  return _PLOT * plot + int(rng.integers(_PLOT - cells + 1))


def _places(
    rng: np.random.Generator, count: int, main: bool, small: float
) -> list[tuple[int, int, int]]:
  """Draws (x, y, side) of each emblem so that none touch."""
  while True:
    places = []
    for _ in range(40):
      if main:
        cells = (_BIG, _SMALL)[len(places)]
      elif small and rng.random() < small:
        cells = _SMALL
      else:
        cells = int(rng.integers(_LEAST, _MOST + 1))
      side = cells * _CELL
      x, y = (_CELL * _draw_cell(rng, cells) for _ in range(2))
      if all(
          x + side < x0 or x0 + side0 < x or y + side < y0 or y0 + side0 < y
          for x0, y0, side0 in places
      ):
        places.append((x, y, side))
        if len(places) == count:
          return places


def make_scene(
    rng: np.random.Generator,
    identities: tuple[Identity, ...],
    *,
    main: bool = False,
    small: float = 0.0,
) -> Scene:
  """Draws a scene of several emblems, or of a big one and a tiny one.

  Args:
    rng: Where every choice comes from: the same state, the same bytes.
    identities: What to draw, 2 to MOST_EMBLEMS, no two alike, of one colour
      only where they are twins; exactly two for a `main` scene.
    main: Whether the first emblem fills most of the picture.
    small: The share of tiny emblems in other scenes.

  Returns:
    The scene.

  Raises:
    ValueError: When the identities do not fit such a scene.
  """
  if not 2 <= len(identities) <= (2 if main else MOST_EMBLEMS):
    raise ValueError(f'a scene of {len(identities)} emblems, main={main}')
  if len(set(identities)) != len(identities):
    raise ValueError('the same emblem twice in a scene')
  looks = {(identity.colour, identity.shape) for identity in identities}
  if len({colour for colour, _ in looks}) != len(looks):
    raise ValueError('two emblems of one colour in a scene, no twins')
  image = backdrop(rng)
  places = _places(rng, len(identities), main, small)
  emblems = tuple(
      Emblem(identity, draw_emblem(image, identity, *place))
      for identity, place in zip(identities, places, strict=True)
  )
  return Scene(data=encode_png(image), emblems=emblems, main=main)


def crop(data: bytes, box: Box) -> bytes:
  """Cuts a box of whole pixels out of an encoded scene, as PNG."""
  with Image.open(io.BytesIO(data)) as image:
    x1, y1, x2, y2 = (round(side) for side in box)
    return encode_png(image.crop((x1, y1, x2, y2)))

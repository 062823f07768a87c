"""Boxes between the frame a model speaks in and an image's own pixels.

Each backbone names regions in its own frame: Qwen2.5-VL in pixels of the
resized image it saw, Qwen3-VL in thousandths of either side. This is the only
place that converts, so that a box means the same in training, evaluation,
expert data and reports.
"""

from __future__ import annotations

from collections.abc import Sequence
import dataclasses
from typing import Any, Literal

from gog_jax.storage import typed
from gog_jax.types import Box

# Half of what image processors refuse, since rounding may stretch a crop.
MAX_ASPECT = 100

# A box shows its target from this overlap (intersection over union) on.
HIT_IOU = 0.5

_Numbers = tuple[typed.Finite, typed.Finite, typed.Finite, typed.Finite]

# Of a frame, and what a policy is told of it.
KINDS = {
    'resized_pixels': 'in pixels of the image as it is shown to you',
    'thousandths': "in thousandths of the image's width and height",
    'original_pixels': 'in pixels of the image file',
}


class BoxError(ValueError):
  """A box that names no region; the one-line message is for the policy."""


@dataclasses.dataclass(frozen=True, kw_only=True)
class BoxSpec:
  """How a backbone writes boxes.

  Attributes:
    kind: 'resized_pixels' of the image as the model saw it (Qwen2.5-VL),
      'thousandths' of the width and height (Qwen3-VL), or, in data alone,
      'original_pixels'.
    min_side: The least width and height of a region, in original pixels.
    step: Corners are written in multiples of this, and read as they come: a
      small model has fewer numbers to learn.
  """

  kind: Literal['resized_pixels', 'thousandths', 'original_pixels']
  min_side: int
  step: int = 1

  def __post_init__(self):
    if self.kind not in KINDS:
      raise ValueError(f'unknown kind of box {self.kind!r}')
    if self.step < 1:
      raise ValueError(f'step {self.step} must be at least 1')

  def to_original(
      self,
      box: Any,
      *,
      original_size: tuple[int, int],
      seen_size: tuple[int, int],
      exact: bool = False,
  ) -> Box:
    """Returns the region that a model's box names, in original pixels.

    The rule, in this order:
      1. Anything but exactly four finite numbers is an error; true and false
         are not numbers.
      2. An inverted or empty box (x2 <= x1 or y2 <= y1) is an error: which
         corner was meant cannot be known.
      3. A box of nothing but numbers from 0 to 1 is an error: fractions of the
         image are meant, or so little of it that nothing can be seen.
      4. A box wholly outside the image is an error.
      5. A box partly outside is clamped to the image.
      6. A box with a side below min_side, or below 1 / MAX_ASPECT of its
         other side, is grown about its centre and then moved inside; a side
         of the image that is itself shorter is taken whole.

    Args:
      box: (x1, y1, x2, y2) as parsed from the call, in the model's frame.
      original_size: (width, height) of the image file, in pixels.
      seen_size: (width, height) after the processor's resize, in pixels.
      exact: For data that is imitated, which should need no help: by rule 5 a
        box is an error, and rule 6 is left out.

    Raises:
      BoxError: Rules 1 to 4, with a reason the policy can act on.
    """
    x1, y1, x2, y2 = _four_numbers(box)
    if x2 <= x1 or y2 <= y1:
      raise BoxError(
          f'x1 < x2 and y1 < y2 must hold, got {_show(box)}'
      )
    whole = all(float(edge).is_integer() for edge in (x1, y1, x2, y2))
    if (
        min(x1, y1) >= 0 and max(x2, y2) <= 1
        # Some leave the image a little.
        or not whole and min(x1, y1) > -0.25 and max(x2, y2) < 1.25
    ):
      raise BoxError(
          f'{_show(box)} is in fractions of the image: write it '
          f'{KINDS[self.kind]}'
      )
    frame = self._frame(original_size, seen_size)
    if exact and (x1 < 0 or y1 < 0 or x2 > frame[0] or y2 > frame[1]):
      raise BoxError(
          f'{_show(box)} leaves the image [0,0,{frame[0]},{frame[1]}]'
      )
    if x2 <= 0 or y2 <= 0 or x1 >= frame[0] or y1 >= frame[1]:
      raise BoxError(
          f'{_show(box)} is outside the image [0,0,{frame[0]},{frame[1]}]'
      )
    spans = []
    for low, high, limit, size in zip((x1, y1), (x2, y2), frame, original_size):
      scale = size / limit
      spans.append((max(0.0, low) * scale, min(limit, high) * scale))
    if exact:
      (x1, x2), (y1, y2) = spans
      return x1, y1, x2, y2
    long_side = max(high - low for low, high in spans)
    least = max(self.min_side, long_side / MAX_ASPECT)
    (x1, x2), (y1, y2) = (
        _grow(low, high, least=least, size=size)
        for (low, high), size in zip(spans, original_size)
    )
    return x1, y1, x2, y2

  def to_model(
      self,
      box: Box,
      *,
      original_size: tuple[int, int],
      seen_size: tuple[int, int],
  ) -> tuple[int, int, int, int]:
    """Returns how the model would write a region, as whole numbers.

    Corners round to the nearest multiple of `step` or to the border of the
    image, so that the way back is at most half a step of the model's frame
    away; a side that rounds to nothing keeps one step, or what is left of one,
    and the upper left corner two.

    Args:
      box: (x1, y1, x2, y2) in original pixels, within the image.
      original_size: (width, height) of the image file, in pixels.
      seen_size: (width, height) after the processor's resize, in pixels.
    """
    low, high = [], []
    for axis, (limit, size) in enumerate(
        zip(self._frame(original_size, seen_size), original_size)
    ):
      scale = limit / size
      last = (limit - 1) // self.step * self.step
      start = self._written(box[axis] * scale, limit)
      start = min(max(start, 0), last)
      end = self._written(box[axis + 2] * scale, limit)
      end = min(max(end, start + self.step), limit)
      low.append(start)
      high.append(end)
    if max(high) <= 1:  # Which would be read as fractions.
      high[0] = 2
    return low[0], low[1], high[0], high[1]

  def _written(self, side: float, limit: int) -> int:
    multiple = round(side / self.step) * self.step
    return limit if abs(limit - side) < abs(multiple - side) else multiple

  def _frame(
      self, original_size: tuple[int, int], seen_size: tuple[int, int]
  ) -> tuple[int, int]:
    if self.kind == 'thousandths':
      return 1000, 1000
    return seen_size if self.kind == 'resized_pixels' else original_size


def iou(a: Sequence[float], b: Sequence[float]) -> float:
  """Intersection over union of two boxes in the same frame; 0 if empty."""
  width = min(a[2], b[2]) - max(a[0], b[0])
  height = min(a[3], b[3]) - max(a[1], b[1])
  if width <= 0 or height <= 0:
    return 0.0
  both = width * height
  areas = [(box[2] - box[0]) * (box[3] - box[1]) for box in (a, b)]
  return both / (sum(areas) - both)


def _four_numbers(box: Any) -> tuple[float, float, float, float]:
  try:
    return typed.read(_Numbers, box)
  except typed.FieldError as error:
    raise BoxError(
        f'four finite numbers are needed, got {_show(box)}'
    ) from error


def _show(box: Any) -> str:
  """A box in a message: the policy pays for every token of it."""
  text = str(list(box) if isinstance(box, tuple) else box)
  text = text.replace('\n', ' ').replace(', ', ',')
  return text if len(text) <= 60 else text[:57] + '...'


def _grow(
    low: float, high: float, *, least: float, size: int
) -> tuple[float, float]:
  length = high - low
  if length >= least:
    return low, high
  if size <= least:
    return 0.0, float(size)
  low = min(max((low + high - least) / 2, 0.0), size - least)
  return low, low + least

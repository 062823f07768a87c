"""Boxes: the declared rule case by case, and the way there and back."""

from __future__ import annotations

import math

from hypothesis import given
from hypothesis import settings
from hypothesis import strategies as st
import pytest

from gog_jax.boxes import BoxError
from gog_jax.boxes import BoxSpec
from gog_jax.boxes import iou
from gog_jax.boxes import MAX_ASPECT

PIXELS = BoxSpec(kind='resized_pixels', min_side=14)
THOUSANDTHS = BoxSpec(kind='thousandths', min_side=14)
# A picture of 400 x 200 that the model saw at 200 x 100: a factor of two.
SIZES = {'original_size': (400, 200), 'seen_size': (200, 100)}


@pytest.mark.parametrize(
    ('spec', 'box', 'expected'),
    [
        (PIXELS, [10, 20, 60, 80], (20, 40, 120, 160)),
        (PIXELS, (10.5, 20, 60, 80), (21, 40, 120, 160)),
        (THOUSANDTHS, [250, 100, 500, 900], (100, 20, 200, 180)),
        # Partly outside: clamped.
        (PIXELS, [-50, -1, 50, 1000], (0, 0, 100, 200)),
        (THOUSANDTHS, [900, 500, 1e300, 2000], (360, 100, 400, 200)),
        # Below min_side (14): grown about the centre (41, 41) ...
        (PIXELS, [20, 20, 21, 21], (34, 34, 48, 48)),
        # ... one side alone ...
        (PIXELS, [20, 20, 50, 21], (40, 34, 100, 48)),
        # ... and moved inside at the border.
        (PIXELS, [0, 99, 1, 100], (0, 186, 14, 200)),
    ],
)
def test_to_original(spec, box, expected):
  assert spec.to_original(box, **SIZES) == expected


def test_an_image_thinner_than_min_side_is_taken_whole():
  box = PIXELS.to_original(
      [10, 2, 11, 3], original_size=(400, 8), seen_size=(400, 28)
  )
  assert box == (3.5, 0.0, 17.5, 8.0)


def test_a_strip_is_grown_to_the_greatest_aspect():
  box = PIXELS.to_original(
      [0, 500, 4000, 501], original_size=(4000, 1000), seen_size=(4000, 1000)
  )
  assert box == (0, 480.5, 4000, 520.5)
  assert 4000 / 40 == MAX_ASPECT


@pytest.mark.parametrize(
    ('box', 'reason'),
    [
        ([60, 20, 10, 80], 'x1 < x2 and'),
        ([10, 80, 60, 20], 'and y1 < y2'),
        ([10, 20, 10, 80], 'x1 < x2 and'),
        ([200, 0, 300, 50], 'outside'),
        ([-9, 0, 0, 50], 'outside'),
        ([10, 100, 60, 180], 'outside'),
        ([10, 20, 60], 'four finite numbers'),
        ([10, 20, 60, 80, 90], 'four finite numbers'),
        ([10, 20, 60, math.nan], 'four finite numbers'),
        ([10, 20, math.inf, 80], 'four finite numbers'),
        ([10, 20, 10**400, 80], 'four finite numbers'),
        ([False, 20, True, 80], 'four finite numbers'),
        ([0.5, 0.5, 1, 1], 'fractions of the image: write it in pixels'),
        ([0, 0, 1, 1], 'fractions'),
        ([0.0, 0.25, 0.125, 1.0], 'fractions'),
        ([0, 0.999, 1e-9, 1], 'fractions'),
        ([0.1, 0.1, 1.01, 0.9], 'fractions'),
        ([-0.1, 0, 0.5, 0.5], 'fractions'),
        ([0.5, 0.5, 1.2, 1.0], 'fractions'),
        (['10', 20, 60, 80], 'four finite numbers'),
        ('1234', 'four finite numbers'),
        ({'x1': 1}, 'four finite numbers'),
        (None, 'four finite numbers'),
        (['a\nb' * 99], 'four finite numbers'),
    ],
)
def test_errors_say_why_on_one_short_line(box, reason):
  with pytest.raises(BoxError, match=reason) as caught:
    PIXELS.to_original(box, **SIZES)
  assert '\n' not in str(caught.value)
  assert len(str(caught.value)) < 120


@pytest.mark.parametrize(
    ('box', 'written'),
    [
        ((41, 58, 87, 108), (20, 28, 44, 56)),
        ((3, 0, 168, 5), (0, 0, 84, 4)),
        ((160, 164, 168, 168), (80, 80, 84, 84)),
    ],
)
def test_corners_in_steps(box, written):
  coarse = BoxSpec(kind='resized_pixels', min_side=8, step=4)
  sizes = {'original_size': (168, 168), 'seen_size': (84, 84)}
  assert coarse.to_model(box, **sizes) == written
  # What the model writes is read as it is, a multiple or not.
  assert coarse.to_original((5, 6, 27, 29), **sizes) == (10, 12, 54, 58)


def test_steps_stay_inside_a_frame_they_do_not_divide():
  coarse = BoxSpec(kind='resized_pixels', min_side=8, step=10)
  sizes = {'original_size': (84, 84), 'seen_size': (84, 84)}
  assert coarse.to_model((0, 0, 84, 81), **sizes) == (0, 0, 84, 80)
  assert coarse.to_model((83, 0, 84, 83), **sizes) == (80, 0, 84, 84)


@pytest.mark.parametrize(
    'box', [[0, 0, 2, 1], [0.5, 0.5, 1.5, 1], [1, 1, 2, 2]]
)
def test_small_boxes_are_no_fractions(box):
  for spec in (PIXELS, THOUSANDTHS):
    assert spec.to_original(box, **SIZES)


@pytest.mark.parametrize('spec', [PIXELS, THOUSANDTHS])
def test_no_box_is_written_as_a_fraction(spec):
  sizes = {'original_size': (4000, 4000), 'seen_size': (400, 400)}
  written = spec.to_model((0, 0, 3, 3), **sizes)
  assert written == (0, 0, 2, 1)
  assert spec.to_original(written, **sizes)


def test_no_step():
  with pytest.raises(ValueError, match='step 0'):
    BoxSpec(kind='resized_pixels', min_side=8, step=0)


def test_unknown_kind():
  with pytest.raises(ValueError, match='percent'):
    BoxSpec(kind='percent', min_side=14)  # pyright: ignore


SIDES = st.integers(28, 3000)


@settings(max_examples=300, deadline=None)
@given(
    spec=st.sampled_from([PIXELS, THOUSANDTHS]),
    original=st.tuples(SIDES, SIDES),
    seen=st.tuples(SIDES, SIDES),
    corners=st.tuples(*[st.floats(0, 1)] * 4),
)
def test_round_trip(spec, original, seen, corners):
  width, height = original
  # A region that rule 5 leaves alone.
  xs = sorted(value * width for value in corners[:2])
  ys = sorted(value * height for value in corners[2:])
  box = (xs[0], ys[0], xs[1], ys[1])
  sides = sorted((xs[1] - xs[0], ys[1] - ys[0]))
  frame = seen if spec.kind == 'resized_pixels' else (1000, 1000)
  unit = max(width / frame[0], height / frame[1])
  if sides[0] < spec.min_side + 2 * unit or sides[0] * 50 < sides[1]:
    return
  model = spec.to_model(box, original_size=original, seen_size=seen)
  assert all(isinstance(value, int) for value in model)
  back = spec.to_original(model, original_size=original, seen_size=seen)
  for axis, (there, here) in enumerate(zip(box, back)):
    # Within half of the model's unit, measured in original pixels.
    step = original[axis % 2] / frame[axis % 2]
    assert abs(there - here) <= step / 2 + 1e-6
  # What the model can write survives exactly.
  assert spec.to_model(back, original_size=original, seen_size=seen) == model


@settings(max_examples=300, deadline=None)
@given(
    spec=st.sampled_from([PIXELS, THOUSANDTHS]),
    original=st.tuples(SIDES, SIDES),
    seen=st.tuples(SIDES, SIDES),
    box=st.lists(st.integers(-100, 3500), min_size=4, max_size=4),
)
def test_every_region_is_inside_and_large_enough(spec, original, seen, box):
  try:
    x1, y1, x2, y2 = spec.to_original(
        box, original_size=original, seen_size=seen
    )
  except BoxError:
    return
  assert 0 <= x1 < x2 <= original[0] + 1e-9
  assert 0 <= y1 < y2 <= original[1] + 1e-9
  assert min(x2 - x1, y2 - y1) >= spec.min_side - 1e-9
  # A side that is the whole image's cannot grow any further.
  width, height = x2 - x1, y2 - y1
  assert width <= height * MAX_ASPECT + 1e-6 or height >= original[1] - 1e-9
  assert height <= width * MAX_ASPECT + 1e-6 or width >= original[0] - 1e-9


@pytest.mark.parametrize(
  ('a', 'b', 'want'),
  [
    ((0, 0, 2, 2), (0, 0, 2, 2), 1),
    ((0, 0, 2, 2), (1, 0, 3, 2), 1 / 3),
    ((0, 0, 2, 2), (1, 1, 3, 3), 1 / 7),
    ((0, 0, 2, 2), (2, 0, 4, 2), 0),
    ((0, 0, 2, 2), (5, 5, 6, 6), 0),
  ],
)
def test_iou(a, b, want):
  assert iou(a, b) == pytest.approx(want)
  assert iou(b, a) == pytest.approx(want)

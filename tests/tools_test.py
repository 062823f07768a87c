"""The tools: arguments, crops and what they search with."""

import asyncio
import math

import numpy as np
from PIL import Image
import pytest

from gog_jax import images
from gog_jax.boxes import BoxSpec
from gog_jax.tools import base
from gog_jax.tools.base import ModelError
from gog_jax.tools.base import Query
from gog_jax.tools.base import ToolContext
from gog_jax.tools.gaze import gaze
from gog_jax.tools.search import image_search
from gog_jax.tools.search import text_search
from gog_jax.types import View
from tests import loop_helpers
from tests import search_helpers

_WIDTH, _HEIGHT = 160, 120
_BACKEND = loop_helpers.Backend()


def _noise(width=_WIDTH, height=_HEIGHT, seed=0):
  pixels = np.random.default_rng(seed).integers(
      0, 256, (height, width, 3), dtype=np.uint8
  )
  return pixels, images.encode_png(Image.fromarray(pixels))


def _context(*pictures, scope='s'):
  views = []
  for root, data in enumerate(pictures):
    views.append(View(data=data, root=root, box=(0, 0, *images.size_of(data))))
  return ToolContext(scope=scope, views=tuple(views))


def _gaze(*, seen_size=lambda w, h: (w, h), min_side=4):
  return gaze(
      _BACKEND,
      top_k=2,
      box_spec=BoxSpec(kind='resized_pixels', min_side=min_side),
      seen_size=seen_size,
  )


def _pixels(data):
  return np.asarray(images.decode(data))


def _run(tool, arguments, context):
  return asyncio.run(tool.query(arguments, context))


@pytest.mark.parametrize(
    ('arguments', 'words'),
    [
        ({}, "'bbox_2d' is a required property"),
        ({'bbox_2d': [1, 2, 3]}, 'bbox_2d: [1, 2, 3] is too short'),
        ({'bbox_2d': [1, 2, 3, 4, 5]}, 'bbox_2d: [1, 2, 3, 4, 5] is too long'),
        ({'bbox_2d': [1, 2, 'x', 4]}, "bbox_2d.2: 'x' is not of type"),
        ({'bbox_2d': [1, 2, True, 4]}, 'bbox_2d.2: True is not of type'),
        ({'bbox_2d': '1 2 3 4'}, 'bbox_2d: '),
        ({'bbox_2d': [1, 2, 3, 4], 'image': 0}, 'image: 0 is less than'),
        ({'bbox_2d': [1, 2, 3, 4], 'image': 1.5}, 'image: 1.5 is not of type'),
        ({'bbox_2d': [1, 2, 3, 4], 'zoom': 2}, "'zoom' was unexpected"),
        ({'bbox_2d': 'a\n' * 999}, 'bbox_2d: '),
    ],
)
def test_schema_names_the_argument_on_one_short_line(arguments, words):
  error = _error(_gaze(), arguments)
  assert error is not None and words in error
  assert '\n' not in error and len(error) <= base.ERROR_LENGTH


def _error(tool, arguments):
  return search_helpers.checked([tool], tool.name, arguments).error


def test_schema_lets_good_arguments_pass():
  assert _error(_gaze(), {'bbox_2d': [1, 2.5, 3, 4]}) is None
  assert _error(_gaze(), {'bbox_2d': [1, 2, 3, 4], 'image': 2}) is None
  assert _error(text_search(_BACKEND, top_k=1), {'query': 'x'}) is None
  assert _error(image_search(_BACKEND, top_k=1), {}) is None


def test_describe_is_what_the_tool_says():
  tool = text_search(_BACKEND, top_k=1)
  described = base.describe(tool)
  assert described['name'] == 'text_search'
  assert described['parameters']['required'] == ['query']
  assert described['description'] == tool.description


def test_text_search_asks_with_the_stripped_query():
  tool = text_search(_BACKEND, top_k=3)
  query = _run(tool, {'query': ' who? '}, _context(scope='w/7'))
  assert query == Query(text='who?', scope='w/7', top_k=3)


@pytest.mark.parametrize('query', ['', ' \n', '\ud800'])
def test_text_search_refuses_what_is_no_query(query):
  with pytest.raises(ModelError):
    _run(text_search(_BACKEND, top_k=1), {'query': query}, _context())


def test_image_search_asks_with_the_first_image_untouched():
  _, first = _noise(seed=1)
  _, second = _noise(seed=2)
  query = _run(image_search(_BACKEND, top_k=1), {}, _context(first, second))
  assert query == Query(image=first, scope='s', top_k=1)
  with pytest.raises(ModelError):
    _run(image_search(_BACKEND, top_k=1), {}, _context())


def test_gaze_crops_the_very_pixels_and_asks_with_them():
  pixels, data = _noise()
  query = _run(_gaze(), {'bbox_2d': [30, 40, 70, 95]}, _context(data))
  assert query.view.box == (30, 40, 70, 95)
  assert query.view.root == 0
  np.testing.assert_array_equal(_pixels(query.view.data), pixels[40:95, 30:70])
  assert query.image == query.view.data
  assert (query.text, query.scope, query.top_k) == (None, 's', 2)


def test_gaze_converts_the_box_from_the_seen_frame_exactly_once():
  pixels, data = _noise()
  tool = _gaze(seen_size=lambda w, h: (w // 2, h // 4))
  result = _run(tool, {'bbox_2d': [10, 10, 40, 20]}, _context(data))
  assert result.view.box == (20, 40, 80, 80)
  np.testing.assert_array_equal(_pixels(result.view.data), pixels[40:80, 20:80])


def test_edges_go_to_the_nearest_pixel():
  _, data = _noise()
  # Thirds of pixels: 10 / 3, 20 / 3, 100 / 3, 110 / 3.
  tool = _gaze(seen_size=lambda w, h: (3 * w, 3 * h))
  result = _run(tool, {'bbox_2d': [10, 20, 100, 110]}, _context(data))
  assert result.view.box == (3, 7, 33, 37)


def test_crop_of_a_crop_equals_the_direct_crop_of_the_root():
  pixels, data = _noise()
  # The model sees every image, crops too, as 80 x 80.
  tool = _gaze(seen_size=lambda w, h: (80, 80))
  context = _context(data)
  first = _run(tool, {'bbox_2d': [20, 20, 60, 60]}, context).view
  assert first.box == (40, 30, 120, 90)  # 160 x 120 seen as 80 x 80.
  deeper = ToolContext(scope='s', views=context.views + (first,))
  second = _run(tool, {'bbox_2d': [20, 0, 60, 40], 'image': 2}, deeper).view
  assert second.box == (60, 30, 100, 60)  # 80 x 60 seen as 80 x 80.
  assert second.root == 0
  np.testing.assert_array_equal(_pixels(second.data), pixels[30:60, 60:100])
  third_context = ToolContext(scope='s', views=deeper.views + (second,))
  third = _run(
      tool, {'bbox_2d': [0, 0, 40, 40], 'image': 3}, third_context
  ).view
  assert third.box == (60, 30, 80, 45)
  np.testing.assert_array_equal(_pixels(third.data), pixels[30:45, 60:80])


def test_crops_of_the_second_image_come_from_the_second_image():
  _, first = _noise(seed=1)
  pixels, second = _noise(50, 60, seed=2)
  context = _context(first, second)
  view = _run(
      _gaze(), {'bbox_2d': [5, 5, 25, 45], 'image': 2}, context
  ).view
  assert (view.root, view.box) == (1, (5, 5, 25, 45))
  deeper = ToolContext(scope='s', views=context.views + (view,))
  view = _run(_gaze(), {'bbox_2d': [1, 2, 11, 12], 'image': 3}, deeper).view
  assert (view.root, view.box) == (1, (6, 7, 16, 17))
  np.testing.assert_array_equal(_pixels(view.data), pixels[7:17, 6:16])


def test_view_box_is_as_large_as_its_picture_wherever_the_box_falls():
  _, data = _noise()
  rng = np.random.default_rng(3)
  tool = _gaze(seen_size=lambda w, h: (84, 56), min_side=1)
  for _ in range(40):
    x1, y1 = rng.uniform(-5, 80), rng.uniform(-5, 50)
    box = [x1, y1, x1 + rng.uniform(5.1, 60), y1 + rng.uniform(5.1, 60)]
    view = _run(tool, {'bbox_2d': box}, _context(data)).view
    x1, y1, x2, y2 = view.box
    assert 0 <= x1 < x2 <= _WIDTH and 0 <= y1 < y2 <= _HEIGHT
    assert images.size_of(view.data) == (x2 - x1, y2 - y1)


@pytest.mark.parametrize('number', [3, 99, 10**30])
def test_image_number_out_of_range_is_the_policys_mistake(number):
  _, data = _noise()
  with pytest.raises(ModelError, match=f'no image {number}, only 1 to 2'):
    _run(
        _gaze(),
        {'bbox_2d': [1, 1, 9, 9], 'image': number},
        _context(data, data),
    )


@pytest.mark.parametrize(
    'box',
    [[50, 50, 40, 60], [500, 500, 600, 600], [math.nan, 0, 9, 9], [0, 0, 0, 9],
     [0, 0, 10**400, 9]],
)
def test_bad_box_is_the_policys_mistake(box):
  _, data = _noise()
  with pytest.raises(ModelError):
    _run(_gaze(), {'bbox_2d': box}, _context(data))

"""Ten thousand cases each: whatever a policy says, a typed result comes."""

from __future__ import annotations

import asyncio
import json
import math

from hypothesis import given
from hypothesis import HealthCheck
from hypothesis import settings
from hypothesis import strategies as st
import numpy as np
import pytest

from gog_jax import images
from gog_jax.boxes import BoxError
from gog_jax.boxes import BoxSpec
from gog_jax.boxes import KINDS
from gog_jax.chat import protocol
from gog_jax.tools.base import ToolContext
from gog_jax.tools.gaze import gaze
from gog_jax.tools.search import image_search
from gog_jax.tools.search import text_search
from gog_jax.types import ToolResult
from gog_jax.types import ToolStatus
from gog_jax.types import View
from tests import loop_helpers
from tests.chat_helpers import HOSTILE
from tests.search_helpers import checked
from tests.search_helpers import make_executor

pytest_plugins = ['tests.chat_fixtures']
pytestmark = pytest.mark.slow

MANY = settings(
    max_examples=10_000,
    deadline=None,
    suppress_health_check=list(HealthCheck),
)
WIDTH, HEIGHT = 96, 64
PICTURE = images.encode_png(
    images.Image.fromarray(
        np.random.default_rng(0).integers(
            0, 256, (HEIGHT, WIDTH, 3), dtype=np.uint8
        )
    )
)
CONTEXT = ToolContext(
    scope='s', views=(View(data=PICTURE, root=0, box=(0, 0, WIDTH, HEIGHT)),)
)

JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(),
    lambda inner: st.lists(inner, max_size=5)
    | st.dictionaries(st.text(max_size=8), inner, max_size=3),
    max_leaves=8,
)
NAMES = st.sampled_from(['text_search', 'image_search', 'gaze']) | st.text(
    max_size=12
)
NEAR = st.floats(-150, 150) | st.integers(-150, 150)
BOXES = st.lists(NEAR | st.integers() | st.floats(), min_size=4, max_size=4)
ARGUMENTS = st.one_of(
    st.fixed_dictionaries({'query': st.text()}),
    st.just({}),
    st.fixed_dictionaries(
        {'bbox_2d': BOXES | JSON}, optional={'image': st.integers(-1, 3) | JSON}
    ),
    st.dictionaries(st.text(max_size=8), JSON, max_size=3),
)
CALLS = st.builds(
    lambda name, arguments: json.dumps({'name': name, 'arguments': arguments}),
    NAMES,
    ARGUMENTS,
)
PIECES = st.one_of(
    st.sampled_from([*protocol.TAGS, *HOSTILE]),
    CALLS,
    # A call that was cut off.
    st.builds(lambda text, n: text[:n], CALLS, st.integers(0, 60)),
    CALLS.map(lambda text: f'<tool_call>\n{text}\n</tool_call>'),
    st.text(max_size=20),
    JSON.map(json.dumps),
)  # fmt: skip


def _executor():
  backend = loop_helpers.Backend()
  return make_executor(
      text_search(backend, top_k=1),
      image_search(backend, top_k=1),
      gaze(
          backend,
          top_k=1,
          box_spec=BoxSpec(kind='resized_pixels', min_side=8),
          seen_size=lambda width, height: (84, 56),
      ),
      backend=backend,
  )


def _check(result: ToolResult) -> None:
  assert isinstance(result, ToolResult)
  # A policy can do what it likes: it is never the infrastructure's failure.
  assert result.status in (ToolStatus.OK, ToolStatus.MODEL_ERROR)
  assert (result.status == ToolStatus.OK) == (not result.error)
  assert '\n' not in result.error and len(result.error) <= 120
  if result.view is not None:
    x1, y1, x2, y2 = result.view.box
    assert 0 <= x1 < x2 <= WIDTH and 0 <= y1 < y2 <= HEIGHT
    assert images.size_of(result.view.data) == (x2 - x1, y2 - y1)


@MANY
@given(pieces=st.lists(PIECES, max_size=6), truncated=st.booleans())
def test_whatever_is_written_is_read_and_every_call_answered(
    toy, pieces, truncated
):
  ids = []
  for piece in pieces:
    # Its tags are the control tokens, as a policy would sample them.
    for part in protocol.HERMES.tag.split(piece):
      index = toy.codec.id_of(part) if part in protocol.TAGS else None
      text = part.encode('utf-8', 'replace').decode()
      ids += toy.encode_untrusted(text) if index is None else [index]
  parsed = toy.parse([*ids, toy.stop_ids[0]], truncated=truncated)
  assert not (truncated and parsed.calls)
  if parsed.format_error is None:
    assert bool(parsed.calls) != (parsed.answer is not None)
  results = asyncio.run(_executor().run_turn(parsed.calls, CONTEXT))
  assert len(results) == len(parsed.calls)
  for call, result in zip(parsed.calls, results):
    _check(result)
    if call.error is not None:
      assert result.status == ToolStatus.MODEL_ERROR


@MANY
@given(name=NAMES, arguments=ARGUMENTS)
def test_every_call_gets_a_typed_result(name, arguments):
  executor = _executor()
  call = checked(executor.tools.values(), name, arguments)
  _check(asyncio.run(executor.run(call, CONTEXT)))


SIDES = st.integers(16, 4096)


@MANY
@given(
    original=st.tuples(SIDES, SIDES),
    seen=st.tuples(SIDES, SIDES),
    corners=st.tuples(*[st.floats(0, 1)] * 4),
)
def test_original_to_resized_to_thousandths_and_back(original, seen, corners):
  """Within one pixel of the coarsest of the three frames."""
  specs = {kind: BoxSpec(kind=kind, min_side=1) for kind in KINDS}
  xs = sorted(value * original[0] for value in corners[:2])
  ys = sorted(value * original[1] for value in corners[2:])
  box = (xs[0], ys[0], xs[1], ys[1])
  # In original pixels, the width and height of each frame's own pixel.
  units = [
      max(1.0, original[axis] / seen[axis], original[axis] / 1000)
      for axis in (0, 1)
  ]
  if min(xs[1] - xs[0], ys[1] - ys[0]) < 3 * max(units):
    return  # Too small to be written in these frames: it grows.
  if max(xs[1] - xs[0], ys[1] - ys[0]) > 50 * min(
      xs[1] - xs[0], ys[1] - ys[0]
  ):
    return  # A strip grows as well.
  there = box
  for kind in ('resized_pixels', 'thousandths'):
    spec = specs[kind]
    written = spec.to_model(there, original_size=original, seen_size=seen)
    there = spec.to_original(written, original_size=original, seen_size=seen)
    # What the model can write survives exactly.
    again = spec.to_model(there, original_size=original, seen_size=seen)
    assert again == written
  for axis, (told, found) in enumerate(zip(box, there)):
    assert abs(told - found) <= units[axis % 2] + 1e-6


@MANY
@given(
    kind=st.sampled_from(list(KINDS)),
    box=BOXES | JSON,
    original=st.tuples(SIDES, SIDES),
    seen=st.tuples(SIDES, SIDES),
    min_side=st.integers(1, 64),
)
def test_any_box_is_a_region_inside_or_one_line(
    kind, box, original, seen, min_side
):
  spec = BoxSpec(kind=kind, min_side=min_side)
  try:
    x1, y1, x2, y2 = spec.to_original(
        box, original_size=original, seen_size=seen
    )
  except BoxError as error:
    assert '\n' not in str(error) and len(str(error)) <= 200
    return
  assert all(map(math.isfinite, (x1, y1, x2, y2)))
  assert -1e-9 <= x1 < x2 <= original[0] + 1e-9
  assert -1e-9 <= y1 < y2 <= original[1] + 1e-9

"""Where emblems stand and how scenes are lit."""

from __future__ import annotations

import numpy as np

from gog_jax.toy import backend
from gog_jax.toy import scenes
from tests.world_helpers import pixels_of
from tests.world_helpers import questions_of


def test_emblems_stand_a_cell_apart_each_in_its_plot():
  for question in questions_of('train', 200):
    cells = []
    for emblem in question.scene.emblems:
      box = [side / scenes._CELL for side in emblem.box]
      cells.append([round(side) for side in box])
      # Shapes fill their cells but for a narrow rim.
      assert np.abs(np.subtract(box, cells[-1])).max() < 0.51
      if question.scene.main and emblem is question.scene.emblems[0]:
        continue  # The big one.
      # One visual token of the toy's holds it.
      for low, high in (cells[-1][::2], cells[-1][1::2]):
        assert low // scenes._PLOT == (high - 1) // scenes._PLOT
    for i, a in enumerate(cells):
      for b in cells[:i]:
        apart = [max(a[k] - b[k + 2], b[k] - a[k + 2]) for k in (0, 1)]
        assert max(apart) >= 1


def test_light_tells_places_apart():
  side = scenes.SIZE // 4
  pictures = [pixels_of(q.scene.data) for q in questions_of('train', 60)]
  grey = np.mean(pictures, axis=0)  # Emblems average out.
  r, g, b = np.moveaxis(grey, -1, 0)
  warm, green = r - b, g - (r + b) / 2
  assert warm[:, :side].mean() > warm[:, -side:].mean() + scenes._LIGHT
  assert green[:side].mean() > green[-side:].mean() + scenes._LIGHT


def test_search_takes_light_for_grey():
  rng = np.random.default_rng(0)
  lit = scenes.backdrop(rng)
  vector = backend._describe(backend._thumbnail(lit))
  n = backend._SIDE**2
  colour, light, _ = np.split(vector, [2 * n, 3 * n])
  assert np.abs(colour).max() == 0.0 < np.abs(light).max()

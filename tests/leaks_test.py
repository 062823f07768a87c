"""What is evaluated is left out of training: all of it, and nothing else."""

from __future__ import annotations

import importlib

import numpy as np
from PIL import Image
from PIL import ImageDraw
import pytest

from gog_jax import images
from gog_jax.questions import leaks
from gog_jax.types import Example
from tests import helpers

for bundle in ('skimage', 'sklearn'):
  helpers.require(bundle)
index_pictures = importlib.import_module('scripts.index_pictures')

# Small enough to be read fast.
PHOTOS = index_pictures.photographs(256)


def example(id, data, question='What is that, here?'):
  return Example(
      id=id,
      images=(data,),
      question=question,
      answers=('x',),
      source='test',
      scope='',
  )


def planted(photo: Image.Image, random) -> bytes:
  """The photograph as another set may have it."""
  scale = random.choice([0.5, 1.0, 1.5])
  size = [round(side * scale) for side in photo.size]
  quality = int(random.integers(40, 95))
  return index_pictures.jpeg(photo.resize(size), quality)


SPELLED = (
    'what is that here',
    'WHAT IS THAT, HERE?',
    ' What  is that - here? ',
    'What is that, here\uff1f',
)


def test_the_planted_are_found():
  """20 of 20: re-encoded, in other case and punctuation."""
  random = np.random.default_rng(0)
  names = sorted(PHOTOS)
  held = leaks.Held([[
      example(name, index_pictures.png(PHOTOS[name])) for name in names
  ]])
  for i in range(20):
    name = names[i % len(names)]
    copy = example('t', planted(PHOTOS[name], random), SPELLED[i % 4])
    found = held.find(copy)
    assert found is not None and found.id == name


def others(n: int, random):
  """Pictures of the same things, asked the same; the same, asked else."""
  names = sorted(PHOTOS)
  distractors = index_pictures.distractors(PHOTOS, n, random)
  for i, (kind, data) in enumerate(distractors):
    photo = PHOTOS[names[i % len(names)]]
    if i % 4 == 0:
      yield example(f'{kind}: asked', planted(photo, random), f'Who, {i}?')
    elif i % 4 == 1:
      w, h = photo.size
      x, y = random.integers(0, w // 12, 2)
      view = photo.crop((int(x) + w // 25, int(y), w, h))
      yield example(f'{kind}: a little less', index_pictures.jpeg(view))
    else:
      yield example(kind, data)  # Crops, recolourings, composites.


def lost(n: int) -> list[str]:
  held = leaks.Held([[
      example(name, index_pictures.png(photo)) for name, photo in PHOTOS.items()
  ]])
  every = others(n, np.random.default_rng(1))
  return [one.id for one in every if held.find(one) is not None]


def test_none_of_the_others_is_lost():
  assert lost(100) == []


@pytest.mark.slow
def test_none_of_a_thousand_others_is_lost():
  assert lost(1000) == []


def test_a_number_changed_in_a_chart_makes_another_image():
  def chart(value):
    picture = Image.new('RGB', (400, 300), 'white')
    draw = ImageDraw.Draw(picture)
    for i in range(5):
      draw.rectangle((40 + 70 * i, 250 - 30 * i, 80 + 70 * i, 250), 'navy')
    draw.text((120, 40), value, 'black', font_size=24)
    return picture

  one = images.encode_png(chart('in 2019: 417'))
  assert leaks.same_image(one, index_pictures.jpeg(chart('in 2019: 417'), 60))
  assert not leaks.same_image(one, images.encode_png(chart('in 2019: 582')))

"""Pretraining tasks that ask for every emblem of a scene at once."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from gog_jax.toy import scenes
from gog_jax.toy import vocabulary
from gog_jax.toy.exchange import Exchange
from gog_jax.toy.exchange import pick
from gog_jax.toy.exchange import ToModelBox
from gog_jax.toy.references import CLEAR
from gog_jax.toy.references import draw_reference
from gog_jax.toy.references import PLACES


def survey(
    rng: np.random.Generator,
    scene: scenes.Scene,
    target: scenes.Emblem,
    to_model_box: ToModelBox,
) -> Exchange:
  """Asks for every emblem and its box, in the order of their colours.

  Colours need no place to be ordered by, and come first: what follows is to be
  found by what was just said, which is learnt sooner than the reverse.
  """
  del target
  order = vocabulary.COLOURS.index
  answer = ', '.join(
      f'{_name_look(emblem)} {_write(to_model_box(emblem.box))}'
      for emblem in sorted(
          scene.emblems,
          key=lambda emblem: (order(emblem.identity.colour), emblem.box),
      )
  )
  return Exchange(
      question=pick(rng, vocabulary.GROUNDING['survey']), answer=answer
  )


def list_from_a_side(
    rng: np.random.Generator,
    scene: scenes.Scene,
    target: scenes.Emblem,
    to_model_box: ToModelBox,
) -> Exchange:
  """Asks for every emblem in the order in which they stand.

  One answer resolves as many references to places as there are emblems. Where
  they are in no clear order, neither from a side nor from above, it surveys.
  """
  orders = {}
  for side, (axis, sign) in PLACES.items():
    emblems = sorted(
        scene.emblems, key=lambda emblem: -sign * emblem.centre[axis]
    )
    steps = np.diff([emblem.centre[axis] for emblem in emblems])
    if np.abs(steps).min() >= CLEAR:
      orders[side] = side, emblems
  if not orders:
    return survey(rng, scene, target, to_model_box)
  side, emblems = draw_reference(rng, orders)
  answer = ', '.join(map(_name_look, emblems))
  return Exchange(
      question=pick(rng, vocabulary.GROUNDING['list']).format(side=side),
      answer=answer,
  )


def _name_look(emblem: scenes.Emblem) -> str:
  return f'{emblem.identity.colour} {emblem.identity.shape}'


def _write(box: Sequence[float]) -> str:
  """Writes a box among words as a call does: they are the same tokens."""
  sides = ','.join(str(int(side)) for side in box)
  return f'{vocabulary.BOX_START}{sides}{vocabulary.BOX_END}'

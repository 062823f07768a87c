"""Unambiguous references to a scene's emblems, and what they give away."""

from __future__ import annotations

from collections.abc import Mapping
import dataclasses
from typing import TypeVar

import numpy as np

from gog_jax.toy import vocabulary
from gog_jax.toy.scenes import Emblem
from gog_jax.toy.scenes import Identity
from gog_jax.toy.scenes import Scene

T = TypeVar('T')

# Centres closer than this many pixels along an axis do not count as ordered:
# the toy model sees the picture at half the size.
CLEAR = 20

# Name of the place: (axis, sign); sign -1 where it is the smaller coordinate.
PLACES = {
    'left': (0, -1),
    'right': (0, 1),
    'top': (1, -1),
    'bottom': (1, 1),
}
# Weights of references by place in lessons; all others weigh 1. A base learns
# places last, and left and right after top and bottom, because it reads a
# picture row by row (docs/log.md).
_EMPHASIS = {'left': 6, 'right': 6, 'top': 2, 'bottom': 2}
# References that would give away the answer, by what is asked.
_TELLING = {
    'colour': ('colour', 'both', 'pattern'),
    'shape': ('both', 'pattern'),
    'pattern': ('pattern',),
}


def references(
    scene: Scene, target: Emblem, *, asked: str = ''
) -> dict[str, str]:
  """Returns every reference that fits `target` alone.

  Args:
    scene: Where it stands.
    target: One of the scene's emblems.
    asked: What of it is asked, a key of `vocabulary.QUESTIONS`; references
      that give the answer away are left out.

  Returns:
    Kind (a key of `vocabulary.REFERENCES`) to text, e.g. 'top' to 'the top
    emblem'. Unless colour, shape or pattern is asked, there is always one by
    colour, or for a twin by pattern.
  """
  own = target.identity
  others = [emblem for emblem in scene.emblems if emblem is not target]
  colours = {other.identity.colour for other in others}
  # Kind to the colour that it names, if any.
  slots: dict[str, str | None] = {}
  if own.colour in colours:
    slots['pattern'] = own.colour
  else:
    slots['colour'] = slots['both'] = own.colour
    if len(others) == 1:
      slots['other'] = others[0].identity.colour
  if scene.main:
    slots['big' if target is scene.emblems[0] else 'small'] = None
  for kind, (axis, sign) in PLACES.items():
    ahead = [
        sign * (target.centre[axis] - other.centre[axis]) for other in others
    ]
    if min(ahead) >= CLEAR:
      slots[kind] = None
  return {
      kind: vocabulary.REFERENCES[kind].format(
          colour=colour, shape=own.shape, pattern=own.pattern
      )
      for kind, colour in slots.items()
      if kind not in _TELLING.get(asked, ())
  }


def draw_reference(rng: np.random.Generator, known: Mapping[str, T]) -> T:
  """Draws one value of `known`, by the weights of their kinds in lessons."""
  emphasis = np.array([_EMPHASIS.get(kind, 1) for kind in known])
  index = rng.choice(len(known), p=emphasis / emphasis.sum())
  return tuple(known.values())[index]


def first_of(one: Emblem, other: Emblem) -> Emblem:
  """The left one of two, or the upper one where neither is clearly left.

  The order in which experts look at twins.
  """
  x, y = (a - b for a, b in zip(one.centre, other.centre, strict=True))
  return other if (x if abs(x) >= CLEAR else y) > 0 else one


def first_look(scene: Scene, target: Emblem, ref: str) -> Emblem:
  """Where to look first: at the target, or at the first of its twins.

  A glance does not show which of the twins has the pattern that `ref` names.
  """
  if tells_pattern(ref, target.identity):
    return first_of(*scene.emblems[:2])
  return target


def tells_pattern(ref: str, meant: Identity) -> bool:
  """Whether a reference names the pattern, which only a gaze shows."""
  return meant.pattern in ref.split()


def asks_by_place(question: str) -> bool:
  """Whether a question's reference says where its emblem stands."""
  return any(vocabulary.REFERENCES[place] in question for place in PLACES)


@dataclasses.dataclass(frozen=True)
class Sought:
  """What a question seeks, put into words.

  Attributes:
    identity: The identity of the emblem that is meant.
    ref: The question's reference to it.
    asked: What of it is asked: a key of `vocabulary.QUESTIONS`, or 'box'.
  """

  identity: Identity
  ref: str
  asked: str

  @property
  def by_pattern(self) -> bool:
    """Whether only a gaze can tell which emblem is meant."""
    return tells_pattern(self.ref, self.identity)

  def __str__(self) -> str:
    pattern = self.identity.pattern if self.by_pattern else vocabulary.ANY
    known = dataclasses.replace(self.identity, pattern=pattern)
    return known.describe(vocabulary.SOUGHT, asked=self.asked)

  def think(self, kind: str) -> str:
    """A thought of a kind (of `vocabulary.THOUGHTS`) about the emblem."""
    return self.identity.describe(
        vocabulary.THOUGHTS[kind],
        ref=vocabulary.in_short(self.ref),
        asked=self.asked,
        sought=str(self),
    )

  def reflect(self, shown: str, thought: str) -> str:
    """Puts what is sought and what a hit showed before a thought about it.

    Side by side, word by word: a small model cannot compare at a distance.

    Args:
      shown: What the image hit says after the name.
      thought: What follows from it.
    """
    return vocabulary.REFLECTION.format(
        sought=self, shown=shown, thought=thought
    )

"""Pretraining on pictures: see, point, and think about what was pointed at.

The tasks ask in the words of the agent's questions, show texts that look like
search hits and are answered as agents answer, so what is learnt carries over.
What tools there are, when to use which and what they reply is not in them.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
import dataclasses

import numpy as np

from gog_jax.world import scenes
from gog_jax.world import vocabulary
from gog_jax.world.exchange import Exchange
from gog_jax.world.exchange import pick
from gog_jax.world.exchange import ToModelBox
from gog_jax.world.knowledge import names_of
from gog_jax.world.references import CLEAR
from gog_jax.world.references import PLACES
from gog_jax.world.references import references
from gog_jax.world.references import reflect
from gog_jax.world.references import think

_P_MAIN = 0.15


def ask(
    rng: np.random.Generator,
    scene: scenes.Scene,
    to_model_box: ToModelBox,
    *,
    kind: str,
    show: bool,
) -> Exchange:
  """Makes an exchange about a scene.

  Args:
    rng: Where every choice comes from: the same state, the same exchange.
    scene: From `draw_scene`, say.
    to_model_box: From pixels of the 168 x 168 scene to the frame in which the
      model sees it.
    kind: Of `KINDS`.
    show: Whether the scene's image comes with it.
  """
  target = scene.emblems[rng.integers(len(scene.emblems))]
  exchange = _TASKS[kind](rng, scene, target, to_model_box)
  return _show(exchange, scene.data) if show else exchange


def _show(exchange: Exchange, image: bytes) -> Exchange:
  """Puts an image first of all."""
  if exchange.before is not None:
    return dataclasses.replace(exchange, before=_show(exchange.before, image))
  return dataclasses.replace(exchange, images=(image, *exchange.images))


def draw_scene(
    rng: np.random.Generator, *, twins: float = 0.3
) -> scenes.Scene:
  """Draws a scene with any emblems, of different colours but for twins.

  Args:
    rng: Where every choice comes from.
    twins: Share of the scenes (but of those with a big emblem) that hold some.
  """
  main = bool(rng.random() < _P_MAIN)
  # Fewer than in questions: which emblem is meant is learnt from few first.
  count = 2 if main else int(rng.choice((2, 3, 4), p=(0.4, 0.33, 0.27)))
  n_patterns = len(vocabulary.PATTERNS)
  n_looks = len(scenes.IDENTITIES) // len(vocabulary.COLOURS)
  indices = [
      colour * n_looks + int(rng.integers(n_looks))
      for colour in rng.permutation(len(vocabulary.COLOURS))[:count]
  ]
  if not main and rng.random() < twins:
    start = indices[0] - indices[0] % n_patterns
    indices[:2] = start + rng.permutation(n_patterns)[:2]
  identities = tuple(scenes.IDENTITIES[index] for index in indices)
  return scenes.make_scene(rng, identities, main=main)


def _refer(
    rng: np.random.Generator,
    scene: scenes.Scene,
    target: scenes.Emblem,
    asked: str = '',
) -> str:
  """Draws a reference that tells not what is asked; '' if there is none."""
  known = tuple(references(scene, target, asked=asked).values())
  return pick(rng, known) if known else ''


def _sides(box: Sequence[float]) -> tuple[int, ...]:
  return tuple(int(side) for side in box)


def _write(box: Sequence[float]) -> str:
  """Writes a box among words as a call does: they are the same tokens."""
  sides = ','.join(map(str, _sides(box)))
  return f'{vocabulary.BOX_START}{sides}{vocabulary.BOX_END}'


def _name_look(emblem: scenes.Emblem) -> str:
  return f'{emblem.identity.colour} {emblem.identity.shape}'


def _describe(emblem: scenes.Emblem) -> str:
  return f'{emblem.identity.pattern} {_name_look(emblem)}'


def _box(
    rng: np.random.Generator,
    scene: scenes.Scene,
    target: scenes.Emblem,
    to_model_box: ToModelBox,
) -> Exchange:
  ref = _refer(rng, scene, target)
  exchange, _ = _point(rng, target.identity, ref, to_model_box(target.box))
  return exchange


def _point(
    rng: np.random.Generator,
    meant: scenes.Identity,
    ref: str,
    box: Sequence[float],
) -> tuple[Exchange, str]:
  """Asks for an emblem's box, or for what no picture tells, and points.

  The latter in the agent's words: all that can be said of it is where to look.

  Returns:
    That, and which it is: a key of `vocabulary.QUESTIONS`, or 'box'.
  """
  asked = pick(rng, ('box', 'name', *vocabulary.ATTRIBUTES))
  lines = vocabulary.QUESTIONS.get(asked) or vocabulary.GROUNDING[asked]
  exchange = Exchange(
      question=pick(rng, lines).format(ref=ref),
      thought=think('find', meant, ref, asked),
      gaze=_sides(box),
  )
  return exchange, asked


def _look(
    rng: np.random.Generator,
    scene: scenes.Scene,
    target: scenes.Emblem,
    to_model_box: ToModelBox,
) -> Exchange:
  """Asks what an agent is asked that needs no search, which emblem first."""
  del to_model_box
  while True:
    kind = pick(rng, ('colour', 'shape', 'colour', 'shape', 'count'))
    lines = vocabulary.QUESTIONS[kind]
    if kind == 'count':
      count = len(scene.emblems)
      thought = vocabulary.THOUGHTS['count'].format(count=count)
      return Exchange(
          question=pick(rng, lines), thought=thought, answer=str(count)
      )
    ref = _refer(rng, scene, target, kind)
    if ref:
      return Exchange(
          question=pick(rng, lines).format(ref=ref),
          thought=think('see', target.identity, ref, kind),
          answer=getattr(target.identity, kind),
      )


def _cut(
    rng: np.random.Generator,
    scene: scenes.Scene,
    target: scenes.Emblem,
    to_model_box: ToModelBox,
) -> bytes:
  """Crops an emblem as a policy does: at corners that it can write."""
  *_, whole = to_model_box((0.0, 0.0, float(scenes.SIZE), float(scenes.SIZE)))
  scale = scenes.SIZE / whole
  x1, y1, x2, y2 = (side * scale for side in to_model_box(target.box))
  out = rng.random(4) < 0.1  # Which sides have some room around.
  step = scenes.SIZE / 12
  return scenes.crop(
      scene.data,
      (
          max(x1 - step * out[0], 0.0),
          max(y1 - step * out[1], 0.0),
          min(x2 + step * out[2], float(scenes.SIZE)),
          min(y2 + step * out[3], float(scenes.SIZE)),
      ),
  )


def _crop(
    rng: np.random.Generator,
    scene: scenes.Scene,
    target: scenes.Emblem,
    to_model_box: ToModelBox,
) -> Exchange:
  question = pick(rng, vocabulary.GROUNDING['crop'])
  return Exchange(
      images=(_cut(rng, scene, target, to_model_box),),
      question=question,
      answer=_describe(target),
  )


def _survey(
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


def _list(
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
      orders[side] = emblems
  if not orders:
    return _survey(rng, scene, target, to_model_box)
  side = pick(rng, tuple(orders))
  answer = ', '.join(map(_name_look, orders[side]))
  return Exchange(
      question=pick(rng, vocabulary.GROUNDING['list']).format(side=side),
      answer=answer,
  )


def _image_hit(name: str, emblem: scenes.Emblem, match: str) -> str:
  return vocabulary.IMAGE_HIT.format(
      name=name, match=match, **dataclasses.asdict(emblem.identity)
  )


def _switch(
    rng: np.random.Generator,
    scene: scenes.Scene,
    target: scenes.Emblem,
    to_model_box: ToModelBox,
) -> Exchange:
  """After a look at a wrong emblem: what follows, and where the right one is.

  Of twins it is the other one.
  """
  others = [emblem for emblem in scene.emblems if emblem is not target]
  twins = [e for e in others if e.identity.looks_like(target.identity)]
  wrong = pick(rng, twins or others)
  thought = 'twin' if twins else 'again'
  exchange, _ = _look_at(rng, scene, target, wrong, thought, to_model_box)
  box = _sides(to_model_box(target.box))
  return dataclasses.replace(exchange, gaze=box)


def _confirm(
    rng: np.random.Generator,
    scene: scenes.Scene,
    target: scenes.Emblem,
    to_model_box: ToModelBox,
) -> Exchange:
  """After a look at the right emblem: what follows, and its name."""
  exchange, name = _look_at(rng, scene, target, target, 'name', to_model_box)
  return dataclasses.replace(exchange, answer=name)


def _look_at(
    rng: np.random.Generator,
    scene: scenes.Scene,
    target: scenes.Emblem,
    seen: scenes.Emblem,
    thought: str,
    to_model_box: ToModelBox,
) -> tuple[Exchange, str]:
  """Asks for an emblem, looks at one and shows what an agent would see.

  Returns:
    That and the thought which follows, and the name of what was seen.
  """
  meant = target.identity
  known = references(scene, target)
  # Of twins it has to be told which is meant: all else is no mistake.
  ref = known.get('pattern') or pick(rng, tuple(known.values()))
  before, asked = _point(rng, meant, ref, to_model_box(seen.box))
  # A weak match is no sign of a wrong look: there may be none better.
  name = pick(rng, names_of('train'))
  hit = _image_hit(name, seen, vocabulary.STRONG)
  exchange = Exchange(
      images=(_cut(rng, scene, seen, to_model_box),),
      question=hit,
      thought=reflect(
          hit.partition(' ')[2],
          think(thought, meant, ref, asked),
          meant,
          ref,
          asked,
      ),
      before=before,
  )
  return exchange, name


def _link(
    rng: np.random.Generator,
    scene: scenes.Scene,
    target: scenes.Emblem,
    to_model_box: ToModelBox,
) -> Exchange:
  """Shows the name of an emblem, or of two, and asks the one in a place."""
  del to_model_box
  shown = [emblem for emblem in scene.emblems if emblem is not target]
  shown = [target, *shown[: int(rng.integers(2))]]
  pool = names_of('train')
  names = [pool[i] for i in rng.choice(len(pool), len(shown), replace=False)]
  lines = [
      _image_hit(name, emblem, pick(rng, vocabulary.MATCHES))
      for name, emblem in zip(names, shown, strict=True)
  ]
  ref = _refer(rng, scene, target)
  shuffled = [lines[i] for i in rng.permutation(len(lines))]
  question = pick(rng, vocabulary.QUESTIONS['name']).format(ref=ref)
  return Exchange(question='\n'.join((*shuffled, question)), answer=names[0])


_TASKS: dict[str, Callable[..., Exchange]] = {
    'survey': _survey,
    'list': _list,
    'box': _box,
    'look': _look,
    'crop': _crop,
    'link': _link,
    'switch': _switch,
    'confirm': _confirm,
}
KINDS = tuple(_TASKS)

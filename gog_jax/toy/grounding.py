"""Pretraining on pictures: see, point, and think about what was pointed at.

The tasks ask in the words of the agent's questions and are answered as agents
answer, replies of tools stand where they will, so what is learnt carries over.
Each is about one step: what follows from a reply, not how a question is solved.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
import dataclasses

import numpy as np

from gog_jax.toy import scenes
from gog_jax.toy import surveys
from gog_jax.toy import vocabulary
from gog_jax.toy.exchange import Exchange
from gog_jax.toy.exchange import pick
from gog_jax.toy.exchange import ToModelBox
from gog_jax.toy.knowledge import names_of
from gog_jax.toy.references import draw_reference
from gog_jax.toy.references import first_look
from gog_jax.toy.references import first_of
from gog_jax.toy.references import references
from gog_jax.toy.references import reflect
from gog_jax.toy.references import tells_pattern
from gog_jax.toy.references import think

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
  known = references(scene, target, asked=asked)
  return draw_reference(rng, known) if known else ''


def _sides(box: Sequence[float]) -> tuple[int, ...]:
  return tuple(int(side) for side in box)


def _box(
    rng: np.random.Generator,
    scene: scenes.Scene,
    target: scenes.Emblem,
    to_model_box: ToModelBox,
) -> Exchange:
  ref = _refer(rng, scene, target)
  box = to_model_box(first_look(scene, target, ref).box)
  exchange, _ = _point(rng, target.identity, ref, box)
  return exchange


def _point(
    rng: np.random.Generator,
    meant: scenes.Identity,
    ref: str,
    box: Sequence[float],
) -> tuple[Exchange, str]:
  """Asks for an emblem's box, or for what no picture tells, and points.

  The latter in the agent's words: all that can be said of it is where to look.

  Args:
    rng: Where every choice comes from.
    meant: The emblem asked about.
    ref: The reference to it.
    box: What is pointed at.

  Returns:
    That, and what is asked: a key of `vocabulary.QUESTIONS`, or 'box'.
  """
  asked = pick(rng, ('box', 'name', 'pattern', *vocabulary.ATTRIBUTES))
  if asked == 'pattern' and tells_pattern(ref, meant):
    asked = 'name'
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
    # Emblems are soon counted.
    kind = pick(rng, (*4 * ('colour', 'shape'), 'count'))
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
      answer=vocabulary.LOOK_QUERY.format(
          **dataclasses.asdict(target.identity)
      ),
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

  Of twins, where there are any, it is the second one.
  """
  others = [emblem for emblem in scene.emblems if emblem is not target]
  wrong, thought = pick(rng, others), 'again'
  twin, other = scene.emblems[:2]
  if twin.identity.looks_like(other.identity):
    wrong, thought = first_of(twin, other), 'twin'
    target = other if wrong is twin else twin
  exchange, ref, asked = _look_at(rng, scene, target, wrong, to_model_box)
  said = think(thought, target.identity, ref, asked)
  return dataclasses.replace(
      _reflect_on(exchange, said, target, ref, asked),
      gaze=_sides(to_model_box(target.box)),
  )


def _confirm(
    rng: np.random.Generator,
    scene: scenes.Scene,
    target: scenes.Emblem,
    to_model_box: ToModelBox,
) -> Exchange:
  """After a look at the right emblem: what follows, and its name or pattern.

  Or else the text search that has to follow.
  """
  exchange, ref, asked = _look_at(rng, scene, target, target, to_model_box)
  name = exchange.question.split()[0]
  answer = query = ''
  if asked in vocabulary.ATTRIBUTES:
    slots = {'attribute': asked, 'name': name}
    said = vocabulary.THOUGHTS['need'].format(**slots)
    query = vocabulary.TEXT_QUERY.format(**slots)
  else:
    kind = 'pattern' if asked == 'pattern' else 'name'
    said = think(kind, target.identity, ref, asked)
    answer = target.identity.pattern if asked == 'pattern' else name
  return dataclasses.replace(
      _reflect_on(exchange, said, target, ref, asked),
      answer=answer,
      query=query,
  )


def _look_at(
    rng: np.random.Generator,
    scene: scenes.Scene,
    target: scenes.Emblem,
    seen: scenes.Emblem,
    to_model_box: ToModelBox,
) -> tuple[Exchange, str, str]:
  """Asks for an emblem, looks at one and shows what an agent would see.

  Returns:
    That, the reference, and what is asked as from `_point`.
  """
  known = references(scene, target)
  # Of twins it has to be told which is meant: all else is no mistake.
  ref = known.get('pattern') or pick(rng, tuple(known.values()))
  before, asked = _point(rng, target.identity, ref, to_model_box(seen.box))
  # A weak match is no sign of a wrong look: there may be none better.
  name = pick(rng, names_of('train'))
  exchange = Exchange(
      images=(_cut(rng, scene, seen, to_model_box),),
      question=_image_hit(name, seen, vocabulary.STRONG),
      before=before,
  )
  return exchange, ref, asked


def _reflect_on(
    exchange: Exchange,
    thought: str,
    target: scenes.Emblem,
    ref: str,
    asked: str,
) -> Exchange:
  shown = exchange.question.partition(' ')[2]
  return dataclasses.replace(
      exchange, thought=reflect(shown, thought, target.identity, ref, asked)
  )


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
    'survey': surveys.survey,
    'list': surveys.list_from_a_side,
    'box': _box,
    'look': _look,
    'crop': _crop,
    'link': _link,
    'switch': _switch,
    'confirm': _confirm,
}
KINDS = tuple(_TASKS)

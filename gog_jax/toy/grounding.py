"""Pretraining on pictures: see, point, and think about what was pointed at.

Tasks use the words of the agent's questions and are answered as an agent
answers, with tool replies where they will stand later, so what is learnt
carries over. Each task is one step: what follows from a reply, not how a
question is solved.
"""

from __future__ import annotations

import dataclasses
from typing import Any

import numpy as np

from gog_jax.toy import scenes
from gog_jax.toy import vocabulary
from gog_jax.toy.exchange import Calls
from gog_jax.toy.exchange import Exchange
from gog_jax.toy.exchange import gaze
from gog_jax.toy.exchange import text_search
from gog_jax.toy.exchange import ToModelBox
from gog_jax.toy.knowledge import draw_names
from gog_jax.toy.knowledge import names_of
from gog_jax.toy.knowledge import pick
from gog_jax.toy.references import CLEAR
from gog_jax.toy.references import draw_reference
from gog_jax.toy.references import first_look
from gog_jax.toy.references import first_of
from gog_jax.toy.references import PLACES
from gog_jax.toy.references import references
from gog_jax.toy.references import Sought
from gog_jax.toy.references import tells_pattern

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
    kind: One of `KINDS`.
    show: Whether the scene's image comes with it.
  """
  target = scene.emblems[rng.integers(len(scene.emblems))]
  exchange = _TASKS[kind](_Task(rng, scene, target, to_model_box))
  return _show(exchange, scene.data) if show else exchange


def _show(exchange: Exchange, image: bytes) -> Exchange:
  """Puts an image before everything else."""
  if exchange.before is not None:
    return dataclasses.replace(exchange, before=_show(exchange.before, image))
  return dataclasses.replace(exchange, images=(image, *exchange.images))


def draw_scene(rng: np.random.Generator, *, twins: float = 0.3) -> scenes.Scene:
  """Draws a scene of any emblems; only twins share a colour.

  Args:
    rng: Where every choice comes from.
    twins: Share of scenes without a big emblem that hold twins.
  """
  main = bool(rng.random() < _P_MAIN)
  # Fewer than in questions: references are learnt first among few emblems.
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


@dataclasses.dataclass(frozen=True)
class _Task:
  """Makes one exchange about a scene; choices are drawn from `rng`."""

  rng: np.random.Generator
  scene: scenes.Scene
  target: scenes.Emblem
  to_model_box: ToModelBox

  def survey(self) -> Exchange:
    """Asks for every emblem and its box, in the order of their colours.

    Ordering by colour needs no sense of place, and the colour comes first: to
    find a place by what was just said is learnt sooner than the reverse.
    """
    order = vocabulary.COLOURS.index
    emblems = sorted(
        self.scene.emblems,
        key=lambda emblem: (order(emblem.identity.colour), emblem.box),
    )
    # Written as in a call, with the same tokens.
    answer = ', '.join(
        f'{_look(emblem)} {vocabulary.BOX_START}'
        f'{",".join(map(str, self.to_model_box(emblem.box)))}'
        + vocabulary.BOX_END
        for emblem in emblems
    )
    question = pick(self.rng, vocabulary.GROUNDING['survey'])
    return Exchange(question=question, answer=answer)

  def in_order(self) -> Exchange:
    """Asks for every emblem in order of place.

    One answer resolves as many references to places as there are emblems.
    Where there is no clear order, neither sideways nor downwards, it surveys.
    """
    orders = {}
    for side, (axis, sign) in PLACES.items():
      emblems = sorted(
          self.scene.emblems, key=lambda emblem: -sign * emblem.centre[axis]
      )
      steps = np.diff([emblem.centre[axis] for emblem in emblems])
      if np.abs(steps).min() >= CLEAR:
        orders[side] = side, emblems
    if not orders:
      return self.survey()
    side, emblems = draw_reference(self.rng, orders)
    question = pick(self.rng, vocabulary.GROUNDING['list']).format(side=side)
    return Exchange(question=question, answer=', '.join(map(_look, emblems)))

  def box(self) -> Exchange:
    ref = self._refer()
    exchange, _ = self._point(ref, first_look(self.scene, self.target, ref))
    return exchange

  def look(self) -> Exchange:
    """Asks a question that needs no search; the thought names the emblem."""
    while True:
      # Counting is learnt soon.
      kind = pick(self.rng, (*4 * ('colour', 'shape'), 'count'))
      lines = vocabulary.QUESTIONS[kind]
      if kind == 'count':
        count = str(len(self.scene.emblems))
        return Exchange(
            question=pick(self.rng, lines),
            thought=vocabulary.THOUGHTS['count'].format(count=count),
            answer=count,
        )
      if ref := self._refer(kind):
        return Exchange(
            question=pick(self.rng, lines).format(ref=ref),
            thought=Sought(self.target.identity, ref, kind).think('see'),
            answer=getattr(self.target.identity, kind),
        )

  def crop(self) -> Exchange:
    return Exchange(
        question=pick(self.rng, vocabulary.GROUNDING['crop']),
        images=(self._cut(self.target),),
        answer=self.target.identity.describe(vocabulary.LOOK_QUERY),
    )

  def link(self) -> Exchange:
    """Shows the names of one or two emblems and asks for the target's."""
    others = [one for one in self.scene.emblems if one is not self.target]
    shown = [self.target, *others[: int(self.rng.integers(2))]]
    names = draw_names(self.rng, len(shown), 'train')
    lines = [
        emblem.identity.hit(name, pick(self.rng, vocabulary.MATCHES))
        for name, emblem in zip(names, shown, strict=True)
    ]
    ref = self._refer()
    shuffled = [lines[i] for i in self.rng.permutation(len(lines))]
    question = pick(self.rng, vocabulary.QUESTIONS['name']).format(ref=ref)
    return Exchange(question='\n'.join((*shuffled, question)), answer=names[0])

  def switch(self) -> Exchange:
    """After a look at the wrong emblem: a gaze at the right one.

    Where there are twins, the right one is the second of them.
    """
    others = [one for one in self.scene.emblems if one is not self.target]
    task, wrong, thought = self, pick(self.rng, others), 'again'
    twin, other = self.scene.emblems[:2]
    if twin.identity.looks_like(other.identity):
      wrong, thought = first_of(twin, other), 'twin'
      right = other if wrong is twin else twin
      task = dataclasses.replace(self, target=right)
    exchange, sought = task._look_at(wrong)
    said = sought.think(thought)
    return _reflect(exchange, sought, said, calls=task._gaze(task.target))

  def confirm(self) -> Exchange:
    """After a look at the right emblem: name, pattern or a text search."""
    exchange, sought = self._look_at(self.target)
    name = exchange.question.split()[0]
    if sought.asked in vocabulary.ATTRIBUTES:
      slots = {'attribute': sought.asked, 'name': name}
      said = vocabulary.THOUGHTS['need'].format(**slots)
      calls = text_search(vocabulary.TEXT_QUERY.format(**slots))
      return _reflect(exchange, sought, said, calls=calls)
    if sought.asked == 'pattern':
      said, answer = sought.think('pattern'), self.target.identity.pattern
    else:
      said, answer = sought.think('name'), name
    return _reflect(exchange, sought, said, answer=answer)

  def _refer(self, asked: str = '') -> str:
    """Draws a reference that does not give the answer away; '' if none."""
    known = references(self.scene, self.target, asked=asked)
    return draw_reference(self.rng, known) if known else ''

  def _gaze(self, emblem: scenes.Emblem) -> Calls:
    return gaze(self.to_model_box(emblem.box))

  def _point(self, ref: str, seen: scenes.Emblem) -> tuple[Exchange, Sought]:
    """Asks for the target's box, or a question that needs a search; gazes.

    Args:
      ref: The reference to the target.
      seen: What is pointed at.
    """
    asked = pick(self.rng, ('box', 'name', 'pattern', *vocabulary.ATTRIBUTES))
    if asked == 'pattern' and tells_pattern(ref, self.target.identity):
      asked = 'name'
    lines = vocabulary.QUESTIONS.get(asked) or vocabulary.GROUNDING[asked]
    sought = Sought(self.target.identity, ref, asked)
    exchange = Exchange(
        question=pick(self.rng, lines).format(ref=ref),
        thought=sought.think('find'),
        calls=self._gaze(seen),
    )
    return exchange, sought

  def _look_at(self, seen: scenes.Emblem) -> tuple[Exchange, Sought]:
    """Asks for the target, looks at an emblem and shows what came of it."""
    known = references(self.scene, self.target)
    # Among twins the pattern has to be given, or looking at one is no mistake.
    ref = known.get('pattern') or pick(self.rng, tuple(known.values()))
    before, sought = self._point(ref, seen)
    # Strong: a weak match does not mean a wrong look, there may be no better.
    name = pick(self.rng, names_of('train'))
    hit = seen.identity.hit(name, vocabulary.STRONG)
    images = (self._cut(seen),)
    return Exchange(images=images, question=hit, before=before), sought

  def _cut(self, emblem: scenes.Emblem) -> bytes:
    """Crops an emblem as a policy would, at corners that it can write."""
    size = float(scenes.SIZE)
    scale = scenes.SIZE / self.to_model_box((0.0, 0.0, size, size))[-1]
    box = np.array(self.to_model_box(emblem.box)) * scale
    # Some sides leave some room.
    step = np.array((-1, -1, 1, 1)) * scenes.SIZE / 12
    box += step * (self.rng.random(4) < 0.1)
    x1, y1, x2, y2 = np.clip(box, 0, size)
    return scenes.crop(self.scene.data, (x1, y1, x2, y2))


def _look(emblem: scenes.Emblem) -> str:
  return f'{emblem.identity.colour} {emblem.identity.shape}'


def _reflect(
    exchange: Exchange, sought: Sought, thought: str, **said: Any
) -> Exchange:
  shown = exchange.question.partition(' ')[2]
  thought = sought.reflect(shown, thought)
  return dataclasses.replace(exchange, thought=thought, **said)


_TASKS = {
    'survey': _Task.survey,
    'list': _Task.in_order,
    'box': _Task.box,
    'look': _Task.look,
    'crop': _Task.crop,
    'link': _Task.link,
    'switch': _Task.switch,
    'confirm': _Task.confirm,
}
KINDS = tuple(_TASKS)

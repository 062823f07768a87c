"""Pretraining: see, point and read, in plain chat that knows no tools.

The tasks ask about pictures in the words that the agent's questions use, so
what is learnt carries over; recalling facts from documents is learnt on texts
that look like search hits.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
import dataclasses

import numpy as np

from gog_jax.types import Box
from gog_jax.world import scenes
from gog_jax.world import vocabulary
from gog_jax.world.knowledge import names_of
from gog_jax.world.references import references

# Takes a box in pixels of the scene, returns it in the model's frame.
ToModelBox = Callable[[Box], Sequence[int]]


@dataclasses.dataclass(frozen=True)
class Exchange:
  """A question and its answer, in a conversation about one scene.

  Attributes:
    images: Shown with the question: the scene with the first one, and where
      the question is about a crop, the crop.
    question: Plain text.
    answer: Plain text; boxes are written as `[x1,y1,x2,y2]`.
  """

  images: tuple[bytes, ...]
  question: str
  answer: str


_P_MAIN = 0.15


def lesson(
    rng: np.random.Generator, to_model_box: ToModelBox, *, n_exchanges: int
) -> tuple[Exchange, ...]:
  """Makes one pretraining conversation: a scene, and questions about it.

  Several questions share a scene because looking is what costs.

  Args:
    rng: Where every choice comes from: the same state, the same lesson.
    to_model_box: From pixels of the 168 x 168 scene to the frame in which the
      model sees it.
    n_exchanges: How many questions.
  """
  scene = _draw_scene(rng)
  exchanges = []
  for index in range(n_exchanges):
    kind = str(rng.choice(KINDS, p=_SHARES))
    exchanges.append(
        _task(rng, kind, scene, to_model_box, first=index == 0)
    )
  return tuple(exchanges)


def task(
    rng: np.random.Generator, kind: str, to_model_box: ToModelBox
) -> Exchange:
  """Makes one task of a kind (of `KINDS`) about a scene of its own."""
  return _task(rng, kind, _draw_scene(rng), to_model_box, first=True)


def _task(
    rng: np.random.Generator,
    kind: str,
    scene: scenes.Scene,
    to_model_box: ToModelBox,
    *,
    first: bool,
) -> Exchange:
  target = scene.emblems[rng.integers(len(scene.emblems))]
  _, make = _TASKS[kind]
  exchange = make(rng, scene, target, to_model_box)
  if not first:
    return exchange
  return dataclasses.replace(exchange, images=(scene.data, *exchange.images))


def _pick(rng: np.random.Generator, options: Sequence[str]) -> str:
  return options[int(rng.integers(len(options)))]


def _draw_scene(rng: np.random.Generator) -> scenes.Scene:
  main = bool(rng.random() < _P_MAIN)
  # Fewer than in questions: which emblem is meant is learnt from few first.
  count = 2 if main else int(rng.choice((2, 3, 4), p=(0.5, 0.3, 0.2)))
  n_looks = len(scenes.IDENTITIES) // len(vocabulary.COLOURS)
  identities = tuple(
      scenes.IDENTITIES[colour * n_looks + int(rng.integers(n_looks))]
      for colour in rng.permutation(len(vocabulary.COLOURS))[:count]
  )
  return scenes.make_scene(rng, identities, main=main)


def _refer(
    rng: np.random.Generator,
    scene: scenes.Scene,
    target: scenes.Emblem,
    telling: tuple[str, ...] = (),
) -> str | None:
  known = references(scene, target)
  options = [text for kind, text in known.items() if kind not in telling]
  return _pick(rng, options) if options else None


def _write(box: Sequence[int]) -> str:
  return '[' + ','.join(str(int(side)) for side in box) + ']'


def _describe(emblem: scenes.Emblem) -> str:
  identity = emblem.identity
  return f'{identity.colour} {identity.shape} {identity.pattern}'


def _box(
    rng: np.random.Generator,
    scene: scenes.Scene,
    target: scenes.Emblem,
    to_model_box: ToModelBox,
) -> Exchange:
  ref = _refer(rng, scene, target)
  question = _pick(rng, vocabulary.GROUNDING['box']).format(ref=ref)
  return Exchange((), question, _write(to_model_box(target.box)))


def _look(
    rng: np.random.Generator,
    scene: scenes.Scene,
    target: scenes.Emblem,
    to_model_box: ToModelBox,
) -> Exchange:
  """Asks what an agent is asked that needs no search."""
  del to_model_box
  while True:
    kind = _pick(rng, ('colour', 'shape', 'pattern', 'count'))
    lines = vocabulary.QUESTIONS[kind]
    if kind == 'count':
      return Exchange((), _pick(rng, lines), str(len(scene.emblems)))
    ref = _refer(rng, scene, target, (kind, 'both'))
    if ref is not None:
      answer = getattr(target.identity, kind)
      return Exchange((), _pick(rng, lines).format(ref=ref), answer)


def _describe_task(
    rng: np.random.Generator,
    scene: scenes.Scene,
    target: scenes.Emblem,
    to_model_box: ToModelBox,
) -> Exchange:
  del to_model_box
  ref = _refer(rng, scene, target)
  question = _pick(rng, vocabulary.GROUNDING['describe']).format(ref=ref)
  return Exchange((), question, _describe(target))


def _at(
    rng: np.random.Generator,
    scene: scenes.Scene,
    target: scenes.Emblem,
    to_model_box: ToModelBox,
) -> Exchange:
  box = _write(to_model_box(target.box))
  question = _pick(rng, vocabulary.GROUNDING['at']).format(box=box)
  return Exchange((), question, _describe(target))


def _cut(
    rng: np.random.Generator, scene: scenes.Scene, target: scenes.Emblem
) -> bytes:
  """Crops an emblem about as well as a policy does."""
  low, high = rng.integers(-3, 9, size=2), rng.integers(-3, 9, size=2)
  x1, y1, x2, y2 = target.box
  return scenes.crop(
      scene.data,
      (
          max(x1 - float(low[0]), 0.0),
          max(y1 - float(low[1]), 0.0),
          min(x2 + float(high[0]), float(scenes.SIZE)),
          min(y2 + float(high[1]), float(scenes.SIZE)),
      ),
  )


def _crop(
    rng: np.random.Generator,
    scene: scenes.Scene,
    target: scenes.Emblem,
    to_model_box: ToModelBox,
) -> Exchange:
  del to_model_box
  question = _pick(rng, vocabulary.GROUNDING['crop'])
  return Exchange((_cut(rng, scene, target),), question, _describe(target))


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
      f'{_describe(emblem)} {_write(to_model_box(emblem.box))}'
      for emblem in sorted(
          scene.emblems, key=lambda emblem: order(emblem.identity.colour)
      )
  )
  return Exchange((), _pick(rng, vocabulary.GROUNDING['survey']), answer)


def _image_hit(
    rng: np.random.Generator, name: str, emblem: scenes.Emblem
) -> str:
  return vocabulary.IMAGE_HIT.format(
      name=name,
      colour=emblem.identity.colour,
      shape=emblem.identity.shape,
      match=_pick(rng, vocabulary.MATCHES),
  )


def _switch(
    rng: np.random.Generator,
    scene: scenes.Scene,
    target: scenes.Emblem,
    to_model_box: ToModelBox,
) -> Exchange:
  """After a hit that shows the wrong emblem, asks for the right one."""
  others = [emblem for emblem in scene.emblems if emblem is not target]
  wrong = others[rng.integers(len(others))]
  name = _pick(rng, names_of('train'))
  question = _pick(rng, vocabulary.GROUNDING['switch']).format(
      text=_image_hit(rng, name, wrong),
      colour=target.identity.colour,
      shape=target.identity.shape,
  )
  return Exchange((), question, _write(to_model_box(target.box)))


def _recall(
    rng: np.random.Generator,
    scene: scenes.Scene,
    target: scenes.Emblem,
    to_model_box: ToModelBox,
) -> Exchange:
  """States facts and asks for one, now and then one filed under an alias."""
  del to_model_box
  pool = names_of('train')
  names = [pool[i] for i in rng.choice(len(pool), 4, replace=False)]
  facts = [
      (name, attribute)
      for name in names[:2]
      for attribute in vocabulary.ATTRIBUTES
  ]
  count = int(rng.integers(1, 4))
  chosen = [facts[i] for i in rng.permutation(len(facts))[:count]]
  lines, answers = [], []
  for index, (name, attribute) in enumerate(chosen):
    subject = name
    if index == 0 and rng.random() < 0.35:
      subject = names[2]
      lines.append(
          vocabulary.ALIAS_HIT.format(
              name=name, attribute=attribute, alias=subject
          )
      )
    value = _pick(rng, vocabulary.VALUES[attribute])
    lines.append(
        vocabulary.FACT_HIT.format(
            name=subject, attribute=attribute, value=value
        )
    )
    answers.append(value)
  order = rng.permutation(len(lines))
  asked = int(rng.integers(count)) if rng.random() < 0.5 else 0
  name, attribute = chosen[asked]
  question = _pick(rng, vocabulary.QUESTIONS[attribute]).format(ref=name)
  text = vocabulary.GROUNDING['recall'][0].format(
      text='\n'.join(lines[i] for i in order), question=question
  )
  return Exchange((), text, answers[asked])


def _link(
    rng: np.random.Generator,
    scene: scenes.Scene,
    target: scenes.Emblem,
    to_model_box: ToModelBox,
) -> Exchange:
  """Gives the emblems' names in text and asks one by its place."""
  del to_model_box
  pool = names_of('train')
  chosen = rng.choice(len(pool), len(scene.emblems), replace=False)
  names = [pool[i] for i in chosen]
  lines = [
      _image_hit(rng, name, emblem)
      for name, emblem in zip(names, scene.emblems, strict=True)
  ]
  order = rng.permutation(len(lines))
  ref = _refer(rng, scene, target)
  text = vocabulary.GROUNDING['recall'][0].format(
      text='\n'.join(lines[i] for i in order),
      question=_pick(rng, vocabulary.QUESTIONS['name']).format(ref=ref),
  )
  return Exchange((), text, names[scene.emblems.index(target)])


def _copy(
    rng: np.random.Generator,
    scene: scenes.Scene,
    target: scenes.Emblem,
    to_model_box: ToModelBox,
) -> Exchange:
  """Asks for a string back, so that every token is met on both sides."""
  del to_model_box
  parts = []
  for _ in range(int(rng.integers(2, 7))):
    source = int(rng.integers(7))
    space = _pick(rng, ('', ' '))
    if source == 0:
      part = str(rng.integers(scenes.SIZE + 1))
    elif source == 1:
      part = _pick(rng, vocabulary.PUNCTUATION)
    elif source == 2:
      part = _pick(rng, vocabulary.PROTOCOL_PIECES)
    elif source == 3:
      part = space + _pick(rng, names_of('train'))
    elif source == 4:
      part = space + _pick(rng, vocabulary.SYLLABLES)
    elif source == 5:
      # Printable ASCII one by one, then what needs two bytes in UTF-8.
      codes = rng.integers(33, 127, size=3)
      codes[2] = rng.integers(161, 1024) if rng.random() < 0.3 else codes[2]
      part = ''.join(chr(code) for code in codes)
    else:
      words = vocabulary.words() + vocabulary.PROTOCOL_WORDS
      part = space + _pick(rng, words)
    parts.append(part)
  text = ''.join(parts).strip() or vocabulary.UNKNOWN
  question = _pick(rng, vocabulary.GROUNDING['copy']).format(text=text)
  return Exchange((), question, text)


# Share of the questions, and who makes them.
_TASKS: dict[str, tuple[float, Callable[..., Exchange]]] = {
    'survey': (0.27, _survey),
    'crop': (0.17, _crop),
    'box': (0.13, _box),
    'look': (0.12, _look),
    'recall': (0.10, _recall),
    'copy': (0.06, _copy),
    'switch': (0.05, _switch),
    'link': (0.04, _link),
    'describe': (0.03, _describe_task),
    'at': (0.03, _at),
}
KINDS = tuple(_TASKS)
_SHARES = tuple(share for share, _ in _TASKS.values())

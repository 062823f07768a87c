"""Pretraining without a picture: reading, searching, judging hits, copying."""

from __future__ import annotations

from collections.abc import Callable
import dataclasses

import numpy as np

from gog_jax.toy import scenes
from gog_jax.toy import vocabulary
from gog_jax.toy.exchange import Exchange
from gog_jax.toy.exchange import text_search
from gog_jax.toy.knowledge import draw_names
from gog_jax.toy.knowledge import names_of
from gog_jax.toy.knowledge import pick
from gog_jax.toy.references import PLACES
from gog_jax.toy.references import Sought

COPY = vocabulary.GROUNDING['copy'][0]  # With a slot for the text.


def ask(rng: np.random.Generator, *, kind: str = '') -> Exchange:
  """Makes an exchange of a kind (of `KINDS`), or of one drawn by its share."""
  kind = kind or str(rng.choice(KINDS, p=_SHARES))
  return _TASKS[kind][1](rng)


def _recall(rng: np.random.Generator) -> Exchange:
  """States facts and asks for one, now and then one filed under an alias."""
  # Three are used; drawing fewer would change every later draw.
  names = draw_names(rng, 4, 'train')
  facts = [
      (name, attribute)
      for name in names[:2]
      for attribute in vocabulary.ATTRIBUTES
  ]
  count = int(rng.choice((1, 2, 3), p=(0.5, 0.3, 0.2)))
  chosen = [facts[i] for i in rng.permutation(len(facts))[:count]]
  lines, told = [], []
  for index, (name, attribute) in enumerate(chosen):
    slots = {'name': name, 'attribute': attribute, 'alias': names[2]}
    if index == 0 and rng.random() < 0.35:
      lines.append(vocabulary.ALIAS_HIT.format(**slots))
      slots['name'] = names[2]
    slots['value'] = pick(rng, vocabulary.VALUES[attribute])
    lines.append(vocabulary.FACT_HIT.format(**slots))
    told.append(slots)
  shuffled = [lines[i] for i in rng.permutation(len(lines))]
  asked = int(rng.integers(count)) if rng.random() < 0.5 else 0
  name, attribute = chosen[asked]
  question = pick(rng, vocabulary.QUESTIONS[attribute]).format(ref=name)
  return Exchange(
      question='\n'.join((*shuffled, question)),
      thought=vocabulary.THOUGHTS['found'].format(**told[asked]),
      answer=told[asked]['value'],
  )


def _seek(rng: np.random.Generator) -> Exchange:
  """Asks for a fact about somebody: which searches follow, step by step."""
  name, alias = draw_names(rng, 2, 'train')
  attribute = pick(rng, vocabulary.ATTRIBUTES)
  value = pick(rng, vocabulary.VALUES[attribute])
  slots = {'attribute': attribute, 'alias': alias}
  thoughts = vocabulary.THOUGHTS
  exchange = Exchange(
      question=pick(rng, vocabulary.QUESTIONS[attribute]).format(ref=name),
      thought=thoughts['need'].format(name=name, **slots),
      calls=text_search(vocabulary.TEXT_QUERY.format(name=name, **slots)),
  )
  n_replies = int(rng.integers(3))
  if n_replies and rng.random() < 0.6:
    exchange = Exchange(
        question=vocabulary.ALIAS_HIT.format(name=name, **slots),
        thought=thoughts['alias'].format(**slots),
        calls=text_search(vocabulary.TEXT_QUERY.format(name=alias, **slots)),
        before=exchange,
    )
    name = alias
    n_replies -= 1
  if n_replies:
    exchange = Exchange(
        question=vocabulary.FACT_HIT.format(name=name, value=value, **slots),
        thought=thoughts['found'].format(name=name, **slots),
        answer=value,
        before=exchange,
    )
  return exchange


def _tell(rng: np.random.Generator) -> Exchange:
  """Says what a picture would show and asks for a part of it.

  Which word of a thought is the answer is cheaper to learn without looking.
  """
  count = int(rng.integers(1, 4))
  sides = [tuple(PLACES)[i] for i in rng.permutation(len(PLACES))[:count]]
  shown = {side: pick(rng, scenes.IDENTITIES) for side in sides}
  lines = [f'{side}: {one.colour} {one.shape}' for side, one in shown.items()]
  side = pick(rng, sides)
  ref = vocabulary.REFERENCES[side]
  kind = pick(rng, ('colour', 'shape'))
  question = pick(rng, vocabulary.QUESTIONS[kind]).format(ref=ref)
  return Exchange(
      question='\n'.join((*lines, question)),
      thought=Sought(shown[side], ref, kind).think('see'),
      answer=getattr(shown[side], kind),
  )


def _judge(rng: np.random.Generator) -> Exchange:
  """Says what is sought and shows a hit: what follows from that?"""
  meant, found = (pick(rng, scenes.IDENTITIES) for _ in range(2))
  ref = vocabulary.REFERENCES['colour'].format(colour=meant.colour)
  case = pick(rng, ('right', 'right', 'other', 'other', 'weak', 'twin'))
  if case == 'right':
    found = meant
  elif case == 'twin':
    patterns = sorted(set(vocabulary.PATTERNS) - {meant.pattern})
    found = dataclasses.replace(meant, pattern=pick(rng, patterns))
  elif found.looks_like(meant):
    return _judge(rng)
  if case == 'twin' or rng.random() < 0.5:
    ref = meant.describe(vocabulary.REFERENCES['pattern'])
  thought = {'right': 'name', 'other': 'again', 'twin': 'twin', 'weak': 'lost'}
  name = pick(rng, names_of('train'))
  asked = pick(rng, ('name', *vocabulary.ATTRIBUTES))
  sought = Sought(meant, ref, asked)
  said = sought.think(thought[case])
  if case == 'right' and asked != 'name':  # The name is only a first step.
    said = vocabulary.THOUGHTS['need'].format(attribute=asked, name=name)
  match = vocabulary.WEAK if case == 'weak' else vocabulary.STRONG
  hit = found.hit(name, match)
  return Exchange(
      question=f'{sought.think("find")}\n{hit}',
      answer=sought.reflect(hit.partition(' ')[2], said),
  )


def _copy(rng: np.random.Generator) -> Exchange:
  """Asks for a string back: every token is seen as input and as target."""
  words = {
      3: names_of('train'),
      4: vocabulary.SYLLABLES,
      6: vocabulary.words() + vocabulary.PROTOCOL_WORDS,
  }
  parts = []
  for _ in range(int(rng.integers(2, 7))):
    source = int(rng.integers(7))
    space = pick(rng, ('', ' '))
    if source == 0:
      parts.append(str(rng.integers(scenes.SIZE + 1)))
    elif source == 1:
      parts.append(pick(rng, vocabulary.PUNCTUATION))
    elif source == 2:
      parts.append(pick(rng, vocabulary.PROTOCOL_PIECES))
    elif source == 5:
      # Printable ASCII one by one, then what needs two bytes in UTF-8.
      codes = rng.integers(33, 127, size=3)
      codes[2] = rng.integers(161, 1024) if rng.random() < 0.3 else codes[2]
      parts += map(chr, codes)
    else:
      parts.append(space + pick(rng, words[source]))
  text = ''.join(parts).strip() or vocabulary.UNKNOWN
  question = pick(rng, vocabulary.GROUNDING['copy']).format(text=text)
  return Exchange(question=question, answer=text)


# Each kind's share of the tasks, and its function.
_TASKS: dict[str, tuple[float, Callable[[np.random.Generator], Exchange]]] = {
    'recall': (0.15, _recall),
    'seek': (0.3, _seek),
    'tell': (0.2, _tell),
    'judge': (0.2, _judge),
    'copy': (0.15, _copy),
}
KINDS = tuple(_TASKS)
_SHARES = tuple(share for share, _ in _TASKS.values())

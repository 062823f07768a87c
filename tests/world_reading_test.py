"""What pretraining asks about texts alone."""

from __future__ import annotations

import numpy as np

from gog_jax.toy import reading
from gog_jax.toy import vocabulary
from tests.world_helpers import argument_of
from tests.world_helpers import said
from tests.world_helpers import written


def test_a_search_follows_step_by_step():
  rng = np.random.default_rng(11)
  met = set()
  for _ in range(120):
    *before, last = said(reading.ask(rng, kind='seek'))
    steps = [*before, last]
    words = steps[0].thought.split()  # need ATTRIBUTE of NAME
    attribute, name = words[1], words[3]
    assert steps[0].question in [
        line.format(ref=name) for line in vocabulary.QUESTIONS[attribute]
    ]
    assert words == ['need', attribute, 'of', name]
    for step, then in zip(steps, steps[1:]):
      assert argument_of(step, 'query') == f'{name} {attribute}'
      assert not step.answer
      subject, of, *value = then.question.split()
      assert (subject, of) == (name, attribute)
      if value[0] == vocabulary.ALIAS:
        name = value[1]
        assert then.thought == f'aka {name}' and argument_of(then, 'query')
      else:
        assert then.thought == f'found {attribute} of {name}'
        assert then.answer == value[0] and not argument_of(then, 'query')
    met.add(tuple(step.thought.split()[0] for step in steps))
  assert met == {
      ('need',), ('need', 'found'), ('need', 'aka'), ('need', 'aka', 'found')
  }


def test_recall_answers_follow_from_the_text():
  rng = np.random.default_rng(5)
  chains = plain = 0
  for _ in range(120):
    task = reading.ask(rng, kind='recall')
    question, answer = task.question, written(task)
    *lines, asked = question.split('\n')
    words = asked.rstrip('?').split()
    facts = dict(
        (tuple(line.split()[:2]), line.split()[2:])
        for line in lines
        if len(line.split()) > 2 and line.split()[1] in vocabulary.ATTRIBUTES
    )
    attribute = 'founder' if 'founder' in asked or 'founded' in words else ''
    attribute = 'city' if 'city' in words else attribute or 'year'
    attribute = 'year' if words[0] == 'when' else attribute
    name = next(w for w in words if (w, attribute) in facts)
    value = facts[name, attribute]
    if value[0] == vocabulary.ALIAS:
      name = value[1]
      value = facts[name, attribute]
      chains += 1
    else:
      plain += 1
    assert answer == f'found {attribute} of {name} {value[0]}'
  assert chains > 5 and plain > 20


def test_what_is_told_is_asked_back():
  rng = np.random.default_rng(8)
  met = set()
  for _ in range(100):
    task = reading.ask(rng, kind='tell')
    *lines, question = task.question.split('\n')
    told = dict(line.split(': ') for line in lines)
    (side,) = [side for side in told if f'the {side} emblem' in question]
    colour, shape = told[side].split()
    assert task.thought == f'see {side}: {told[side]}'
    assert task.answer == (shape if 'shape' in question else colour)
    met.add((len(lines), task.answer == shape))
  assert len(met) == 6


def test_copies_are_exact_and_meet_every_printable_byte():
  rng = np.random.default_rng(0)
  met = set()
  for _ in range(400):
    exchange = reading.ask(rng, kind='copy')
    question, answer = exchange.question, exchange.answer
    assert question.partition(' ')[2] == answer
    met |= set(answer)
  assert {chr(code) for code in range(33, 127)} <= met


def test_hits_are_judged_by_what_is_sought():
  rng = np.random.default_rng(7)
  said = set()
  for _ in range(200):
    task = reading.ask(rng, kind='judge')
    sought, hit = task.question.split('\n')
    ref, _, sought = sought.removeprefix('find ').partition(': ')
    asked, of, told, look = sought.split(' ', 3)
    assert of == 'of' and asked in ('name', *vocabulary.ATTRIBUTES)
    _, pattern, *shown, match = hit.split()
    named = ref.split()[0] if ref.split()[0] in vocabulary.PATTERNS else ''
    if ' '.join(shown) != look:
      weak = match == vocabulary.WEAK
      expected = 'not found' if weak else f'wrong find {look}'
    elif named in ('', pattern):
      expected = f'found {look}'
      if asked != 'name':
        expected = f'need {asked} of {hit.split()[0]}'
    else:
      expected = f'wrong find other {look}'
    assert told == (named or 'any')
    assert task.answer == f'{sought} got {hit.partition(" ")[2]}: {expected}'
    said.add(' '.join(expected.split()[:3]))
  assert len(said) > 4

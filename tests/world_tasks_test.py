"""What pretraining asks about scenes and texts."""

from __future__ import annotations

import ast
import io

import numpy as np
from PIL import Image
import pytest

from gog_jax.world import grounding
from gog_jax.world import knowledge
from gog_jax.world import reading
from gog_jax.world import scenes
from gog_jax.world import vocabulary
from gog_jax.world.references import references
from tests.world_helpers import halved


def _bare(text: str) -> str:
  """Boxes without the call around them: [x1,y1,x2,y2]."""
  text = text.replace(vocabulary.BOX_START, '[')
  return text.replace(vocabulary.BOX_END, ']')


def _written(exchange) -> str:
  """The message as text, a gaze as its box: 'thought answer'."""
  box = str(list(exchange.gaze)).replace(' ', '') if exchange.gaze else ''
  parts = (exchange.thought, box, _bare(exchange.answer))
  return ' '.join(part for part in parts if part)


def _said(exchange):
  """All that is said, in order: what came before, then the exchange."""
  before = _said(exchange.before) if exchange.before else ()
  return (*before, exchange)


def _tasks(*, seed: int, n: int):
  """(all images, question, answer), with the scene."""
  rng = np.random.default_rng(seed)
  made = []
  for _ in range(n):
    scene = grounding.draw_scene(rng)
    kind = grounding.KINDS[rng.integers(len(grounding.KINDS))]
    made.append(grounding.ask(rng, scene, halved, kind=kind, show=True))
    made.append(reading.ask(rng))
  return [
      (tuple(image for e in _said(made) for image in e.images),
       made.question,
       _written(made))
      for made in made
  ]


@pytest.fixture(scope='module')
def tasks():
  return _tasks(seed=5, n=500)


def _emblem_pixels(data: bytes, box) -> tuple[int, ...]:
  """Returns the commonest saturated colour within a box of the seen frame."""
  with Image.open(io.BytesIO(data)) as image:
    pixels = np.asarray(image.convert('RGB')).astype(int)
  x1, y1, x2, y2 = (2 * side for side in box)
  pixels = pixels[y1:y2, x1:x2].reshape(-1, 3)
  pixels = pixels[pixels.max(-1) - pixels.min(-1) > 120]
  colours, counts = np.unique(pixels, axis=0, return_counts=True)
  return tuple(int(v) for v in colours[counts.argmax()])


def test_tasks_are_short_and_of_every_kind(tasks):
  for images, question, answer in tasks:
    assert len(images) <= 2
    assert len(question) < 300 and 0 < len(answer) < 200
    assert answer == answer.strip()
  rng = np.random.default_rng(0)
  scene = grounding.draw_scene(rng)
  questions_asked = {}
  for kind in grounding.KINDS:
    made = [
        grounding.ask(rng, scene, halved, kind=kind, show=True)
        for _ in range(30)
    ]
    crops = kind in ('crop', 'switch', 'confirm')
    assert {
        sum(len(said.images) for said in _said(e)) for e in made
    } == {2 if crops else 1}
    questions_asked[kind] = {e.question for e in made}
  for kind in reading.KINDS:
    made = [reading.ask(rng, kind=kind) for _ in range(30)]
    assert not any(e.images for e in made)
    questions_asked[kind] = {e.question for e in made}
  assert all(
      not questions_asked[a] & questions_asked[b]
      for a in questions_asked
      for b in questions_asked
      # Some lists are surveys; wrong or right, a hit is a hit.
      if a != b and 'list' not in (a, b) and {a, b} != {'switch', 'confirm'}
  )


def test_boxes_asked_for_by_colour_show_that_colour(tasks):
  checked = 0
  for images, question, answer in tasks:
    words = question.replace('?', '').split()
    look, *boxes = answer.split(' [')
    if len(boxes) != 1 or question.startswith(('copy', 'say')):
      continue
    box = ast.literal_eval('[' + boxes[0])
    assert '[' + boxes[0] == '[' + ','.join(map(str, box)) + ']'
    assert len(box) == 4 and 0 <= min(box) and max(box) <= scenes.SIZE // 2
    shown = _emblem_pixels(images[0], box)
    colour, shape = look.split()[-2:]
    assert shown == scenes._RGB[colour] and shape in vocabulary.SHAPES
    named = [word for word in words if word in scenes._RGB]
    if ' got ' in answer:  # What is named is what the hit shows.
      checked += 1
    elif 'not' in words:
      assert shown != scenes._RGB[named[-1]]
      checked += 1
    elif named:  # '... red emblem'
      assert shown == scenes._RGB[named[-1]]
      checked += 1
  assert checked > 50


def test_a_survey_lists_every_emblem_by_colour_and_where_it_is():
  for seed in range(40):
    rng = np.random.default_rng(seed)
    task = grounding.ask(
        rng, grounding.draw_scene(rng), halved, kind='survey', show=True
    )
    colours = []
    for entry in _bare(task.answer).split('], '):
      words, box = entry.rstrip(']').split(' [')
      colour, shape = words.split()
      assert shape in vocabulary.SHAPES
      seen = tuple(int(side) for side in box.split(','))
      assert _emblem_pixels(task.images[0], seen) == scenes._RGB[colour]
      colours.append(colour)
    assert colours == sorted(colours, key=vocabulary.COLOURS.index)
    assert 2 <= len(colours) <= 4 and len(colours) - len(set(colours)) <= 1


def test_looks_and_links_are_about_the_emblem_meant():
  rng = np.random.default_rng(4)
  for _ in range(120):
    scene = grounding.draw_scene(rng)
    by_ref = {
        ref: emblem.identity
        for emblem in scene.emblems
        for ref in references(scene, emblem).values()
    }
    look = grounding.ask(rng, scene, halved, kind='look', show=True)
    thought, answer = look.thought, look.answer
    asked = max((r for r in by_ref if r in look.question), key=len, default='')
    if not asked:
      assert answer == str(len(scene.emblems)) == thought.split()[1]
    else:
      identity = by_ref[asked]
      seen = f'{identity.colour} {identity.shape}'
      assert thought == f'see {vocabulary.in_short(asked)}: {seen}'
      kind = next(
          kind
          for kind in ('colour', 'shape')
          if kind in look.question.replace(asked, '')
      )
      assert answer == getattr(identity, kind)
    link = grounding.ask(rng, scene, halved, kind='link', show=True)
    *hits, question = link.question.split('\n')
    asked = max((r for r in by_ref if r in question), key=len)
    meant = by_ref[asked]
    seen = f'{meant.pattern} {meant.colour} {meant.shape}'
    (hit,) = [hit for hit in hits if seen in hit]
    assert hit.split()[0] == link.answer


def test_references_in_short():
  assert vocabulary.in_short('the left emblem') == 'left'
  assert vocabulary.in_short('the emblem not red') == 'not red'
  assert vocabulary.in_short('the red circle') == 'red circle'


def test_lists_go_from_side_to_side():
  rng = np.random.default_rng(2)
  met, surveys = set(), 0
  for _ in range(80):
    scene = grounding.draw_scene(rng)
    task = grounding.ask(rng, scene, halved, kind='list', show=True)
    if vocabulary.BOX_START in task.answer:
      surveys += 1  # They stand in no clear order.
      continue
    side = task.question.rstrip('?').split()[-1]
    met.add(side)
    axis = 0 if side in ('left', 'right') else 1
    looks = sorted(
        (
            e.box[axis] + e.box[axis + 2],
            f'{e.identity.colour} {e.identity.shape}',
        )
        for e in scene.emblems
    )
    assert np.diff([middle for middle, _ in looks]).min() >= 40  # Twice 20.
    listed = task.answer.split(', ')
    expected = [look for _, look in looks]
    assert listed == (expected if side in ('left', 'top') else expected[::-1])
  assert len(met) == 4 and surveys < 40


def test_recall_answers_follow_from_the_text(tasks):
  chains = plain = 0
  for _, question, answer in tasks:
    *lines, asked = question.split('\n')
    words = asked.rstrip('?').split()
    facts = dict(
        (tuple(line.split()[:2]), line.split()[2:])
        for line in lines
        if len(line.split()) > 2 and line.split()[1] in vocabulary.ATTRIBUTES
    )
    if not facts or 'wrong' in asked:
      continue
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


def test_crops_are_described_as_they_look(tasks):
  rng = np.random.default_rng(1)
  for _ in range(40):
    scene = grounding.draw_scene(rng)
    exchange = grounding.ask(rng, scene, halved, kind='crop', show=False)
    (data,), answer = exchange.images, exchange.answer
    with Image.open(io.BytesIO(data)) as image:
      width, height = image.size
    assert 20 <= width <= 140 and 20 <= height <= 140
    shown = _emblem_pixels(data, (0, 0, width, height))
    assert shown == scenes._RGB[answer.split()[1]]


def test_tasks_are_deterministic_quick_and_of_the_train_split():
  def make():
    return _tasks(seed=9, n=40)

  first = make()
  assert make() == first
  held_out = set(knowledge.names_of('validation') + knowledge.names_of('test'))
  for _, question, answer in first:
    if not question.startswith(('copy', 'say')):
      words = question.replace('?', ' ').split() + answer.split()
      assert not held_out & set(words)


def test_a_scene_is_shown_when_asked():
  rng = np.random.default_rng(3)
  scene = grounding.draw_scene(rng)
  for kind in grounding.KINDS:
    bare, shown = (
        grounding.ask(
            np.random.default_rng(0), scene, halved, kind=kind, show=show
        )
        for show in (False, True)
    )
    first = _said(shown)[0].images
    assert first == (scene.data, *_said(bare)[0].images)
    assert len(first) == 1 + (kind == 'crop')
    assert len(_said(bare)) == 1 + (kind in ('switch', 'confirm'))
    for with_scene, without in zip(_said(shown), _said(bare), strict=True):
      assert with_scene.question == without.question
      assert with_scene.answer == without.answer


def test_the_other_one_is_asked_after_a_wrong_box():
  rng = np.random.default_rng(6)
  twins = 0
  for _ in range(120):
    scene = grounding.draw_scene(rng)
    task = grounding.ask(rng, scene, halved, kind='switch', show=True)
    (scene_shown,), (crop,) = task.before.images, task.images
    hit = task.question
    before, box = _written(task.before).split(' [')
    reflection, right = _written(task).split(' [')
    by_box = {
        '[' + ','.join(str(side) for side in halved(e.box)) + ']': e.identity
        for e in scene.emblems
    }
    wrong, meant = by_box[f'[{box}'], by_box[f'[{right}']
    assert scene_shown == scene.data
    size = Image.open(io.BytesIO(crop)).size
    x1, y1, x2, y2 = ast.literal_eval(f'[{box}')
    # The look that was written, with some room perhaps.
    assert all(
        side - 2 * written in range(0, 29)
        for side, written in zip(size, (x2 - x1, y2 - y1), strict=True)
    )
    look = f'{meant.colour} {meant.shape}'
    sought = before.partition(': ')[2]
    alike = meant.looks_like(wrong)
    assert wrong != meant
    # Of twins it has to be told which is meant: all else is no mistake.
    asked, _, sought_look = sought.partition(' of ')
    asks = task.before.question
    assert asked in asks or asked == 'box' or {
        'name': 'called', 'year': 'founded', 'founder': 'founded'
    }[asked] in asks
    assert sought_look in (f'{meant.pattern} {look}', f'any {look}')
    assert sought_look.startswith(meant.pattern) or not alike
    shown = hit.partition(' ')[2]
    assert shown.startswith(f'{wrong.pattern} {wrong.colour} {wrong.shape} ')
    wrong_find = 'wrong find other' if alike else 'wrong find'
    assert reflection == f'{sought} got {shown}: {wrong_find} {look}'
    twins += alike
    right = grounding.ask(rng, scene, halved, kind='confirm', show=False)
    box = '[' + _written(right.before).split(' [')[1]
    meant = by_box[box]
    assert right.answer == right.question.split()[0] and not right.gaze
    sought, _, rest = right.thought.partition(' got ')
    shown, _, thought = rest.partition(': ')
    assert shown == right.question.partition(' ')[2]
    assert shown.split()[:3] == [meant.pattern, meant.colour, meant.shape]
    assert thought == f'found {meant.colour} {meant.shape}'
    assert sought.split()[3:] == shown.split()[1:3]
  assert twins > 10


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


def test_phases_of_lessons_ask_what_their_sections_say():
  from configs import pretrain

  config = pretrain.get_config().pretrain
  for name in ('look', 'refer'):
    phase = config[name]
    assert sum(phase[kind] for kind in grounding.KINDS) == pytest.approx(1.0)
  assert config.read.reading == 1.0

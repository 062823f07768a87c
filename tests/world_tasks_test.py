"""What pretraining asks about scenes and texts."""

from __future__ import annotations

import ast
import io

import numpy as np
from PIL import Image
import pytest

from gog_jax.toy import grounding
from gog_jax.toy import knowledge
from gog_jax.toy import reading
from gog_jax.toy import scenes
from gog_jax.toy import vocabulary
from gog_jax.toy.references import first_of
from gog_jax.toy.references import references
from tests.world_helpers import argument_of
from tests.world_helpers import bare
from tests.world_helpers import halved
from tests.world_helpers import said
from tests.world_helpers import written


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
      (tuple(image for e in said(made) for image in e.images),
       made.question,
       written(made))
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
        sum(len(said.images) for said in said(e)) for e in made
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


def test_what_follows_a_right_look_is_what_is_asked():
  rng = np.random.default_rng(12)
  met = set()
  for _ in range(120):
    scene = grounding.draw_scene(rng)
    task = grounding.ask(rng, scene, halved, kind='confirm', show=False)
    name, pattern, *look, _ = task.question.split()
    sought, _, rest = task.thought.partition(' got ')
    shown, _, thought = rest.partition(': ')
    asked, _, told, *meant = sought.split()
    assert shown == task.question.partition(' ')[2]
    assert meant == look and told in (pattern, vocabulary.ANY)
    if asked in vocabulary.ATTRIBUTES:
      assert thought == f'need {asked} of {name}'
      assert argument_of(task, 'query') == f'{name} {asked}'
      assert not task.answer
    elif asked == 'pattern':
      assert told == vocabulary.ANY
      assert (thought, task.answer) == (f'found {pattern}', pattern)
    else:
      assert (thought, task.answer) == (f'found {" ".join(look)}', name)
    assert argument_of(task, 'bbox_2d') is None
    met.add(asked)
  assert met == {'box', 'name', 'pattern', *vocabulary.ATTRIBUTES}


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
    for entry in bare(task.answer).split('], '):
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


def test_twins_are_looked_at_from_left_to_right_or_downwards():
  def at(x, y, pattern='plain'):
    identity = scenes.Identity(colour='red', shape='star', pattern=pattern)
    return scenes.Emblem(identity=identity, box=(x, y, x + 40.0, y + 40.0))

  left, right = at(0.0, 90.0), at(20.0, 0.0, 'barred')
  assert first_of(left, right) is first_of(right, left) is left
  above = at(15.0, 0.0, 'barred')  # Not clearly to the right.
  assert first_of(left, above) is first_of(above, left) is above

  rng = np.random.default_rng(13)
  firsts = []
  while len(firsts) < 60:
    scene = grounding.draw_scene(rng, twins=1.0)
    twins = scene.emblems[:2]
    if not twins[0].identity.looks_like(twins[1].identity):
      continue
    first = first_of(*twins)
    box = grounding.ask(rng, scene, halved, kind='box', show=False)
    for twin in twins:
      if references(scene, twin)['pattern'] in box.question:
        assert argument_of(box, 'bbox_2d') == list(halved(first.box))
        firsts.append(twin is first)
    switch = grounding.ask(rng, scene, halved, kind='switch', show=False)
    before = argument_of(switch.before, 'bbox_2d')
    assert before == list(halved(first.box))
    (second,) = {twin.box for twin in twins} - {first.box}
    assert argument_of(switch, 'bbox_2d') == list(halved(second))
  assert 0.3 < np.mean(firsts) < 0.7


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
    first = said(shown)[0].images
    assert first == (scene.data, *said(bare)[0].images)
    assert len(first) == 1 + (kind == 'crop')
    assert len(said(bare)) == 1 + (kind in ('switch', 'confirm'))
    for with_scene, without in zip(said(shown), said(bare), strict=True):
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
    before, box = written(task.before).split(' [')
    reflection, right = written(task).split(' [')
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
    meant = by_box['[' + written(right.before).split(' [')[1]]
    assert right.question.split()[1:4] == [
        meant.pattern, meant.colour, meant.shape
    ]
  assert twins > 10


def test_phases_of_lessons_ask_what_their_sections_say():
  from configs import pretrain

  config = pretrain.get_config().pretrain
  for name in ('look', 'refer'):
    phase = config[name]
    assert sum(phase[kind] for kind in grounding.KINDS) == pytest.approx(1.0)
  assert config.read.reading == 1.0

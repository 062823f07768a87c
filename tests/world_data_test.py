"""The world's vocabulary, its data set on disk, its pretraining tasks."""

from __future__ import annotations

import ast
import io
import subprocess
import sys

import numpy as np
from PIL import Image
import pytest

from gog_jax.errors import UserError
from gog_jax.world import dataset
from gog_jax.world import grounding
from gog_jax.world import knowledge
from gog_jax.world import questions
from gog_jax.world import reading
from gog_jax.world import scenes
from gog_jax.world import vocabulary
from gog_jax.world.references import references
from tests.world_helpers import halved

_SIZES = {'n_train': 40, 'n_validation': 17, 'n_test': 20}


# Vocabulary.


def test_vocabulary_is_small_and_covers_what_is_said():
  known = set(vocabulary.words()) | set(vocabulary.SYLLABLES)
  assert len(known) < 350
  texts = list(vocabulary.sample_texts())
  assert texts == list(vocabulary.sample_texts())
  said = set(' '.join(texts).replace('?', ' ').replace(',', ' ').split())
  assert known - said == set()
  names = {h + t for h in vocabulary.HEADS for t in vocabulary.TAILS}
  for split in knowledge.SPLITS:
    for number in range(32):
      scope = knowledge.make_scope(split, number // 16)
      example = questions.make_question(scope, number % 16).example
      words = example.question.rstrip('?').split() + list(example.answers)
      for word in words:
        assert word in known or word in names or word.isdigit()


def test_syllables_read_one_way_only():
  assert len(set(vocabulary.SYLLABLES)) == 64
  assert {len(syllable) for syllable in vocabulary.SYLLABLES} == {3}
  words = set(vocabulary.words())
  names = {h + t for h in vocabulary.HEADS for t in vocabulary.TAILS}
  assert not words & (names | set(vocabulary.SYLLABLES))


# The data set.


@pytest.fixture(scope='module')
def folder(tmp_path_factory):
  path = tmp_path_factory.mktemp('data')
  sizes = dataset.prepare(path, **_SIZES, world_seed=2)
  assert sizes == {'train': 40, 'validation': 17, 'test': 20}
  return path


def test_examples_come_back_as_they_were_made(folder):
  seen = set()
  for split in knowledge.SPLITS:
    examples = dataset.load(folder, split)
    assert len(examples) == _SIZES[f'n_{split}']
    for example in examples:
      made = questions.question_of(example).example
      assert example == made
      assert type(example.hops) is int
      assert type(example.search_required) is bool
      assert example.scope.startswith(
          f'world/{knowledge.VERSION}/{split}/200000'
      )
      assert example.id not in seen
      seen.add(example.id)
  assert len(seen) == 77


def test_examples_are_a_sequence(folder):
  examples = dataset.load(folder, 'train')
  assert examples[-1] == examples[39] != examples[0]
  assert examples[1:3] == [examples[1], examples[2]]
  with pytest.raises(IndexError):
    examples[40]


def test_written_once_and_replaced_by_other_sizes(tmp_path):
  dataset.prepare(tmp_path, **_SIZES, world_seed=0)
  version = f'{knowledge.VERSION}.0.0'
  folder = tmp_path / 'gog_world' / 's0_40_17_20'
  half_done = folder / f'incomplete.X_{version}'
  half_done.mkdir()
  (info,) = tmp_path.glob(f'gog_world/*/{version}/dataset_info.json')
  written = info.stat().st_mtime_ns
  before = dataset.load(tmp_path, 'test')[0]
  dataset.prepare(tmp_path, **_SIZES, world_seed=0)
  assert info.stat().st_mtime_ns == written
  assert not half_done.exists()
  dataset.prepare(tmp_path, **_SIZES, world_seed=1)
  after = dataset.load(tmp_path, 'test')
  assert before.scope not in {example.scope for example in after}


def test_what_a_user_can_mend_is_said_in_one_line(tmp_path, folder):
  with pytest.raises(UserError, match='holds 0 data sets'):
    dataset.load(tmp_path, 'train')
  with pytest.raises(UserError, match="no split 'tune'"):
    dataset.load(folder, 'tune')
  with pytest.raises(UserError, match='n_test=0'):
    dataset.prepare(tmp_path, **(_SIZES | {'n_test': 0}), world_seed=0)
  with pytest.raises(UserError, match='world_seed=-1'):
    dataset.prepare(tmp_path, **_SIZES, world_seed=-1)
  assert not list(tmp_path.iterdir())


def test_data_needs_neither_tensorflow_nor_torch(tmp_path):
  script = f"""
import sys
from gog_jax.world import dataset
dataset.prepare({str(tmp_path)!r}, n_train=2, n_validation=1, n_test=1,
                world_seed=0)
assert len(dataset.load({str(tmp_path)!r}, 'train')[0].images[0]) > 1000
print(sorted({{'tensorflow', 'torch', 'jax'}} & set(sys.modules)))
"""
  done = subprocess.run(
      [sys.executable, '-c', script],
      env={'PYTHONPATH': ':'.join(sys.path)},
      check=True,
      capture_output=True,
      text=True,
  )
  assert done.stdout.splitlines()[-1] == '[]'


# Pretraining tasks.


def _tasks(*, seed: int, n: int):
  """(images, question, answer) of first exchanges, with the scene."""
  rng = np.random.default_rng(seed)
  made = []
  for _ in range(n):
    scene = grounding.draw_scene(rng)
    made += [grounding.ask(rng, scene, halved, show=True), reading.ask(rng)]
  return [(e.images, e.question, e.answer) for e in made]


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
    assert len(question) < 260 and 0 < len(answer) < 200
    assert answer == answer.strip()
  rng = np.random.default_rng(0)
  scene = grounding.draw_scene(rng)
  questions_asked = {}
  for kind in grounding.KINDS:
    made = [
        grounding.ask(rng, scene, halved, kind=kind, show=True)
        for _ in range(30)
    ]
    assert {len(e.images) for e in made} == {2 if kind == 'crop' else 1}
    questions_asked[kind] = {e.question for e in made}
  for kind in reading.KINDS:
    made = [reading.ask(rng, kind=kind) for _ in range(30)]
    assert not any(e.images for e in made)
    questions_asked[kind] = {e.question for e in made}
  assert all(
      not questions_asked[a] & questions_asked[b]
      for a in questions_asked
      for b in questions_asked
      if a != b and 'list' not in (a, b)  # Some lists are surveys.
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
    if words[-2] in scenes._RGB:  # '... red emblem', 'wrong find red star'
      assert shown == scenes._RGB[words[-2]]
      checked += 1
    elif words[-2:-1] == ['not']:
      assert shown != scenes._RGB[words[-1]]
      checked += 1
  assert checked > 50


def test_a_survey_lists_every_emblem_by_colour_and_where_it_is():
  for seed in range(40):
    rng = np.random.default_rng(seed)
    task = grounding.ask(
        rng, grounding.draw_scene(rng), halved, kind='survey', show=True
    )
    colours = []
    for entry in task.answer.split('], '):
      words, box = entry.rstrip(']').split(' [')
      colour, shape, pattern = words.split()
      assert shape in vocabulary.SHAPES and pattern in vocabulary.PATTERNS
      seen = tuple(int(side) for side in box.split(','))
      assert _emblem_pixels(task.images[0], seen) == scenes._RGB[colour]
      colours.append(colour)
    assert colours == sorted(colours, key=vocabulary.COLOURS.index)
    assert 2 <= len(set(colours)) == len(colours) <= 4


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
    thought, answer = look.answer.split('\n')
    asked = max((r for r in by_ref if r in look.question), key=len, default='')
    if not asked:
      assert answer == str(len(scene.emblems)) == thought.split()[1]
    else:
      identity = by_ref[asked]
      seen = f'{identity.colour} {identity.shape}'
      assert thought == f'see {vocabulary.in_short(asked)}: {seen}'
      kind = next(
          kind
          for kind in ('colour', 'shape', 'pattern')
          if kind in look.question.replace(asked, '')
      )
      assert answer == getattr(identity, kind)
    link = grounding.ask(rng, scene, halved, kind='link', show=True)
    *hits, question = link.question.split('\n')
    asked = max((r for r in by_ref if r in question), key=len)
    seen = f'{by_ref[asked].colour} {by_ref[asked].shape}'
    (hit,) = [hit for hit in hits if seen in hit]
    assert hit.split()[0] == link.answer


def test_references_in_short():
  assert vocabulary.in_short('the left emblem') == 'left'
  assert vocabulary.in_short('the emblem not red') == 'not red'
  assert vocabulary.in_short('the red circle') == 'red circle'
  assert vocabulary.in_short('the emblem left of red') == 'left of red'


def test_lists_go_from_side_to_side():
  rng = np.random.default_rng(2)
  met, surveys = set(), 0
  for _ in range(80):
    scene = grounding.draw_scene(rng)
    task = grounding.ask(rng, scene, halved, kind='list', show=True)
    if '[' in task.answer:
      surveys += 1  # They stand in no clear order.
      continue
    side = task.question.rstrip('?').split()[-1]
    met.add(side)
    axis = 0 if side in ('left', 'right') else 1
    middles = {
        f'{e.identity.colour} {e.identity.shape}': e.box[axis] + e.box[axis + 2]
        for e in scene.emblems
    }
    listed = task.answer.split(', ')
    assert set(listed) == set(middles)
    found = [middles[look] for look in listed]
    steps = np.diff(found if side in ('left', 'top') else found[::-1])
    assert steps.min() >= 40  # Twice 20 pixels.
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
    if not facts or asked.startswith('wrong'):
      continue
    attribute = 'founder' if 'founder' in asked or 'founded' in words else ''
    attribute = 'city' if 'city' in words else attribute or 'year'
    attribute = 'year' if words[0] == 'when' else attribute
    name = next(w for w in words if (w, attribute) in facts)
    value = facts[name, attribute]
    if value[0] == vocabulary.ALIAS:
      value = facts[value[1], attribute]
      chains += 1
    else:
      plain += 1
    assert value == [answer]
  assert chains > 5 and plain > 20


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
    assert 28 <= width <= 140 and 28 <= height <= 140
    shown = _emblem_pixels(data, (0, 0, width, height))
    assert shown == scenes._RGB[answer.split()[0]]


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
    assert shown.images == (scene.data, *bare.images)
    assert len(bare.images) == (kind == 'crop')
    assert (shown.question, shown.answer) == (bare.question, bare.answer)

"""The world's vocabulary, its data set on disk, its pretraining tasks."""

from __future__ import annotations

import dataclasses

import pytest

from gog_jax import interrupt
from gog_jax.config.evaluation import DataConfig
from gog_jax.errors import UserError
from gog_jax.storage import typed
from gog_jax.toy import dataset
from gog_jax.toy import knowledge
from gog_jax.toy import questions
from gog_jax.toy import vocabulary
from tests import mini
from tests.world_helpers import stdout_of

_HARD = dataclasses.replace(knowledge.USUAL, emblems=6, twins=1.0)
_DATA = DataConfig(
    world_seed=0,
    n_train=40,
    n_validation=17,
    n_test=20,
    n_hard=18,
    difficulty=knowledge.USUAL,
    hard=_HARD,
)


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
  sizes = dataset.prepare(path, dataclasses.replace(_DATA, world_seed=2))
  assert sizes == {'train': 40, 'validation': 17, 'test': 20, 'hard': 18}
  return path


def test_examples_come_back_as_they_were_made(folder):
  seen = set()
  for split in knowledge.SPLITS:
    examples = dataset.load(folder, split)
    assert len(examples) == getattr(_DATA, f'n_{split}')
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
  assert len(seen) == 95
  world = knowledge.world_of(dataset.load(folder, 'hard')[0].scope)
  assert world.difficulty == _HARD


def test_examples_are_a_sequence(folder):
  examples = dataset.load(folder, 'train')
  assert examples[-1] == examples[39] != examples[0]
  assert examples[1:3] == [examples[1], examples[2]]
  with pytest.raises(IndexError):
    examples[40]


def test_replaced_by_another_and_kept_if_that_is_not_finished(
    tmp_path, monkeypatch
):
  dataset.prepare(tmp_path, _DATA)
  before = list(dataset.load(tmp_path, 'test'))
  other = dataclasses.replace(_DATA, world_seed=1, n_test=7)
  with monkeypatch.context() as patch:
    mini.interrupt_at(patch, 80)
    with pytest.raises(interrupt.Interrupted):
      dataset.prepare(tmp_path, other)
  assert list(dataset.load(tmp_path, 'test')) == before
  dataset.prepare(tmp_path, other)
  after = dataset.load(tmp_path, 'test')
  assert len(after) == 7
  assert before[0].scope not in {example.scope for example in after}
  assert [path.name for path in tmp_path.iterdir()] == ['gog_world']


def test_what_a_user_can_mend_is_said_in_one_line(tmp_path, folder):
  with pytest.raises(UserError, match='holds no data set of world'):
    dataset.load(tmp_path, 'train')
  with pytest.raises(UserError, match="no split 'tune'"):
    dataset.load(folder, 'tune')


@pytest.mark.parametrize(
    ('field', 'value', 'said'),
    [
        ('n_test', 0, 'data.n_test must be from 1 to'),
        ('n_train', 16_000_001, 'data.n_train must be from 1 to'),
        ('world_seed', -1, 'data.world_seed must be 0 or more'),
        ('hard.emblems', 9, 'data.hard.emblems must be from 3 to 6'),
        ('difficulty.noise', 2.0, 'data.difficulty.noise must be from 0 to 1'),
    ],
)
def test_a_data_set_that_cannot_be_is_refused(field, value, said):
  page = dataclasses.asdict(_DATA)
  *section, name = field.split('.')
  (page[section[0]] if section else page)[name] = value
  with pytest.raises(UserError, match=said):
    typed.read(DataConfig, page, 'config.data')


def test_data_needs_neither_tensorflow_nor_torch(tmp_path):
  script = f"""
import sys
from gog_jax.config.evaluation import DataConfig
from gog_jax.toy import dataset
from gog_jax.toy.knowledge import USUAL
data = DataConfig(world_seed=0, n_train=2, n_validation=1, n_test=1, n_hard=1,
             difficulty=USUAL, hard=USUAL)
dataset.prepare({str(tmp_path)!r}, data)
assert len(dataset.load({str(tmp_path)!r}, 'train')[0].images[0]) > 1000
print(sorted({{'tensorflow', 'torch', 'jax'}} & set(sys.modules)))
"""
  assert stdout_of(script).splitlines()[-1] == '[]'

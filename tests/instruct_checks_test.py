"""What the GoG-Instruct builder takes and why not, counted by hand."""

from __future__ import annotations

import collections
import dataclasses
import functools

import pytest

from gog_jax.boxes import BoxSpec
from gog_jax.instruct import checks
from gog_jax.instruct import mixture
from gog_jax.tools import gaze as tool
from gog_jax.types import Hit
from gog_jax.types import ParsedTurn
from gog_jax.types import StopReason
from gog_jax.types import ToolStatus
from gog_jax.types import Turn
from gog_jax.types import Verdict
from gog_jax.types import View
from tests import mini
from tests import report_helpers as helpers

pytestmark = pytest.mark.quick

FOUND = (Hit(title='Stars', text='It is called Kelo the Great.', score=1.0),)
OTHER = (Hit(title='Kelogg', text='a kelogram of the kelos', score=1.0),)


SECTION = dataclasses.replace(
    mini.make_config('instruct').instruct,
    gold='any',
    gold_iou=0.5,
    evidence=True,
    repeats=True,
)


def region(kind='original_pixels'):
  return functools.partial(
      tool.region,
      box_spec=BoxSpec(kind=kind, min_side=16),
      seen_size=lambda *size: size,
      exact=True,
  )


def reason(trajectory, example=None, region=region(), **changed):
  # The scene has 100 x 100 pixels; boxes are written in those.
  example = example or helpers.example('a')
  section = dataclasses.replace(SECTION, **changed)
  failed = checks.failure(example, trajectory, section, region)
  return failed.reason if failed else None


def unanswered(*turns):
  t = helpers.trajectory('a', *turns)
  return dataclasses.replace(
      t,
      answer=None,
      turns=t.turns[:-1],
      stop_reason=StopReason.TURNS,
      reward_parts={'accuracy': 0.0, 'format': 0.0},
  )


def gaze(box, hits=FOUND, **more):
  return (helpers.gaze(box, hits=hits, **more),)


def test_each_check_has_its_reason():
  hit, miss = gaze(helpers.HIT), gaze(helpers.MISS)
  bad_call = (helpers.text(status=ToolStatus.MODEL_ERROR, error='no query'),)
  misspelt = helpers.trajectory('a', (helpers.text(hits=FOUND),))
  misspelt = dataclasses.replace(
      misspelt,
      turns=(
          dataclasses.replace(
              misspelt.turns[0],
              parsed=dataclasses.replace(
                  misspelt.turns[0].parsed, format_error='no thought'
              ),
          ),
          *misspelt.turns[1:],
      ),
  )
  twice = [(helpers.text('who?', hits=FOUND),)] * 2
  cases = [
      # (trajectory, reason, of what kind it is)
      (helpers.trajectory('a'), None, 'no_search'),
      (helpers.trajectory('a', hit), None, 'search'),
      (helpers.trajectory('a', miss, hit), None, 'search'),
      (helpers.trajectory('a', (helpers.text(hits=FOUND),)), None, 'search'),
      (helpers.trajectory('a', *twice), None, 'search'),
      (unanswered(hit), 'no answer', 'search'),
      (helpers.trajectory('a', hit, right=False), 'wrong answer', 'search'),
      (helpers.trajectory('a', bad_call), 'format', 'no_search'),
      (misspelt, 'format', 'search'),
      (
          helpers.trajectory('a', gaze((10, 10, 50, 101))),
          'box outside the image',
          'search',
      ),
      (
          helpers.trajectory('a', gaze((-1, 10, 50, 50))),
          'box outside the image',
          'search',
      ),
      (helpers.trajectory('a', miss), 'gaze misses the gold region', 'search'),
      (
          helpers.trajectory('a', gaze(helpers.HIT, OTHER)),
          'no evidence',
          'search',
      ),
      (helpers.trajectory('a', (helpers.text(),)), 'no evidence', 'search'),
  ]
  for trajectory, want, kind in cases:
    assert reason(trajectory) == want
    assert checks.kind_of(trajectory) == kind
  counted = collections.Counter(reason(t) for t, _, _ in cases)
  assert counted == {
      None: 5, 'no answer': 1, 'wrong answer': 1, 'format': 2,
      'box outside the image': 2, 'gaze misses the gold region': 1,
      'no evidence': 2,
  }  # fmt: skip


def test_what_may_be_chosen():
  hit, miss = gaze(helpers.HIT), gaze(helpers.MISS)
  both = helpers.trajectory('a', miss, hit)
  assert reason(both, gold='each') == 'gaze misses the gold region'
  assert reason(helpers.trajectory('a', miss), gold='off') is None
  # 1400 of 1600 pixels are in both.
  assert reason(helpers.trajectory('a', hit), gold_iou=0.87) is None
  assert reason(helpers.trajectory('a', hit), gold_iou=0.88)
  assert reason(helpers.trajectory('a', (helpers.text(),)), evidence=False) is (
      None
  )
  twice = helpers.trajectory('a', hit, hit)
  assert reason(twice, repeats=False) == 'repeated call'
  other = helpers.trajectory('a', hit, (helpers.text(hits=FOUND),))
  assert reason(other, repeats=False) is None
  # Where no region is known, none is missed.
  unknown = helpers.example('a', gold=())
  assert reason(helpers.trajectory('a', miss), unknown) is None


def test_a_box_lies_in_the_frame_of_the_image_it_names():
  """Of a crop of 30 x 30 pixels, not of the picture it is from."""
  first = helpers.gaze(helpers.HIT, hits=FOUND)
  call, result = helpers.gaze((0, 0, 30, 30), hits=FOUND)
  for box, want in (
      ((0, 0, 30, 30), None),
      ((0, 0, 31, 30), 'box outside the image'),
  ):
    inner = dataclasses.replace(
        call, arguments={'bbox_2d': list(box), 'image': 2}
    )
    t = helpers.trajectory('a', (first,), ((inner, result),))
    crop = View(data=helpers.png(30, 30), root=0, box=(0, 0, 30, 30))
    t = dataclasses.replace(t, images=(*t.images, crop))
    assert reason(t) == want
  thousandths = helpers.trajectory('a', gaze((0, 0, 1000, 1000)))
  assert reason(thousandths) == 'box outside the image'
  assert reason(
      thousandths, gold='off', region=region('thousandths')
  ) is None


def test_the_first_check_that_fails_names_the_reason():
  t = helpers.trajectory('a', gaze((0, 0, 200, 10), OTHER), right=False)
  assert reason(t) == 'wrong answer'


def test_evidence_is_whole_words_as_answers_are_compared():
  for text, found in (
      ('the KELO, at last', True),
      ('kelo-the great', True),
      ('kelogram', False),
      ('', False),
  ):
    hit = Hit(title='', text=text, score=1.0)
    t = helpers.trajectory('a', (helpers.text(hits=(hit,)),))
    assert (reason(t) is None) == found, text
  # What a tool of a user's returns counts as well.
  call, result = helpers.text()
  result = dataclasses.replace(result, parts=('it is Kelo',))
  assert reason(helpers.trajectory('a', ((call, result),))) is None
  # An accepted form without a word proves nothing.
  t = helpers.trajectory('a', (helpers.text(hits=FOUND),))
  assert reason(t, helpers.example('a', answers=('?',))) == 'no evidence'


def test_what_the_infrastructure_spoilt_has_an_owner():
  well = helpers.trajectory('a')

  def spoilt(trajectory):
    example = helpers.example('a')
    return checks.failure(example, trajectory, SECTION, region())

  assert spoilt(well) is None
  down = (helpers.text(status=ToolStatus.INFRA_ERROR, error='time is up'),)
  tool = spoilt(helpers.trajectory('a', down))
  assert tool == checks.Failure('tool failed', 'time is up')
  no_word = dataclasses.replace(
      well, verdict=Verdict(right=None, by='judge/1', error='no judge')
  )
  judge = spoilt(no_word)
  assert judge == checks.Failure('judge failed', 'no judge')
  broken = dataclasses.replace(
      well,
      turns=(),
      answer=None,
      stop_reason=StopReason.ERROR,
      error='answers 500',
  )
  teacher = spoilt(broken)
  assert teacher == checks.Failure('model failed', 'answers 500')
  unknown = spoilt(dataclasses.replace(well, masked='my_part'))
  assert unknown == checks.Failure('reward unknown', 'my_part')


def test_calls_of_a_last_turn_were_not_made():
  """There are no results to search, and none to be searched for."""
  call, _ = helpers.text()
  turn = Turn(parsed=ParsedTurn(text='t', thought='hm', calls=(call,)))
  t = dataclasses.replace(unanswered(), turns=(turn,))
  assert reason(t) == 'no answer'
  assert checks.kind_of(t) == 'no_search'


@pytest.mark.parametrize(
    ('n', 'share', 'want'),
    [(5750, 0.435, (2501, 3249)), (256, 0.435, (111, 145)), (1, 0.435, (0, 1)),
     (10, 0.0, (0, 10)), (10, 1.0, (10, 0)), (2, 0.435, (1, 1))],
)  # fmt: skip
def test_the_mixtures_integers(n, share, want):
  assert tuple(mixture.sizes(n, share).values()) == want
  assert abs(want[0] - share * n) <= 0.5 and sum(want) == n
  kinds = ['search', 'no_search'] * n
  chosen = mixture.choose(kinds, n=n, no_search=share)
  picked = [kinds[i] for i in chosen]
  assert (picked.count('no_search'), picked.count('search')) == want
  assert chosen == sorted(chosen)


def test_the_first_of_each_kind_are_chosen():
  kinds = ['search', 'search', 'no_search', 'search', 'no_search', 'no_search']
  assert mixture.choose(kinds, n=4, no_search=0.5) == [0, 1, 2, 4]
  # Others that come later change nothing.
  assert mixture.choose(kinds + kinds, n=4, no_search=0.5) == [0, 1, 2, 4]


def test_the_largest_set_that_a_short_kind_allows():
  # By hand: of 7, round(3.045) = 3 do not search, of 8 round(3.48) = 3, of 9
  # round(3.915) = 4, and there are 3.
  kinds = ['no_search'] * 3 + ['search'] * 20
  for given, n, share, want in (
      (kinds, 100, 0.435, 8),
      (kinds, 5, 0.435, 5),
      (['search'] * 9, 9, 0.435, 1),
      (['no_search'] * 9, 9, 0.3, 0),
  ):
    assert len(mixture.choose(given, n=n, no_search=share)) == want

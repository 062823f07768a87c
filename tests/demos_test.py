"""The mixture of demos that SFT imitates."""

from __future__ import annotations

import collections

import numpy as np
import pytest

from gog_jax.errors import UserError
from gog_jax.toy import demos
from tests import report_helpers as helpers

pytestmark = pytest.mark.quick


def test_kinds_by_hand():
  gaze_hit, gaze_miss = (helpers.gaze(helpers.HIT),), (
      helpers.gaze(helpers.MISS),
  )
  example = helpers.example('a')
  for kind, turns in (
      ('no_search', []),
      ('recovered', [gaze_miss, gaze_hit]),
      ('other', [gaze_hit, gaze_miss]),
      ('other', [gaze_miss, (helpers.text(),)]),
      ('other', [(helpers.text(),)]),
  ):
    assert demos.kind_of(example, helpers.trajectory('a', *turns)) == kind


def test_the_mixture_has_the_shares_asked_for():
  rng = np.random.default_rng(0)
  kinds = list(
      rng.choice(('no_search', 'recovered', 'other'), 900, p=(0.4, 0.1, 0.5))
  )
  chosen = demos.mix(kinds, n=400, no_search=0.435, recovered=0.15)
  count = collections.Counter(kinds[i] for i in chosen)
  assert (count['no_search'], count['recovered']) == (174, 60)
  assert len(set(chosen)) == 400 and chosen == sorted(chosen)
  # The first of each kind, so that a larger set begins with a smaller one's.
  ordered = [i for i, kind in enumerate(kinds) if kind == 'recovered']
  assert [i for i in chosen if kinds[i] == 'recovered'] == ordered[:60]


def test_more_recoveries_than_asked_for_are_kept():
  kinds = ['no_search'] * 10 + ['recovered'] * 10
  chosen = demos.mix(kinds, n=20, no_search=0.5, recovered=0.1)
  assert len(chosen) == 20


@pytest.mark.parametrize(
    ('kinds', 'message'),
    [
        (['other'] * 20, '0 of 20 demos are of kind no_search, 4 are needed'),
        (['no_search'] * 20, '0 of 20 demos are of kind recovered, 2 are'),
        (
            ['no_search'] * 20 + ['recovered'] * 3,
            'makes 7 demos of 23 candidates, not 10',
        ),
    ],
)
def test_too_few_of_a_kind(kinds, message):
  with pytest.raises(UserError, match=message):
    demos.mix(kinds, n=10, no_search=0.4, recovered=0.2)

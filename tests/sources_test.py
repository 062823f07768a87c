"""Examples are checked as they are read."""

from __future__ import annotations

import pytest

from gog_jax.errors import UserError
from gog_jax.questions import sources
from gog_jax.types import Example
from tests import tiny

pytestmark = pytest.mark.quick


def examples(*images):
  return [
      Example(
          id=f'e{i}',
          images=(data,),
          question='?',
          answers=('x',),
          source='test',
          scope='',
      )
      for i, data in enumerate(images)
  ]


def test_a_corrupt_image_names_its_record():
  good = tiny.picture(56, 56, 0)
  damaged = good[:60] + bytes(40) + good[100:]
  source = examples(good, good, damaged)
  assert len(list(sources.Checked(source, what='set', start=0, n=2))) == 2
  with pytest.raises(UserError, match=r'set, record 2 \(e2\), image 1: cannot'):
    list(sources.Checked(source, what='set', start=1, n=2))


def test_too_few_say_how_many():
  source = examples(tiny.picture(56, 56, 0))
  with pytest.raises(UserError, match='set holds 1 examples, 3 are needed'):
    sources.Checked(source, what='set', start=1, n=2)

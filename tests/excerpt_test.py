"""What is shown of long documents."""

import time

from hypothesis import given
from hypothesis import strategies as st
import pytest

from gog_jax.tools.excerpt import excerpt
from gog_jax.tools.excerpt import excerpts
from gog_jax.types import Hit

pytestmark = pytest.mark.quick

_FILLER = 'lorem ipsum dolor sit amet ' * 400


def test_a_short_text_stays_as_it_is():
  assert excerpt('  a\nb ', 'b', n_characters=6) == '  a\nb '


def test_the_part_that_answers_is_shown():
  text = f'{_FILLER}The Palace was rebuilt in 1888. {_FILLER}'
  shown = excerpt(text, 'When was the palace rebuilt?', n_characters=200)
  assert 'The Palace was rebuilt in 1888.' in shown
  assert shown.startswith('...') and shown.endswith('...')
  assert len(shown) <= 200


def test_the_end_and_the_beginning_too():
  shown = excerpt(f'{_FILLER}rebuilt 1888', 'rebuilt', n_characters=100)
  assert shown.endswith('rebuilt 1888') and shown.startswith('...')
  shown = excerpt(f'rebuilt 1888 {_FILLER}', 'rebuilt', n_characters=100)
  assert shown.startswith('rebuilt 1888 lorem') and shown.endswith('...')


def test_different_words_count_not_repeated_ones():
  text = f'palace palace palace {_FILLER}palace rebuilt year {_FILLER}'
  shown = excerpt(text, 'palace rebuilt year', n_characters=150)
  assert 'palace rebuilt year' in shown


def test_many_words_in_a_long_text_take_no_time():
  words = [f'w{i}' for i in range(1000)]
  text = ' '.join(words * 200)
  started = time.perf_counter()
  shown = excerpt(text, ' '.join(words), n_characters=2000)
  assert time.perf_counter() - started < 5  # It was 20 s and more.
  assert len(shown) <= 2000


def test_without_words_it_is_the_beginning():
  for query in (None, '', '?', 'absent'):
    shown = excerpt(_FILLER, query, n_characters=50)
    assert shown.startswith('lorem ipsum') and len(shown) <= 50


@given(
    text=st.text(st.sampled_from('ab c\n年'), max_size=300),
    query=st.text(st.sampled_from('ab c年'), max_size=9),
    n=st.integers(10, 80),
)
def test_it_is_never_longer_and_all_of_it_is_there(text, query, n):
  shown = excerpt(text, query, n_characters=n)
  assert len(shown) <= n or shown == text and len(text) <= n
  assert shown.strip('.').strip() in text


def test_titles_are_cut_as_well_and_the_rest_is_kept():
  hit = Hit(title='t' * 999, text='x' * 999, score=0.5, image=b'i')
  (shown,) = excerpts([hit], 'q', n_characters=100)
  assert len(shown.title) <= 200 and len(shown.text) <= 100
  assert (shown.score, shown.image) == (0.5, b'i')

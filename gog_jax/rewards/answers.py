"""Compares an answer with the accepted ones.

`match` is ours and the reward's default: two answers are equal if they say the
same, as language/values.py reads them. tests/answers_test.py holds the table of
what that means. `exact_match` is SQuAD's, as published results are measured.
"""

from __future__ import annotations

import collections
import functools
import itertools
import re
import string

from gog_jax.language import values

# Of `match` and `token_f1`. Change it with what is equal.
VERSION = f'match-1 {values.VERSION}'

_ARTICLES = re.compile(r'\b(a|an|the)\b')
_PUNCTUATION = str.maketrans('', '', string.punctuation)


def match(answer: str, accepted: tuple[str, ...]) -> float:
  """1 if an answer says what an accepted form says, else 0.

  An answer without a letter, number or symbol has to be spelled as a form is.
  """
  said = _parts(answer)
  return float(bool(said) and any(_equal(said, _parts(f)) for f in accepted))


def token_f1(answer: str, accepted: tuple[str, ...]) -> float:
  """The best F1 between the answer's words and an accepted form's.

  Of scripts without spaces, characters are words.
  """
  if match(answer, accepted):
    return 1.0

  def f1(form: str) -> float:
    said, gold = keys(answer), keys(form)
    common = (collections.Counter(said) & collections.Counter(gold)).total()
    if not common:
      return 0.0
    precision, recall = common / len(said), common / len(gold)
    return 2 * precision * recall / (precision + recall)

  return max(f1(form) for form in accepted)


def keys(text: str) -> list[str]:
  """The words, numbers and symbols of a text, to be compared one by one."""
  return [token.key for token in values.tokens(text)]


def exact_match(answer: str, accepted: tuple[str, ...]) -> float:
  """SQuAD's: 1 if the answer is an accepted form, normalised, else 0.

  An answer of which normalisation leaves nothing is wrong.
  """
  normalised = squad_normalise(answer)
  return float(
      bool(normalised)
      and any(normalised == squad_normalise(form) for form in accepted)
  )


def squad_normalise(text: str) -> str:
  """Lower case, no punctuation, no articles, single spaces."""
  text = text.lower().translate(_PUNCTUATION)
  return ' '.join(_ARTICLES.sub(' ', text).split())


@functools.lru_cache(2**12)
def _parts(text: str) -> tuple[tuple[str, str], ...]:
  """What a text says, neighbouring words in one: (key, with its marks)."""
  parts = []
  for is_word, group in itertools.groupby(
      values.tokens(text), lambda token: token.is_word
  ):
    pairs = [(token.key, token.text) for token in group]
    parts += [tuple(map(''.join, zip(*pairs)))] if is_word else pairs
  bare = text.strip()
  return tuple(parts) or ((bare, bare),) * bool(bare)


def _equal(
    said: tuple[tuple[str, str], ...], form: tuple[tuple[str, str], ...]
) -> bool:
  """Marks may be left out, but not replaced; a lone letter keeps its own."""
  return len(said) == len(form) and all(
      key == other
      and (text == marked or key in (text, marked) and len(key) > 1)
      for (key, text), (other, marked) in zip(said, form, strict=True)
  )

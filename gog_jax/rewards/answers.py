"""Compares an answer with the accepted ones, as SQuAD does."""

from __future__ import annotations

import collections
import re
import string

_ARTICLES = re.compile(r'\b(a|an|the)\b')
_PUNCTUATION = str.maketrans('', '', string.punctuation)


def normalise(text: str) -> str:
  """Lower case, no punctuation, no articles, single spaces."""
  text = text.lower().translate(_PUNCTUATION)
  return ' '.join(_ARTICLES.sub(' ', text).split())


def exact_match(answer: str, accepted: tuple[str, ...]) -> float:
  """1 if the normalised answer equals a normalised accepted form, else 0.

  An answer of which normalisation leaves nothing is wrong.
  """
  normalised = normalise(answer)
  return float(
      bool(normalised)
      and any(normalised == normalise(form) for form in accepted)
  )


def token_f1(answer: str, accepted: tuple[str, ...]) -> float:
  """The best F1 between the answer's words and an accepted form's."""

  def f1(form: str) -> float:
    words, gold = normalise(answer).split(), normalise(form).split()
    common = (collections.Counter(words) & collections.Counter(gold)).total()
    if not common:
      return 0.0
    precision, recall = common / len(words), common / len(gold)
    return 2 * precision * recall / (precision + recall)

  return max(f1(form) for form in accepted)

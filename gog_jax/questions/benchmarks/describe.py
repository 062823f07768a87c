"""A benchmark in words, for `configs/benchmark.py`."""

from __future__ import annotations

import collections
from collections.abc import Iterator

from gog_jax import images
from gog_jax.questions.benchmarks import choice
from gog_jax.questions.benchmarks.loading import Benchmark
from gog_jax.types import Example

_SHOWN_DROPS = 3  # Of each reason.
_SHOWN_FORMS = 5
_PAPERS = "the paper's items, as far as is known"
_LENGTH = 200  # Characters of a question.


def describe(benchmark: Benchmark, *, n_samples: int = 3, seed: int = 0) -> str:
  """Counts, drops by reason, hash, label and some questions, for a terminal."""
  return '\n'.join(
      map(_printable, _lines(benchmark, n_samples=n_samples, seed=seed))
  )


def _lines(
    benchmark: Benchmark, *, n_samples: int, seed: int
) -> Iterator[str]:
  b = benchmark
  paper = f', the paper has {b.expected_n}' if b.expected_n else ''
  version = f'; version {b.date}' if b.date else ''
  yield f'{b.title}: {b.n} questions{paper}{version}'
  yield f'label: {b.label or _PAPERS}'
  yield f'contents: {b.digest}'
  for note in b.notes:
    yield f'note: {note}'
  reasons = collections.Counter(drop.reason for drop in b.drops)
  yield f'left out: {sum(reasons.values())}'
  for reason, n in reasons.most_common():
    yield f'  {n} {reason}'
    of_these = [drop for drop in b.drops if drop.reason == reason]
    for drop in of_these[:_SHOWN_DROPS]:
      yield f'    {drop}'
    if n > _SHOWN_DROPS:
      yield f'    and {n - _SHOWN_DROPS} more'
  for i in choice.draw(range(b.n), n=n_samples, seed=seed, id_of=str):
    yield from _sample(b.examples[i])


def _sample(example: Example) -> Iterator[str]:
  sizes = [
      '{} x {} pixels, {} bytes'.format(*images.size_of(data), len(data))
      for data in example.images
  ]
  yield f'{example.id}: {_short(example.question)}'
  yield f'  image: {"; ".join(sizes)}'
  forms = ' | '.join(map(_short, example.answers[:_SHOWN_FORMS]))
  more = len(example.answers) - _SHOWN_FORMS
  yield f'  answers: {forms}' + (f' and {more} more' if more > 0 else '')


def _printable(line: str) -> str:
  """Untrusted text without control characters, which could move the cursor."""
  return ''.join(c if c.isprintable() else '\ufffd' for c in line)


def _short(text: str) -> str:
  text = ' '.join(text.split())
  return text if len(text) <= _LENGTH else text[:_LENGTH] + '...'

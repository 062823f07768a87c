"""The benchmarks that are known, and what their readers take and return.

The paper prints no counts. Its scores fit k / n, to both decimals, only for the
n of the published ones (of MMSearch in all cells but one):

  * fvqa_test: 1,800, the published test file; all of it.
  * infoseek: 2,000 of its validation set's 73,620. Which ones is not
    published. MMSearch-R1's subset of that size is, as
    mmsearch_r1_infoseek_sub_2k.parquet, and is what its peers use.
  * simplevqa: 1,013 of 2,025 is exactly its English half.
  * mmsearch: 171 of the 300 of `end2end` is exactly those with an image.
  * livevqa: 2,000 of the 2,384 questions (1,192 pictures, two levels each) that
    its authors publish. Which ones is not published.
  * dynvqa: 706 is the size of the English version of 202502 alone; the four
    versions before it hold 715.

So "the paper's" can only be said of five, and of two of those with a condition;
LiveVQA takes a file of ids.
"""

from __future__ import annotations

from collections.abc import Callable
import dataclasses

from gog_jax import seams
from gog_jax.config.evaluation import BenchmarkConfig
from gog_jax.questions import questions as q
from gog_jax.questions.fetched import Fetched
from gog_jax.storage.records import Loaded

_HERE = 'gog_jax.questions.benchmarks'
# A Spec each. Instead of one of these a config may name FILE.py:NAME or
# MODULE:NAME, a function that gives questions as those of sources.py do.
BENCHMARKS = {
    'fvqa_test': f'{_HERE}.parquet_sets:FVQA_TEST',
    'infoseek': f'{_HERE}.parquet_sets:INFOSEEK',
    'simplevqa': f'{_HERE}.parquet_sets:SIMPLEVQA',
    'mmsearch': f'{_HERE}.parquet_sets:MMSEARCH',
    'livevqa': f'{_HERE}.livevqa:LIVEVQA',
    'dynvqa': f'{_HERE}.dynvqa:DYNVQA',
    'world': f'{_HERE}.registry:EMBEDDED',
    'world_hard': f'{_HERE}.registry:EMBEDDED_HARD',
    'world_validation': f'{_HERE}.registry:EMBEDDED_VALIDATION',
}


@dataclasses.dataclass(frozen=True, kw_only=True)
class Reading:
  """What a reader has found.

  Attributes:
    found: All questions, and what was left out.
    why: Why these are not the paper's items, apart from their number.
    notes: Other remarks.
    published: Whether these are the published items of the paper or its peers.
    date: The version, if there are several.
  """

  found: Loaded[q.Question]
  why: tuple[str, ...] = ()
  notes: tuple[str, ...] = ()
  published: bool = False
  date: str = ''


@dataclasses.dataclass(frozen=True, kw_only=True)
class Spec:
  """A benchmark.

  Attributes:
    title: For people.
    n: The paper's number of items; 0 if it is not in the paper.
    read: Reads a published set, given the config's section with a local `path`
      and its fetched images.
    split: The embedded world's split, if it is one.
    hub_id: Its data set on the Hugging Face hub, if any.
    patterns: Files to fetch from there.
    drawn: Whether the paper's items are an unpublished part of the set.
    label: Always stands beside its numbers.
  """

  title: str
  n: int = 0
  read: Callable[[BenchmarkConfig, Fetched], Reading] | None = None
  split: str = ''
  hub_id: str = ''
  patterns: tuple[str, ...] = ()
  drawn: bool = False
  label: str = ''


def _world(split: str) -> Spec:
  return Spec(
      title='Embedded world',
      split=split,
      label="embedded world, never in the paper's table",
  )


EMBEDDED = _world('test')
EMBEDDED_HARD = _world('hard')
EMBEDDED_VALIDATION = _world('validation')


def find(name: str, *, field: str = 'config.eval.benchmark') -> Spec:
  """The benchmark of that name; `field` is for messages.

  Raises:
    UserError: It is unknown, or a user's and cannot be loaded.
  """
  found = seams.load(name, BENCHMARKS, field=field)
  return found if isinstance(found, Spec) else users(name)


def users(name: str) -> Spec:
  """A user's own questions as a benchmark."""
  return Spec(title=name, label='not in the paper')

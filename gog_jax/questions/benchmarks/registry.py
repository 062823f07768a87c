"""The benchmarks that are known, and what is known of the paper's items.

The paper prints no counts. Its scores fit k / n, to both decimals, only for the
n below (of MMSearch in all cells but one). What follows for each:

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

So 'the paper's' can only be said of five, and of two of those with a condition;
LiveVQA takes a file of ids.
"""

from __future__ import annotations

import dataclasses

from gog_jax.errors import UserError

WORLD = 'world'


@dataclasses.dataclass(frozen=True, kw_only=True)
class Spec:
  """A benchmark.

  Attributes:
    name: As configs and tables name it.
    title: As people do.
    n: Items of the paper's; 0 where it has none.
    hub_id: Its data set on the Hugging Face hub, '' where it is not there.
    patterns: Of the files that are needed of it.
    drawn: Whether the paper's items are some of those published, and nobody
      says which.
    date: The version the paper's count belongs to, where there are several.
    label: What stands beside its numbers whatever it holds.
  """

  name: str
  title: str
  n: int
  hub_id: str = ''
  patterns: tuple[str, ...] = ()
  drawn: bool = False
  date: str = ''
  label: str = ''


_SPECS = (
    Spec(
        name='fvqa_test',
        title='FVQA-test',
        n=1800,
        hub_id='lmms-lab/FVQA',
        patterns=('*test*.parquet',),
    ),
    Spec(
        name='infoseek',
        title='InfoSeek',
        n=2000,
        patterns=('*.jsonl', '*.parquet'),
        drawn=True,
    ),
    Spec(
        name='simplevqa',
        title='SimpleVQA (English)',
        n=1013,
        hub_id='m-a-p/SimpleVQA',
        patterns=('*.parquet',),
    ),
    Spec(
        name='mmsearch',
        title='MMSearch (with an image)',
        n=171,
        hub_id='CaraJ/MMSearch',
        patterns=('*end2end*.parquet', 'end2end/*.parquet'),
    ),
    Spec(
        name='livevqa',
        title='LiveVQA',
        n=2000,
        patterns=('*.json', '*.jpg', '*.JPG', '*.jpeg', '*.png', '*.webp'),
        drawn=True,
    ),
    Spec(
        name='dynvqa',
        title='DynVQA (English)',
        n=706,
        patterns=('*.jsonl',),
        date='202502',
    ),
    Spec(
        name=WORLD,
        title='Embedded world',
        n=0,
        label="embedded world, never in the paper's table",
    ),
)
SPECS = {spec.name: spec for spec in _SPECS}
NAMES = tuple(SPECS)


def find(name: str) -> Spec:
  """The benchmark of that name.

  Raises:
    UserError: There is none; lists those known.
  """
  if name not in SPECS:
    raise UserError(
        f'config.benchmark.name = {name!r} is no benchmark; there are '
        f'{", ".join(name for name in NAMES if name != WORLD)}'
    )
  return SPECS[name]

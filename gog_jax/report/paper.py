"""The paper's results as data, and which of our policies stand beside which.

Glance-or-Gaze (arXiv 2601.13942), its main table and its ablations, in per
cent. Counts are not printed; those here were recovered: the scores of a column
fit k / n to both decimals for no other n, or for none smaller
(benchmarks/registry.py says what that means for the items). One cell fits none.
"""

from __future__ import annotations

import dataclasses
import re

from gog_jax.config import paradigms
from gog_jax.report import intervals

# Name, title, recovered n; in the order of the paper's columns.
COLUMNS = (
    ('fvqa_test', 'FVQA-test', 1800),
    ('infoseek', 'InfoSeek', 2000),
    ('simplevqa', 'SimpleVQA', 1013),
    ('mmsearch', 'MMSearch', 171),
    ('livevqa', 'LiveVQA', 2000),
    ('dynvqa', 'DynVQA', 706),
)
NAMES = tuple(name for name, _, _ in COLUMNS)
TITLES = {name: title for name, title, _ in COLUMNS}
N = {name: n for name, _, n in COLUMNS}

QWEN2_5, QWEN3, GPT = 'qwen2_5_vl', 'qwen3_vl', 'gpt_4o'
BACKBONES = {
    QWEN2_5: 'Qwen2.5-VL-7B-Instruct',
    QWEN3: 'Qwen3-VL-8B-Thinking',
    GPT: 'GPT-4o',
}
_FAMILIES = (
    (QWEN2_5, re.compile(r'qwen-?2[._]5|mmsearch-r1')),
    (QWEN3, re.compile(r'qwen-?3')),
    (GPT, re.compile(r'gpt-?4o')),
)

FOOTNOTE = (
    'MMSearch of full search on Qwen3-VL-8B-Thinking is printed as '
    "63.84, which is no k / 171, and its row's printed average, 46.99, is 0.66 "
    "above its columns' 46.33. With 67.84 = 116 / 171 both fit: a misprint, "
    'most likely.'
)


@dataclasses.dataclass(frozen=True, kw_only=True)
class PaperRow:
  """A line of the paper's.

  Attributes:
    paradigm: One of PARADIGMS.
    family: Its backbone's family, one of BACKBONES.
    average: As printed.
    scores: By column, as printed; empty where only the average is.
    footnote: The column that FOOTNOTE is about, if any.
  """

  paradigm: str
  family: str
  average: float
  scores: tuple[float, ...] = ()
  footnote: str = ''

  def right(self, name: str) -> int:
    """The number of right answers in a column, recovered from the score."""
    return round(self.scores[NAMES.index(name)] / 100 * N[name])

  def interval(self, name: str) -> list[float]:
    """Our exact interval, from the recovered count; fractions of 1."""
    return intervals.exact(self.right(name), N[name])


PARADIGMS = {
    'direct': 'Direct answer',
    'prompted': 'Prompt-based GoG',
    'full_search': 'Full-search workflow',
    'mmsearch_r1': 'MMSearch-R1 (reproduced)',
    'sft': 'GoG-SFT',
    'rl': 'GoG-RL',
    'sft_no_gaze': 'SFT without Selective Gaze',
    'rl_level1': 'GoG-RL on Level 1',
}


def _row(paradigm: str, family: str, average: float, *scores: float, **more):
  return PaperRow(
      paradigm=paradigm, family=family, average=average, scores=scores, **more
  )


ROWS = (
    _row('direct', QWEN2_5, 20.31, 25.33, 13.90, 41.26, 14.62, 10.30, 16.43),
    _row('direct', QWEN3, 23.84, 24.56, 16.05, 41.76, 15.20, 15.15, 30.31),
    _row('direct', GPT, 30.68, 42.00, 30.60, 43.44, 21.64, 14.80, 31.59),
    _row('prompted', QWEN2_5, 22.31, 24.50, 17.40, 41.66, 20.47, 10.40, 19.41),
    _row('prompted', QWEN3, 41.70, 51.33, 32.00, 62.69, 36.84, 25.95, 41.36),
    _row(
        'full_search', QWEN2_5, 44.36, 61.06, 38.15, 59.13, 36.26, 31.05, 40.51
    ),
    _row(
        'full_search', QWEN3, 46.99, 57.33, 32.25, 61.90, 63.84, 23.55, 39.09,
        footnote='mmsearch',
    ),
    _row(
        'mmsearch_r1', QWEN2_5, 36.91, 42.39, 24.65, 54.79, 40.94, 23.85, 34.84
    ),
    _row('sft', QWEN2_5, 43.28, 53.72, 41.90, 60.61, 40.35, 24.55, 38.53),
    _row('sft', QWEN3, 50.17, 62.17, 40.55, 65.65, 53.80, 32.40, 46.46),
    _row('rl', QWEN2_5, 53.22, 66.78, 51.05, 64.86, 56.73, 37.70, 42.21),
    _row('rl', QWEN3, 56.88, 68.44, 49.05, 66.44, 65.50, 43.85, 48.02),
    # Ablations, of which averages alone are printed.
    _row('sft_no_gaze', QWEN2_5, 41.76),
    _row('sft_no_gaze', QWEN3, 48.34),
    _row('rl_level1', QWEN2_5, 47.28),
    _row('rl_level1', QWEN3, 48.89),
)  # fmt: skip


def family_of(*hints: str) -> str | None:
  """A backbone's family by its path, its name or its dialect; None if unsure.

  The first hint that tells anything decides.
  """
  for hint in hints:
    for family, pattern in _FAMILIES:
      if pattern.search(hint.lower()):
        return family
  return None


def paradigm_of(policy: str, model: str = '') -> str | None:
  """Which of the paper's paradigms a policy plays; None if none.

  The paper's direct answers and full searches are of untrained backbones: a
  trained model that answers so is neither, and one that merely speaks
  MMSearch-R1's dialect is not MMSearch-R1.

  Args:
    policy: Its name, PARADIGM@MODEL or a short one.
    model: Path or name of what is asked, where it is asked as it comes: the
      authors' own checkpoints are called GoG-SFT-... and GoG-RL-...
  """
  paradigm, _, who = paradigms.spelled_out(policy).partition('@')
  if who in ('base', 'remote'):
    published = re.search(r'gog-(sft|rl)\b', model.lower())
    if paradigm == 'gog':
      return published[1] if published else 'prompted'
    if paradigm == 'mmsearch_r1':  # The paper's was trained for it.
      return paradigm if 'mmsearch-r1' in model.lower() else None
    return paradigm if paradigm in PARADIGMS and not published else None
  stage = who.removesuffix(paradigms.BEST)
  if paradigm == 'gog' and stage in ('sft', 'rl', 'rl_level1'):
    return stage
  return who if (paradigm, who) == ('no_gaze', 'sft_no_gaze') else None


def find(paradigm: str | None, family: str | None) -> PaperRow | None:
  """The paper's row of a paradigm and a family of backbones."""
  wanted = (paradigm, family)
  rows = (row for row in ROWS if (row.paradigm, row.family) == wanted)
  return next(rows, None)

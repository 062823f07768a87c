"""Benchmarks whose published files are parquet, a question a row.

Of FVQA the test file is all of it. Of SimpleVQA's 2,025 questions 1,013 are
English, and of MMSearch's 300 171 come with an image: exactly the numbers that
the paper's scores fit (but for one cell of MMSearch), so these are taken for
its items.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
import functools
import os

from gog_jax.config.evaluation import BenchmarkConfig
from gog_jax.errors import UserError
from gog_jax.questions import answers
from gog_jax.questions import infoseek
from gog_jax.questions import questions as q
from gog_jax.questions import tables
from gog_jax.questions import verl
from gog_jax.questions.benchmarks.registry import Reading
from gog_jax.questions.benchmarks.registry import Spec
from gog_jax.questions.fetched import Fetched
from gog_jax.questions.local_files import files_of

# Parts of a question, and what a column of each has to hold.
_PARTS = {
    'id': tables.ID,
    'question': tables.TEXT,
    'language': tables.TEXT,
    'answer': tables.TEXT,
    'forms': tables.TEXTS,  # Other accepted answers.
    'image': tables.IMAGE,
}
_SUBSET = 'mmsearch_r1_infoseek_sub_2k'
# The validation set alone has answers that anyone can look at.
_INFOSEEK_FILES = ('infoseek_val.jsonl', 'infoseek_val_withkb.jsonl')


def _read_fvqa(c: BenchmarkConfig, fetched: Fetched) -> Reading:
  del fetched
  found = verl.read(
      c.path,
      name=c.name,
      images=c.images,
      prefer=('test', ''),
      needed=('data_id',),
  )
  return Reading(found=found, published=True)


def _read_infoseek(c: BenchmarkConfig, fetched: Fetched) -> Reading:
  """Reads MMSearch-R1's subset in parquet if it is there, else JSON lines.

  Which 2,000 questions the paper has is not published. MMSearch-R1's, which
  its peers use, are; they count as the paper's, and a note says that this is a
  guess. Of the authors' file as many are drawn, and said not to be the paper's.
  """
  del fetched
  prefer = ('infoseek', '')
  files = files_of(c.path, *tables.SUFFIXES, prefer=prefer)
  if not files or not files[0].endswith(tables.SUFFIXES):
    file = _infoseek_file(c.path)
    found = infoseek.read(file, name=c.name, images=c.images)
    return Reading(found=found)
  found = verl.read(c.path, name=c.name, images=c.images, prefer=prefer)
  if _SUBSET not in ' '.join(files):
    return Reading(found=found)
  note = (
      "MMSearch-R1's published subset; that the paper has the same 2,000 is "
      'likely, and said nowhere'
  )
  return Reading(found=found, published=True, notes=(note,))


def _infoseek_file(path: str) -> str:
  found = files_of(path, *_INFOSEEK_FILES)
  if not found:
    raise UserError(
        f'{path} holds neither {_SUBSET}.parquet nor {_INFOSEEK_FILES[0]}; '
        'give --config.benchmark.path the file itself if it has another name'
    )
  return min(found, key=lambda file: file.count(os.sep))


def _read_columns(
    c: BenchmarkConfig,
    fetched: Fetched,
    *,
    columns: Mapping[str, str],
    prefer: Sequence[str] = ('',),
) -> Reading:
  """A set with a column for each part of a question, named as in `_PARTS`.

  Where it says a question's language, those that are not English are no part
  of the benchmark, and not counted as left out.
  """
  del fetched

  def question_of(row: tables.Row, place: str) -> q.Question | None:
    del place
    values = {part: row.get(column) for part, column in columns.items()}
    if (values.get('language', 'EN') or '').strip().upper() != 'EN':
      return None
    others = answers.listed(values.get('forms'))
    return q.Question(
        id=str(values['id']),
        question=(values['question'] or '').strip(),
        answers=answers.forms(values['answer'], others),
    )

  found = tables.read(
      c.path,
      name=c.name,
      needed={part: {name: _PARTS[part]} for part, name in columns.items()},
      question_of=question_of,
      images=c.images,
      prefer=prefer,
  )
  return Reading(found=found, published=True)


FVQA_TEST = Spec(
    title='FVQA-test',
    n=1800,
    read=_read_fvqa,
    hub_id='lmms-lab/FVQA',
    patterns=('*test*.parquet',),
)
INFOSEEK = Spec(
    title='InfoSeek',
    n=2000,
    read=_read_infoseek,
    patterns=('*.jsonl', '*.parquet'),
    drawn=True,
)
SIMPLEVQA = Spec(
    title='SimpleVQA (English)',
    n=1013,
    read=functools.partial(
        _read_columns,
        columns={
            'id': 'data_id',
            'language': 'language',
            'question': 'question',
            'answer': 'answer',
            'image': 'image',
        },
    ),
    hub_id='m-a-p/SimpleVQA',
    patterns=('*.parquet',),
)
MMSEARCH = Spec(
    title='MMSearch (with an image)',
    n=171,
    read=functools.partial(
        _read_columns,
        columns={
            'id': 'sample_id',
            'question': 'query',
            'answer': 'gt_answer',
            'forms': 'alternative_gt_answers',
            'image': 'query_image',
        },
        prefer=('end2end', ''),
    ),
    hub_id='CaraJ/MMSearch',
    patterns=('*end2end*.parquet', 'end2end/*.parquet'),
)

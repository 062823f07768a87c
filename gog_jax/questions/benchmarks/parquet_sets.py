"""Benchmarks whose published files are parquet, a question a row.

Of FVQA the test file is all of it. Of SimpleVQA's 2,025 questions 1,013 are
English, and of MMSearch's 300 171 come with an image: exactly the numbers that
the paper's scores fit (but for one cell of MMSearch), so these are taken for
its items.
"""

from __future__ import annotations

import os

from gog_jax.errors import UserError
from gog_jax.questions import answers
from gog_jax.questions import infoseek
from gog_jax.questions import parquet
from gog_jax.questions import questions as q
from gog_jax.questions import tables
from gog_jax.questions import verl
from gog_jax.questions.benchmarks.registry import Reading
from gog_jax.questions.benchmarks.registry import Request
from gog_jax.questions.benchmarks.registry import Spec

_TEXT = ('text', parquet.is_text)
_ID = ('text or a number', tables.is_name)
_SUBSET = 'mmsearch_r1_infoseek_sub_2k'
# The validation set alone has answers that anyone can look at.
_INFOSEEK_FILES = ('infoseek_val.jsonl', 'infoseek_val_withkb.jsonl')


def _read_fvqa(request: Request) -> Reading:
  found = verl.read(
      request.path,
      name=request.spec.name,
      images=request.images,
      prefer=('test', ''),
      needed=('data_id',),
  )
  return Reading(found=found, published=True)


def _read_infoseek(request: Request) -> Reading:
  """Reads MMSearch-R1's subset in parquet if it is there, else JSON lines.

  Which 2,000 questions the paper has is not published. MMSearch-R1's, which
  its peers use, are; they count as the paper's, and a note says that this is a
  guess. Of the authors' file as many are drawn, and said not to be the paper's.
  """
  path, name, images = request.path, request.spec.name, request.images
  prefer = ('infoseek', '')
  files = parquet.files_of(path, prefer=prefer)
  if not os.path.isdir(path) and not path.endswith(('.parquet', '.pq')):
    files = []
  if not files:
    file = _infoseek_file(path)
    found = infoseek.read(file, name=name, images=images)
    return Reading(found=found)
  found = verl.read(path, name=name, images=images, prefer=prefer)
  if _SUBSET not in ' '.join(files):
    return Reading(found=found)
  note = (
      "MMSearch-R1's published subset; that the paper has the same 2,000 is "
      'likely, and said nowhere'
  )
  return Reading(found=found, published=True, notes=(note,))


def _infoseek_file(path: str) -> str:
  if os.path.isfile(path):
    return path
  for place, folders, names in os.walk(path):
    folders.sort()
    for name in _INFOSEEK_FILES:
      if name in names:
        return os.path.join(place, name)
  raise UserError(
      f'{path} holds neither {_SUBSET}.parquet nor {_INFOSEEK_FILES[0]}; give '
      '--config.benchmark.path the file itself if it has another name'
  )


def _read_simplevqa(request: Request) -> Reading:
  """The English questions; the others are not counted as left out."""

  def question_of(row: tables.Row, place: str) -> q.Question | None:
    del place
    if (row['language'] or '').strip().upper() != 'EN':
      return None
    return q.Question(
        id=str(row['data_id']),
        text=(row['question'] or '').strip(),
        answers=answers.forms(row['answer']),
    )

  found = tables.read(
      request.path,
      name=request.spec.name,
      needed={
          'data_id': _ID,
          'language': _TEXT,
          'question': _TEXT,
          'answer': _TEXT,
          'image': tables.IMAGE,
      },
      image='image',
      question_of=question_of,
      images=request.images,
  )
  return Reading(found=found, published=True)


def _read_mmsearch(request: Request) -> Reading:
  """Its end-to-end questions; those without an image are left out, counted."""

  def question_of(row: tables.Row, place: str) -> q.Question:
    del place
    column = 'alternative_gt_answers'
    others = answers.listed(row[column], column=column)
    return q.Question(
        id=str(row['sample_id']),
        text=(row['query'] or '').strip(),
        answers=answers.forms(row['gt_answer'], others),
    )

  found = tables.read(
      request.path,
      name=request.spec.name,
      needed={
          'sample_id': _ID,
          'query': _TEXT,
          'gt_answer': _TEXT,
          'alternative_gt_answers': (
              'a list of texts',
              lambda kind: parquet.is_list(kind) or parquet.is_text(kind),
          ),
          'query_image': tables.IMAGE,
      },
      image='query_image',
      question_of=question_of,
      images=request.images,
      prefer=('end2end', ''),
  )
  return Reading(found=found, published=True)


FVQA_TEST = Spec(
    name='fvqa_test',
    title='FVQA-test',
    n=1800,
    read=_read_fvqa,
    hub_id='lmms-lab/FVQA',
    patterns=('*test*.parquet',),
)
INFOSEEK = Spec(
    name='infoseek',
    title='InfoSeek',
    n=2000,
    read=_read_infoseek,
    patterns=('*.jsonl', '*.parquet'),
    drawn=True,
)
SIMPLEVQA = Spec(
    name='simplevqa',
    title='SimpleVQA (English)',
    n=1013,
    read=_read_simplevqa,
    hub_id='m-a-p/SimpleVQA',
    patterns=('*.parquet',),
)
MMSEARCH = Spec(
    name='mmsearch',
    title='MMSearch (with an image)',
    n=171,
    read=_read_mmsearch,
    hub_id='CaraJ/MMSearch',
    patterns=('*end2end*.parquet', 'end2end/*.parquet'),
)

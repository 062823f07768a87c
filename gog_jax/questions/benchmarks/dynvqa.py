"""DynVQA's English questions: dated JSON lines, images by their addresses.

Answers change with the world, so there is a version every few months:
`DynVQA_en.202412.jsonl`. Only that of 202502 has 706 questions, which is what
the paper's scores fit. An answer may be nested, a number, or missing; Chinese
forms stand beside English ones, of which the first is the canonical one.
"""

from __future__ import annotations

import collections
import os
import re

from gog_jax.config.evaluation import BenchmarkConfig
from gog_jax.errors import UserError
from gog_jax.questions import answers
from gog_jax.questions import json_lines
from gog_jax.questions import questions as q
from gog_jax.questions.benchmarks import linked
from gog_jax.questions.benchmarks.registry import Reading
from gog_jax.questions.benchmarks.registry import Spec
from gog_jax.questions.fetched import Fetched
from gog_jax.questions.local_files import files_of
from gog_jax.storage.records import Line

_PAPERS = '202502'  # The version that the paper's count belongs to.
_DATED = re.compile(r'\.(\d{6})\.jsonl$')
_CHINESE = re.compile('[\u3400-\u9fff]')


def read(c: BenchmarkConfig, fetched: Fetched) -> Reading:
  """Reads one version.

  Raises:
    UserError: There is none of that date, or it has unknown columns.
  """
  path, date = _file(c)
  lines = list(json_lines.lines(path))
  rows = (line.value for _, line in lines if isinstance(line, Line))
  urls = (row.get('image_url') for row in rows)
  images = linked.Linked(
      c,
      fetched,
      (url for url in urls if isinstance(url, str)),
      os.path.join(os.path.dirname(path), 'images'),
  )

  def question_of(line: Line) -> q.Question:
    row = line.value
    url = json_lines.field(row, 'image_url')
    answer = json_lines.field(
        row, 'answer', (list, str, int, float, type(None)), 'a list of texts'
    )
    # English first; sorting keeps the order within each language.
    forms = sorted(answers.forms(answer), key=_is_chinese)
    return q.Question(
        id=str(json_lines.field(row, 'question_id', (str, int))),
        question=json_lines.field(row, 'question').strip(),
        answers=tuple(forms),
        images=images.read(url),
    )

  found = q.load(c.name, lines, question_of)
  n = sum(all(map(_is_chinese, one.answers)) for one in found.items)
  note = f'{n} have answers in Chinese alone, which no exact match will meet'
  other = (
      f'version {date or "without a date"}, the paper\'s count is that of '
      f'{_PAPERS}'
  )
  return Reading(
      found=found,
      why=() if date == _PAPERS else (other,),
      notes=(note,) if n else (),
      date=date,
      published=True,
  )


def _is_chinese(form: str) -> bool:
  return bool(_CHINESE.search(form))


def _file(c: BenchmarkConfig) -> tuple[str, str]:
  """A version's file and date: as configured, the paper's, or the latest."""
  versions = collections.defaultdict(list)
  for file in files_of(c.path, '.jsonl'):
    dated = _DATED.search(file)
    name = os.path.relpath(file, c.path).lower()
    if '_zh' not in name and '_ch' not in name:
      versions[dated[1] if dated else ''].append(file)
  if os.path.isfile(c.path):
    return c.path, c.date or next(iter(versions))
  if not versions:
    raise UserError(
        f'{c.path} holds no DynVQA_en.DATE.jsonl; give --config.benchmark.path '
        'its folder or the file'
    )
  date = c.date or (_PAPERS if _PAPERS in versions else max(versions))
  if date not in versions:
    raise UserError(
        f'{c.path} holds no version {date} of DynVQA; there are '
        f'{", ".join(sorted(versions))}: choose one with '
        '--config.benchmark.date'
    )
  return versions[date][0], date


DYNVQA = Spec(
    title='DynVQA (English)',
    n=706,
    read=read,
    patterns=('*.jsonl',),
)

"""DynVQA's English questions: dated JSON lines, images by their addresses.

Answers change with the world, so there is a version every few months:
`DynVQA_en.202412.jsonl`. Only that of 202502 has 706 questions, which is what
the paper's scores fit. An answer may be nested, a number, or missing; Chinese
forms stand beside English ones, of which the first is the canonical one.
"""

from __future__ import annotations

import os
import re
from typing import Any

from gog_jax.errors import UserError
from gog_jax.questions import answers
from gog_jax.questions import json_lines
from gog_jax.questions import questions as q
from gog_jax.questions.benchmarks import linked
from gog_jax.questions.benchmarks.registry import Reading
from gog_jax.questions.benchmarks.registry import Request
from gog_jax.questions.benchmarks.registry import Spec

_DATED = re.compile(r'\.(\d{6})\.jsonl$')
_CHINESE = re.compile('[\u3400-\u9fff]')


def read(request: Request) -> Reading:
  """Reads one version.

  Raises:
    UserError: There is none, or not of that date, or its columns are others.
  """
  path, date = _file(request)
  found = q.QuestionSet(request.spec.name)
  lines = list(json_lines.lines(path, found=found))
  urls = (line.value.get('image_url') for _, line in lines)
  images = linked.Linked(
      request,
      (url for url in urls if isinstance(url, str)),
      os.path.join(os.path.dirname(path), 'images'),
  )
  for where, line in lines:
    with found.record(where):
      found.add(_question(line.value, where=where, images=images))
  papers = request.spec.date
  other = (
      f'version {date or "without a date"}, the paper\'s count is that of '
      f'{papers}',
  )
  loaded = found.loaded()
  n = sum(
      all(map(_CHINESE.search, question.answers))
      for question in loaded.items.questions
  )
  note = f'{n} have answers in Chinese alone, which no exact match will meet'
  return Reading(
      found=loaded,
      why=() if date == papers else other,
      notes=(note,) if n else (),
      date=date,
      published=True,
  )


def _question(
    row: dict[str, Any], *, where: str, images: linked.Linked
) -> q.Question:
  url = json_lines.field(row, 'image_url', str, 'text')
  answer = json_lines.field(
      row, 'answer', (list, str, int, float, type(None)), 'a list of texts'
  )
  return q.Question(
      id=str(json_lines.field(row, 'question_id', (str, int), 'text')),
      text=json_lines.field(row, 'question', str, 'text').strip(),
      # Sorting keeps the order within each.
      answers=tuple(
          sorted(
              answers.forms(answer),
              key=lambda form: bool(_CHINESE.search(form)),
          )
      ),
      images=q.found_image(images.find(url), images.why(url)),
      where=where,
  )


def _file(request: Request) -> tuple[str, str]:
  """The file of a version, and its date: the paper's or else the latest."""
  path, date = request.path, request.date
  if os.path.isfile(path):
    dated = _DATED.search(path)
    return path, date or (dated[1] if dated else '')
  versions = {}
  for place, _, names in os.walk(path):
    for name in names:
      lower = os.path.join(os.path.relpath(place, path), name).lower()
      if name.endswith('.jsonl') and '_zh' not in lower and '_ch' not in lower:
        dated = _DATED.search(name)
        versions.setdefault(dated[1] if dated else '', []).append(
            os.path.join(place, name)
        )
  if not versions:
    raise UserError(
        f'{path} holds no DynVQA_en.DATE.jsonl; give --config.benchmark.path '
        'its folder or the file'
    )
  papers = request.spec.date
  chosen = date or (papers if papers in versions else max(versions))
  if chosen not in versions:
    raise UserError(
        f'{path} holds no version {chosen} of DynVQA; there are '
        f'{", ".join(sorted(versions))}: choose one with '
        '--config.benchmark.date'
    )
  return min(versions[chosen]), chosen


DYNVQA = Spec(
    name='dynvqa',
    title='DynVQA (English)',
    n=706,
    read=read,
    patterns=('*.jsonl',),
    date='202502',
)

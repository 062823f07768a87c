"""DynVQA's English questions: dated JSON lines, images by their addresses.

Answers change with the world, so there is a version every few months:
`DynVQA_en.202412.jsonl`. Only that of 202502 has 706 questions, which is what
the paper's scores fit. An answer may be nested, a number, or missing; Chinese
forms stand beside English ones, of which the first is the canonical one.
"""

from __future__ import annotations

import dataclasses
import os
import re
from typing import Any

from gog_jax.errors import UserError
from gog_jax.questions import answers
from gog_jax.questions import json_lines
from gog_jax.questions import questions as q
from gog_jax.questions.benchmarks import linked
from gog_jax.questions.benchmarks import reading

_DATED = re.compile(r'\.(\d{6})\.jsonl$')
_CHINESE = re.compile('[\u3400-\u9fff]')


def read(request: reading.Request) -> reading.Reading:
  """Reads one version.

  Raises:
    UserError: There is none, or not of that date, or its columns are others.
  """
  path, date = _file(request)
  found = q.Gathering(request.spec.name)
  rows = list(json_lines.rows(path, found=found))
  here = os.path.dirname(path)
  images = linked.Linked(
      request,
      (
          row['image_url']
          for _, row in rows
          if isinstance(row.get('image_url'), str)
      ),
      os.path.join(here, 'images'),
  )
  for where, row in rows:
    try:
      url = json_lines.field(row, 'image_url', str, 'text')
      question = _question(row, where=where, path=images.find(url))
    except q.Mismatch as error:
      found.mismatch(where, error)
      continue
    if question.images:
      found.add(question)
    else:
      found.drop(where, q.MISSING_IMAGE, images.why(url))
  opened = reading.of(
      found.records(),
      why=_why(date, request.spec.date),
      date=date,
      published=True,
  )
  n = sum(
      all(map(_CHINESE.search, question.answers))
      for question in opened.questions
  )
  note = f'{n} have answers in Chinese alone, which no exact match will meet'
  return dataclasses.replace(opened, notes=(note,)) if n else opened


def _question(row: dict[str, Any], *, where: str, path: str | None):
  forms = answers.forms(
      json_lines.field(
          row, 'answer', (list, str, int, float, type(None)), 'a list of texts'
      )
  )
  return q.Question(
      id=str(json_lines.field(row, 'question_id', (str, int), 'text')),
      text=json_lines.field(row, 'question', str, 'text').strip(),
      # Sorting keeps the order within each.
      answers=tuple(
          sorted(forms, key=lambda form: bool(_CHINESE.search(form)))
      ),
      images=(q.FileImage(path=path),) if path else (),
      where=where,
  )


def _why(date: str, papers: str) -> tuple[str, ...]:
  if date == papers:
    return ()
  return (
      f'version {date or "without a date"}, the paper\'s count is that of '
      f'{papers}',
  )


def _file(request: reading.Request) -> tuple[str, str]:
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

"""LiveVQA: News, Paper and Video, each a benchmark.json beside its images.

A record has two questions about one picture, `level1_qa` and `level2_qa`, and
both count: 2,384 of them are published. Which 2,000 the paper has is not.

There are four or five options to each. The authors' own evaluation does not
show them and compares with `Ground_Truth_List`; nor did the paper, it seems,
whose direct answers are right in 10 to 15 %, which is below chance. So they
are shown only if asked for; then the letter is a right answer too, and the
numbers are not the paper's.
"""

from __future__ import annotations

import dataclasses
import json
import os
from typing import Any

from gog_jax.errors import UserError
from gog_jax.questions import answers
from gog_jax.questions import json_lines
from gog_jax.questions import questions as q
from gog_jax.questions.benchmarks import linked
from gog_jax.questions.benchmarks.registry import Reading
from gog_jax.questions.benchmarks.registry import Request
from gog_jax.questions.benchmarks.registry import Spec
from gog_jax.questions.image_folder import ImageFolder
from gog_jax.storage.records import Unusable

_FILE = 'benchmark.json'
_PARTS = ('News', 'Paper', 'Video')
_LEVELS = ('level1_qa', 'level2_qa')
_FOLDERS = ('News_imgs', 'Paper_images', 'Video_images', 'images')
# Published ones have less than a megabyte.
MAX_FILE_BYTES = 256 * 2**20

Asked = tuple[str, str, dict[str, Any]]  # Where, id, and level's fields.


def read(request: Request) -> Reading:
  """Reads every part that is there.

  Raises:
    UserError: There is none, or its columns are others.
  """
  found = q.QuestionSet(request.spec.name)
  asked: list[tuple[Asked, ImageFolder]] = []
  files = _files(request.path)
  for path in files:
    folder = _folder(request, path)
    asked += [(one, folder) for one in _records(path, found=found)]
  images = linked.Linked(
      request,
      (
          _text(qa, 'img_url')
          for (_, _, qa), folder in asked
          if folder.by_name(_text(qa, 'img_path')) is None
      ),
  )
  for (where, id, qa), folder in asked:
    with found.record(where):
      question = _question(qa, id=id, where=where, options=request.options)
      url = _text(qa, 'img_url')
      path = folder.by_name(_text(qa, 'img_path')) or images.find(url)
      image = q.found_image(path, images.why(url))
      found.add(dataclasses.replace(question, images=image))
  parts = [os.path.basename(os.path.dirname(path)) for path in files]
  shown = ("its options are shown, which the paper's numbers do not fit",)
  return Reading(
      found=found.loaded(),
      why=shown if request.options else (),
      notes=(f'parts {", ".join(parts)}; each picture is asked about twice',),
  )


def _question(
    qa: dict[str, Any], *, id: str, where: str, options: bool
) -> q.Question:
  text = json_lines.field(qa, 'question', str, 'text').strip()
  right = json_lines.field(
      qa, 'Ground_Truth_List', (list, str, type(None)), 'a list of texts'
  )
  letter = json_lines.field(qa, 'Ground_Truth', (str, type(None)), 'text')
  shown = answers.forms(qa.get('options'))
  forms = answers.forms(right)
  if shown and options:
    text += '\nOptions:\n' + '\n'.join(shown)
    whole = [one for one in shown if letter and one.startswith(f'{letter}.')]
    forms = answers.forms(forms, letter, whole)
  elif not shown:
    forms = answers.forms(forms, letter)
  return q.Question(id=id, text=text, answers=forms, where=where)


def _records(path: str, *, found: q.QuestionSet) -> list[Asked]:
  """Each level of each record of a file; a file that is none is dropped.

  Raises:
    UserError: A level is missing in all records.
  """
  part = os.path.basename(os.path.dirname(path))
  try:
    n_bytes = os.path.getsize(path)
    if n_bytes > MAX_FILE_BYTES:
      raise ValueError(f'{n_bytes} bytes, over {MAX_FILE_BYTES}')
    with open(path, encoding='utf-8-sig') as f:
      rows = json.load(f)
    if not isinstance(rows, list):
      raise ValueError('no list')
  except (OSError, ValueError, RecursionError) as error:
    detail = f'cut off, or no list in JSON ({error})'
    found.drop(path, Unusable(q.UNREADABLE, detail))
    return []
  for level in _LEVELS:
    if rows and not any(isinstance(row, dict) and level in row for row in rows):
      columns = ', '.join(rows[0]) if isinstance(rows[0], dict) else 'none'
      raise found.drifted(
          f'{path}, record 1: has no column {level!r}; it has {columns}',
          len(rows),
      )
  asked: list[Asked] = []
  for number, row in enumerate(rows, start=1):
    where = f'{path}, record {number}'
    if not isinstance(row, dict):
      found.drop(where, Unusable(q.BAD, 'is no object'))
      continue
    for level in _LEVELS:
      with found.record(where):
        qa = json_lines.field(
            row, level, dict, 'an object with question and Ground_Truth_List'
        )
        id = json_lines.field(row, 'id', (str, int), 'text')
        outer = {'img_path': row.get('img_path')}
        inner = {key: value for key, value in qa.items() if value is not None}
        asked.append(
            (where, f'{part}/{id}/{level.removesuffix("_qa")}', outer | inner)
        )
  return asked


def _folder(request: Request, path: str) -> ImageFolder:
  """Where the images of a part may be."""
  here = os.path.dirname(path)
  part = os.path.basename(here)
  roots = [here]
  if request.images:
    roots = [os.path.join(request.images, part), request.images, here]
  return ImageFolder(
      *(
          place
          for root in roots
          for place in (*(os.path.join(root, f) for f in _FOLDERS), root)
      )
  )


def _files(path: str) -> list[str]:
  if os.path.isfile(path):
    return [path]
  # Published below liveVQA_benchmarks; copies lie among the images.
  for root in (path, os.path.join(path, 'liveVQA_benchmarks')):
    files = [os.path.join(root, part, _FILE) for part in _PARTS]
    files = [file for file in files if os.path.isfile(file)]
    if files:
      return files
  if os.path.isfile(os.path.join(path, _FILE)):
    return [os.path.join(path, _FILE)]
  raise UserError(
      f'{path} holds no News, Paper or Video with a {_FILE}; give '
      '--config.benchmark.path the folder of these'
  )


def _text(row: dict[str, Any], column: str) -> str:
  value = row.get(column)
  return value if isinstance(value, str) else ''


LIVEVQA = Spec(
    name='livevqa',
    title='LiveVQA',
    n=2000,
    read=read,
    patterns=('*.json', '*.jpg', '*.JPG', '*.jpeg', '*.png', '*.webp'),
    drawn=True,
)

"""InfoSeek's questions: JSON lines, and a folder of OVEN's images.

A line has `data_id, image_id, question, answer[], answer_eval[], data_split`;
of the `_withkb` form `entity_id` and `entity_text` too, which are no part of a
question. `answer_eval` holds texts, or for numbers {wikidata, range}, see
`answers.forms`. An image is `oven_01234567` and lies in `01/`, as the authors
publish them, or in the folder itself, with any suffix.
"""

from __future__ import annotations

import os
from typing import Any

from gog_jax.questions import answers
from gog_jax.questions import json_lines
from gog_jax.questions import questions as q
from gog_jax.questions.image_folder import ImageFolder
from gog_jax.questions.records import Records
from gog_jax.types import Example


def read(
    path: str,
    *,
    images: str = '',
    name: str = 'infoseek',
    scope: str = '',
    cap: int = q.MAX_FIELD_BYTES,
) -> Records[Example]:
  """Reads a file of questions.

  Args:
    path: The JSON lines.
    images: OVEN's images; beside the file, there in `oven_images` or `images`,
      if ''.
    name: The data set's, for messages and `Example.source`.
    scope: For the examples.
    cap: Bytes that a line may have.

  Raises:
    UserError: The file cannot be read, or has other columns.
  """
  found = q.Gathering(name)
  here = images or os.path.dirname(path)
  folder = ImageFolder(
      here, os.path.join(here, 'oven_images'), os.path.join(here, 'images')
  )
  for where, row in json_lines.rows(path, found=found, cap=cap):
    try:
      question = _question(row, where=where, folder=folder)
    except q.Mismatch as error:
      found.mismatch(where, error)
      continue
    if question.images:
      found.add(question)
    else:
      found.drop(
          where,
          q.MISSING_IMAGE,
          f'its image {row["image_id"]!r} is not in {folder}',
      )
  return found.records(scope=scope)


def _question(
    row: dict[str, Any], *, where: str, folder: ImageFolder
) -> q.Question:
  image_id = json_lines.field(row, 'image_id', str, 'text')
  answer = json_lines.field(
      row, 'answer', (list, str, type(None)), 'a list of texts'
  )
  path = folder.by_stem(
      image_id, subfolders=(image_id.removeprefix('oven_')[:2], '')
  )
  return q.Question(
      id=json_lines.field(row, 'data_id', str, 'text'),
      text=json_lines.field(row, 'question', str, 'text').strip(),
      answers=answers.forms(answer, row.get('answer_eval')),
      images=(q.FileImage(path=path),) if path else (),
      where=where,
  )

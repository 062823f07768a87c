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


def read(
    path: str,
    *,
    images: str = '',
    name: str = 'infoseek',
    cap: int = q.MAX_FIELD_BYTES,
) -> q.Found:
  """Reads a file of questions.

  Args:
    path: The JSON lines.
    images: OVEN's images; beside the file, there in `oven_images` or `images`,
      if ''.
    name: The data set's, for messages and `Example.source`.
    cap: Bytes that a line may have.

  Raises:
    UserError: The file cannot be read, or has other columns.
  """
  found = q.QuestionSet(name)
  here = images or os.path.dirname(path)
  folder = ImageFolder(
      here, os.path.join(here, 'oven_images'), os.path.join(here, 'images')
  )
  for where, line in json_lines.lines(path, found=found, cap=cap):
    with found.record(where):
      found.add(_question(line.value, where=where, folder=folder))
  return found.loaded()


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
      images=q.found_image(path, f'its image {image_id!r} is not in {folder}'),
      where=where,
  )

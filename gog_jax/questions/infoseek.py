"""InfoSeek's questions: JSON lines, and a folder of OVEN's images.

A line has `data_id, image_id, question, answer[], answer_eval[], data_split`;
of the `_withkb` form `entity_id` and `entity_text` too, which are no part of a
question. `answer_eval` holds texts, or for numbers {wikidata, range}, see
`answers.forms`. An image is `oven_01234567` and lies in `01/`, as the authors
publish them, or in the folder itself, with any suffix.
"""

from __future__ import annotations

import os

from gog_jax.questions import answers
from gog_jax.questions import json_lines
from gog_jax.questions import questions as q
from gog_jax.questions.local_files import ImageFolder
from gog_jax.storage.records import Line
from gog_jax.storage.records import Loaded


def read(
    path: str, *, images: str = '', name: str = 'infoseek'
) -> Loaded[q.Question]:
  """Reads a file of questions.

  Args:
    path: The JSON lines.
    images: The folder of OVEN's images; if '', the file's own, or
      `oven_images` or `images` in it.
    name: The data set's, for messages and `Example.source`.

  Raises:
    UserError: The file cannot be read or has unknown columns.
  """
  here = images or os.path.dirname(path)
  folder = ImageFolder(
      here, os.path.join(here, 'oven_images'), os.path.join(here, 'images')
  )

  def question_of(line: Line) -> q.Question:
    row = line.value
    image_id = json_lines.field(row, 'image_id')
    answer = json_lines.field(
        row, 'answer', (list, str, type(None)), 'a list of texts'
    )
    found = folder.by_stem(
        image_id, subfolders=(image_id.removeprefix('oven_')[:2], '')
    )
    absent = f'its image {image_id!r} is not in {folder}'
    return q.Question(
        id=json_lines.field(row, 'data_id'),
        question=json_lines.field(row, 'question').strip(),
        answers=answers.forms(answer, row.get('answer_eval')),
        images=q.found_image(found, absent),
    )

  return q.load(name, json_lines.lines(path), question_of)

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

from collections.abc import Iterator
import dataclasses
import json
import os
from typing import Any

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
from gog_jax.questions.local_files import ImageFolder
from gog_jax.storage import files
from gog_jax.storage.records import Unusable

_FILE = 'benchmark.json'
_PARTS = ('News', 'Paper', 'Video')
_LEVELS = ('level1_qa', 'level2_qa')
_FOLDERS = ('News_imgs', 'Paper_images', 'Video_images', 'images')
# Published ones have less than a megabyte.
MAX_FILE_BYTES = 256 * 2**20


@dataclasses.dataclass(frozen=True)
class _Asked:
  """One level of a record: its question's id, its fields, and its image."""

  id: str
  fields: dict[str, Any]
  path: str | None  # None if the image is not here.
  url: str


def read(c: BenchmarkConfig, fetched: Fetched) -> Reading:
  """Reads every part that exists.

  Raises:
    UserError: There is none, or it has unknown columns.
  """
  files = _files(c.path)
  records = [
      record for file in files for record in _records(file, _folder(c, file))
  ]
  asked = [one for _, one in records if isinstance(one, _Asked)]
  images = linked.Linked(
      c, fetched, (one.url for one in asked if one.path is None)
  )

  def question_of(one: _Asked) -> q.Question:
    question, forms = _question(one.fields, options=c.options)
    return q.Question(
        id=one.id,
        question=question,
        answers=forms,
        images=q.found_image(one.path) if one.path else images.read(one.url),
    )

  parts = ', '.join(map(_part, files))
  shown = ("its options are shown, which the paper's numbers do not fit",)
  return Reading(
      found=q.load(c.name, records, question_of),
      why=shown if c.options else (),
      notes=(f'parts {parts}; each picture is asked about twice',),
  )


def _question(
    fields: dict[str, Any], *, options: bool
) -> tuple[str, tuple[str, ...]]:
  """The question's text and the accepted answers."""
  text = json_lines.field(fields, 'question').strip()
  right = json_lines.field(
      fields, 'Ground_Truth_List', (list, str, type(None)), 'a list of texts'
  )
  letter = json_lines.field(fields, 'Ground_Truth', (str, type(None)))
  shown = answers.forms(fields.get('options'))
  if not shown:
    return text, answers.forms(right, letter)
  if not options:
    return text, answers.forms(right)
  text += '\nOptions:\n' + '\n'.join(shown)
  whole = [one for one in shown if letter and one.startswith(f'{letter}.')]
  return text, answers.forms(right, letter, whole)


def _records(
    path: str, folder: ImageFolder
) -> Iterator[tuple[str, _Asked | Unusable]]:
  """Yields each level of each record, or why the file cannot be read."""
  try:
    n_bytes = os.path.getsize(path)
    if n_bytes > MAX_FILE_BYTES:
      raise ValueError(f'{n_bytes} bytes, over {MAX_FILE_BYTES}')
    with open(path, 'rb') as f:
      rows = json.loads(files.text_of(f.read()))
    if not isinstance(rows, list):
      raise ValueError('no list')
  except (OSError, ValueError, RecursionError) as error:
    detail = f'cut off, or no list in JSON ({error})'
    yield path, Unusable(q.UNREADABLE, detail)
    return
  for number, row in enumerate(rows, start=1):
    for level in _LEVELS:
      where = f'{path}, record {number}'
      try:
        yield where, _asked(row, level, part=_part(path), folder=folder)
      except Unusable as error:
        yield where, error


def _asked(row: Any, level: str, *, part: str, folder: ImageFolder) -> _Asked:
  if not isinstance(row, dict):
    raise Unusable(q.BAD, 'is no object')
  inner = json_lines.field(
      row, level, dict, 'an object with question and Ground_Truth_List'
  )
  id = json_lines.field(row, 'id', (str, int))
  fields = {'img_path': row.get('img_path')}
  fields |= {key: value for key, value in inner.items() if value is not None}
  texts = {key: value for key, value in fields.items() if type(value) is str}
  return _Asked(
      id=f'{part}/{id}/{level.removesuffix("_qa")}',
      fields=fields,
      path=folder.by_name(texts.get('img_path', '')),
      url=texts.get('img_url', ''),
  )


def _folder(c: BenchmarkConfig, path: str) -> ImageFolder:
  """Where the images of a part may be."""
  roots = [os.path.dirname(path)]
  if c.images:
    roots = [os.path.join(c.images, _part(path)), c.images, *roots]
  return ImageFolder(
      *(os.path.join(root, f) for root in roots for f in (*_FOLDERS, ''))
  )


def _part(path: str) -> str:
  return os.path.basename(os.path.dirname(path))


def _files(path: str) -> list[str]:
  """The file of each part; there are copies of it among the images."""
  files = files_of(path, *(f'/{part}/{_FILE}' for part in _PARTS))
  single = os.path.join(path, _FILE)
  if not files and os.path.isfile(single):
    return [single]
  if not files:
    raise UserError(
        f'{path} holds no News, Paper or Video with a {_FILE}; give '
        '--config.benchmark.path the folder of these'
    )
  return files


LIVEVQA = Spec(
    title='LiveVQA',
    n=2000,
    read=read,
    patterns=('*.json', '*.jpg', '*.JPG', '*.jpeg', '*.png', '*.webp'),
    drawn=True,
)

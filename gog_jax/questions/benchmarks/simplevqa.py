"""SimpleVQA's English half: parquet files, the images as base64 text.

Of 2,025 questions 1,013 are English: exactly the number that the paper's scores
fit, so these are taken for its items.
"""

from __future__ import annotations

from gog_jax.questions import answers
from gog_jax.questions import cells
from gog_jax.questions import parquet
from gog_jax.questions import verl
from gog_jax.questions.benchmarks import reading
from gog_jax.questions.benchmarks import tables

_NEEDED: verl.Columns = {
    'data_id': ('a number or text', tables.is_name),
    'language': ('text', parquet.is_text),
    'question': ('text', parquet.is_text),
    'answer': ('text', parquet.is_text),
    'image': (cells.EXPECTED, cells.is_image),
}


def read(request: reading.Request) -> reading.Reading:
  """Reads the English questions; the others are not counted as left out.

  Raises:
    UserError: There is no such file, or a column is not what it should be.
  """
  records = tables.read(
      request,
      needed=_NEEDED,
      image='image',
      wanted=lambda row: (row['language'] or '').strip().upper() == 'EN',
      id_of=lambda row: row['data_id'],
      text_of=lambda row: row['question'],
      answers_of=lambda row: answers.forms(row['answer']),
  )
  return reading.of(records, published=True)

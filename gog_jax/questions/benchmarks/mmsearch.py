"""MMSearch's end-to-end questions that come with an image.

171 of the 300 do: exactly the number that the paper's scores fit (but for one
cell of its table), so these are taken for its items.
"""

from __future__ import annotations

from gog_jax.questions import answers
from gog_jax.questions import cells
from gog_jax.questions import parquet
from gog_jax.questions import verl
from gog_jax.questions.benchmarks import reading
from gog_jax.questions.benchmarks import tables

_NEEDED: verl.Columns = {
    'sample_id': ('text or a number', tables.is_name),
    'query': ('text', parquet.is_text),
    'gt_answer': ('text', parquet.is_text),
    'alternative_gt_answers': (
        'a list of texts',
        lambda kind: parquet.is_list(kind) or parquet.is_text(kind),
    ),
    'query_image': (cells.EXPECTED, cells.is_image),
}


def read(request: reading.Request) -> reading.Reading:
  """Reads the questions; those without an image are left out, and counted.

  Raises:
    UserError: There is no such file, or a column is not what it should be.
  """
  records = tables.read(
      request,
      needed=_NEEDED,
      image='query_image',
      prefer=('end2end', ''),
      id_of=lambda row: row['sample_id'],
      text_of=lambda row: row['query'],
      answers_of=lambda row: answers.forms(
          row['gt_answer'],
          answers.listed(
              row['alternative_gt_answers'], column='alternative_gt_answers'
          ),
      ),
  )
  return reading.of(records, published=True)

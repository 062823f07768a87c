"""FVQA's test set: verl's parquet, whose published file is all of it."""

from __future__ import annotations

from gog_jax.questions import verl
from gog_jax.questions.benchmarks import reading


def read(request: reading.Request) -> reading.Reading:
  """Reads the files with 'test' in their names, or all if none has.

  Raises:
    UserError: As verl.read.
  """
  records = verl.read(
      request.path,
      name=request.spec.name,
      images=request.images,
      prefer=('test', ''),
      needed=('data_id',),
  )
  return reading.of(records, published=True)

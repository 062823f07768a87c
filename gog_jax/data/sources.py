"""Examples from a data set, checked as they are read."""

from __future__ import annotations

from collections.abc import Sequence

from gog_jax import images
from gog_jax.errors import UserError
from gog_jax.types import Example


def take(
    examples: Sequence[Example], *, what: str, start: int, n: int
) -> list[Example]:
  """Examples [start, start + n), every image of them decoded once.

  Args:
    examples: Random access.
    what: Names the source in errors, e.g. 'data/train'.
    start: First index.
    n: How many.

  Raises:
    UserError: There are too few, a record is damaged, or an image in it
      cannot be decoded; names which.
  """
  if start + n > len(examples):
    raise UserError(
        f'{what} holds {len(examples)} examples, {start + n} are needed: make '
        'it larger (--config.data.n_*) or ask for fewer'
    )
  taken = []
  for index in range(start, start + n):
    try:
      example = examples[index]
    except (RuntimeError, ValueError) as error:  # What array_record raises.
      raise UserError(
          f'{what}, record {index}, cannot be read '
          f'({str(error).splitlines()[0]}); delete the data folder to have it '
          'made again'
      ) from error
    for number, data in enumerate(example.images, start=1):
      try:
        images.decode(data)
      except UserError as error:
        raise UserError(
            f'{what}, record {index} ({example.id}), image {number}: {error}'
        ) from error
    taken.append(example)
  return taken

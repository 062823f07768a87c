"""Examples from a data set, checked as they are read."""

from __future__ import annotations

from collections.abc import Sequence
import io
from typing import overload

from PIL import Image

from gog_jax import images
from gog_jax.errors import UserError
from gog_jax.storage import blobs
from gog_jax.types import Example

# What makes a split's examples, (split, workdir) -> Sequence[Example].
KNOWN = {'world': 'gog_jax.toy.source:questions'}


class Checked(Sequence[Example]):
  """Examples that are read, and whose images are checked, when asked for.

  Asking raises UserError where a record or an image is damaged; names which.
  """

  def __init__(
      self, examples: Sequence[Example], *, what: str, start: int, n: int
  ):
    """Examples [start, start + n).

    Args:
      examples: Random access.
      what: Names the source in errors, e.g. 'data/train'.
      start: First index.
      n: How many.

    Raises:
      UserError: There are too few.
    """
    if start + n > len(examples):
      raise UserError(
          f'{what} holds {len(examples)} examples, {start + n} are needed: '
          'make it larger (--config.data.n_*) or ask for fewer'
      )
    self._examples, self._what = examples, what
    self._start, self._n = start, n

  def __len__(self) -> int:
    return self._n

  @overload
  def __getitem__(self, index: int) -> Example: ...

  @overload
  def __getitem__(self, index: slice) -> list[Example]: ...

  def __getitem__(self, index: int | slice) -> Example | list[Example]:
    if isinstance(index, slice):
      return [self[i] for i in range(*index.indices(self._n))]
    if not -self._n <= index < self._n:
      raise IndexError(index)
    record = self._start + index % self._n
    try:
      example = self._examples[record]
    except (RuntimeError, ValueError) as error:  # What array_record raises.
      raise UserError(
          f'{self._what}, record {record}, cannot be read '
          f'({str(error).splitlines()[0]}); delete the data folder to have it '
          'made again'
      ) from error
    for number, data in enumerate(example.images, start=1):
      try:
        _check(data)
      except UserError as error:
        raise UserError(
            f'{self._what}, record {record} ({example.id}), image {number}: '
            f'{error}'
        ) from error
    return example


def _check(data: bytes) -> None:
  """Refuses what cannot be decoded; a PNG says so by its checksums.

  Raises:
    UserError: As `images.decode`.
  """
  if blobs.suffix_of(data) == 'png':
    try:
      with Image.open(io.BytesIO(data)) as image:
        image.verify()
      return
    except Exception:  # Of many kinds; decoding it says which in our words.
      pass
  images.decode(data)

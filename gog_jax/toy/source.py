"""The world's questions as a question source."""

from __future__ import annotations

from collections.abc import Sequence

from etils import epath

from gog_jax.toy import dataset
from gog_jax.types import Example


def questions(split: str, workdir: epath.PathLike) -> Sequence[Example]:
  """A split of the data set in a workdir, read as it is asked for.

  Raises:
    UserError: The stage `data` has not made it.
  """
  return dataset.load(epath.Path(workdir) / 'data', split)

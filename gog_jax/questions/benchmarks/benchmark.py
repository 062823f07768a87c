"""A benchmark, opened."""

from __future__ import annotations

from collections.abc import Sequence
import dataclasses

from gog_jax.questions.records import Drop
from gog_jax.types import Example


@dataclasses.dataclass(frozen=True, kw_only=True)
class Benchmark:
  """Questions of a published set, and how they stand to the paper's.

  Attributes:
    name: The registry's.
    title: The registry's.
    examples: Random access; each reads its images when it is asked for.
    n: How many there are.
    expected_n: How many the paper has.
    drops: Records that are of no use, with reasons.
    digest: 64 hex digits over ids, questions, answers and image files.
    label: '' for the paper's items as far as is known; else "not the paper's"
      and why.
    notes: What else there is to say, a line each.
    date: Of the version that was read, where there are several.
  """

  name: str
  title: str
  examples: Sequence[Example]
  n: int
  expected_n: int
  drops: tuple[Drop, ...]
  digest: str
  label: str
  notes: tuple[str, ...] = ()
  date: str = ''

  @property
  def is_papers(self) -> bool:
    """Whether its numbers may stand beside the paper's without a word."""
    return not self.label

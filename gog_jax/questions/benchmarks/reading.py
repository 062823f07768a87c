"""What a benchmark's reader is asked, and what it answers."""

from __future__ import annotations

import dataclasses

from gog_jax.questions.benchmarks.registry import Spec
from gog_jax.questions.questions import Examples
from gog_jax.questions.questions import Question
from gog_jax.questions.records import Drop
from gog_jax.questions.records import Records
from gog_jax.types import Example


@dataclasses.dataclass(frozen=True, kw_only=True)
class Request:
  """What to read.

  Attributes:
    spec: Of the benchmark.
    path: A folder or file on this machine.
    images: A folder of images that it names or links to, or ''.
    fetched: Where images go that are fetched, and are looked for; or ''.
    fetch: Whether to fetch.
    options: Whether a question shows its options.
    date: The version to read, '' for the paper's.
  """

  spec: Spec
  path: str
  images: str = ''
  fetched: str = ''
  fetch: bool = False
  options: bool = False
  date: str = ''


@dataclasses.dataclass(frozen=True, kw_only=True)
class Reading:
  """What was there.

  Attributes:
    questions: All of them.
    drops: What was left out.
    why: Reasons for which they are not the paper's, beside their number.
    notes: What else there is to say.
    published: Whether the paper's items, or the peers', were published as such
      and are these.
    date: The version that was read, where there are several.
  """

  questions: tuple[Question, ...]
  drops: tuple[Drop, ...]
  why: tuple[str, ...] = ()
  notes: tuple[str, ...] = ()
  published: bool = False
  date: str = ''


def of(
    records: Records[Example],
    *,
    why: tuple[str, ...] = (),
    notes: tuple[str, ...] = (),
    published: bool = False,
    date: str = '',
) -> Reading:
  """A reading of what a reader gathered."""
  assert isinstance(records.items, Examples)
  return Reading(
      questions=records.items.questions,
      drops=records.drops,
      why=why,
      notes=notes,
      published=published,
      date=date,
  )

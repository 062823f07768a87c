"""A page on which people accept or reject samples, and what they said there.

The page needs nothing but itself. It keeps what is said in the browser and
exports it as a file:

    {"gog_jax_review": 1, "fingerprint": "...", "samples":
      {ID: {"verdict": "accept" | "reject" | "", "note": "..."}}}

It holds the one script of this project's pages. Its content security policy
allows that script by its hash and nothing else; everything that a policy, a
source or a search has said is escaped.
"""

from __future__ import annotations

import base64
from collections.abc import Mapping, Sequence
import dataclasses
import hashlib
from typing import Any, Literal

from etils import epath
import markupsafe

from gog_jax.errors import UserError
from gog_jax.report import cards
from gog_jax.storage import files

_SCRIPT = epath.Path(__file__).parents[1] / 'report' / 'templates' / 'review.js'


@dataclasses.dataclass(frozen=True)
class _Said:
  """Of a sample."""

  verdict: Literal['accept', 'reject', '']
  note: str


@dataclasses.dataclass(frozen=True)
class _Exported:
  """What the page's file holds, see above."""

  gog_jax_review: Literal[1]
  fingerprint: str
  samples: dict[str, _Said]


@dataclasses.dataclass(frozen=True, kw_only=True)
class Review:
  """What people said, by the ids of questions.

  Attributes:
    decisions: 'accept' or 'reject'.
    notes: Without the empty ones.
  """

  decisions: Mapping[str, str] = dataclasses.field(default_factory=dict)
  notes: Mapping[str, str] = dataclasses.field(default_factory=dict)

  @property
  def rejected(self) -> set[str]:
    return {n for n, said in self.decisions.items() if said == 'reject'}

  def counts(self) -> tuple[int, int]:
    """How many are accepted, and rejected."""
    said = list(self.decisions.values())
    return said.count('accept'), said.count('reject')

  def check(self, known: set[str]) -> None:
    """Refuses what was said of samples that there are not.

    Raises:
      UserError: Names one of them.
    """
    unknown = sorted((self.decisions.keys() | self.notes.keys()) - known)
    if unknown:
      raise UserError(
          f'the review speaks of {len(unknown)} samples that this build does '
          f'not have, e.g. {unknown[0]!r}: review the page that it has written'
      )


def read(path: str, *, fingerprint: str) -> Review:
  """Reads what the page has exported.

  Raises:
    UserError: It is no such file, or of another build.
  """
  found = files.read_json(
      path, _Exported, advice='export it anew from the review page'
  )
  if found.fingerprint != fingerprint:
    raise UserError(
        f'{path} reviews another build ({found.fingerprint}, this one is '
        f'{fingerprint}): review the page of this one'
    )
  notes = {name: said.note.strip() for name, said in found.samples.items()}
  return Review(
      decisions={n: s.verdict for n, s in found.samples.items() if s.verdict},
      notes={name: note for name, note in notes.items() if note},
  )


def render(records: Sequence[Any], *, fingerprint: str, teacher: str) -> str:
  """The page, of records; `teacher` is for people."""
  script = _SCRIPT.read_text()
  digest = hashlib.sha256(script.encode()).digest()
  return cards.render(
      'review.html.j2',
      cards=[
          cards.card(teacher, one.example, one.trajectory)
          for one in records
      ],
      facts=[one.facts for one in records],
      fingerprint=fingerprint,
      teacher=teacher,
      script=markupsafe.Markup(script),
      script_source=f"'sha256-{base64.b64encode(digest).decode()}'",
  )

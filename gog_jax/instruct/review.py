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
import json
from typing import Any

from etils import epath
import markupsafe

from gog_jax.errors import UserError
from gog_jax.report import cards

VERSION = 1
_SCRIPT = epath.Path(__file__).parents[1] / 'report' / 'templates' / 'review.js'
_DECISIONS = ('accept', 'reject', '')


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
  try:
    value = json.loads(epath.Path(path).read_text())
  except (OSError, ValueError) as error:
    raise UserError(
        f'cannot read --config.instruct.review={path} '
        f'({type(error).__name__}); export it anew from the review page'
    ) from error
  if not isinstance(value, dict) or value.get('gog_jax_review') != VERSION:
    raise UserError(
        f'{path} is no file of the review page; export it with its button'
    )
  if value.get('fingerprint') != fingerprint:
    raise UserError(
        f'{path} reviews another build ({value.get("fingerprint")}, this one '
        f'is {fingerprint}): review the page of this one'
    )
  try:
    said = {n: one['verdict'] for n, one in value['samples'].items()}
    notes = {n: one['note'].strip() for n, one in value['samples'].items()}
    if not all(decision in _DECISIONS for decision in said.values()):
      raise ValueError
  except (AttributeError, KeyError, TypeError, ValueError) as error:
    raise UserError(
        f'{path} is damaged; export it anew from the review page'
    ) from error
  return Review(
      decisions={n: decision for n, decision in said.items() if decision},
      notes={n: note for n, note in notes.items() if note},
  )


def sample(outcomes: Sequence[Any], *, n: int, seed: int) -> list[Any]:
  """Which are shown: drawn by their ids, so that others do not move them."""

  def drawn(outcome: Any) -> str:
    text = f'{seed}/{outcome.example_id}'
    return hashlib.sha256(text.encode('utf-8', 'replace')).hexdigest()

  shown = sorted(outcomes, key=drawn)[:n]
  return sorted(shown, key=lambda outcome: outcome.index)


def render(samples: Sequence[Any], *, fingerprint: str, teacher: str) -> str:
  """The page, of records; `teacher` is for people."""
  script = _SCRIPT.read_text()
  digest = hashlib.sha256(script.encode()).digest()
  records = [samples[i] for i in range(len(samples))]
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

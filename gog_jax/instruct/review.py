"""A page on which people accept or reject samples, and its exported file.

The page is self-contained. It keeps the review in the browser and exports it:

    {"gog_jax_review": 1, "fingerprint": "...", "samples":
      {ID: {"verdict": "accept" | "reject" | "", "note": "..."}}}

Its script is the only one in this project's pages. The content security policy
allows it by its hash and nothing else; text by policies, sources and searches
is escaped.
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

_SCRIPT = epath.Path(__file__).parent / 'templates' / 'review.js'


@dataclasses.dataclass(frozen=True)
class Said:
  """What people said about a sample; '' is nothing."""

  verdict: Literal['accept', 'reject', '']
  note: str


@dataclasses.dataclass(frozen=True)
class _Exported:
  """The file that the page exports."""

  gog_jax_review: Literal[1]
  fingerprint: str
  samples: dict[str, Said]


@dataclasses.dataclass(frozen=True)
class Review:
  """What people said about samples, by the ids of questions."""

  samples: Mapping[str, Said] = dataclasses.field(default_factory=dict)

  def of(self, name: str) -> Said:
    return self.samples.get(name, Said('', ''))

  def with_verdict(self, verdict: str) -> set[str]:
    return {n for n, said in self.samples.items() if said.verdict == verdict}

  def check(self, known: set[str]) -> None:
    """Refuses a review of unknown samples.

    Raises:
      UserError: Names one of them.
    """
    if unknown := sorted(self.samples.keys() - known):
      raise UserError(
          f'the review speaks of {len(unknown)} samples that this build does '
          f'not have, e.g. {unknown[0]!r}: review the page that it has written'
      )


def read(path: str, *, fingerprint: str) -> Review:
  """Reads what the page has exported.

  Raises:
    UserError: It is not such a file, or reviews another build.
  """
  found = files.read_json(
      path, _Exported, advice='export it anew from the review page'
  )
  if found.fingerprint != fingerprint:
    raise UserError(
        f'{path} reviews another build ({found.fingerprint}, this one is '
        f'{fingerprint}): review the page of this one'
    )
  said = {
      name: dataclasses.replace(one, note=one.note.strip())
      for name, one in found.samples.items()
  }
  return Review({n: one for n, one in said.items() if one.verdict or one.note})


def render(records: Sequence[Any], *, fingerprint: str, teacher: str) -> str:
  """Renders the page for some records; `teacher` is for people."""
  script = _SCRIPT.read_text()
  digest = hashlib.sha256(script.encode()).digest()
  return cards.render(
      'review.html.j2',
      package='gog_jax.instruct',
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

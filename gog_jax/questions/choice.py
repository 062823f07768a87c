"""Which questions of a set: those of a list, or some, drawn."""

from __future__ import annotations

from collections.abc import Sequence
import hashlib
import json

from gog_jax.errors import UserError
from gog_jax.questions.questions import Question


def read_ids(path: str) -> tuple[str, ...]:
  """The ids in a file: one a line, or a JSON list of texts or numbers.

  Raises:
    UserError: The file cannot be read, is empty, or is no such list.
  """
  try:
    with open(path, encoding='utf-8-sig') as f:
      text = f.read().strip()
  except (OSError, UnicodeDecodeError) as error:
    raise UserError(
        f'{path} cannot be read ({error}); give --config.benchmark.ids a text '
        'file with one id a line'
    ) from error
  if text.startswith('['):
    try:
      ids = json.loads(text)
    except ValueError as error:
      raise UserError(f'{path} is no JSON list of ids ({error})') from error
  else:
    ids = [line.strip() for line in text.split('\n') if line.strip()]
  if not ids or not all(type(id) in (str, int) for id in ids):
    raise UserError(f'{path} holds no ids; it takes one a line')
  return tuple(dict.fromkeys(map(str, ids)))


def by_ids(
    questions: Sequence[Question], ids: Sequence[str]
) -> tuple[tuple[Question, ...], list[str]]:
  """The questions of these ids, in the set's order, and ids it lacks."""
  wanted = set(ids)
  chosen = tuple(question for question in questions if question.id in wanted)
  absent = wanted - {question.id for question in chosen}
  return chosen, [id for id in ids if id in absent]


def draw(
    questions: Sequence[Question], *, n: int, seed: int
) -> tuple[Question, ...]:
  """At most `n` of them, in their order.

  A question's luck depends on the seed and its id alone: a draw of fewer is
  part of a draw of more, and a question that is left out moves no other.
  """
  ranked = sorted(
      questions,
      key=lambda question: hashlib.sha256(
          f'{seed}/{question.id}'.encode(errors='replace')
      ).digest(),
  )
  chosen = {question.id for question in ranked[:n]}
  return tuple(question for question in questions if question.id in chosen)

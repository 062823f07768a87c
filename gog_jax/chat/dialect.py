"""Dialects: every word that a conversation holds beside protocol and content.

A dialect is a JSON file of templates. `$name` stands for a value; values are
content and never parsed for control tokens or further names. `$$` is a dollar.
The last three may be left out of the file.
"""

from __future__ import annotations

from collections.abc import Iterator
import dataclasses
import difflib
import json
import re

from etils import epath

from gog_jax.errors import UserError

_FOLDER = epath.Path(__file__).parent.parent / 'dialects'
_NAMES = re.compile(r'\$(\$|[a-z_]+)')


@dataclasses.dataclass(frozen=True, kw_only=True)
class Dialect:
  """The templates, each with the names it may use.

  Attributes:
    name: The file's name.
    system: The system message: $tools, $instructions. Empty for none.
    tool: One line of $tools: $name, $description, $parameters (a JSON
      schema), $function (all three as JSON), $spaced (the same with spaces
      after commas and colons, as Hugging Face's templates write it).
    user: The user's message: $images, $question.
    observation: The message that answers calls: $responses.
    crop: What a gaze shows: $image.
    result: What a call brought back: $crop (may be empty), $hits.
    hit: One search hit: $rank from 1, $title, $text.
    hit_separator: Between two hits.
    no_hits: Stands for the hits when there are none.
    error: What a failed call says: $error.
    instructions: Our part of the system message where a model folder's chat
      template describes the tools; that template is then asked first, and
      `system` is for folders whose template does not. Empty never asks it.
    opening: What the policy's every message begins with, written for it.
    thought: A policy's thought within its message, up to the calls or the
      answer: $thought. It begins with `opening`.
  """

  name: str
  system: str
  tool: str
  user: str
  observation: str
  crop: str
  result: str
  hit: str
  hit_separator: str
  no_hits: str
  error: str
  instructions: str = ''
  opening: str = ''
  thought: str = '<think>$thought</think>\n'


_ALLOWED = {
    'system': {'tools', 'instructions'},
    'tool': {'name', 'description', 'parameters', 'function', 'spaced'},
    'user': {'images', 'question'},
    'observation': {'responses'},
    'crop': {'image'},
    'result': {'crop', 'hits'},
    'hit': {'rank', 'title', 'text'},
    'error': {'error'},
    'thought': {'thought'},
}
# Without these a conversation would lose content in silence.
_NEEDED = {
    'user': {'images', 'question'},
    'observation': {'responses'},
    'crop': {'image'},
    'result': {'crop', 'hits'},
    'error': {'error'},
    'thought': {'thought'},
}


def parts(template: str) -> Iterator[tuple[str, str]]:
  """Yields ('text', our words) and ('name', what to fill in), in order."""
  for index, part in enumerate(_NAMES.split(template)):
    if index % 2 and part != '$':
      yield 'name', part
    elif part:
      yield 'text', part


def load_dialect(name: str) -> Dialect:
  """Reads a dialect of the package by its name, or any by its .json path.

  Raises:
    UserError: There is no such dialect (names the nearest), or the file is
      not a dialect (names the field).
  """
  if name.endswith('.json'):
    path = epath.Path(name)
  else:
    path = _FOLDER / f'{name}.json'
    known = sorted(file.stem for file in _FOLDER.glob('*.json'))
    if name not in known:
      nearest = difflib.get_close_matches(name, known, n=1, cutoff=0)
      raise UserError(
          f'unknown dialect {name!r}; did you mean {nearest[0]!r}? '
          f'There are: {", ".join(known)}, or the path of a .json file'
      )
  try:
    fields = json.loads(path.read_text())
  except OSError:
    raise UserError(f'dialect {path} cannot be read') from None
  except ValueError as error:
    raise UserError(f'dialect {path} is not JSON ({error})') from error
  known = {field.name: field for field in dataclasses.fields(Dialect)}
  del known['name']
  wrong = set(fields if isinstance(fields, dict) else ()) ^ set(known)
  wrong -= {
      name
      for name, field in known.items()
      if field.default is not dataclasses.MISSING
  }
  if wrong:
    raise UserError(
        f'dialect {path} has missing or unknown fields: '
        f'{", ".join(sorted(wrong))}'
    )
  for field, template in fields.items():
    if not isinstance(template, str):
      raise UserError(f'dialect {path}: {field} must be text')
    used = {part for kind, part in parts(template) if kind == 'name'}
    wrong = used - _ALLOWED.get(field, set())
    wrong |= _NEEDED.get(field, set()) - used
    if wrong:
      raise UserError(
          f'dialect {path}: {field} lacks or does not know '
          f'${", $".join(sorted(wrong))}'
      )
  dialect = Dialect(name=path.stem, **fields)
  if not dialect.thought.startswith(dialect.opening):
    raise UserError(
        f'dialect {path}: thought must begin with opening, '
        f'{dialect.opening!r}'
    )
  return dialect

"""Dialects: every word that a conversation holds beside protocol and content.

A dialect is a JSON file of templates. `$name` stands for a value; values are
content and never parsed for control tokens or further names. `$$` is a dollar.
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
    system: The system message: $tools. Empty for none.
    tool: One line of $tools: $name, $description, $parameters (a JSON
      schema), $function (all three as JSON).
    user: The user's message: $images, $question.
    observation: The message that answers calls: $responses.
    crop: What a gaze shows: $image.
    result: What a call brought back: $crop (may be empty), $hits.
    hit: One search hit: $rank from 1, $title, $text.
    hit_separator: Between two hits.
    no_hits: Stands for the hits when there are none.
    error: What a failed call says: $error.
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


_ALLOWED = {
    'system': {'tools'},
    'tool': {'name', 'description', 'parameters', 'function'},
    'user': {'images', 'question'},
    'observation': {'responses'},
    'crop': {'image'},
    'result': {'crop', 'hits'},
    'hit': {'rank', 'title', 'text'},
    'error': {'error'},
}
# Without these a conversation would lose content in silence.
_NEEDED = {
    'user': {'images', 'question'},
    'observation': {'responses'},
    'crop': {'image'},
    'result': {'crop', 'hits'},
    'error': {'error'},
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
  expected = {field.name for field in dataclasses.fields(Dialect)} - {'name'}
  if not isinstance(fields, dict) or set(fields) != expected:
    wrong = sorted(set(fields) ^ expected)
    raise UserError(
        f'dialect {path} has missing or unknown fields: {", ".join(wrong)}'
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
  return Dialect(name=path.stem, **fields)

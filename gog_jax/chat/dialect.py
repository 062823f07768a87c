"""Dialects: every word that a conversation holds beside protocol and content.

A dialect is a JSON file of templates. `$name` stands for a value; values are
content and never parsed for control tokens or further names. `$$` is a dollar.
Fields that have a default may be left out of the file.

How a model comes to its answer is a paradigm: it decides for itself when to
search ('gog'), as this without Selective Gaze ('no_gaze'), it answers at once
('direct'), or it answers after searches that were made for it ('full_search').
A model that was not trained to do so has to be told, in other words than usual:
a file's `paradigms` hold, for each of them, the fields that differ.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
import dataclasses
import difflib
import json
import re
from typing import Any

from etils import epath

from gog_jax.chat import mmsearch_r1
from gog_jax.chat import protocol
from gog_jax.chat.grammar import Grammar
from gog_jax.errors import UserError

GOG, DIRECT, FULL_SEARCH, NO_GAZE = PARADIGMS = (
    'gog', 'direct', 'full_search', 'no_gaze',
)  # fmt: skip
_HERMES = 'hermes'
GRAMMARS: dict[str, Grammar] = {
    _HERMES: protocol.HERMES,
    'mmsearch_r1': mmsearch_r1.MMSEARCH_R1,
}

_FOLDER = epath.Path(__file__).parent / 'dialects'
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
    observation: The message that answers calls: $responses, $question.
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
    grammar: How messages mark their parts: one of GRAMMARS.
    max_turns: Messages of the policy in a conversation; 0 is no limit.
    max_calls: Calls of each tool in a conversation; 0, or a tool that is not
      named, is no limit.
    paradigm: Whose words these are; not a field of the file.
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
  grammar: str = _HERMES
  max_turns: int = 0
  max_calls: Mapping[str, int] = dataclasses.field(default_factory=dict)
  paradigm: str = GOG

  def can_call(self, tool: str) -> bool:
    """Whether its grammar has a way to."""
    return GRAMMARS[self.grammar].can_call(tool)


_ALLOWED = {
    'system': {'tools', 'instructions'},
    'tool': {'name', 'description', 'parameters', 'function', 'spaced'},
    'user': {'images', 'question'},
    'observation': {'responses', 'question'},
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


def load_dialect(name: str, paradigm: str = GOG) -> Dialect:
  """Reads a dialect of the package by its name, or any by its .json path.

  Args:
    name: Of the dialect, or a path that ends in .json.
    paradigm: Whose words to take, one of PARADIGMS.

  Raises:
    UserError: There is no such dialect (names the nearest), it has no words
      for the paradigm, or the file is not a dialect (names the field).
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
  fields = _in_words_of(paradigm, _read(path), path)
  _check_fields(fields, path)
  dialect = Dialect(name=path.stem, paradigm=paradigm, **fields)
  _check_grammar(dialect, path)
  return dialect


def _read(path: epath.Path) -> dict[str, Any]:
  try:
    fields = json.loads(path.read_text())
  except OSError:
    raise UserError(f'dialect {path} cannot be read') from None
  except ValueError as error:
    raise UserError(f'dialect {path} is not JSON ({error})') from error
  if not isinstance(fields, dict):
    raise UserError(f'dialect {path} is not a JSON object of fields')
  return fields


def _in_words_of(
    paradigm: str, fields: dict[str, Any], path: epath.Path
) -> dict[str, Any]:
  """The fields with those of a paradigm in place of the file's own."""
  others = fields.pop('paradigms', {})
  if not isinstance(others, dict) or not all(
      key in PARADIGMS[1:] and isinstance(changed, dict)
      for key, changed in others.items()
  ):
    raise UserError(
        f'dialect {path}: paradigms must hold the fields that differ, for '
        f'{", ".join(PARADIGMS[1:])}'
    )
  # That the tool is not among those listed says enough, if need be.
  if paradigm not in (GOG, NO_GAZE, *others):
    raise UserError(
        f'dialect {path} has no words for paradigm {paradigm!r}, only for '
        f'{", ".join([GOG, *others])}; write them into its field paradigms'
    )
  return fields | others.get(paradigm, {})


def _check_fields(fields: dict[str, Any], path: epath.Path) -> None:
  """Refuses fields that are missing, unknown, or of the wrong kind."""
  known = {field.name: field for field in dataclasses.fields(Dialect)}
  del known['name'], known['paradigm']
  needed = {
      name
      for name, field in known.items()
      if field.default is field.default_factory  # Both are missing.
  }
  if wrong := (set(fields) - set(known)) | (needed - set(fields)):
    raise UserError(
        f'dialect {path} has missing or unknown fields: '
        f'{", ".join(sorted(wrong))}'
    )
  for field, value in fields.items():
    if field == 'max_turns':
      _check_limit(path, field, value)
    elif field == 'max_calls':
      if not isinstance(value, dict):
        raise UserError(f'dialect {path}: {field} must be an object of numbers')
      for tool, limit in value.items():
        _check_limit(path, f'{field}.{tool}', limit)
    else:
      _check_template(path, field, value)


def _check_limit(path: epath.Path, field: str, value: Any) -> None:
  if type(value) is not int or value < 0:
    raise UserError(f'dialect {path}: {field} must be a number, 0 or more')


def _check_template(path: epath.Path, field: str, template: Any) -> None:
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


def _check_grammar(dialect: Dialect, path: epath.Path) -> None:
  """Refuses messages that would not be read as they are asked for."""
  if dialect.grammar not in GRAMMARS:
    raise UserError(
        f'dialect {path}: grammar is {dialect.grammar!r}, not one of '
        f'{", ".join(GRAMMARS)}'
    )
  grammar = GRAMMARS[dialect.grammar]
  if not all(tag in dialect.thought for tag in grammar.think):
    raise UserError(
        f'dialect {path}: thought must stand in {" and ".join(grammar.think)}, '
        f'as grammar {dialect.grammar} has it'
    )
  if dialect.instructions and dialect.grammar != _HERMES:
    raise UserError(
        f'dialect {path}: instructions leave it to the chat template to say '
        f'how tools are called, which is not as grammar {dialect.grammar} '
        'has it; write a system message in their place'
    )
  if not dialect.thought.startswith(dialect.opening):
    raise UserError(
        f'dialect {path}: thought must begin with opening, '
        f'{dialect.opening!r}'
    )

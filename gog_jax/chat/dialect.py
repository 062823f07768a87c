"""Dialects: all wording of a conversation beside protocol and content.

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
_NAME = re.compile(r'\$(\$|[a-z_]+)')


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


# The names that a template must use, as a conversation would lose content in
# silence without them, and those that it may.
_NAMES: dict[str, tuple[set[str], set[str]]] = {
    'system': (set(), {'tools', 'instructions'}),
    'tool': (
        set(),
        {'name', 'description', 'parameters', 'function', 'spaced'},
    ),
    'user': ({'images', 'question'}, set()),
    'observation': ({'responses'}, {'question'}),
    'crop': ({'image'}, set()),
    'result': ({'crop', 'hits'}, set()),
    'hit': (set(), {'rank', 'title', 'text'}),
    'error': ({'error'}, set()),
    'thought': ({'thought'}, set()),
}


def parts(template: str) -> Iterator[tuple[str, str]]:
  """Yields ('text', our words) and ('name', what to fill in), in order."""
  for index, part in enumerate(_NAME.split(template)):
    if index % 2 and part != '$':
      yield 'name', part
    elif part:
      yield 'text', part


def load_dialect(name: str, paradigm: str = GOG) -> Dialect:
  """Reads a dialect of the package by its name, or any by its .json path.

  Args:
    name: A dialect of the package, or a path that ends in .json.
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
  fields = _read(path)
  others = fields.pop('paradigms', {})
  for mistake in _mistakes(fields, others, paradigm):
    raise UserError(f'dialect {path}: {mistake}')
  fields |= others.get(paradigm, {})
  return Dialect(name=path.stem, paradigm=paradigm, **fields)


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


def _mistakes(
    fields: dict[str, Any], others: Any, paradigm: str
) -> Iterator[str]:
  """What is wrong with a file, the worst first; the rest builds on its absence.

  Args:
    fields: The file's.
    others: The file's `paradigms`.
    paradigm: Whose words are wanted.
  """
  if not isinstance(others, dict) or not all(
      key in PARADIGMS[1:] and isinstance(changed, dict)
      for key, changed in others.items()
  ):
    yield (
        'paradigms must hold the fields that differ, for '
        f'{", ".join(PARADIGMS[1:])}'
    )
  # Who cannot gaze needs no other words: the tool is not among those listed.
  if paradigm not in (GOG, NO_GAZE, *others):
    yield (
        f'there are no words for paradigm {paradigm!r}, only for '
        f'{", ".join([GOG, *others])}; write them into its field paradigms'
    )
  fields = fields | others.get(paradigm, {})
  known = {field.name: field for field in dataclasses.fields(Dialect)}
  del known['name'], known['paradigm']
  needed = {
      name
      for name, field in known.items()
      if field.default is field.default_factory  # Both are missing.
  }
  if wrong := (set(fields) - set(known)) | (needed - set(fields)):
    yield f'missing or unknown fields: {", ".join(sorted(wrong))}'
  limits = {'max_turns': fields.pop('max_turns', 0)}
  max_calls = fields.pop('max_calls', {})
  if not isinstance(max_calls, dict):
    yield 'max_calls must be an object of numbers'
  limits |= {f'max_calls.{tool}': limit for tool, limit in max_calls.items()}
  for field, limit in limits.items():
    if type(limit) is not int or limit < 0:
      yield f'{field} must be a number, 0 or more'
  for field, template in fields.items():
    if not isinstance(template, str):
      yield f'{field} must be text'
    used = {part for kind, part in parts(template) if kind == 'name'}
    must, may = _NAMES.get(field, (set(), set()))
    if wrong := (used - must - may) | (must - used):
      yield f'{field} lacks or does not know ${", $".join(sorted(wrong))}'
  yield from _unreadable(Dialect(name='', **fields))


def _unreadable(dialect: Dialect) -> Iterator[str]:
  """Why messages would not be read as they are asked for."""
  if dialect.grammar not in GRAMMARS:
    yield f'grammar is {dialect.grammar!r}, not one of {", ".join(GRAMMARS)}'
  think = GRAMMARS[dialect.grammar].think
  if not all(tag in dialect.thought for tag in think):
    yield (
        f'thought must stand in {" and ".join(think)}, as grammar '
        f'{dialect.grammar} has it'
    )
  if dialect.instructions and dialect.grammar != _HERMES:
    yield (
        'instructions leave it to the chat template to say how tools are '
        f'called, which is not as grammar {dialect.grammar} has it; write a '
        'system message in their place'
    )
  if not dialect.thought.startswith(dialect.opening):
    yield f'thought must begin with opening, {dialect.opening!r}'

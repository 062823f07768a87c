"""Dialects: the wording of conversations, apart from protocol and content.

A dialect is a JSON file of templates. `$name` is replaced by a value; values
are content, never parsed for control tokens or further names. `$$` is a dollar.
Fields with a default may be left out of the file.

A paradigm is a way of answering: the model decides for itself when to search
('gog'), likewise without Selective Gaze ('no_gaze'), it answers at once
('direct'), or it answers after searches that are made for it ('full_search').
A model that was not trained for a paradigm has to be told: a file's `paradigms`
hold the fields that differ for each of them.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
import dataclasses
import re
from typing import Any, Literal

from etils import epath

from gog_jax.chat import mmsearch_r1
from gog_jax.chat import protocol
from gog_jax.chat.grammar import Grammar
from gog_jax.config import paradigms
from gog_jax.errors import nearest
from gog_jax.errors import UserError
from gog_jax.storage import files
from gog_jax.storage import typed

_HERMES = 'hermes'
GRAMMARS: dict[str, Grammar] = {
    _HERMES: protocol.HERMES,
    'mmsearch_r1': mmsearch_r1.MMSEARCH_R1,
}

# Paradigms that a file may reword.
_REWORDED = (paradigms.DIRECT, paradigms.FULL_SEARCH, paradigms.NO_GAZE)

_FOLDER = epath.Path(__file__).parent / 'dialects'
_NAME = re.compile(r'\$(\$|[a-z_]+)')


@dataclasses.dataclass(frozen=True, kw_only=True)
class Dialect:
  """The templates, each with the names it may use.

  Attributes:
    name: The file's name, without its ending.
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
    no_hits: In place of the hits when there are none.
    error: The reply to a failed call: $error.
    instructions: Our part of the system message where the model folder's chat
      template describes the tools; `system` is for folders whose template does
      not. If empty, the template is not used.
    opening: The beginning of each of the policy's messages, written for it.
    thought: The policy's message up to the calls or the answer: $thought. It
      begins with `opening`.
    grammar: How messages mark their parts: one of GRAMMARS.
    max_turns: Messages of the policy in a conversation; 0 means no limit.
    max_calls: Calls of each tool in a conversation; 0, or a tool not named,
      means no limit.
    paradigm: The paradigm that is worded; not a field of the file.
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
  grammar: Literal['hermes', 'mmsearch_r1'] = _HERMES
  max_turns: typed.Count = 0
  max_calls: Mapping[str, typed.Count] = dataclasses.field(
      default_factory=dict
  )
  paradigm: str = paradigms.GOG

  def __post_init__(self):
    """Refuses templates that would lose content, or could not be read back."""
    for field in dataclasses.fields(self):
      template = getattr(self, field.name)
      if field.name == 'name' or not isinstance(template, str):
        continue
      used = {part for kind, part in parts(template) if kind == 'name'}
      must, may = _NAMES.get(field.name, (set(), set()))
      if wrong := (used - must - may) | (must - used):
        names = ', $'.join(sorted(wrong))
        raise typed.FieldError(f'{field.name} lacks or does not know ${names}')
    think = GRAMMARS[self.grammar].think
    if not all(tag in self.thought for tag in think):
      raise typed.FieldError(
          f'thought must stand in {" and ".join(think)}, as grammar '
          f'{self.grammar} has it'
      )
    if self.instructions and self.grammar != _HERMES:
      raise typed.FieldError(
          'instructions leave it to the chat template to say how tools are '
          f'called, which is not as grammar {self.grammar} has it; write a '
          'system message in their place'
      )
    if not self.thought.startswith(self.opening):
      raise typed.FieldError(
          f'thought must begin with opening, {self.opening!r}'
      )

  @property
  def around_thought(self) -> tuple[str, str]:
    """What stands before and after a thought."""
    before, _, after = self.thought.partition('$thought')
    return before, after

  def can_call(self, tool: str) -> bool:
    """Whether its grammar can spell a call of this tool."""
    return GRAMMARS[self.grammar].can_call(tool)


# The names that a template must use, since content would be lost silently
# without them, and those that it may use.
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
  """Yields ('text', literal text) and ('name', what to fill in), in order."""
  for index, part in enumerate(_NAME.split(template)):
    if index % 2 and part != '$':
      yield 'name', part
    elif part:
      yield 'text', part


def load_dialect(name: str, paradigm: str = paradigms.GOG) -> Dialect:
  """Reads a dialect of the package by its name, or any by its .json path.

  Args:
    name: A dialect of the package, or a path that ends in .json.
    paradigm: Which words to take: 'gog', or one that files may reword.

  Raises:
    UserError: There is no such dialect (names the nearest), it has no words for
      the paradigm, or the file is not a dialect (names the field).
  """
  if name.endswith('.json'):
    path = epath.Path(name)
  else:
    path = _FOLDER / f'{name}.json'
    known = sorted(file.stem for file in _FOLDER.glob('*.json'))
    if name not in known:
      raise UserError(
          f'unknown dialect {name!r}; did you mean {nearest(name, known)!r}? '
          f'There are: {", ".join(known)}, or the path of a .json file'
      )
  fields = files.read_json(path, advice='give the .json file of a dialect')
  try:
    return _of_fields(fields, name=path.stem, paradigm=paradigm)
  except typed.FieldError as error:
    raise UserError(f'dialect {path}: {error}') from error


def _of_fields(fields: dict[str, Any], *, name: str, paradigm: str) -> Dialect:
  worded = typed.read(
      dict[str, dict[str, Any]], fields.pop('paradigms', {}), 'paradigms'
  )
  own = {'name': name, 'paradigm': paradigm}
  for field in fields.keys() & own.keys():
    raise typed.FieldError(f'{field}: there is no such field')
  for other in worded.keys() - set(_REWORDED):
    raise typed.FieldError(
        f'paradigms.{other}: they hold the fields that differ, for '
        f'{", ".join(_REWORDED)}'
    )
  # Without gazing no other words are needed: the tool is simply not listed.
  if paradigm not in (paradigms.GOG, paradigms.NO_GAZE, *worded):
    raise typed.FieldError(
        f'there are no words for paradigm {paradigm!r}, only for '
        f'{", ".join([paradigms.GOG, *worded])}; write them into its field '
        'paradigms'
    )
  return typed.read(Dialect, fields | worded.get(paradigm, {}) | own)

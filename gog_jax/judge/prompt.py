"""What a judge is told, and how a verdict is read from its reply.

An answer may try to talk the judge into calling it right. So untrusted text is
shown as JSON strings, in which nothing can begin a line, end the string or
spell a control token. And a verdict has to repeat a code that depends on the
whole answer, so that no answer can contain its own code: a judge that merely
repeats what it was shown has given no verdict.
"""

from __future__ import annotations

import dataclasses
import hashlib
import json
import re
import string
from typing import Annotated

from etils import epath

from gog_jax.errors import UserError
from gog_jax.remote.completion import Completion
from gog_jax.storage import files
from gog_jax.storage.typed import Bound

# Version of how strings are shown and verdicts read; part of a judge's.
FORMAT = 2

_SHIPPED = epath.Path(__file__).parent / 'prompt.txt'
_FIELDS = {'question', 'answers', 'answer', 'code'}
_VERDICTS = {'correct': True, 'incorrect': False}
_CODE = 12  # Hex digits.
_SHOWN = 80  # Characters of a reply that is no verdict.
# What control tokens begin with (<|im_end|>, </s>, [INST]).
_BRACKETS = {'<': '\\u003c', '[': '\\u005b'}
_THINK, _END_THINK = '<think>', '</think>'
_OBJECTS = 50  # The last ones of a reply that are looked at.


@dataclasses.dataclass(frozen=True, kw_only=True)
class Case:
  """An answer to be judged.

  Attributes:
    question: What was asked.
    answers: Every accepted form.
    answer: The answer given; empty where none was.
  """

  question: str
  answers: Annotated[tuple[str, ...], Bound('one or more texts', bool)]
  answer: str


class NoVerdict(Exception):
  """A reply without a verdict; the text describes it in one line.

  Attributes:
    reason: The same in a few words, under which it is counted.
  """

  transient = True  # The judge may do better when it is asked again.

  def __init__(self, message: str, *, reason: str):
    super().__init__(message)
    self.reason = reason


def load(path: str) -> str:
  """The prompt in a file; an empty path is the one that ships.

  Raises:
    UserError: It cannot be read, or lacks a field or has another.
  """
  file = epath.Path(path) if path else _SHIPPED
  with files.readable(f'--config.judge.prompt={file}'):
    text = files.text_of(file.read_bytes())
  template = string.Template(text)
  if not template.is_valid() or set(template.get_identifiers()) != _FIELDS:
    raise UserError(
        f'--config.judge.prompt={file} must have $question, $answers, $answer '
        'and $code, each at least once and no other: write $$ for a dollar'
    )
  return text


def write(text: str, case: Case, code: str) -> str:
  """The prompt about one answer."""
  return string.Template(text).substitute(
      question=quoted(case.question),
      answers=f'[{", ".join(map(quoted, case.answers))}]',
      answer=quoted(case.answer),
      code=code,
  )


def quoted(text: str) -> str:
  """A JSON string on one line: printable characters, but no `<` and no `[`."""
  return ''.join(
      _BRACKETS.get(c, c) if c.isprintable() else json.dumps(c)[1:-1]
      for c in json.dumps(text, ensure_ascii=False)
  )


def code_for(version: str, case: Case, attempt: int) -> str:
  """What a verdict on this answer has to repeat.

  It is the same whenever the same is asked, so that answers are reproducible,
  but changes with the attempt: the same prompt may get the same nonsense.
  """
  shown = files.dumps([version, *dataclasses.astuple(case), attempt])
  return hashlib.sha256(shown.encode()).hexdigest()[:_CODE]


def read(reply: Completion, code: str) -> bool:
  """Whether the judge calls the answer right.

  The last JSON object of its message that has a verdict or a code counts,
  whatever stands around it. The judge's reasoning is ignored, be it in
  `<think>` or wherever its server puts that.

  Raises:
    NoVerdict: There is none, or it has not the verdict and the code once each.
  """
  if reply.truncated:
    raise NoVerdict(
        'the judge was cut off: raise --config.judge.max_tokens',
        reason='cut off',
    )
  said = reply.content.strip()
  if not said and _END_THINK in reply.reasoning:
    said = reply.reasoning  # All of it, by the server's mistake.
  said = said.rpartition(_END_THINK)[2].strip()
  if not said:
    raise NoVerdict('the judge says nothing', reason='empty')
  try:
    if _THINK in said:
      raise ValueError('its thought does not end')
    return _verdict(said, code)
  except ValueError as error:
    shown = json.dumps(said.split('\n')[-1][:_SHOWN])
    raise NoVerdict(
        f'the judge gives no verdict: {error}; its last line is {shown}',
        reason='no verdict',
    ) from None


def _verdict(said: str, code: str) -> bool:
  """Reads the last verdict in a text; raises ValueError if it is none."""
  # Pairs, not a dict: of a field that occurs twice, none is believed.
  decoder = json.JSONDecoder(object_pairs_hook=list)
  starts = [match.start() for match in re.finditer('{', said)]
  for start in reversed(starts[-_OBJECTS:]):
    try:
      pairs, _ = decoder.raw_decode(said, start)
    except (ValueError, RecursionError):
      continue
    named = {'verdict': [], 'code': []}
    for key, value in pairs:
      named.get(key.strip().lower(), []).append(value)
    if not any(named.values()):
      continue
    for key, values in named.items():
      if len(values) != 1 or not isinstance(values[0], str):
        raise ValueError(f'its object has not one "{key}" that is a text')
    (word,), (repeated,) = named.values()
    if repeated.strip().lower() != code:
      raise ValueError('its "code" is not the one that it was given')
    right = _VERDICTS.get(word.strip(' .!*_').lower())
    if right is None:
      raise ValueError('its "verdict" is neither "correct" nor "incorrect"')
    return right
  raise ValueError('no JSON object has a "verdict" and a "code"')

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
import string
from typing import Annotated

from etils import epath

from gog_jax.errors import UserError
from gog_jax.remote.endpoint import Completion
from gog_jax.storage import files
from gog_jax.storage.typed import Bound

# Version of how strings are shown and verdicts read; part of a judge's.
FORMAT = 1

_SHIPPED = epath.Path(__file__).parent / 'prompt.txt'
_FIELDS = {'question', 'answers', 'answer', 'code'}
_VERDICTS = {'correct': True, 'incorrect': False}
_CODE = 12  # Hex digits.
_SHOWN = 80  # Characters of a reply that is no verdict.
# What control tokens begin with (<|im_end|>, </s>, [INST]).
_BRACKETS = {'<': '\\u003c', '[': '\\u005b'}
_THINK, _END_THINK = '<think>', '</think>'
_FENCE = '```'


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

  The last line of its message, apart from a Markdown fence after it, must be a
  JSON object of exactly the verdict and the code. Its reasoning is ignored, be
  it in `<think>` or wherever its server puts that.

  Raises:
    NoVerdict: It is anything else.
  """
  if reply.truncated:
    raise NoVerdict(
        'the judge was cut off: raise --config.judge.max_tokens',
        reason='cut off',
    )
  said = reply.content.rpartition(_END_THINK)[2].strip()
  if not said:
    raise NoVerdict('the judge says nothing', reason='empty')
  lines = said.split('\n')
  if lines[-1] == _FENCE and lines[1:]:
    lines.pop()
  verdict = _verdict(lines[-1].strip(), code)
  if verdict is None or _THINK in said:
    shown = json.dumps(lines[-1][:_SHOWN])
    raise NoVerdict(
        f'the judge gives no verdict; its last line is {shown}',
        reason='no verdict',
    )
  return verdict


def _verdict(line: str, code: str) -> bool | None:
  try:
    # Pairs, not a dict: of a key that occurs twice, none is believed.
    pairs = json.loads(line, object_pairs_hook=tuple)
  except (ValueError, RecursionError):
    return None
  for word, right in _VERDICTS.items():
    fields = (('verdict', word), ('code', code))
    if pairs in (fields, fields[::-1]):
      return right
  return None

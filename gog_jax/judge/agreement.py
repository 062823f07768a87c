"""How often a judge agrees with people, on answers labelled by hand."""

from __future__ import annotations

from collections.abc import Sequence
import dataclasses
import itertools
import json
from typing import Any

from etils import epath
import scipy.stats

from gog_jax.errors import UserError
from gog_jax.judge.judge import Judge
from gog_jax.judge.prompt import Case
from gog_jax.storage import files
from gog_jax.storage import metrics
from gog_jax.storage import typed
from gog_jax.storage.records import json_lines
from gog_jax.storage.records import Line
from gog_jax.storage.records import Loaded
from gog_jax.storage.records import sift
from gog_jax.storage.records import Unusable

_SHOWN = 10  # Disagreements on the terminal.
_LENGTH = 60  # Characters of each text there.
_MAX_BYTES = 2**24  # Of a line.


@dataclasses.dataclass(frozen=True, kw_only=True)
class Label:
  """An answer that a person has judged.

  Attributes:
    case: The answer and its question.
    right: What the person says.
    line: Its line in the file, from 1.
  """

  case: Case
  right: bool
  line: int


def read(path: epath.PathLike) -> Loaded[Label]:
  """Reads JSON lines of {"question", "answers", "answer", "right"}.

  Raises:
    UserError: The file cannot be read, or no line of it is of use.
  """
  lines = json_lines(
      path, max_bytes=_MAX_BYTES, advice='pass --config.labels=FILE'
  )
  found = sift(
      f'--config.labels={path}',
      ((f'{path}, line {line.number}', line) for line in lines),
      _label,
  )
  if not found.items:
    why = f': {found.drops[0]}' if found.drops else ''
    raise UserError(
        f'{found.name} holds no label{why}; each line is '
        '{"question": "..", "answers": [".."], "answer": "..", "right": true}'
    )
  return found


def _label(line: Line) -> Label:
  if isinstance(line.value, Unusable):
    raise line.value
  try:
    case = typed.read(Case, line.value, ignore_unknown=True)
    right = typed.read(bool, line.value.get('right'), 'right')
  except typed.FieldError as error:
    raise Unusable('wrong field', str(error)) from error
  return Label(case=case, right=right, line=line.number)


def measure(
    judge: Judge, labels: epath.PathLike, path: epath.PathLike
) -> dict[str, Any]:
  """What `agreement` finds for a file of labels, written to `path` as JSON.

  Lines that cannot be used are reported one by one, and counted.

  Raises:
    UserError: No line is of use, the judge fails too often, or `path` cannot
      be written.
  """
  records = read(labels)
  for drop in records.drops:
    metrics.say(f'judge: {drop}: left out')
  found = {
      'labels': str(labels),
      **agreement(judge, records.items),
      'left_out': records.reasons(),
      'judge': judge.facts(),
  }
  files.write_json(path, found, sort_keys=True)
  return found


def agreement(judge: Judge, labels: Sequence[Label]) -> dict[str, Any]:
  """How often the judge says what the labels say.

  Returns:
    The `summary` of all labels; `asked`, that of the labels about which a judge
    has to be asked, since matches would flatter it; `failed`, the number
    of labels without a verdict, which are counted nowhere else; and
    `disagreements`, each with the label's line.

  Raises:
    RunStopped: The judge fails too often.
  """
  verdicts = judge.verdicts([label.case for label in labels])
  judged = [
      (label, verdict)
      for label, verdict in zip(labels, verdicts, strict=True)
      if verdict.right is not None
  ]
  pairs = [(label.right, verdict.right) for label, verdict in judged]
  asked = [verdict.by == judge.version for _, verdict in judged]
  return {
      **summary(pairs),
      'asked': summary(list(itertools.compress(pairs, asked))),
      'failed': len(labels) - len(judged),
      'disagreements': [
          {
              'line': label.line,
              **dataclasses.asdict(label.case),
              'right': label.right,
              'judged': verdict.right,
              'by': verdict.by,
          }
          for label, verdict in judged
          if verdict.right != label.right
      ],
  }


def summary(pairs: Sequence[tuple[bool, bool | None]]) -> dict[str, Any]:
  """Agreement of two raters.

  Args:
    pairs: (label, verdict) of each answer.

  Returns:
    `n`; `agreement`, the share on which both agree, with `ci95`, Wilson's
    interval; `kappa`, Cohen's, None where both always say the same word; and
    `confusion`, how many are labelled right or wrong and judged so. What has
    nothing to divide by is None.
  """
  confusion = {
      f'{_word(label)}_judged_{_word(verdict)}': pairs.count((label, verdict))
      for label in (True, False)
      for verdict in (True, False)
  }
  if not (n := len(pairs)):
    none = dict.fromkeys(('agreement', 'ci95', 'kappa'))
    return {'n': 0, **none, 'confusion': confusion}
  n_agree = sum(label == verdict for label, verdict in pairs)
  interval = scipy.stats.binomtest(n_agree, n).proportion_ci(method='wilson')
  labelled = sum(label for label, _ in pairs) / n
  judged = sum(bool(verdict) for _, verdict in pairs) / n
  by_chance = labelled * judged + (1 - labelled) * (1 - judged)
  kappa = (n_agree / n - by_chance) / (1 - by_chance) if by_chance < 1 else None
  return {
      'n': n,
      'agreement': n_agree / n,
      'ci95': [float(interval.low), float(interval.high)],
      'kappa': kappa,
      'confusion': confusion,
  }


def table(found: dict[str, Any]) -> str:
  """What `measure` found, for the terminal."""
  lines = [_line('all labels', found), _line('asked about', found['asked'])]
  if found['failed']:
    lines.append(f'no verdict: {found["failed"]} labels, which nothing counts')
  if n_out := sum(found.get('left_out', {}).values()):
    lines.append(f'left out: {n_out} lines that hold no label')
  differ = found['disagreements']
  lines += [
      f'line {one["line"]}: labelled {_word(one["right"])}, judged '
      f'{_word(one["judged"])}: {_short(one["answer"])} for '
      f'{_short(one["answers"][0])}'
      for one in differ[:_SHOWN]
  ]
  if len(differ) > _SHOWN:
    lines.append(f'and {len(differ) - _SHOWN} more')
  return '\n'.join(lines)


def _line(name: str, found: dict[str, Any]) -> str:
  if not found['n']:
    return f'{name}: none'
  low, high = (100 * bound for bound in found['ci95'])
  kappa = 'none' if found['kappa'] is None else f'{found["kappa"]:.3f}'
  counts = ', '.join(
      f'{name.replace("_", " ")} {n}' for name, n in found['confusion'].items()
  )
  return (
      f'{name}: {found["n"]}, agreement {100 * found["agreement"]:.1f} % '
      f'[{low:.1f}, {high:.1f}], kappa {kappa}; {counts}'
  )


def _word(right: bool) -> str:
  return 'right' if right else 'wrong'


def _short(text: str) -> str:
  """On one line, whatever it holds."""
  return json.dumps(text[:_LENGTH])

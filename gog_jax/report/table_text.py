"""The table of report_table.py in markdown."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from gog_jax.report import paper

_NOTHING = (
    'No published benchmark has been evaluated in these workdirs: below stands '
    "the paper's table alone."
)


class _Marks:
  """Footnotes in the order in which they are first needed."""

  def __init__(self):
    self._numbers: dict[str, int] = {}

  def of(self, reasons: Iterable[str]) -> str:
    """'†1,2' for reasons that have these numbers; empty for none."""
    numbers = [
        self._numbers.setdefault(reason, len(self._numbers) + 1)
        for reason in reasons
        if reason
    ]
    return '†' + ','.join(map(str, numbers)) if numbers else ''

  def lines(self) -> list[str]:
    return [
        f'†{number} {_plain(what)}  '
        for what, number in self._numbers.items()
    ]


def markdown(table: Mapping[str, Any]) -> str:
  """All of it: ours beside the paper's, measures, differences, the world."""
  marks = _Marks()
  parts = [['# Results on published benchmarks']]
  if table['rows']:
    parts += [_ours(table, marks), _measures(table, marks)]
    if table['differences']:
      parts.append(_differences(table))
  else:
    parts.append([_NOTHING])
  parts.append(_papers(table, marks))
  if table['world']:
    parts.append(_world(table))
  notes = [*marks.lines(), *(f'{note}  ' for note in table['notes'])]
  if notes:
    parts.append(['## Notes', '', *notes])
  text = '\n\n'.join('\n'.join(part) for part in parts) + '\n'
  # Names of models may hold what no file can.
  return text.encode('utf-8', 'replace').decode('utf-8')


def label(row: Mapping[str, str]) -> str:
  """A row's name: policy, model, and whose run it is, where there are many."""
  of = [_plain(row[key]) for key in ('model', 'run') if row[key]]
  policy = _plain(row['policy'])
  return f'{policy} ({", ".join(of)})' if of else policy


def _plain(text: str) -> str:
  """Keeps a name from breaking out of its cell, and from being HTML."""
  for mark, safe in (('&', '&amp;'), ('<', '&lt;'), ('|', '\\|'), ('`', "'")):
    text = text.replace(mark, safe)
  return ' '.join(text.split())


def _ours(table: Mapping[str, Any], marks: _Marks) -> list[str]:
  lines = _head('policy', [b['title'] for b in table['benchmarks']], 'average')
  for row in table['rows']:
    cells = [
        _cell(row['cells'][name], marks) if name in row['cells'] else '-'
        for name in paper.NAMES
    ]
    average = row['average']
    mark = marks.of(average['caveats']) if average else ''
    lines.append(_line(label(row), *cells, f'{_share(average)} {mark}'.strip()))
    if row['paper'] is not None:
      lines.append(_paper_line(table['paper'][row['paper']], marks))
  return [
      *lines,
      '',
      'Accuracy in per cent, [95 % interval], (n). In italics the paper, whose '
      'intervals are ours, from counts recovered from its scores. An average '
      'stands only over all six.',
  ]


def _cell(cell: Mapping[str, Any], marks: _Marks) -> str:
  accuracy = cell['accuracy']
  n = accuracy['n'] if accuracy else 0
  return f'{_share(accuracy)} ({n}) {marks.of(cell["caveats"])}'.strip()


def _paper_line(row: Mapping[str, Any], marks: _Marks) -> str:
  cells = []
  for name in paper.NAMES:
    cell = row['cells'].get(name)
    if cell is None:
      cells.append('-')
    else:
      mark = marks.of([cell['footnote']])
      cells.append(
          f'*{_printed(cell["mean"])} {_edges(cell["ci95"])}* '
          f'({cell["n"]}) {mark}'.strip()
      )
  name = f'*paper: {row["paradigm"]}, {row["backbone"]}*'
  return _line(name, *cells, f'*{_printed(row["average"])}*')


def _papers(table: Mapping[str, Any], marks: _Marks) -> list[str]:
  titles = [b['title'] for b in table['benchmarks']]
  return [
      "## The paper's (arXiv 2601.13942)",
      '',
      *_head('row', titles, 'average'),
      *(_paper_line(row, marks) for row in table['paper']),
  ]


def _measures(table: Mapping[str, Any], marks: _Marks) -> list[str]:
  titles = {b['name']: b['title'] for b in table['benchmarks']}
  lines = ['## Measures', '', *_measures_head()]
  for row in table['rows']:
    for name, cell in row['cells'].items():
      mark = marks.of(cell['caveats'])
      lines.append(_measured(f'{titles[name]} {mark}'.strip(), row, cell))
  return lines


def _world(table: Mapping[str, Any]) -> list[str]:
  lines = ['## Embedded world: in no table', '', *_measures_head()]
  for cell in table['world']:
    lines.append(_measured(cell['benchmark'], cell, cell))
  return lines


def _measures_head() -> list[str]:
  return _head(
      'benchmark', ['policy', 'n', 'accuracy', 'exact match', 'F1', 'judge'],
      'infra errors', 'unjudged', 'searches', 'dollars',
  )  # fmt: skip


def _measured(
    benchmark: str, row: Mapping[str, str], cell: Mapping[str, Any]
) -> str:
  return _line(
      benchmark,
      label(row),
      cell['n'],
      *(_share(cell[m]) for m in ('accuracy', 'exact_match', 'f1', 'judge')),
      cell['infra_errors'],
      cell['unjudged'],
      _number(cell['searches'], 2),
      _number(cell['price'], 4),
  )


def _differences(table: Mapping[str, Any]) -> list[str]:
  titles = {b['name']: b['title'] for b in table['benchmarks']}
  lines = [
      '## Paired differences of accuracy, on the same items',
      '',
      *_head('benchmark', ['first', 'second'], 'first - second, points', 'n'),
  ]
  for row in table['differences']:
    found = row['accuracy']
    shown = '-'
    if found:
      shown = f'{100 * found["difference"]:+.1f} {_edges(found["ci95"])}'
    lines.append(
        _line(
            titles[row['benchmark']],
            label(row['first']),
            label(row['second']),
            shown,
            found['n'] if found else 0,
        )
    )
  return lines


def _head(first: str, middle: Sequence[str], *last: str) -> list[str]:
  names = [first, *middle, *last]
  return [_line(*names), '|' + '---|' * len(names)]


def _line(*cells: Any) -> str:
  return '| ' + ' | '.join(map(str, cells)) + ' |'


def _share(found: Mapping[str, Any] | None) -> str:
  if found is None:
    return '-'
  return f'{100 * found["mean"]:.2f} {_edges(found["ci95"])}'


def _printed(share: float) -> str:
  return f'{100 * share:.2f}'


def _edges(ci95: Sequence[float]) -> str:
  return '[' + ', '.join(f'{100 * edge:.1f}' for edge in ci95) + ']'


def _number(value: float | None, digits: int) -> str:
  return '-' if value is None else f'{value:.{digits}f}'

"""What a report says in plain text: on a terminal, and the paper's table.

The terminal's table is as wide as 80 columns; without colours where it is none.
The paper's table, see table.py, is Markdown.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
import io
import sys
from typing import Any

import rich.box
import rich.console
import rich.table
import rich.text

from gog_jax.report import measures
from gog_jax.report import paper

DIFFERENCES = ('accuracy', 'gaze_hit', 'recovery')
_TITLES = {name: title for name, title, _ in paper.COLUMNS}
# More than the table needs: a number must not be cut off to fit a window.
_WIDTH = 160


def table(summary: Mapping[str, Any]) -> str:
  """The rows of a report.

  Every number but `n`, `calls` and what is left out is in per cent; '-' is
  undefined.
  """
  on_terminal = sys.stdout.isatty()
  rows = summary['rows']
  hops = measures.hops(rows)
  columns = {
      'policy': lambda row: row['policy'],
      'accuracy [95 %]': lambda row: _with_interval(row['answers']['accuracy']),
      'n': lambda row: str(row['n']),
      'by hops\n' + '/'.join(hops): lambda row: '/'.join(
          _per_cent(row['by_hop'].get(hop, {}).get('accuracy'), digits=0)
          for hop in hops
      ),
      'format': lambda row: _per_cent(row['format']),
      'kinds of\nsearch\n0/1/2': lambda row: '/'.join(
          _per_cent(row['behaviour'][name], digits=0)
          for name in ('no_search', 'one_kind', 'hybrid')
      ),
      'calls': lambda row: _number(row['behaviour']['searches'], 2),
      'gaze\nhit': lambda row: _per_cent(row['behaviour']['gaze_hit']),
      'reco-\nvery': lambda row: _per_cent(row['behaviour']['recovery']),
      'infra\nerrors': lambda row: str(row['infra_errors']),
      'un-\njudged': lambda row: str(row['unjudged']),
  }
  if not hops:
    del columns['by hops\n']
  for heading, name in (
      ('infra\nerrors', 'infra_errors'), ('un-\njudged', 'unjudged')
  ):  # fmt: skip
    if not any(row[name] for row in rows):
      del columns[heading]
  grid = rich.table.Table(
      box=rich.box.SIMPLE_HEAD, show_edge=False, padding=(0, 1, 0, 0)
  )
  for heading in columns:
    grid.add_column(
        rich.text.Text(heading),
        justify='left' if heading == 'policy' else 'right',
        style='bold' if heading == 'policy' else '',
        vertical='bottom',
        no_wrap=True,
    )
  for row in rows:
    grid.add_row(*(rich.text.Text(cell(row)) for cell in columns.values()))
  out = io.StringIO()
  rich.console.Console(
      file=out,
      force_terminal=on_terminal,
      color_system='auto' if on_terminal else None,
      width=_WIDTH,
  ).print(grid)
  drawn = out.getvalue().replace('─', '-')  # Any terminal can print that.
  lines = [line.rstrip() for line in drawn.splitlines()]
  return '\n'.join([*lines, *map(about, summary.get('benchmark', ()))])


def about(items: Mapping[str, Any]) -> str:
  """One line: how many items of which benchmark, and whether the paper's."""
  date = f' {items["date"]}' if items.get('date') else ''
  line = f'{items["name"]}{date}: {items["n"]} items'
  if items.get('left_out'):
    line += f', {items["left_out"]} left out'
  return f'{line}; {items.get("label") or "as many as the paper has"}'


def differences(summary: Mapping[str, Any]) -> str:
  """A line for each difference, in points with its 95 % interval.

  Over several seeds a second interval follows, of the mean over them.
  """
  lines = []
  for row in summary['differences']:
    found = []
    for name in DIFFERENCES:
      if (one := row[name]) is not None:
        found.append(
            f'{name.replace("_", " ")} {100 * one["difference"]:+.1f} '
            f'{_interval(one["ci95"])} (n {one["n"]})'
        )
        if one.get('ci95_seeds'):
          found[-1] += f' seeds {_interval(one["ci95_seeds"])}'
    lines.append(f'{row["policy"]} - {row["against"]}: ' + ', '.join(found))
  return '\n'.join(lines)


def _with_interval(found: Mapping[str, Any] | None) -> str:
  if found is None:
    return '- [-]'
  return f'{_per_cent(found["mean"])} {_interval(found["ci95"])}'


def _interval(ci95: Sequence[float], *, digits: int = 0) -> str:
  return '[' + ', '.join(_per_cent(x, digits=digits) for x in ci95) + ']'


def _per_cent(share: float | None, *, digits: int = 1) -> str:
  return _number(None if share is None else 100 * share, digits)


def _number(value: float | None, digits: int) -> str:
  return '-' if value is None else f'{value:.{digits}f}'


class _Marks:
  """Footnotes in the order in which they are first needed."""

  def __init__(self):
    self._numbers: dict[str, int] = {}

  def of(self, reasons: Iterable[str]) -> str:
    """' †1,2' for reasons that have these numbers; empty for none."""
    numbers = [
        self._numbers.setdefault(reason, len(self._numbers) + 1)
        for reason in reasons
        if reason
    ]
    return ' †' + ','.join(map(str, numbers)) if numbers else ''

  def lines(self) -> list[str]:
    return [f'†{n} {_plain(what)}  ' for what, n in self._numbers.items()]


def markdown(found: Mapping[str, Any]) -> str:
  """The paper's table beside ours, as `table.build` made it."""
  marks = _Marks()
  sections = ['# Results on published benchmarks']
  if found['rows']:
    sections += [
        _grid('policy', [*_TITLES.values(), 'average'], _ours(found, marks)),
        'Accuracy in per cent, [95 % interval], (n). In italics the paper, '
        'whose intervals are ours, from counts recovered from its scores. An '
        'average stands only over all six.',
        '## Measures',
        _measures(
            [row | cell for row in found['rows']
             for cell in row['cells'].values()],
            marks,
        ),
    ]  # fmt: skip
  else:
    sections.append(
        'No published benchmark has been evaluated in these workdirs: below '
        "stands the paper's table alone."
    )
  if found['others']:
    sections += ['## Not in the paper', _measures(found['others'], marks)]
  if found['differences']:
    sections += [
        '## Paired differences of accuracy, on the same items',
        _grid(
            'benchmark',
            ['first', 'second', 'first - second, points', 'n'],
            map(_difference, found['differences']),
        ),
    ]
  sections += [
      "## The paper's (arXiv 2601.13942)",
      _grid(
          'row',
          [*_TITLES.values(), 'average'],
          [_papers(row, marks) for row in found['paper']],
      ),
  ]
  if found['world']:
    sections += [
        '## Embedded world: in no table', _measures(found['world'], marks)
    ]  # fmt: skip
  if notes := [*marks.lines(), *(f'{note}  ' for note in found['notes'])]:
    sections += ['## Notes', '\n'.join(notes)]
  # Names of models may hold what no file can.
  return ('\n\n'.join(sections) + '\n').encode('utf-8', 'replace').decode()


def label(row: Mapping[str, str]) -> str:
  """A row's name: policy, model, and whose run it is, where there are many."""
  of = [_plain(row[key]) for key in ('model', 'run') if row[key]]
  policy = _plain(row['policy'])
  return f'{policy} ({", ".join(of)})' if of else policy


def _plain(name: str) -> str:
  """Keeps a name from breaking out of its cell, and from being HTML."""
  for mark, safe in (('&', '&amp;'), ('<', '&lt;'), ('|', '\\|'), ('`', "'")):
    name = name.replace(mark, safe)
  return ' '.join(name.split())


def _grid(
    first: str, others: Sequence[str], rows: Iterable[Sequence[Any]]
) -> str:
  lines = [[first, *others], *rows]
  drawn = ['| ' + ' | '.join(map(str, line)) + ' |' for line in lines]
  return '\n'.join([drawn[0], '|' + '---|' * len(lines[0]), *drawn[1:]])


def _ours(found: Mapping[str, Any], marks: _Marks) -> list[list[str]]:
  lines = []
  for row in found['rows']:
    cells = ['-'] * len(paper.NAMES)
    for name, cell in row['cells'].items():
      accuracy = cell['accuracy']
      n = accuracy['n'] if accuracy else 0
      cells[paper.NAMES.index(name)] = (
          f'{_share(accuracy)} ({n}){marks.of(cell["caveats"])}'
      )
    average = row['average']
    mark = marks.of(average['caveats']) if average else ''
    lines.append([label(row), *cells, _share(average) + mark])
    if row['paper'] is not None:
      lines.append(_papers(found['paper'][row['paper']], marks))
  return lines


def _papers(row: Mapping[str, Any], marks: _Marks) -> list[str]:
  cells = ['-'] * len(paper.NAMES)
  for name, cell in row['cells'].items():
    cells[paper.NAMES.index(name)] = (
        f'*{_share(cell)}* ({cell["n"]}){marks.of([cell["footnote"]])}'
    )
  return [
      f'*paper: {row["paradigm"]}, {row["backbone"]}*',
      *cells,
      f'*{_per_cent(row["average"], digits=2)}*',
  ]


def _measures(cells: Iterable[Mapping[str, Any]], marks: _Marks) -> str:
  names = ('accuracy', 'exact_match', 'f1', 'judge')
  return _grid(
      'benchmark',
      ['policy', 'n', 'accuracy', 'exact match', 'F1', 'judge',
       'infra errors', 'unjudged', 'searches', 'dollars'],
      [
          [
              _title(cell) + marks.of(cell['caveats']),
              label(cell),
              cell['n'],
              *(_share(cell[name]) for name in names),
              cell['infra_errors'],
              cell['unjudged'],
              _number(cell['searches'], 2),
              _number(cell['price'], 4),
          ]
          for cell in cells
      ],
  )  # fmt: skip


def _difference(row: Mapping[str, Any]) -> list[Any]:
  found, shown = row['accuracy'], '-'
  if found:
    interval = _interval(found['ci95'], digits=1)
    shown = f'{100 * found["difference"]:+.1f} {interval}'
  return [
      _title(row),
      label(row['first']),
      label(row['second']),
      shown,
      found['n'] if found else 0,
  ]


def _title(row: Mapping[str, Any]) -> str:
  return _TITLES.get(row['benchmark'], _plain(row['benchmark']))


def _share(found: Mapping[str, Any] | None) -> str:
  if found is None:
    return '-'
  interval = _interval(found['ci95'], digits=1)
  return f'{_per_cent(found["mean"], digits=2)} {interval}'

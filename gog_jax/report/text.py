"""What a report says in plain text: on a terminal, and the paper's table.

The terminal's table fits 80 columns; it has colours on a terminal only. The
paper's table, see table.py, is Markdown.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any

import rich.box
import rich.console
import rich.table

from gog_jax.report import measures
from gog_jax.report import paper
from gog_jax.storage import markdown

DIFFERENCES = ('accuracy', 'gaze_hit', 'recovery')
# Columns that are left out where there is nothing to report.
_LEFT_OUT = {'infra\nerrors': 'infra_errors', 'un-\njudged': 'unjudged'}
# Wider than the table: numbers must not be cut off to fit a window.
_WIDTH = 160


def table(summary: Mapping[str, Any]) -> str:
  """The rows of a report.

  Every number but `n`, `calls` and what is left out is in per cent; '-' is
  undefined.
  """
  rows = summary['rows']
  hops = measures.hops(rows)
  lines = []
  for row in rows:
    behaviour = row['behaviour']
    kinds = (behaviour[kind] for kind in ('no_search', 'one_kind', 'hybrid'))
    line = {
        'policy': row['policy'],
        'accuracy [95 %]': _share(row['answers']['accuracy'], digits=1),
        'n': str(row['n']),
    }
    if hops:
      by_hop = (row['by_hop'].get(hop, {}).get('accuracy') for hop in hops)
      line['by hops\n' + '/'.join(hops)] = _per_cents(by_hop)
    line |= {
        'format': _per_cent(row['format']),
        'kinds of\nsearch\n0/1/2': _per_cents(kinds),
        'calls': _number(behaviour['searches'], 2),
        'gaze\nhit': _per_cent(behaviour['gaze_hit']),
        'reco-\nvery': _per_cent(behaviour['recovery']),
    }
    for heading, name in _LEFT_OUT.items():
      if any(one[name] for one in rows):
        line[heading] = str(row[name])
    lines.append(line)
  grid = rich.table.Table(
      box=rich.box.SIMPLE_HEAD, show_edge=False, padding=(0, 1, 0, 0)
  )
  for heading in lines[0]:
    grid.add_column(heading, justify='right', vertical='bottom', no_wrap=True)
  grid.columns[0].justify, grid.columns[0].style = 'left', 'bold'
  for line in lines:
    grid.add_row(*line.values())
  # Names of policies are not markup.
  console = rich.console.Console(width=_WIDTH, markup=False, emoji=False)
  with console.capture() as captured:
    console.print(grid)
  drawn = captured.get().replace('─', '-')  # Any terminal can print that.
  drawn_lines = [line.rstrip() for line in drawn.splitlines()]
  return '\n'.join([*drawn_lines, *map(about, summary.get('benchmark', ()))])


def about(items: Mapping[str, Any]) -> str:
  """One line: the benchmark, its number of items, how it differs."""
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
        what = name.replace('_', ' ')
        found.append(f'{what} {_points(one)} (n {one["n"]})')
        if one.get('ci95_seeds'):
          found[-1] += f' seeds {_interval(one["ci95_seeds"])}'
    lines.append(f'{row["policy"]} - {row["against"]}: ' + ', '.join(found))
  return '\n'.join(lines)


def _share(found: Mapping[str, Any] | None, *, digits: int = 2) -> str:
  """In per cent, with an interval of one digit less: '70.00 [34.8, 93.3]'."""
  if found is None:
    return '-'
  interval = _interval(found['ci95'], digits=digits - 1)
  return f'{_per_cent(found["mean"], digits=digits)} {interval}'


def _points(found: Mapping[str, Any], *, digits: int = 0) -> str:
  """A difference in points, with its interval: '+4.0 [-1, 9]'."""
  interval = _interval(found['ci95'], digits=digits)
  return f'{100 * found["difference"]:+.1f} {interval}'


def _interval(ci95: Sequence[float], *, digits: int = 0) -> str:
  return '[' + ', '.join(_per_cent(x, digits=digits) for x in ci95) + ']'


def _per_cent(share: float | None, *, digits: int = 1) -> str:
  return _number(None if share is None else 100 * share, digits)


def _per_cents(shares: Iterable[float | None]) -> str:
  return '/'.join(_per_cent(share, digits=0) for share in shares)


def _number(value: float | None, digits: int) -> str:
  return '-' if value is None else f'{value:.{digits}f}'


class _Marks(dict[str, int]):
  """Footnotes, numbered in the order in which they are first needed."""

  def of(self, reasons: Iterable[str]) -> str:
    """' †1,2' for reasons that have these numbers; empty for none."""
    numbers = [self.setdefault(why, len(self) + 1) for why in reasons]
    return ' †' + ','.join(map(str, numbers)) if numbers else ''

  def lines(self) -> list[str]:
    return [f'†{n} {markdown.inline(why)}  ' for why, n in self.items()]


def paper_table(found: Mapping[str, Any]) -> str:
  """The paper's table beside ours, as `table.build` made it."""
  marks = _Marks()
  columns = [*paper.TITLES.values(), 'average']
  sections = ['# Results on published benchmarks']
  if found['rows']:
    cells = [cell for row in found['rows'] for cell in row['cells'].values()]
    sections += [
        markdown.table(['policy', *columns], _ours(found, marks)),
        'Accuracy in per cent, [95 % interval], (n). In italics the paper, '
        'whose intervals are ours, from counts recovered from its scores. An '
        'average stands only over all six.',
        '## Measures',
        _measures(cells, marks),
    ]
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
        markdown.table(
            ['benchmark', 'first', 'second', 'first - second, points', 'n'],
            map(_difference, found['differences']),
        ),
    ]
  sections += [
      "## The paper's (arXiv 2601.13942)",
      markdown.table(
          ['row', *columns], [_papers(row, marks) for row in found['paper']]
      ),
  ]
  if found['world']:
    sections += ['## Embedded world: in no table']
    sections += [_measures(found['world'], marks)]
  if notes := [*marks.lines(), *(f'{note}  ' for note in found['notes'])]:
    sections += ['## Notes', '\n'.join(notes)]
  # Names of models may hold surrogates, which UTF-8 cannot encode.
  return ('\n\n'.join(sections) + '\n').encode('utf-8', 'replace').decode()


def label(row: Mapping[str, str]) -> str:
  """A row's name: policy, model and, where there are several, run."""
  of = [markdown.inline(row[key]) for key in ('model', 'run') if row[key]]
  policy = markdown.inline(row['policy'])
  return f'{policy} ({", ".join(of)})' if of else policy


def _ours(found: Mapping[str, Any], marks: _Marks) -> Iterator[list[str]]:
  for row in found['rows']:
    average = _share(row['average'])
    if row['average']:
      average += marks.of(row['average']['caveats'])
    yield [label(row), *_accuracies(row, marks), average]
    if row['paper'] is not None:
      yield _papers(found['paper'][row['paper']], marks)


def _papers(row: Mapping[str, Any], marks: _Marks) -> list[str]:
  return [
      f'*paper: {row["paradigm"]}, {row["backbone"]}*',
      *_accuracies(row, marks, style='*'),
      f'*{_per_cent(row["average"], digits=2)}*',
  ]


def _accuracies(
    row: Mapping[str, Any], marks: _Marks, *, style: str = ''
) -> list[str]:
  """A row's accuracies in the paper's columns."""
  found = []
  for name in paper.NAMES:
    if cell := row['cells'].get(name):
      accuracy = f'{style}{_share(cell["accuracy"])}{style} ({cell["n"]})'
      found.append(accuracy + marks.of(cell['caveats']))
    else:
      found.append('-')
  return found


def _measures(cells: Iterable[Mapping[str, Any]], marks: _Marks) -> str:
  names = ('accuracy', 'exact_match', 'f1', 'judge')
  return markdown.table(
      ['benchmark', 'policy', 'n', 'accuracy', 'SQuAD exact match', 'F1',
       'judge', 'infra errors', 'unjudged', 'searches', 'dollars'],
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
  found = row['accuracy']
  return [
      _title(row),
      label(row['first']),
      label(row['second']),
      _points(found, digits=1) if found else '-',
      found['n'] if found else 0,
  ]


def _title(row: Mapping[str, Any]) -> str:
  return paper.TITLES.get(row['benchmark'], markdown.inline(row['benchmark']))

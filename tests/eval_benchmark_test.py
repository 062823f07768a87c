"""A published schema, evaluated over a local index, up to the paper's table."""

from __future__ import annotations

import html
import json

from scipy import stats

from gog_jax.evaluation import evaluate
from gog_jax.index import build
from gog_jax.report import table as report_table
from tests import benchmark_fixtures as fixtures
from tests import mini

N = 6  # As in fvqa_test_0 to 5; the answer to number 3 is 'Answer 3'.
# The play looks up 1, 3 and 5, of which the index has 5 wrong; of the others it
# has 0 wrong. Without tools its calls are no answers.
RIGHT = {'gog@script': 4, 'direct@script': 2}
FOUND = {1: 'Answer 1', 3: 'Answer 3', 5: 'Answer 7'}
LABEL = "not the paper's: 6 items, the paper has 1800"


def share(right: int) -> str:
  """As Clopper and Pearson have it."""
  low, high = stats.binomtest(right, N).proportion_ci(method='exact')
  mean = f'{100 * right / N:.2f}'
  return f'{mean} [{100 * low:.1f}, {100 * high:.1f}]'


def test_from_a_folder_to_the_table(tmp_path, capsys):
  fixtures.fvqa(tmp_path / 'data', N)
  corpus = tmp_path / 'corpus.jsonl'
  corpus.write_text(
      ''.join(
          json.dumps({'id': str(i), 'contents': f'"Q"\nQuestion {i}? {text}'})
          + '\n'
          for i, text in FOUND.items()
      )
  )
  build.build(str(tmp_path / 'index'), docs=str(corpus))
  run = mini.make_run(
      tmp_path / 'run',
      'eval',
      eval__benchmark='fvqa_test',
      benchmark__path=str(tmp_path / 'data'),
      eval__policies=tuple(RIGHT),
      eval__script='tests.eval_plays:reads',
      tools__backend='index',
      tools__index=str(tmp_path / 'index'),
  )
  mini.make_stages(run, 'eval', 'report')

  said = [line.rstrip() for line in capsys.readouterr().out.splitlines()]
  page = html.unescape(
      (tmp_path / 'run/report_fvqa_test/index.html').read_text()
  )
  assert f'fvqa_test: {N} items; {LABEL}' in said
  assert f'fvqa_test: {N} items; {LABEL}' in page
  assert 'by hops' not in page and 'by hops' not in ''.join(said)

  text = report_table.make([run.workdir], run.workdir, seed=0)
  assert text == (tmp_path / 'run/table.md').read_text()
  lines = text.splitlines()
  assert f'†1 {LABEL}  ' in lines
  assert "†2 scored by answer match, the paper's by an LLM judge  " in lines
  for name, right in RIGHT.items():
    assert f'| {name} | {share(right)} (6) †1,2 |' + ' - |' * 6 in lines
  rows = [line.split(' | ') for line in lines]
  measured = {r[1]: r[2:] for r in rows if r[0] == '| FVQA-test †1,2'}
  n, accuracy, match, f1, judge, infra, unjudged, searches, price = measured[
      'gog@script'
  ]
  assert (n, accuracy, match) == ('6', share(4), share(4))
  assert f1.startswith('75.00 [')  # Of 'Answer 7' one word in two is right.
  assert (judge, infra, unjudged) == ('-', '0', '0')
  assert (searches, price) == ('0.50', '0.0000 |')  # 3 in 6.
  assert measured['direct@script'][7] == '0.00'
  (compared,) = (r for r in rows if r[:2] == ['| FVQA-test', 'gog@script'])
  assert compared[2] == 'direct@script'
  assert compared[3].startswith('+33.3 [')


OWN = """
from tests import benchmark_fixtures as fixtures
def questions():
  for i in range(3):
    yield {'id': f'mine_{i}', 'question': f'Question {i}?',
           'answer': f'Answer {i}', 'image': fixtures.picture(i)}
"""


def test_a_file_of_ones_own_is_a_benchmark(tmp_path, capsys):
  """Nothing of the package names it; it is no part of the paper's table."""
  own = tmp_path / 'own.py'
  own.write_text(OWN)
  corpus = tmp_path / 'corpus.jsonl'
  corpus.write_text(json.dumps({'id': '1', 'contents': 'Q\nQuestion 1? no'}))
  build.build(str(tmp_path / 'index'), docs=str(corpus))
  run = mini.make_run(
      tmp_path / 'run',
      'eval',
      eval__benchmark=f'{own}:questions',
      eval__policies=('gog@script',),
      eval__script='tests.eval_plays:reads',
      tools__backend='index',
      tools__index=str(tmp_path / 'index'),
  )
  evaluate.check(run.config)
  mini.make_stages(run, 'eval', 'report')
  said = capsys.readouterr().out
  assert f'{own}:questions: 3 items; not in the paper' in said
  text = report_table.make([run.workdir], run.workdir, seed=0)
  assert f'{own}:questions' in text and 'Embedded world' not in text
  # Of three, the play says two wrong: it knows none, and looks one up.
  rows = [line for line in text.splitlines() if '33.33 [' in line]
  assert any('gog@script' in row for row in rows)

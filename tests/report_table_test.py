"""The paper's table beside ours: from files, counted by hand."""

from __future__ import annotations

import dataclasses
import json

import numpy as np
import pytest
import scipy.stats

from configs import table as table_page
from gog_jax.app import commands
from gog_jax.config import from_page
from gog_jax.errors import UserError
from gog_jax.report import paper
from gog_jax.report import table as report_table
from gog_jax.storage import rollouts
from gog_jax.storage import trajectories as store
from gog_jax.types import ToolStatus
from gog_jax.types import Verdict
from tests import report_helpers as helpers

QWEN = 'Qwen/Qwen3-VL-8B-Thinking'


def evaluate(
    workdir,
    benchmark,
    policy,
    right,
    *,
    infra=0,
    unjudged=0,
    model=QWEN,
    label='',
    digest='d',
    scored_by='judge',
    complete=True,
    dialect='x',
    judge='judge/1',
):
  """Files as an evaluation leaves them; `right` is a string of 0 and 1."""
  trajectories = [
      dataclasses.replace(
          helpers.trajectory(f'q{i}', right=bit == '1', answer='kelo'),
          verdict=Verdict(right=bit == '1', by='judge/1'),
      )
      for i, bit in enumerate(right)
  ]
  down = helpers.result(ToolStatus.INFRA_ERROR)
  trajectories += [
      helpers.trajectory(f'down{i}', ((helpers.text()[0], down),))
      for i in range(infra)
  ]
  trajectories += [
      dataclasses.replace(
          helpers.trajectory(f'mute{i}'),
          verdict=Verdict(right=None, by='judge/1', error='down'),
      )
      for i in range(unjudged)
  ]
  name = 'eval' if benchmark == 'world' else f'eval_{benchmark}'
  folder = workdir / name / policy
  store.write(
      folder / 'trajectories.jsonl',
      trajectories,
      [helpers.example(t.example_id) for t in trajectories],
  )
  remote = {'remote': {'model': model}} if 'remote' in policy else {}
  (folder / 'manifest.json').write_text(
      json.dumps({
          'complete': complete,
          'config': {
              'model': {'path': model, 'dialect': dialect},
              'reward': {'accuracy': scored_by},
              **remote,
          },
          'inputs': {'judge': judge},
          'benchmark': {'digest': digest, 'label': label},
      })
  )


def make(*workdirs, out):
  text = report_table.make(workdirs, out, seed=0)
  assert (out / 'table.md').read_text() == text
  return text, json.loads((out / 'table.json').read_text())


def test_a_cell_is_what_a_hand_counts(tmp_path):
  evaluate(tmp_path, 'mmsearch', 'rl', '1111111000', infra=2, unjudged=1)
  text, table = make(tmp_path, out=tmp_path)
  (row,) = table['rows']
  cell = row['cells']['mmsearch']
  assert (cell['n'], cell['infra_errors'], cell['unjudged']) == (10, 2, 1)
  want = scipy.stats.binomtest(7, 10).proportion_ci(0.95, 'exact')
  for measure in ('accuracy', 'judge'):
    assert cell[measure]['mean'] == pytest.approx(0.7)
    np.testing.assert_allclose(cell[measure]['ci95'], [want.low, want.high])
  assert cell['exact_match']['mean'] == 1  # All say kelo, and kelo is right:
  assert cell['f1']['mean'] == 1  # the judge is another measure.
  assert '70.00 [34.8, 93.3] (10) †1,2' in text
  assert row['average'] is None  # Of one of six.
  # The paper's row of the same paradigm and family stands beneath.
  beside = table['paper'][row['paper']]
  assert beside['paradigm'] == 'GoG-RL' and 'Qwen3' in beside['backbone']
  lines = text.splitlines()
  (ours,) = (
      i for i, line in enumerate(lines) if line.startswith(f'| rl ({QWEN}) | -')
  )
  assert lines[ours + 1].startswith('| *paper: GoG-RL, Qwen3-VL-8B-Thinking*')
  assert '*65.50 [57.9, 72.6]* (171)' in lines[ours + 1]


def test_an_average_stands_over_all_six_alone(tmp_path):
  shares = {'fvqa_test': 1, 'infoseek': 2, 'simplevqa': 3, 'mmsearch': 4,
            'livevqa': 5, 'dynvqa': 9}  # fmt: skip
  for name, right in list(shares.items())[:5]:
    evaluate(tmp_path, name, 'gog@base', '1' * right + '0' * (10 - right))
  _, table = make(tmp_path, out=tmp_path)
  assert table['rows'][0]['average'] is None
  evaluate(tmp_path, 'dynvqa', 'gog@base', '1' * 9 + '0')
  _, table = make(tmp_path, out=tmp_path)
  (row,) = table['rows']
  assert list(row['cells']) == list(paper.NAMES)
  assert row['average']['mean'] == pytest.approx(0.4)
  down = up = 0.0
  for k in shares.values():
    exact = scipy.stats.binomtest(k, 10).proportion_ci()
    down += (k / 10 - exact.low) ** 2
    up += (exact.high - k / 10) ** 2
  np.testing.assert_allclose(
      row['average']['ci95'],
      [0.4 - np.sqrt(down) / 6, 0.4 + np.sqrt(up) / 6],
      atol=1e-6,
  )
  # What may not stand beside the paper's in a cell may not on average.
  for cell in row['cells'].values():
    assert set(cell['caveats']) <= set(row['average']['caveats'])


def test_why_a_number_may_not_stand_beside_the_papers(tmp_path):
  label = "not the paper's: 10 of 2000 items"
  evaluate(tmp_path, 'infoseek', 'rl', '10', label=label)
  evaluate(tmp_path, 'livevqa', 'rl', '10', scored_by='exact_match')
  evaluate(tmp_path, 'dynvqa', 'rl', '10', complete=False)
  text, table = make(tmp_path, out=tmp_path)
  cells = table['rows'][0]['cells']
  assert cells['infoseek']['caveats'] == [label]
  assert cells['livevqa']['caveats'] == [
      "not the paper's: it has 2000 items",
      "scored by exact match, the paper's by an LLM judge",
  ]
  assert cells['dynvqa']['caveats'] == ['not complete yet']
  notes = text[text.index('## Notes') :]
  for reason in (label, 'not complete yet', '67.84 = 116 / 171'):
    assert notes.count(reason) == 1
  (number,) = [
      line.split()[0]
      for line in notes.splitlines()
      if line.endswith(f'{label}  ')
  ]
  assert f'(2) {number} |' in text


def test_policies_are_paired_on_the_same_items_alone(tmp_path):
  for policy, right in (('gog@base', '0010'), ('rl', '1110'), ('sft', '0110')):
    evaluate(tmp_path, 'mmsearch', policy, right)
  other = tmp_path / 'other'
  evaluate(other, 'mmsearch', 'rl', '1111', digest='another')
  text, table = make(tmp_path, other, out=tmp_path)
  found = {
      (d['first']['policy'], d['second']['policy']): d['accuracy']
      for d in table['differences']
  }
  assert found['rl', 'gog@base']['difference'] == 0.5
  assert found['sft', 'rl'] | {'ci95': None} == {
      'difference': -0.25, 'n': 4, 'ci95': None
  }  # fmt: skip
  assert len(found) == 3
  low, high = found['rl', 'gog@base']['ci95']
  assert low < 0.5 < high
  assert len(table['notes']) == 3  # The other run's, with each of these.
  assert 'different items' in text and '+50.0 [' in text
  assert f'({QWEN}, {other})' in text  # Two runs: which one it is.


@pytest.mark.parametrize(
    'other', [{'scored_by': 'exact_match'}, {'judge': 'judge/2'}]
)
def test_what_was_scored_in_other_ways_is_not_compared(other, tmp_path):
  evaluate(tmp_path, 'mmsearch', 'gog@base', '0010')
  evaluate(tmp_path, 'mmsearch', 'rl', '1110', **other)
  _, table = make(tmp_path, out=tmp_path)
  assert table['differences'] == []
  (note,) = table['notes']
  assert 'gog@base' in note and 'scored in different ways' in note


def test_whose_words_a_remote_model_is_asked_in_says_nothing_of_it(tmp_path):
  for policy in ('gog@base', 'gog@remote'):
    evaluate(
        tmp_path, 'mmsearch', policy, '10', model='mine', dialect='qwen3_vl'
    )
  _, table = make(tmp_path, out=tmp_path)
  found = {row['policy']: row['paper'] for row in table['rows']}
  assert found['gog@remote'] is None
  assert table['paper'][found['gog@base']]['paradigm'] == 'Prompt-based GoG'


def test_the_world_is_never_in_the_table(tmp_path):
  evaluate(tmp_path, 'world', 'rl', '1110')
  evaluate(tmp_path, 'world_hard', 'rl', '1000')
  text, table = make(tmp_path, out=tmp_path)
  assert table['rows'] == [] and table['differences'] == []
  assert [one['benchmark'] for one in table['world']] == ['world', 'world_hard']
  assert table['world'][1]['accuracy']['mean'] == 0.25
  head, _, world = text.partition('## Embedded world')
  assert 'No published benchmark has been evaluated' in head
  assert 'world' not in head and '75.00 [' in world


def test_the_paper_alone_is_all_of_it(tmp_path, capsys):
  text, table = make(tmp_path, out=tmp_path)
  assert f'nothing is evaluated in {tmp_path}\n' in capsys.readouterr().err
  assert len(table['paper']) == len(paper.ROWS) == 16
  assert text.count('| *paper: ') == 16
  assert '*63.84 [56.1, 70.9]* (171) †1' in text
  assert '*56.88*' in text and text.isascii() is False
  assert '| *paper: SFT without Selective Gaze' in text


def test_names_stay_in_their_cells(tmp_path):
  name = 'a|b\n| c<img src=x>'
  evaluate(tmp_path, 'mmsearch', 'gog@remote', '10', model=name, label=name)
  text, _ = make(tmp_path, out=tmp_path)
  widths = {
      line.replace('\\|', '').count('|')
      for line in text.split('## Measures')[0].splitlines()
      if line.startswith('|')
  }
  assert widths == {9}
  assert '<img' not in text


def test_what_a_user_can_mend_is_one_line(tmp_path):
  with pytest.raises(UserError, match='none does not exist; name the workdirs'):
    make(tmp_path / 'none', out=tmp_path)
  evaluate(tmp_path, 'mmsearch', 'rl', '10')
  manifest = tmp_path / 'eval_mmsearch' / 'rl' / 'manifest.json'
  manifest.write_text('{')
  with pytest.raises(UserError, match='manifest.json cannot be read'):
    make(tmp_path, out=tmp_path)


def test_what_is_under_way_is_read_as_far_as_it_is(tmp_path):
  """One item tried again, and a line still being written."""
  folder = tmp_path / 'eval_mmsearch' / 'rl'
  with rollouts.Rollouts(folder) as items:
    for index, right in ((1, False), (0, False), (0, True)):
      name = f'q{index}'
      items.add(
          index,
          {'valid': True},
          helpers.example(name),
          helpers.trajectory(name, right=right),
      )
  path = folder / 'trajectories.jsonl'
  path.write_text(path.read_text() + path.read_text()[:99])
  text, table = make(tmp_path, out=tmp_path)
  assert table['rows'][0]['cells']['mmsearch']['accuracy'] == {
      'mean': 0.5, 'n': 2, 'ci95': pytest.approx([0.0126, 0.9874], abs=1e-4)
  }  # fmt: skip
  assert 'not complete yet' in text


def test_the_command_prints_and_writes_it(tmp_path, capsys):
  evaluate(tmp_path / 'run', 'simplevqa', 'sft', '1101')
  config = table_page.get_config()
  config.table.workdirs = (str(tmp_path / 'run'),)
  commands.do(from_page(config), tmp_path / 'out')
  printed, said = capsys.readouterr()
  assert printed == (tmp_path / 'out' / 'table.md').read_text()
  assert f"table: {tmp_path / 'out' / 'table.md'} and table.json\n" == said
  assert '75.00 [' in printed
  # Or else the workdir itself is read.
  commands.do(from_page(table_page.get_config()), tmp_path / 'run')
  assert '75.00 [' in capsys.readouterr().out


def test_a_benchmark_of_ones_own_is_named_and_is_not_the_embedded_world(
    tmp_path,
):
  evaluate(tmp_path, 'signs', 'sft', '0110', scored_by='exact_match')
  evaluate(tmp_path, 'signs', 'rl', '1110', scored_by='exact_match')
  evaluate(tmp_path, 'world', 'rl', '1000')
  text, table = make(tmp_path, out=tmp_path)
  assert table['rows'] == []  # The paper's columns stay the paper's.
  assert [one['benchmark'] for one in table['world']] == ['world']
  assert [one['benchmark'] for one in table['others']] == ['signs', 'signs']
  own, _, world = text.partition('## Embedded world')
  own = own[own.index('## Not in the paper') :]
  assert f'| signs | rl ({QWEN}) | 4 | 75.00 [' in own
  assert 'signs' not in world and '25.00 [' in world
  (difference,) = table['differences']
  assert difference['benchmark'] == 'signs'
  assert difference['first']['policy'] == 'sft'
  assert difference['accuracy']['difference'] == -0.25
  assert 'LLM judge' not in text  # Nothing to be compared with.

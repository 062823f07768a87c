"""The report's page and table: complete, and trusting nothing."""

from __future__ import annotations

import html.parser
import json
import re

import pytest

from gog_jax.errors import UserError
from gog_jax.report import measures
from gog_jax.report import pages
from gog_jax.report import text as report_text
from gog_jax.storage import files
from gog_jax.storage import trajectories as store
from gog_jax.types import Hit
from gog_jax.types import ToolCall
from gog_jax.types import ToolStatus
from tests import report_helpers as helpers

pytestmark = pytest.mark.quick


def _write_run(workdir, *, policies=('rl', 'sft'), evil=False):
  for policy in policies:
    ten = helpers.ten()
    examples = dict(ten.examples)
    trajectories = list(ten.trajectories)
    if evil:
      hit = Hit(
        title=helpers.EVIL,
        text=helpers.EVIL,
        score=1.0,
        image=helpers.EVIL.encode(),
      )
      examples['x'] = helpers.example(
        'x',
        question=helpers.EVIL,
        answers=(helpers.EVIL, '\ud800'),
        source=helpers.EVIL,
      )
      call = ToolCall(
        name=helpers.EVIL,
        arguments={helpers.EVIL: helpers.EVIL},
        error=helpers.EVIL,
      )
      trajectories.insert(
        0,
        helpers.trajectory(
          'x',
          (
            helpers.text(helpers.EVIL, hits=(hit,)),
            helpers.gaze(helpers.MISS, hits=(hit,)),
          ),
          ((call, helpers.result(ToolStatus.MODEL_ERROR, error=helpers.EVIL)),),
          answer=helpers.EVIL,
        ),
      )
    store.write(
      workdir / 'eval' / policy / 'trajectories.jsonl',
      trajectories,
      examples.values(),
    )
  for stage in ('sft', 'rl'):
    (workdir / stage).mkdir()
    rows = [
      {'step': i, 'loss': 1 / (i + 1), 'reward': i / 40, helpers.EVIL: float(i)}
      for i in range(40)
    ]
    rows[7]['loss'] = float('nan')
    (workdir / stage / 'metrics.jsonl').write_text(
      '\n'.join(json.dumps(row) for row in rows) + '\n{"step": 40, "lo'
    )


class _Page(html.parser.HTMLParser):
  """Collects tags and attributes, and checks that tags nest."""

  _VOID = {'meta', 'img', 'br', 'input', 'link', 'hr'}

  def __init__(self, text):
    super().__init__()
    self.tags, self.attributes, self.open, self.text = [], [], [], []
    self.rectangles = []
    self.feed(text)
    self.close()
    assert not self.open

  def handle_starttag(self, tag, attrs):
    self.tags.append(tag)
    self.attributes.extend(attrs)
    if tag not in self._VOID:
      self.open.append(tag)

  def handle_startendtag(self, tag, attrs):
    if tag == 'rect':
      self.rectangles.append(dict(attrs))
    self.tags.append(tag)
    self.attributes.extend(attrs)

  def handle_endtag(self, tag):
    assert self.open.pop() == tag

  def handle_data(self, data):
    self.text.append(data)


def test_make_writes_the_summary_it_returns_in_the_order_of_the_story(tmp_path):
  _write_run(tmp_path)
  summary = pages.make(tmp_path, n_trajectories=12, seed=0)
  assert [row['policy'] for row in summary['rows']] == ['sft', 'rl']
  on_disk = json.loads((tmp_path / 'report' / 'summary.json').read_text())
  assert on_disk == summary
  first = (tmp_path / 'report' / 'index.html').read_text()
  pages.make(tmp_path, n_trajectories=12, seed=0)
  assert (tmp_path / 'report' / 'index.html').read_text() == first


def test_the_page_shows_boxes_curves_and_as_many_trajectories_as_asked(
  tmp_path,
):
  _write_run(tmp_path)
  pages.make(tmp_path, n_trajectories=14, seed=0)
  text = (tmp_path / 'report' / 'index.html').read_text()
  page = _Page(text)
  assert page.tags.count('article') == 14
  # Policies share them; the last one's come first.
  metas = ''.join(page.text)
  assert metas.count('rl · ') == 7 and metas.count('sft · ') == 7
  classes = [value for name, value in page.attributes if name == 'class']
  assert classes.count('gold') >= 14
  assert 'gaze unknown' not in classes
  assert classes.count('badge hit') == classes.count('gaze hit')
  assert '2a' not in page.text and '1a' in page.text  # Two gazes in a turn.
  assert classes.count('chart') == 2 * 3
  assert classes.count('chart budget') == 2 * 2  # Searches and tokens.
  assert 'kelo the great' in text


def test_gaze_boxes_are_drawn_where_they_were_and_judged_by_colour(tmp_path):
  _write_run(tmp_path, policies=('rl',))
  pages.make(tmp_path, n_trajectories=10, seed=0)
  page = _Page((tmp_path / 'report' / 'index.html').read_text())
  drawn = [
    tuple(float(box[key]) for key in ('x', 'y', 'width', 'height'))
    + (box['class'],)
    for box in page.rectangles
  ]
  hit = (10, 10, 40, 35, 'gaze hit')
  miss = (60, 60, 30, 30, 'gaze miss')
  assert drawn.count(hit) == 4 and drawn.count(miss) == 5
  assert drawn.count((10, 10, 40, 40, 'gold')) == 10


def test_what_a_page_or_policy_says_stays_text(tmp_path):
  _write_run(tmp_path, evil=True)
  pages.make(tmp_path, n_trajectories=30, seed=0)
  text = (tmp_path / 'report' / 'index.html').read_text()
  assert 'alert' in text  # It is shown,
  page = _Page(text)
  assert 'script' not in page.tags  # but as text.
  assert helpers.EVIL in ''.join(page.text)
  for name, value in page.attributes:
    assert not name.startswith('on'), name
    if name in ('src', 'href'):
      assert re.match(r'data:image/(png|jpeg);base64,|#t\d+$', value), value
  assert not {'link', 'iframe', 'object', 'base', 'form'} & set(page.tags)
  # No address outside of what is shown as text.
  outside = text.replace('http://evil.example/x', '')
  assert not re.search(r'https?:|url\(|@import|srcset', outside)
  assert (
    'content',
    "default-src 'none'; img-src data:; style-src 'unsafe-inline'",
  ) in page.attributes


def test_the_table_is_plain_text_off_a_terminal(tmp_path):
  _write_run(tmp_path)
  text = report_text.table(pages.make(tmp_path, n_trajectories=10, seed=0))
  assert '\x1b' not in text and text.isascii()
  line = next(line for line in text.splitlines() if 'rl' in line)
  for number in (
    '70.0 [',
    '90.0',
    '30/50/20',
    '44.4',
    '60.0',
    '67/67/75',
    '1.40',
  ):
    assert number in line
  assert max(map(len, text.splitlines())) <= 80
  assert 'infra' not in text  # Nothing to report.


def test_the_table_survives_markup_in_a_name():
  row = measures.describe(helpers.ten(), seed=0) | {'policy': '[bold]x[/]'}
  assert '[bold]x[/]' in report_text.table({'rows': [row]})


def test_missing_inputs_name_the_command(tmp_path):
  with pytest.raises(UserError, match='configs/eval.py with --workdir='):
    pages.make(tmp_path, n_trajectories=10, seed=0)
  _write_run(tmp_path, policies=('rl',))
  (tmp_path / 'eval' / 'rl' / 'examples.jsonl').unlink()
  with pytest.raises(UserError, match='examples.jsonl.*configs/eval.py'):
    pages.make(tmp_path, n_trajectories=10, seed=0)
  store.write(tmp_path / 'eval' / 'rl' / 'examples.jsonl', [])
  with pytest.raises(UserError, match='lacks a; evaluate .* anew'):
    pages.make(tmp_path, n_trajectories=10, seed=0)
  assert not (tmp_path / 'report').exists()


def test_unscored_trajectories_are_refused(tmp_path):
  trajectory = helpers.trajectory('a')
  trajectory.reward_parts.clear()
  store.write(
    tmp_path / 'eval' / 'rl' / 'trajectories.jsonl',
    [trajectory],
    [helpers.example('a')],
  )
  with pytest.raises(UserError, match='not scored'):
    pages.make(tmp_path, n_trajectories=10, seed=0)


def test_a_run_without_training_has_a_report_without_curves(tmp_path):
  _write_run(tmp_path)
  for stage in ('sft', 'rl'):
    (tmp_path / stage / 'metrics.jsonl').unlink()
  pages.make(tmp_path, n_trajectories=1, seed=0)
  page = _Page((tmp_path / 'report' / 'index.html').read_text())
  assert 'Training' not in ''.join(page.text)
  assert page.tags.count('article') == 1


def test_rl_is_compared_with_all_and_its_arms_with_the_sft(tmp_path):
  _write_run(tmp_path, policies=('direct', 'sft', 'rl', 'rl_all', 'rl_fast'))
  summary = pages.make(tmp_path, n_trajectories=1, seed=0)
  assert {(d['policy'], d['against']) for d in summary['differences']} == {
      ('rl', 'direct'), ('rl', 'sft'), ('rl', 'rl_all'), ('rl', 'rl_fast'),
      ('rl_all', 'sft'), ('rl_fast', 'sft'),
  }  # fmt: skip


def test_over_seeds_differences_have_an_interval_of_their_own(tmp_path):
  folders = {seed: tmp_path / f'seed_{seed}' for seed in (0, 1)}
  _write_run(folders[0], policies=('sft', 'rl', 'rl_once'))
  _write_run(folders[1], policies=('sft', 'rl'))
  summary = pages.make(tmp_path, n_trajectories=0, seed=0, seeds=folders)
  pairs = {(d['policy'], d['against']): d for d in summary['differences']}
  every = pairs['rl', 'sft']['accuracy']
  low, high = every['ci95_seeds']
  assert low == high == every['difference']  # The seeds are copies.
  assert 'ci95_seeds' not in pairs['rl_once', 'sft']['accuracy']
  assert 'seeds [' in report_text.differences(summary).splitlines()[0]
  assert 'over seeds' in (tmp_path / 'report' / 'index.html').read_text()


def test_the_page_shows_alarms_and_validation(tmp_path):
  _write_run(tmp_path)
  files.write_jsonl(
    tmp_path / 'rl' / 'metrics.jsonl',
    (
      {'step': n, 'reward': 0.1 * n, 'alarms': ['kl'] if n in alarmed else []}
      for alarmed in [{3, 4, 5, 9}]
      for n in range(1, 11)
    ),
  )
  files.write_jsonl(
    tmp_path / 'sft' / 'validation.jsonl',
    ({'step': n, 'accuracy': n / 4} for n in (1, 2, 3)),
  )
  pages.make(tmp_path, n_trajectories=1, seed=0)
  page = (tmp_path / 'report' / 'index.html').read_text()
  assert '<b>alarm</b> kl, steps 3-5, 9<' in page
  assert '<span>validation_accuracy</span><b>0.75</b>' in page

"""The report: hand-counted numbers, and a page that trusts nothing."""

import html.parser
import io
import json
import re

import numpy as np
from PIL import Image
from PIL import ImageDraw
import pytest
import scipy.stats

from gog_jax import report
from gog_jax import report_charts
from gog_jax import report_metrics
from gog_jax.errors import UserError
from gog_jax.report_metrics import Evaluated
from gog_jax.rollout import trajectories as store
from gog_jax.types import Example
from gog_jax.types import Hit
from gog_jax.types import ParsedTurn
from gog_jax.types import StopReason
from gog_jax.types import ToolCall
from gog_jax.types import ToolResult
from gog_jax.types import ToolStatus
from gog_jax.types import Trajectory
from gog_jax.types import Turn
from gog_jax.types import View

_GOLD = (10.0, 10.0, 50.0, 50.0)
_HIT = (10, 10, 50, 45)  # IoU 1400 / 1600.
_MISS = (60, 60, 90, 90)
_EVIL = '<script>alert("x")</script><img src=http://evil.example/x onerror=y>'


def _png(width=100, height=100, colour='teal'):
  image = Image.new('RGB', (width, height), colour)
  ImageDraw.Draw(image).rectangle(_GOLD, fill='gold')
  buffer = io.BytesIO()
  image.save(buffer, format='PNG')
  return buffer.getvalue()


_SCENE = _png()


def _example(name, *, gold=(_GOLD,), hops=1, **more):
  fields = dict(
      id=name,
      images=(_SCENE,),
      question=f'What is {name}?',
      answers=('kelo', 'kelo the great'),
      source='test',
      scope='s',
      gold_regions=gold,
      hops=hops,
  )
  return Example(**{**fields, **more})


def _result(status=ToolStatus.OK, *, box=None, hits=(), error='', root=0):
  view = None
  if box is not None:
    view = View(data=_png(30, 30, 'plum'), root=root, box=box)
  return ToolResult(
      status=status,
      view=view,
      hits=hits,
      error=error,
      n_searches=int(status == ToolStatus.OK),
  )


def _gaze(box, **more):
  call = ToolCall(name='gaze', arguments={'bbox_2d': list(box), 'image': 1})
  return call, _result(box=box, **more)


def _text(query='who?', **more):
  return ToolCall(name='text_search', arguments={'query': query}), _result(
      **more
  )


def _glance(**more):
  return ToolCall(name='image_search', arguments={}), _result(**more)


def _trajectory(name, *turns, right=True, well_formed=True, answer='kelo'):
  """`turns`: one tuple of (call, result) pairs each; then it answers."""
  said = [
      Turn(
          parsed=ParsedTurn(
              text='t', thought='hm', calls=tuple(call for call, _ in pairs)
          ),
          results=tuple(result for _, result in pairs),
      )
      for pairs in turns
  ]
  said.append(Turn(parsed=ParsedTurn(text='t', thought='so', answer=answer)))
  return Trajectory(
      example_id=name,
      sample=0,
      token_ids=np.arange(4, dtype=np.int32),
      loss_mask=np.array([0, 0, 1, 1], np.int8),
      sampler_logprobs=np.zeros(4, np.float32),
      images=(View(data=_SCENE, root=0, box=(0, 0, 100, 100)),),
      placements=(),
      turns=tuple(said),
      stop_reason=StopReason.ANSWER,
      answer=answer,
      reward=0.9 * right + 0.1 * well_formed,
      reward_parts={'accuracy': float(right), 'format': float(well_formed)},
  )


def _ten():
  """Right on 7 of 10; first gazes miss on 5, of which 3 hit later."""
  gaze_hit, gaze_miss = (_gaze(_HIT),), (_gaze(_MISS),)
  played = {
      # name: (hops, right, turns)
      'a': (0, True, []),
      'b': (0, True, []),
      'c': (0, False, []),
      'd': (1, True, [gaze_hit]),
      'e': (1, True, [gaze_miss, gaze_hit]),
      'f': (1, False, [gaze_miss]),
      'g': (2, True, [gaze_miss, gaze_hit, (_text(),)]),
      'h': (2, True, [(_gaze(_MISS), _gaze(_HIT)), (_text(),), (_text(),)]),
      'i': (2, False, [gaze_miss, (_glance(),)]),
      'j': (2, True, [(_text(),)]),
  }
  examples = {name: _example(name, hops=hops) for name, (hops, *_) in
              played.items()}
  trajectories = [
      _trajectory(name, *turns, right=right, well_formed=name != 'c')
      for name, (_, right, turns) in played.items()
  ]
  return Evaluated(policy='rl', examples=examples, trajectories=trajectories)


def test_the_row_is_what_a_hand_counts():
  row = report_metrics.row(_ten(), seed=0)
  low, high = row.pop('ci95')
  assert 0.3 <= low <= 0.5 and 0.9 <= high <= 1.0
  assert row == {
      'policy': 'rl',
      'accuracy': pytest.approx(0.7),
      'n': 10,
      'format_rate': pytest.approx(0.9),
      'no_search': pytest.approx(0.3),  # a b c
      'single': pytest.approx(0.5),  # d e f i j; a glance is an image search.
      'hybrid': pytest.approx(0.2),  # g h
      'calls_per_query': pytest.approx(1.4),  # 1 2 1 3 4 2 1
      'gaze_hit': pytest.approx(4 / 9),
      'recovery': pytest.approx(0.6),
      'infra_errors': 0,
      'by_hop': {
          '0': {'accuracy': pytest.approx(2 / 3), 'n': 3},
          '1': {'accuracy': pytest.approx(2 / 3), 'n': 3},
          '2': {'accuracy': pytest.approx(3 / 4), 'n': 4},
      },
  }


def test_infra_errors_are_counted_apart_and_enter_nothing():
  ten = _ten()
  down = _result(ToolStatus.INFRA_ERROR, error='down')
  struck = [
      _trajectory('a', ((_gaze(_MISS)[0], down),), right=False),
      _trajectory('d', (_gaze(_MISS), (_text()[0], down)), right=False),
  ]
  with_struck = Evaluated(
      policy='rl',
      examples=ten.examples,
      trajectories=[*ten.trajectories, *struck],
  )
  row = report_metrics.row(with_struck, seed=0)
  assert row.pop('infra_errors') == 2
  without = report_metrics.row(ten, seed=0)
  assert without.pop('infra_errors') == 0
  assert row == without


def test_a_call_that_was_the_policys_mistake_is_no_search():
  refused = _result(ToolStatus.MODEL_ERROR, error='bad box')
  one = Evaluated(
      policy='sft',
      examples={'a': _example('a')},
      trajectories=[
          _trajectory('a', ((_gaze(_MISS)[0], refused),), (_text(),))
      ],
  )
  row = report_metrics.row(one, seed=0)
  assert (row['single'], row['hybrid']) == (1, 0)
  assert row['calls_per_query'] == 1
  assert row['gaze_hit'] is None and row['recovery'] is None


def test_undefined_is_none_not_zero():
  no_gold = Evaluated(
      policy='sft',
      examples={'a': _example('a', gold=(), hops=None)},
      trajectories=[_trajectory('a', (_gaze(_HIT),))],
  )
  row = report_metrics.row(no_gold, seed=0)
  assert row['gaze_hit'] is None and row['recovery'] is None
  assert row['by_hop'] == {'unknown': {'accuracy': 1, 'n': 1}}
  down = _result(ToolStatus.INFRA_ERROR)
  none_valid = Evaluated(
      policy='sft',
      examples={'a': _example('a')},
      trajectories=[_trajectory('a', ((_text()[0], down),))],
  )
  row = report_metrics.row(none_valid, seed=0)
  assert row['accuracy'] is None and row['ci95'] is None and row['n'] == 0
  assert '-' in report.table({'rows': [row]})


@pytest.mark.parametrize(
    ('a', 'b', 'want'),
    [
        ((0, 0, 2, 2), (0, 0, 2, 2), 1),
        ((0, 0, 2, 2), (1, 0, 3, 2), 1 / 3),
        ((0, 0, 2, 2), (1, 1, 3, 3), 1 / 7),
        ((0, 0, 2, 2), (2, 0, 4, 2), 0),
        ((0, 0, 2, 2), (5, 5, 6, 6), 0),
    ],
)
def test_iou(a, b, want):
  assert report_metrics.iou(a, b) == pytest.approx(want)
  assert report_metrics.iou(b, a) == pytest.approx(want)


def test_a_gaze_hits_from_an_overlap_of_one_half_on_the_image_with_the_gold():
  example = _example('a', gold=((0, 0, 10, 10), (50, 50, 60, 60)))
  hits = [
      gaze.hit
      for gaze in report_metrics.gazes(
          example,
          _trajectory(
              'a',
              (_gaze((0, 0, 10, 5)),),  # Exactly one half.
              (_gaze((0, 0, 10, 4.9)),),
              (_gaze((50, 50, 60, 60)),),  # The second region.
              (_gaze((0, 0, 10, 10), root=1),),  # Another image.
          ),
      )
  ]
  assert hits == [True, False, True, False]


def test_bootstrap_agrees_with_scipy():
  values = np.random.default_rng(5).integers(0, 2, 60).astype(float)
  names = [str(i) for i in range(len(values))]
  low, high = report_metrics.bootstrap(values.tolist(), names, seed=1)
  want = scipy.stats.bootstrap(
      (values,), np.mean, method='percentile', n_resamples=10_000, rng=7
  ).confidence_interval
  assert low == pytest.approx(want.low, abs=0.018)  # About one answer of 60.
  assert high == pytest.approx(want.high, abs=0.018)
  assert [low, high] == report_metrics.bootstrap(
      values.tolist(), names, seed=1
  )


def test_bootstrap_resamples_questions_not_samples():
  # Four samples of a question that always agree are worth one.
  values = [0.0, 1.0, 1.0, 0.0, 1.0] * 4
  names = [str(i % 5) for i in range(20)]
  low, high = report_metrics.bootstrap(values, names, seed=0)
  once_low, once_high = report_metrics.bootstrap(
      values[:5], names[:5], seed=0
  )
  assert (low, high) == (once_low, once_high)
  free_low, free_high = report_metrics.bootstrap(
      values, [str(i) for i in range(20)], seed=0
  )
  assert free_high - free_low < 0.8 * (high - low)


def _write_run(workdir, *, policies=('rl', 'sft'), evil=False):
  for policy in policies:
    ten = _ten()
    examples = dict(ten.examples)
    trajectories = list(ten.trajectories)
    if evil:
      hit = Hit(title=_EVIL, text=_EVIL, score=1.0, image=_EVIL.encode())
      examples['x'] = _example(
          'x', question=_EVIL, answers=(_EVIL, '\ud800'), source=_EVIL
      )
      call = ToolCall(name=_EVIL, arguments={_EVIL: _EVIL}, error=_EVIL)
      trajectories.insert(
          0,
          _trajectory(
              'x',
              (_text(_EVIL, hits=(hit,)), _gaze(_MISS, hits=(hit,))),
              ((call, _result(ToolStatus.MODEL_ERROR, error=_EVIL)),),
              answer=_EVIL,
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
        {'step': i, 'loss': 1 / (i + 1), 'reward': i / 40, _EVIL: float(i)}
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
  summary = report.make(tmp_path, n_trajectories=12, seed=0)
  assert [row['policy'] for row in summary['rows']] == ['sft', 'rl']
  on_disk = json.loads((tmp_path / 'report' / 'summary.json').read_text())
  assert on_disk == summary
  first = (tmp_path / 'report' / 'index.html').read_text()
  report.make(tmp_path, n_trajectories=12, seed=0)
  assert (tmp_path / 'report' / 'index.html').read_text() == first


def test_the_page_shows_boxes_curves_and_as_many_trajectories_as_asked(
    tmp_path,
):
  _write_run(tmp_path)
  report.make(tmp_path, n_trajectories=14, seed=0)
  text = (tmp_path / 'report' / 'index.html').read_text()
  page = _Page(text)
  assert page.tags.count('article') == 14
  # The last policy's ten, then four of the one before.
  metas = ''.join(page.text)
  assert metas.count('rl · ') == 10 and metas.count('sft · ') == 4
  classes = [value for name, value in page.attributes if name == 'class']
  assert classes.count('gold') >= 14
  assert 'gaze unknown' not in classes
  assert classes.count('badge hit') == classes.count('gaze hit')
  assert '2a' not in page.text and '1a' in page.text  # Two gazes in a turn.
  assert classes.count('chart') == 2 * 3
  assert 'kelo the great' in text


def test_gaze_boxes_are_drawn_where_they_were_and_judged_by_colour(tmp_path):
  _write_run(tmp_path, policies=('rl',))
  report.make(tmp_path, n_trajectories=10, seed=0)
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
  report.make(tmp_path, n_trajectories=30, seed=0)
  text = (tmp_path / 'report' / 'index.html').read_text()
  assert 'alert' in text  # It is shown,
  page = _Page(text)
  assert 'script' not in page.tags  # but as text.
  assert _EVIL in ''.join(page.text)
  for name, value in page.attributes:
    assert not name.startswith('on'), name
    if name in ('src', 'href'):
      assert re.match(r'data:image/(png|jpeg);base64,|#t\d+$', value), value
  assert not {'link', 'iframe', 'object', 'base', 'form'} & set(page.tags)
  # No address outside of what is shown as text.
  outside = text.replace('http://evil.example/x', '')
  assert not re.search(r'https?:|url\(|@import|srcset', outside)
  assert ('content', "default-src 'none'; img-src data:; "
          "style-src 'unsafe-inline'") in page.attributes


def test_the_table_is_plain_text_off_a_terminal(tmp_path):
  _write_run(tmp_path)
  text = report.table(report.make(tmp_path, n_trajectories=10, seed=0))
  assert '\x1b' not in text and text.isascii()
  line = next(line for line in text.splitlines() if 'rl' in line)
  for number in ('70.0 [', '90.0', '30/50/20', '44.4', '60.0', '67/67/75',
                 '1.40'):
    assert number in line
  assert max(map(len, text.splitlines())) <= 80
  assert 'infra' not in text  # Nothing to report.


def test_the_table_survives_markup_in_a_name():
  row = report_metrics.row(_ten(), seed=0) | {'policy': '[bold]x[/]'}
  assert '[bold]x[/]' in report.table({'rows': [row]})


def test_missing_inputs_name_the_command(tmp_path):
  with pytest.raises(UserError, match='configs/eval.py --workdir='):
    report.make(tmp_path, n_trajectories=10, seed=0)
  _write_run(tmp_path, policies=('rl',))
  (tmp_path / 'eval' / 'rl' / 'examples.jsonl').unlink()
  with pytest.raises(UserError, match='examples.jsonl.*configs/eval.py'):
    report.make(tmp_path, n_trajectories=10, seed=0)
  store.write_examples(tmp_path / 'eval' / 'rl' / 'examples.jsonl', [])
  with pytest.raises(UserError, match='lacks a; make it with'):
    report.make(tmp_path, n_trajectories=10, seed=0)
  assert not (tmp_path / 'report').exists()


def test_unscored_trajectories_are_refused(tmp_path):
  trajectory = _trajectory('a')
  trajectory.reward_parts.clear()
  store.write(
      tmp_path / 'eval' / 'rl' / 'trajectories.jsonl',
      [trajectory],
      [_example('a')],
  )
  with pytest.raises(UserError, match='not scored'):
    report.make(tmp_path, n_trajectories=10, seed=0)


def test_a_run_without_training_has_a_report_without_curves(tmp_path):
  _write_run(tmp_path)
  for stage in ('sft', 'rl'):
    (tmp_path / stage / 'metrics.jsonl').unlink()
  report.make(tmp_path, n_trajectories=1, seed=0)
  page = _Page((tmp_path / 'report' / 'index.html').read_text())
  assert 'Training' not in ''.join(page.text)
  assert page.tags.count('article') == 1


@pytest.mark.parametrize(
    ('low', 'high', 'want'),
    [
        (0, 1, [0, 0.5, 1]),
        (0.03, 0.97, [0, 0.5, 1]),
        (0.2, 0.95, [0.2, 0.4, 0.6, 0.8, 1]),
        (-3, 17, [-5, 0, 5, 10, 15, 20]),
        (5, 5, [4.5, 5, 5.5]),
        (0, 0, [-1, -0.5, 0, 0.5, 1]),
        (1e-5, 3e-5, [1e-5, 1.5e-5, 2e-5, 2.5e-5, 3e-5]),
        (2e-15, 4e-15, [2e-15, 2.5e-15, 3e-15, 3.5e-15, 4e-15]),
        (1, 3000, [0, 1000, 2000, 3000]),
    ],
)
def test_ticks_are_round_and_span_the_values(low, high, want):
  np.testing.assert_allclose(
      report_charts.ticks(low, high, about=4), want, rtol=1e-9, atol=1e-20
  )


def test_charts_put_values_where_they_belong():
  rows = [{'step': step, 'loss': step / 10} for step in range(11)]
  (chart,) = report_charts.charts(rows)
  points = [
      tuple(map(float, pair.split(',')))
      for pair in chart['paths']['raw'][1:].split('L')
  ]
  assert len(points) == 11
  x, y = np.array(points).T
  tick_x = {label: position for position, label in chart['x_ticks']}
  tick_y = {label: position for position, label in chart['y_ticks']}
  assert x[0] == tick_x['0'] and x[-1] == tick_x['10']
  assert y[0] == tick_y['0'] and y[-1] == tick_y['1']
  assert y[0] > y[-1]  # Up is more.
  np.testing.assert_allclose(np.diff(x), np.diff(x)[0], atol=0.11)


def test_charts_skip_what_cannot_be_drawn():
  rows = [
      {'step': 1, 'loss': float('nan'), 'name': 'x', 'flag': True, 'once': 1},
      {'step': 2, 'loss': 1.0, 'name': 'y', 'flag': True},
      {'step': 3, 'loss': 2.0, 'name': 'z', 'flag': True},
  ]
  assert [chart['name'] for chart in report_charts.charts(rows)] == ['loss']
  assert report_charts.charts([]) == []


def test_a_long_run_is_thinned_and_smoothed():
  rows = [{'step': i, 'kl': float(i % 2)} for i in range(5000)]
  (chart,) = report_charts.charts(rows)
  assert chart['paths']['raw'].count('L') < 300
  heights = [
      float(pair.split(',')[1])
      for pair in chart['paths']['mean'][1:].split('L')
  ]
  assert max(heights) - min(heights) < 2  # The mean of 0 and 1 is flat.

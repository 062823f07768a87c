"""TensorBoard reads what the JSON lines say; W&B is sent it once."""

from __future__ import annotations

import dataclasses
import importlib.util
import json
import math
import pathlib
import shutil
import signal
import subprocess
import sys
import textwrap

from etils import epath
import numpy as np
import pytest
from tensorboard.backend.event_processing import event_accumulator

from gog_jax.errors import UserError
from gog_jax.report import measures
from gog_jax.report import pages
from gog_jax.storage import files
from gog_jax.storage import metrics
from tests import mini
from tests import report_helpers

ROOT = pathlib.Path(__file__).parents[1]


def config(**fields):
  return mini.make_config('rl', **fields)


def read_events(folder):
  """What TensorBoard shows: {name: [(step, value)]}."""
  seen = event_accumulator.EventAccumulator(
      str(folder), size_guidance={event_accumulator.SCALARS: 0}
  )
  seen.Reload()
  return {
      name: [(event.step, event.value) for event in seen.Scalars(name)]
      for name in seen.Tags()['scalars']
  }


def read_lines(folder):
  """The same of metrics.jsonl, in the precision of event files."""
  found = {}
  for row in files.read_jsonl(folder / 'metrics.jsonl'):
    for name, value in metrics.scalars(row).items():
      pair = (row['step'], float(np.float32(value)))
      found.setdefault(name, []).append(pair)
  return found


def write(folder, steps, *, resume_step, salt=0.0):
  with metrics.open_log(
      config(), epath.Path(folder), resume_step=resume_step
  ) as log:
    for step in steps:
      values = {'loss': 1 / step + salt, 'n': step, 'alarms': [], 'ok': True}
      if step % 2:
        values['odd'] = np.float32(step)
      log.write(step, values)


def test_tensorboard_reads_the_same_numbers(tmp_path):
  write(tmp_path, range(1, 8), resume_step=0)
  found = read_events(tmp_path / 'events')
  assert found == read_lines(tmp_path)
  assert set(found) == {'loss', 'n', 'odd'}  # Neither lists nor flags.
  assert [step for step, _ in found['odd']] == [1, 3, 5, 7]


def test_a_resumed_run_shows_no_step_twice(tmp_path):
  write(tmp_path, range(1, 8), resume_step=0)
  write(tmp_path, range(5, 7), resume_step=4, salt=0.5)  # Died at 7 and at 6.
  write(tmp_path, range(6, 10), resume_step=5, salt=0.25)
  found = read_events(tmp_path / 'events')
  assert found == read_lines(tmp_path)
  assert [step for step, _ in found['loss']] == list(range(1, 10))
  assert found['loss'][4] == (5, pytest.approx(0.7))
  assert found['loss'][5] == (6, pytest.approx(1 / 6 + 0.25))
  assert len(list((tmp_path / 'events').iterdir())) == 3  # In one second.


def test_a_run_without_event_files_gets_them_when_it_goes_on(tmp_path):
  write(tmp_path, range(1, 6), resume_step=0)
  shutil.rmtree(tmp_path / 'events')
  write(tmp_path, range(4, 7), resume_step=3)
  assert read_events(tmp_path / 'events') == read_lines(tmp_path)


def test_a_number_that_is_none_is_shown_as_such(tmp_path):
  with metrics.open_log(config(), epath.Path(tmp_path), resume_step=0) as log:
    log.write(1, {'loss': math.nan, 'gap': None})
  (point,) = read_events(tmp_path / 'events')['loss']
  assert point[0] == 1 and math.isnan(point[1])


def test_killed_at_once_nothing_that_was_written_is_lost(tmp_path):
  """Killed with -9 in the middle; what the JSON lines hold, TensorBoard has."""
  code = """
      import os, signal, sys, types
      from etils import epath
      from gog_jax.storage import metrics
      config = types.SimpleNamespace(log=types.SimpleNamespace(wandb=''))
      log = metrics.open_log(config, epath.Path(sys.argv[1]), resume_step=0)
      for step in range(1, 8):
        log.write(step, {'loss': float(step)})
      assert not {'torch', 'tensorflow'} & sys.modules.keys()
      os.kill(os.getpid(), signal.SIGKILL)
  """
  done = subprocess.run(
      [sys.executable, '-c', textwrap.dedent(code), tmp_path], cwd=ROOT
  )
  assert done.returncode == -signal.SIGKILL
  files_before = sorted((tmp_path / 'events').iterdir())
  assert read_events(tmp_path / 'events') == read_lines(tmp_path)
  with files_before[0].open('ab') as f:
    f.write(b'\x18\x00\x00\x00\x00\x00\x00\x00torn')  # Half a record.
  write(tmp_path, range(5, 10), resume_step=4)
  found = read_events(tmp_path / 'events')
  assert found == read_lines(tmp_path)
  assert [step for step, _ in found['loss']] == list(range(1, 10))


class NoFile:
  """In place of metrics.jsonl in a bucket, for which a client is needed."""

  def __init__(self, path, *, resume_step):
    del path, resume_step

  def track(self, tracker):
    raise AssertionError(tracker)


def test_a_bucket_has_no_event_files_and_one_line_says_so(capsys, monkeypatch):
  monkeypatch.setattr(metrics, 'MetricsWriter', NoFile)
  metrics.open_log(config(), epath.Path('gs://b/run/rl'), resume_step=0)
  assert capsys.readouterr().err.count('no event files in a bucket') == 1


# A stand-in that keeps a run's steps as W&B does: none twice, none backwards.
FAKE = '''
import json, os, pathlib

class Run:
  def __init__(self, **given):
    self.path = pathlib.Path(os.environ['FAKE_WANDB']) / given['id']
    held = json.loads(self.path.read_text()) if self.path.exists() else {}
    assert not held or given['resume'] == 'allow'
    self.held = {'inits': [], 'rows': [], 'summary': {}, 'finished': 0, **held}
    self.held['inits'].append(given)
    rows = self.held['rows']
    self.step = rows[-1]['step'] + 1 if rows else 0
    self.summary = self
    self.save()

  def log(self, values, step, commit):
    assert commit
    if os.environ.get('FAKE_WANDB_FAILS') == 'log':
      raise ConnectionError('cut off')
    assert step >= self.step, 'W&B would drop this'
    self.held['rows'].append({'step': step, **values})
    self.step = step + 1
    self.save()

  def update(self, values):
    self.held['summary'].update(values)
    self.save()

  def finish(self):
    self.held['finished'] += 1
    self.save()

  def save(self):
    self.path.write_text(json.dumps(self.held))

def init(**given):
  if os.environ.get('FAKE_WANDB_FAILS') == 'init':
    raise RuntimeError('no API key')
  return Run(**given)
'''


@pytest.fixture
def fake_wandb(tmp_path, monkeypatch):
  """No real W&B was ever run with this."""
  module = tmp_path / 'path' / 'wandb.py'
  module.parent.mkdir()
  module.write_text(FAKE)
  server = tmp_path / 'server'
  server.mkdir()
  monkeypatch.syspath_prepend(module.parent)
  monkeypatch.setenv('FAKE_WANDB', str(server))
  monkeypatch.delitem(sys.modules, 'wandb', raising=False)
  yield server
  sys.modules.pop('wandb', None)


def test_wandb_goes_on_by_its_id_and_is_sent_no_step_twice(
    fake_wandb, tmp_path
):
  asked = mini.make_config(
      'rl', log__wandb='my-project', judge__url='https://there/v1?key=sk-1'
  )
  folder = epath.Path(tmp_path / 'toy' / 'rl')
  for first, last in ((0, 5), (3, 8)):
    with metrics.open_log(asked, folder, resume_step=first) as log:
      for step in range(first + 1, last + 1):
        log.write(step, {'loss': 1 / step, 'alarms': []})
  (path,) = fake_wandb.iterdir()
  run = json.loads(path.read_text())
  assert run['rows'] == [{'step': n, 'loss': 1 / n} for n in range(1, 9)]
  assert run['finished'] == 2
  given, again = run['inits']
  assert given == again and given['id'] == path.name
  assert json.loads((folder / 'wandb.json').read_text()) == {'id': path.name}
  assert (given['project'], given['name']) == ('my-project', 'toy/rl')
  assert given['config']['rl']['variant'] == 'grpo'
  assert given['config']['judge']['url'] == 'https://there/v1'
  assert 'sk-1' not in json.dumps(given)
  assert 'mode' not in given  # WANDB_MODE is W&B's to read.


def test_the_report_is_shown_once_however_often_it_is_made(
    fake_wandb, tmp_path
):
  asked = config(**{'log.wandb': 'p'})
  summary = {
      'rows': [
          measures.describe(report_helpers.ten(), seed=0),
          measures.describe(
              dataclasses.replace(report_helpers.ten(), policy='gog@remote'),
              seed=0,
          ),
      ]
  }
  folder = epath.Path(tmp_path / 'toy' / 'report')
  for _ in range(2):
    pages.show_scalars(asked, folder, summary)
  for policy in ('rl', 'gog@remote'):
    found = read_events(folder / 'events' / policy)
    assert found['answers/accuracy/mean'] == [(0, pytest.approx(0.7))]
    assert found['behaviour/recovery'] == [(0, pytest.approx(0.6))]
    assert found['n'] == [(0, 10)]
  (path,) = fake_wandb.iterdir()
  run = json.loads(path.read_text())
  assert run['rows'] == [] and len(run['inits']) == 2
  assert run['summary']['rl/cost/searches/all'] == pytest.approx(1.4)
  assert run['summary']['gog@remote/answers/f1/mean'] == pytest.approx(1.0)


def test_wandb_asked_for_and_not_there_is_said_before_anything(monkeypatch):
  monkeypatch.setitem(sys.modules, 'wandb', None)
  monkeypatch.setattr(
      importlib.util, 'find_spec', lambda name: None
  )
  mini.make_config('rl')
  with pytest.raises(UserError, match='pip install wandb') as caught:
    mini.make_config('rl', log__wandb='p')
  assert '\n' not in str(caught.value)


def test_wandb_that_fails_does_not_take_the_run_along(
    fake_wandb, tmp_path, monkeypatch, capsys
):
  asked = config(**{'log.wandb': 'p'})
  monkeypatch.setenv('FAKE_WANDB_FAILS', 'init')
  with pytest.raises(UserError, match='no API key; log in with wandb login'):
    metrics.open_log(asked, epath.Path(tmp_path / 'sft'), resume_step=0)
  monkeypatch.setenv('FAKE_WANDB_FAILS', 'log')
  with metrics.open_log(
      asked, epath.Path(tmp_path / 'sft'), resume_step=0
  ) as log:
    for step in (1, 2, 3):
      log.write(step, {'loss': 1.0})
  assert len(list(files.read_jsonl(tmp_path / 'sft' / 'metrics.jsonl'))) == 3
  assert capsys.readouterr().err.count('cut off') == 1
  (tmp_path / 'sft' / 'wandb.json').write_text('{')
  with pytest.raises(UserError, match='wandb.json cannot be read'):
    metrics.open_log(asked, epath.Path(tmp_path / 'sft'), resume_step=0)

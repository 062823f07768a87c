"""Nothing is silent: what is said when nothing else is, and what is not."""

from __future__ import annotations

import contextlib
import io
import itertools
import json
import re
import subprocess
import sys
import textwrap
import threading
import time

import jax
import jax.numpy as jnp
import pytest

from gog_jax.storage import heartbeat
from gog_jax.storage import metrics
from tests import endpoints
from tests import judge_helpers
from tests import main_test

_BACKEND = '/jax/core/compile/backend_compile_duration'


@contextlib.contextmanager
def process(page, cache):
  """A command of a page, of a user whose cache this is."""
  monitoring, ours = jax.monitoring, []
  with pytest.MonkeyPatch.context() as patch:
    patch.setenv('XDG_CACHE_HOME', str(cache))
    for kind in ('scalar', 'event_duration_secs'):
      register = getattr(monitoring, f'register_{kind}_listener')
      patch.setattr(
          monitoring,
          f'register_{kind}_listener',
          lambda listener, do=register: (ours.append(listener), do(listener)),
      )
    heartbeat.tell_compiles(page)
  yield
  monitoring.unregister_scalar_listener(ours[0])
  monitoring.unregister_event_duration_listener(ours[1])


class Terminal(io.StringIO):
  encoding = 'utf-8'

  def isatty(self):
    return True


def told(capsys):
  """What was said to be done, as to a file; each once in a row."""
  said = capsys.readouterr().err.split('\n')[:-1]
  assert all(re.search(r': \d+ s so far$', line) for line in said), said
  return [what for what, _ in itertools.groupby(s.split(':')[0] for s in said)]


def test_what_is_done_and_since_when_is_said_again_and_again(capsys):
  with heartbeat.beating(first_s=0.1, every_s=0.3):
    time.sleep(0.2)
    with heartbeat.doing('loading'), heartbeat.doing('reading a file'):
      time.sleep(0.6)
    with heartbeat.doing('loading'):
      time.sleep(0.3)
  assert told(capsys) == ['starting', 'reading a file', 'loading']


@pytest.mark.parametrize(
    ('seconds', 'shown'), [(8.7, '9 s'), (99, '99 s'), (126, '2 min')]
)
def test_how_long_it_takes_is_said(seconds, shown, capsys):
  heartbeat._say('loading', time.monotonic() - seconds)
  assert capsys.readouterr().err == f'loading: {shown} so far\n'


def test_nothing_is_said_between_lines_that_come_anyway(capsys):
  with heartbeat.beating(first_s=1, every_s=1):
    for n in range(10):
      print(n, file=sys.stderr if n % 2 else sys.stdout)
      time.sleep(0.15)
  said = capsys.readouterr()
  assert said.out.split() == ['0', '2', '4', '6', '8']
  assert said.err.split('\n') == ['1', '3', '5', '7', '9', '']


def test_who_only_waits_says_nothing_and_nothing_is_left(capsys):
  with heartbeat.beating(first_s=0.05, every_s=0.05), heartbeat.doing(''):
    assert 'write' in vars(sys.stdout)
    time.sleep(0.3)
  time.sleep(0.1)
  assert not told(capsys)
  assert 'heartbeat' not in {thread.name for thread in threading.enumerate()}
  assert 'write' not in vars(sys.stdout)


@pytest.mark.filterwarnings(
    'error::pytest.PytestUnhandledThreadExceptionWarning'
)
def test_whoever_reads_may_go(monkeypatch):
  monkeypatch.setattr(sys, 'stderr', shown := io.StringIO())
  with heartbeat.beating(first_s=0.05, every_s=0.05):
    shown.close()
    time.sleep(0.2)


def test_beside_a_bar_in_a_file_it_has_a_line_of_its_own(capsys):
  with heartbeat.beating(first_s=0.2, every_s=0.2):
    with metrics.Progress('sft', total=9) as bar, heartbeat.doing('one step'):
      time.sleep(0.3)
      bar.advance(loss=0.5)
  err = capsys.readouterr().err
  said = [line.rpartition('\r')[2] for line in err.split('\n')[:-1]]
  assert re.fullmatch(r'one step: \d+ s so far', said[0])
  assert re.match(r'sft +: +11%.*1/9', said[-1]), said


def test_on_a_terminal_it_stands_beside_the_bar_and_goes(monkeypatch):
  monkeypatch.setattr(sys, 'stderr', shown := Terminal())
  monkeypatch.setenv('COLUMNS', '80')
  with heartbeat.beating(first_s=0.2, every_s=0.2):
    with metrics.Progress('sft', total=9) as bar, heartbeat.doing('one step'):
      bar.advance(loss=0.5)
      time.sleep(0.3)
      beat = shown.getvalue()
      bar.advance()
      bar.refresh()
      after = shown.getvalue().removeprefix(beat)
  assert '\n' not in beat
  *_, last = beat.split('\r')
  assert 'one step: ' in last and len(last) <= 80
  assert 'loss=0.500' in after and 'one step' not in after


def test_a_command_that_waits_says_for_whom(tmp_path):
  """Its answer on stdout is as it would be."""
  labels = tmp_path / 'labels.jsonl'
  label = {'question': 'q', 'answers': ['a'], 'answer': 'b', 'right': False}
  labels.write_text(json.dumps(label))

  def late(body):
    time.sleep(1.5)
    return judge_helpers.right_if()(body)

  code = """
      import functools, sys
      from gog_jax import main
      from gog_jax.storage import heartbeat
      heartbeat.beating = functools.partial(heartbeat.beating, 0.2, 0.4)
      main.run()
  """
  script = tmp_path / 'run.py'
  script.write_text(textwrap.dedent(code))
  with endpoints.serve(late) as server:
    done = subprocess.run(
        [
            sys.executable, script,
            '--config=configs/judge.py', f'--config.labels={labels}',
            f'--config.judge.url={server.url}', '--config.judge.model=m',
            f'--workdir={tmp_path}',
        ],
        cwd=main_test.ROOT,
        env=main_test.environment() | {'PYTHONPATH': str(main_test.ROOT)},
        capture_output=True, text=True, timeout=120,
    )  # fmt: skip
  assert done.returncode == 0, done.stderr
  said = done.stderr.splitlines()
  host = server.url.removeprefix('http://').removesuffix('/v1')
  assert said[0].startswith('starting: ')
  waits = [n for n, line in enumerate(said) if 'waiting for judge at' in line]
  assert len(waits) >= 2 and host in said[waits[0]]
  assert said[-1] == f'judge: {tmp_path}/agreement.json'
  assert done.stdout.startswith('all labels: 1,')
  assert 'so far' not in done.stdout


def test_how_long_it_compiled_is_said_the_next_time(capsys, tmp_path):
  def compiles(name, seconds, silent_s):
    jax.monitoring.record_scalar(_BACKEND, 0.0, fun_name=f'jit({name})')
    time.sleep(silent_s)
    jax.monitoring.record_event_duration_secs(
        _BACKEND, seconds, fun_name=f'jit({name})'
    )

  with heartbeat.beating(first_s=0.1, every_s=0.1), heartbeat.doing(''):
    with process('rl:toy', tmp_path):
      compiles('add', 126.0, 0.3)
      compiles('add', 2.0, 0.0)  # From JAX's own cache.
    with process('rl:toy', tmp_path):
      compiles('add', 1.0, 0.3)
      compiles('get', 2.0, 0.3)
    with process('sft:toy', tmp_path):
      compiles('add', 1.0, 0.3)
  assert told(capsys) == [
      'compiling jit(add)',
      'compiling jit(add), usually about 2 min',
      'compiling jit(get)',
      'compiling jit(add)',
  ]
  (path,) = tmp_path.rglob('*.json')
  assert json.loads(path.read_text()) == {'rl:toy cpu jit(add)': 126.0}


@pytest.mark.parametrize('spoilt', ['{', '[1]', None])
def test_what_is_remembered_may_be_spoilt_or_not_writable(
    spoilt, tmp_path, monkeypatch
):
  folder = tmp_path / 'gog_jax'
  if spoilt is None:
    folder.write_text('')  # No folder can be made here.
  else:
    folder.mkdir()
    (folder / 'compile_seconds.json').write_text(spoilt)
  with process('rl:toy', tmp_path):
    jax.monitoring.record_scalar(_BACKEND, 0.0, fun_name='f')
    jax.monitoring.record_event_duration_secs(_BACKEND, 9.0, fun_name='f')


def test_jax_itself_says_what_it_compiles(tmp_path, monkeypatch):
  monkeypatch.setattr(heartbeat, '_LONG_S', 0.0)
  seen = []

  @jax.jit
  def planted(x):
    seen.extend(what for what, _ in heartbeat._doing.values())
    return x + 1

  with process('page', tmp_path):
    planted(jnp.zeros(3))
  assert 'compiling planted' in seen
  assert not heartbeat._doing
  (path,) = tmp_path.rglob('*.json')
  assert 'page cpu jit(planted)' in json.loads(path.read_text())


def test_nested_and_failed_work_is_forgotten():
  with contextlib.suppress(ZeroDivisionError), heartbeat.doing('dividing'):
    raise ZeroDivisionError
  assert not heartbeat._doing

"""2,000 items, killed at random instants."""

from __future__ import annotations

import json
import os
import random
import signal
import subprocess
import sys
import time

import pytest

from gog_jax.evaluation import evaluate
from gog_jax.storage import rollouts
from tests import main_test
from tests import mini

pytestmark = pytest.mark.slow

N = 2000
NAME = 'gog@script'


def command(workdir, *more):
  return [
      sys.executable, '-m', 'gog_jax.main', '--config=configs/eval.py',
      f'--workdir={workdir}',
      *mini.flags(**{
          'data.n_test': N, 'eval.n_examples': N, 'report.n_trajectories': 2,
      }),
      f"--config.eval.policies=('{NAME}',)",
      '--config.eval.script=tests.eval_plays:mixed', *more,
  ]  # fmt: skip


def start(args):
  return subprocess.Popen(
      args,
      cwd=main_test.ROOT,
      env=main_test.environment(),
      stdout=subprocess.DEVNULL,
      stderr=subprocess.PIPE,
      text=True,
  )


def rows(folder):
  return [
      mini.without_clock(json.loads(line))
      for kind in ('examples', 'trajectories')
      for line in (folder / f'{kind}.jsonl').read_text().splitlines()
  ]


def n_lines(folder):
  path = folder / 'trajectories.jsonl'
  return path.read_bytes().count(b'\n') if path.exists() else 0


def summary(workdir):
  """The report's numbers that no clock decides."""
  found = json.loads((workdir / 'report' / 'summary.json').read_text())
  same = ('n', 'answers', 'behaviour', 'by_hop')
  return {name: found['rows'][0][name] for name in same}


def wait_until(process, condition):
  while process.poll() is None and not condition():
    time.sleep(0.01)


@pytest.fixture(name='whole', scope='module')
def never_killed(tmp_path_factory):
  workdir = tmp_path_factory.mktemp('whole')
  process = start(command(workdir))
  _, errors = process.communicate()
  assert process.returncode == 0, errors
  folder = workdir / 'eval' / NAME
  assert evaluate.facts(folder)['n'] == N
  return rows(folder), summary(workdir)


def test_killed_many_times_the_numbers_are_the_same(whole, tmp_path):
  folder = tmp_path / 'eval' / NAME
  draw = random.Random(0)
  kept, kills = set(), 0
  while kills < 5:
    process = start(command(tmp_path))
    upto = n_lines(folder) + draw.randrange(1, N // 10)
    wait_until(process, lambda: n_lines(folder) >= upto)  # noqa: B023
    time.sleep(0.02 * draw.random())
    assert process.poll() is None, process.stderr.read()
    os.kill(process.pid, signal.SIGKILL)
    process.wait()
    kills += 1
    # Nothing that was there is lost, and nothing is asked twice.
    found = set(rollouts.items(folder))
    assert kept < found and n_lines(folder) == len(found)
    kept = found
  assert len(kept) < N
  process = start(command(tmp_path))
  _, errors = process.communicate()
  assert process.returncode == 0, errors
  assert (rows(folder), summary(tmp_path)) == whole

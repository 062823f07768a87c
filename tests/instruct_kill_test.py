"""A build whose teacher fails 20 % of its calls, killed at ten instants."""

from __future__ import annotations

import pathlib
import random
import re
import shutil
import signal
import subprocess
import time

import pytest

from gog_jax.conversations import tfds_set
from gog_jax.instruct import answers
from gog_jax.storage import rollouts
from tests import endpoints
from tests import instruct_helpers as helpers
from tests import mini
from tests.main_test import command
from tests.main_test import environment
from tests.main_test import ROOT

pytestmark = pytest.mark.slow

N, N_KILLS = 60, 11  # Ten by -9, one by Ctrl-C.


def slow_teacher(body):
  time.sleep(0.04)
  return helpers.teach(body)


FIELDS = {
    'instruct.n': 28,
    'instruct.no_search': 0.35,
    'instruct.n_queries': N,
    'instruct.n_direct': 4,
    'instruct.chunk': 6,
    'instruct.concurrency': 4,
}


def make_run(world, url, workdir):
  fields = {**world, **FIELDS, 'remote.url': url}
  changes = {name.replace('.', '__'): v for name, v in fields.items()}
  return mini.run_of(mini.make_config('instruct', **changes), workdir)


def flags(world, url, workdir):
  fields = {**world, **FIELDS, 'remote.url': url}
  return command(
      '--config=configs/instruct.py',
      f'--workdir={workdir}',
      *(f'--config.{name}={value}' for name, value in fields.items()),
  )


def start(arguments):
  return subprocess.Popen(
      arguments,
      cwd=ROOT,
      env=environment(),
      stdout=subprocess.DEVNULL,
      stderr=subprocess.DEVNULL,
  )


def answered(run):
  """What was answered, by item and seed; whether questions are decided."""
  found, c = set(), run.config.instruct
  folder = run.workdir / 'instruct'
  direct, tries = (
      rollouts.items(folder / name) for name in ('direct', 'tries')
  )
  for item, note in direct.items():
    if note['valid']:
      what = ('direct', item % c.n_direct)
      found.add((item // c.n_direct, seed_of(run, *what, note['id'])))
  for item, note in tries.items():
    index, slot = divmod(item, 1 + c.samples)
    if note['valid'] and slot:
      found.add((index, seed_of(run, 'try', slot - 1, note['id'])))
  decided = [
      answers.outcome_of(i, direct, tries, c) is not None for i in range(N)
  ]
  return found, any(decided)


def seed_of(run, *what):
  return run.seed('instruct', *what, 0)


def n_lines(run):
  return sum(
      path.read_bytes().count(b'\n')
      for path in (run.workdir / 'instruct').glob('*/trajectories.jsonl')
  )


def result(workdir):
  """The files of the set, the drops and the page; the day is not compared."""
  folder = pathlib.Path(workdir) / 'instruct'
  paths = [folder / 'drops.jsonl', folder / 'review.html']
  paths += [path for path in (folder / 'set').rglob('*') if path.is_file()]
  return {
      str(path.relative_to(folder)): re.sub(
          rb'from \S+ to \S+ \(UTC\)', b'', path.read_bytes()
      )
      for path in paths
  }


def test_killed_at_random_instants_the_set_is_the_same(tmp_path):
  world = helpers.make_world(tmp_path / 'items', N)
  killed, whole = tmp_path / 'killed', tmp_path / 'whole'
  rng = random.Random(0)
  with endpoints.serve(slow_teacher, helpers.Failing) as server:
    go_on = flags(world, server.url, killed)
    run = make_run(world, server.url, killed)

    def check_heard(since, known):
      """What was answered before a start is not asked again."""
      for body in server.bodies[since:]:
        assert (helpers.item_of(body), body['seed']) not in known

    n_kills = n_before = 0
    while n_kills < N_KILLS:
      lines_before, heard = n_lines(run), len(server.heard)
      known, decided = answered(run)
      process = start(go_on)
      deadline = time.monotonic() + 240
      # Some die before they have asked anything, or while they ask; others
      # just after they have kept something.
      while len(server.heard) == heard and process.poll() is None:
        assert time.monotonic() < deadline
        if n_kills == 0 and rng.random() < 0.01:
          break
        time.sleep(0.01)
      if n_kills % 2:
        while n_lines(run) == lines_before and process.poll() is None:
          assert time.monotonic() < deadline
          time.sleep(0.002)
        time.sleep(rng.random() * 0.3)
      else:
        time.sleep(rng.random() * 2.0)
      if process.poll() is not None:  # It came through: begin anew.
        assert process.returncode == 0
        shutil.rmtree(killed / 'instruct')
        continue
      # One of them is asked to stop, and says that it will go on.
      process.send_signal(signal.SIGINT if n_kills == 4 else signal.SIGKILL)
      code = process.wait(60)
      assert code == (130 if n_kills == 4 else -signal.SIGKILL)
      check_heard(heard, known)
      n_kills += 1
      n_before += decided
    known, _ = answered(run)
    heard = len(server.heard)
    subprocess.run(go_on, cwd=ROOT, env=environment(), check=True)
    check_heard(heard, known)
    n_all, n_failed = len(server.heard) + server.n_failed, server.n_failed
    subprocess.run(
        flags(world, server.url, whole),
        cwd=ROOT,
        env=environment(),
        check=True,
    )
  want = result(whole)
  assert result(killed) == want
  records = tfds_set.load(whole / 'instruct' / 'set')
  kinds = [one.columns['facts']['kind'] for one in records]
  assert (len(kinds), kinds.count('no_search')) == (28, 10)
  print(
      f'{N_KILLS} stops, {n_before} of them after questions were decided; '
      f'{n_all} calls, {n_failed} failed '
      f'({100 * n_failed / n_all:.1f} %); {len(want)} files identical, '
      f'{len(kinds)} samples'
  )

"""A build whose teacher fails 20 % of its calls, killed at ten instants."""

from __future__ import annotations

import json
import pathlib
import random
import re
import shutil
import signal
import subprocess
import time

import pytest

from gog_jax.conversations import tfds_set
from tests import endpoints
from tests import instruct_helpers as helpers
from tests.main_test import command
from tests.main_test import environment
from tests.main_test import ROOT

pytestmark = pytest.mark.slow

N, N_KILLS = 60, 11  # Ten by -9, one by Ctrl-C.


def slow_teacher(body):
  time.sleep(0.04)
  return helpers.teach(body)


def flags(world, url, workdir):
  fields = {
      **world,
      'remote.url': url,
      'instruct.n': 28,
      'instruct.no_search': 0.35,
      'instruct.n_queries': N,
      'instruct.n_direct': 4,
      'instruct.chunk': 6,
      'instruct.concurrency': 4,
  }
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


def committed(workdir):
  """Items whose chunk is there; and those whose direct answers are."""
  found = {'': set(), '.direct': set()}
  for what in found:
    for path in (workdir / 'instruct/chunks').glob(f'[0-9]*[0-9]{what}.jsonl'):
      for line in path.read_text().splitlines():
        found[what].add(int(json.loads(line)['example_id'][1:]))
  return found[''], found['.direct']


def n_files(workdir):
  return len(list((workdir / 'instruct/chunks').glob('*.jsonl')))


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

    def check_heard(since, done, directly):
      """What was committed before a start is not asked again."""
      for body in server.bodies[since:]:
        item = helpers.item_of(body)
        assert item not in done
        if '<tools>' not in body['messages'][0]['content']:
          assert item not in directly

    n_kills = n_before = 0
    while n_kills < N_KILLS:
      files_before, heard = n_files(killed), len(server.heard)
      done, directly = committed(killed)
      process = start(go_on)
      deadline = time.monotonic() + 240
      # Some die before they have asked anything, or while they ask; others
      # just after they have committed.
      while len(server.heard) == heard and process.poll() is None:
        assert time.monotonic() < deadline
        if n_kills == 0 and rng.random() < 0.01:
          break
        time.sleep(0.01)
      if n_kills % 2:
        while n_files(killed) == files_before and process.poll() is None:
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
      check_heard(heard, done, directly)
      n_kills += 1
      n_before += bool(done)
    done, directly = committed(killed)
    heard = len(server.heard)
    subprocess.run(go_on, cwd=ROOT, env=environment(), check=True)
    check_heard(heard, done, directly)
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
  kinds = [one.facts['kind'] for one in records]
  assert (len(kinds), kinds.count('no_search')) == (28, 10)
  print(
      f'{N_KILLS} stops, {n_before} of them after chunks were committed; '
      f'{n_all} calls, {n_failed} failed '
      f'({100 * n_failed / n_all:.1f} %); {len(want)} files identical, '
      f'{len(kinds)} samples'
  )

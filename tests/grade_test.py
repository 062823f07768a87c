"""Grading: levels, what they consist of, and kills at any instant."""

from __future__ import annotations

import pathlib
import random
import shutil
import signal
import subprocess
import time

import pytest

from gog_jax import grade
from tests import mini
from tests.main_test import command
from tests.main_test import environment
from tests.main_test import ROOT

N_KILLS = 10


@pytest.mark.quick
@pytest.mark.parametrize(
    ('n_correct', 'n_valid', 'level'),
    [(6, 8, 0), (5, 8, 1), (3, 8, 1), (2, 8, 2), (0, 8, 2), (3, 4, 0),
     (0, 0, None)],
)  # fmt: skip
def test_levels_by_hand(n_correct, n_valid, level):
  found = grade.level_of(n_correct, n_valid, solved=0.75, often_failed=0.3)
  assert found == level


@pytest.mark.quick
def test_what_a_level_consists_of():
  def one(hops, level, n_correct, n_short, n_errors=0):
    return grade.Grade(
        example_id='x',
        n_valid=8 - n_errors,
        n_correct=n_correct,
        n_errors=n_errors,
        n_short=n_short,
        n_unseen=n_short // 2,
        hops=hops,
        level=level,
    )

  facts = grade.facts([
      one(0, 0, 8, 0),
      one(2, 2, 1, 6),
      one(3, 2, 0, 3, n_errors=2),
      one(None, None, 0, 0, n_errors=8),
  ])
  assert facts['levels'] == {'0': 1, '1': 0, '2': 2}
  assert (facts['ungraded'], facts['errors']) == (1, 10)
  assert facts['composition']['2'] == {
      'hops': {'2': 1, '3': 1},
      'pass_rate': pytest.approx(1 / 14),
      'too_few_searches': pytest.approx(9 / 13),
      'never_seen': pytest.approx(4 / 13),
  }
  assert facts['composition']['1'] == {
      'hops': {}, 'pass_rate': None, 'too_few_searches': None,
      'never_seen': None,
  }  # fmt: skip


@pytest.mark.slow
def test_killed_at_random_instants_the_file_is_the_same(tmp_path):
  sizes = {
      'data__n_train': 96,
      'grade__n_queries': 48,
      'grade__chunk': 2,
      'grade__samples': 4,
  }
  run = mini.make_run(tmp_path / 'whole', 'grade', **sizes)
  mini.make_stages(run, 'data', 'demos', 'sft')
  killed = tmp_path / 'killed'
  subprocess.run(['cp', '-r', run.workdir, killed], check=True)
  go_on = command(
      '--config=configs/grade.py',
      f'--workdir={killed}',
      *mini.flags(**sizes),
  )
  rng = random.Random(0)
  chunks = killed / 'grade' / 'chunks'
  n_kills = 0
  while n_kills < N_KILLS:
    before = n_files(chunks)
    process = subprocess.Popen(
        go_on,
        cwd=ROOT,
        env=environment(),
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
    )
    # Every other kill hits before this start has committed anything.
    deadline = time.monotonic() + 240
    if n_kills % 2:
      while n_files(chunks) == before and process.poll() is None:
        assert time.monotonic() < deadline
        time.sleep(0.005)
      time.sleep(rng.random() * 0.4)
    else:
      time.sleep(rng.random() * 15)
    if process.poll() is not None:  # It came through: begin anew.
      assert process.returncode == 0
      shutil.rmtree(killed / 'grade')
      continue
    process.send_signal(signal.SIGKILL)
    process.wait()
    n_kills += 1
  subprocess.run(go_on, cwd=ROOT, env=environment(), check=True)
  subprocess.run(
      command(
          '--config=configs/grade.py',
          f'--workdir={run.workdir}',
          *mini.flags(**sizes),
      ),
      cwd=ROOT,
      env=environment(),
      check=True,
  )
  want = (run.workdir / 'grade' / 'graded.jsonl').read_bytes()
  assert (killed / 'grade' / 'graded.jsonl').read_bytes() == want
  assert want.count(b'\n') == 48


def n_files(folder: pathlib.Path) -> int:
  return len(list(folder.glob('*.jsonl'))) if folder.exists() else 0

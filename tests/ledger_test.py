"""One cap for all who spend by a ledger."""

from __future__ import annotations

import subprocess
import sys

import pytest

from gog_jax.errors import RunStopped
from gog_jax.remote.ledger import Ledger
from tests import main_test


def test_those_who_share_a_ledger_share_its_cap(tmp_path):
  """Two runs that share a ledger; each sees what the other has spent."""
  first = Ledger(tmp_path / 'spent', cap=1.0)
  second = Ledger(tmp_path / 'spent', cap=1.0)
  first.charge('a', 0.5)
  second.charge('b', 0.25)
  second.charge('b', -0.25, capped=False)
  second.charge('a message', 0.25, capped=False)
  with pytest.raises(RunStopped, match=r'cost \$0.7500; a at \$0.5 would'):
    first.charge('a', 0.5)
  first.charge('a message', None)
  first.charge('a', 0.25)
  with pytest.raises(RunStopped, match=r'\$1.0000; a message would pass'):
    second.charge('a message', None)
  assert first.spent == second.spent == 1.0


_SPENDS = """
import sys
from gog_jax.remote.ledger import Ledger
from gog_jax.errors import RunStopped
ledger = Ledger(sys.argv[1], cap=0.5)
n = 0
try:
  while True:
    ledger.charge('a', 0.001)
    n += 1
except RunStopped:
  print(n)
"""


def test_two_processes_do_not_pass_the_cap_together(tmp_path):
  command = [sys.executable, '-c', _SPENDS, str(tmp_path / 'spent')]
  processes = [
      subprocess.Popen(
          command,
          stdout=subprocess.PIPE,
          env=main_test.environment(),
          cwd=main_test.ROOT,
      )
      for _ in range(2)
  ]
  spent = [int(process.communicate(timeout=120)[0]) for process in processes]
  lines = (tmp_path / 'spent').read_text().splitlines()
  assert sum(spent) == len(lines) == 500

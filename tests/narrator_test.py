"""What a conversation looks like on a terminal, and that nothing steers it."""

from __future__ import annotations

import dataclasses
import io
import os
import re
import subprocess
import sys

import pytest

from gog_jax.app import narrator
from gog_jax.types import Hit
from gog_jax.types import ToolStatus
from tests import main_test
from tests import report_helpers

EVIL = '<script>alert("x")</script>\x1b]0;title\x07\x9b2J\u202e[bold red]x[/]'


class Terminal(io.StringIO):

  def isatty(self) -> bool:
    return True


def test_a_terminal_gets_colours_but_none_of_the_pages(monkeypatch):
  monkeypatch.setenv('TERM', 'xterm-256color')
  monkeypatch.setenv('COLUMNS', '60')
  example = report_helpers.example('a', question=EVIL)
  hit = Hit(title=EVIL, text='one\ntwo', score=1.0)
  trajectory = report_helpers.trajectory(
      'a',
      (
          report_helpers.gaze((10, 20, 30, 40.5), hits=(hit,)),
          report_helpers.text(hits=()),
          report_helpers.text(
              status=ToolStatus.INFRA_ERROR, error=f'down {EVIL}'
          ),
      ),
      answer='kelo',
  )
  trajectory.seconds.update({'sample': 1.0, 'tools': 0.5})
  file = Terminal()
  told = narrator.Narrator(example, file=file)
  told.header()
  for turn in trajectory.turns:
    told.on_turn(dataclasses.replace(turn, results=()))
    if turn.results:
      told.on_turn(turn)
  told.footer(trajectory)
  colours = re.compile(r'\x1b\[[0-9;]*m')
  out = file.getvalue()
  assert colours.search(out)
  plain = colours.sub('', out)
  for steering in '\x1b\x07\x9b\u202e':
    assert steering not in plain
  joined = ' '.join(plain.split())
  assert '[bold red]x[/]' in joined
  assert 'box x 10 to 30, y 20 to 40.5 of image 1' in joined
  assert 'one ...' in joined and 'text_search found nothing' in joined
  assert "the tool's failure down" in joined
  assert max(map(len, plain.splitlines())) <= 60


@pytest.mark.parametrize(
    ('text', 'shown'),
    [
        ('a\x1b[2Jb\x00\x7f\x85', r'a\x1b[2Jb\x00\x7f\x85'),
        ('a\r\nb\rc\td', 'a\nb\\rc  d'),
        ('\u202eabc\u2066\u200f\u2028\U000e0041', (
            r'\u202eabc\u2066\u200f\u2028\U000e0041'
        )),
        ('\ud800', r'\ud800'),
        ('é 漢 👩\u200d🚀', 'é 漢 👩\u200d🚀'),
    ],
)
def test_what_steers_is_spelled_out(text, shown):
  assert narrator.clean(text) == shown
  shown.encode()


def test_any_encoding_of_the_output_will_do():
  code = (
      'from gog_jax.app import narrator; from tests import report_helpers as h;'
      "narrator.Narrator(h.example('a', question='漢字')).header()"
  )
  done = subprocess.run(
      [sys.executable, '-c', code],
      cwd=main_test.ROOT,
      env=os.environ | {'PYTHONIOENCODING': 'ascii'},
      capture_output=True,
      text=True,
      check=True,
  )
  assert done.stdout == 'question \\u6f22\\u5b57\n\n'

"""A disk that is full or read-only: one line, and then the same command works.
"""

from __future__ import annotations

import contextlib
import errno
import json
import os
import sqlite3
import subprocess

import numpy as np
from PIL import Image
import pytest

from gog_jax.storage import disk as disk_lib
from tests import mini
from tests.main_test import assert_one_line
from tests.main_test import run


class Disk:
  """A file system of its own, in memory."""

  def __init__(self, path):
    self.path = path
    path.mkdir()
    self._mount('tmpfs', '-t', 'tmpfs', '-o', 'size=16k')

  def _mount(self, *options):
    subprocess.run(
        ['mount', *options, str(self.path)], check=True, capture_output=True
    )

  def resize(self, kilobytes: float):
    self._mount('-o', f'remount,rw,size={int(kilobytes)}k')

  def protect(self):
    self._mount('-o', 'remount,ro')

  def close(self):
    subprocess.run(['umount', '-l', str(self.path)], check=True)


@pytest.fixture(name='disk')
def small_disk(tmp_path):
  try:
    made = Disk(tmp_path / 'disk')
  except (OSError, subprocess.CalledProcessError) as error:
    pytest.skip(f'no small disk can be made here: {error}')
  with contextlib.closing(made):
    yield made


def full_then_roomy(disk, sizes, *command):
  """Gives one command at each size, and says how often it was too little."""
  disk.protect()
  assert_one_line(run(*command), 'Read-only file system')
  n_full = 0
  for size in [*sizes, 200_000]:
    disk.resize(size)
    code, lines = run(*command)
    if code:
      assert_one_line((code, lines), 'same command')
      n_full += 1
  assert not code, lines  # With room, it is done.
  return n_full


@pytest.mark.slow
def test_an_index(disk, tmp_path):
  rng = np.random.default_rng(0)
  (tmp_path / 'photos').mkdir()
  for i in range(8):
    noise = rng.integers(0, 256, (120, 120, 3), dtype=np.uint8)
    Image.fromarray(noise).resize((480, 480)).save(
        tmp_path / 'photos' / f'{i}.jpg'
    )
  words = rng.integers(0, 5_000, (4_000, 30))
  with (tmp_path / 'docs.jsonl').open('w') as f:
    for i, row in enumerate(words):
      text = ' '.join(f'w{n}' for n in row)
      f.write(json.dumps({'id': str(i), 'title': f't{i}', 'text': text}) + '\n')
  n_full = full_then_roomy(
      disk, (1_000, 2_800), '--config=configs/index.py',
      f'--config.docs={tmp_path / "docs.jsonl"}',
      f'--config.images={tmp_path / "photos"}',
      f'--config.index={disk.path / "index"}',
  )  # fmt: skip
  assert n_full == 2


@pytest.mark.slow
def test_a_run_from_data_to_report(disk):
  n_full = full_then_roomy(
      disk, (300, 4_000, 18_500, 30_000, 43_000),
      '--config=configs/rl.py', f'--workdir={disk.path / "run"}',
      *mini.flags(rl__checkpoint_every=2, sft__checkpoint_every=2),
  )  # fmt: skip
  assert n_full >= 4


@pytest.mark.slow
def test_an_evaluation_its_recording_and_its_cache(disk):
  n_full = full_then_roomy(
      disk, (1_700, 2_000), '--config=configs/eval.py',
      f'--workdir={disk.path / "run"}', *mini.flags(),
      "--config.eval.policies=('expert',)", '--config.tools.mode=record',
      f'--config.tools.cache={disk.path / "cache.sqlite"}',
  )  # fmt: skip
  assert n_full >= 1


@pytest.mark.slow
def test_a_set_that_is_converted(disk, tmp_path):
  rng = np.random.default_rng(0)
  with (tmp_path / 'rows.jsonl').open('w') as f:
    for i in range(20):
      noise = rng.integers(0, 256, (64, 64, 3), dtype=np.uint8)
      Image.fromarray(noise).save(tmp_path / f'{i}.png')
      turns = [('user', '<image>what?'), ('assistant', f'{i}')]
      messages = [{'role': role, 'content': text} for role, text in turns]
      f.write(json.dumps({'messages': messages, 'images': [f'{i}.png']}) + '\n')
  n_full = full_then_roomy(
      disk, (20, 200), '--config=configs/convert.py',
      f'--config.input={tmp_path / "rows.jsonl"}',
      f'--config.output={disk.path / "set"}', '--config.format=tfds',
  )  # fmt: skip
  assert n_full == 2


def raised(error, cause=None):
  try:
    raise error from cause
  except type(error) as caught:
    return caught


@pytest.mark.parametrize(
    ('error', 'words'),
    [
        (OSError(errno.ENOSPC, 'full', '/d/a'), '/d/a: No space left'),
        (OSError(errno.EDQUOT, 'quota'), 'Disk quota exceeded'),
        (OSError(errno.ESTALE, 'x', '/d/b'), '/d/b: Stale file handle'),
        (PermissionError(errno.EACCES, 'x', '/d/c'), '/d/c: Permission denied'),
        (sqlite3.OperationalError('database or disk is full'), 'disk is full'),
        (sqlite3.OperationalError('attempt to write a readonly database'),
         'readonly database'),
        (ValueError(
            'RESOURCE_EXHAUSTED: Failed to write 9 bytes to file 5: No space '
            'left on device [os_error_code=28 ENOSPC]'), 'No space left'),
        (RuntimeError('I/O error: Read-only file system (os error 30)'),
         'Read-only file system'),
        (OSError('123 requested and 116 written'), '116 written'),
        (raised(RuntimeError('x'), OSError(errno.EIO, 'x', '/d/e')), '/d/e: '),
        (ExceptionGroup('tasks', [
            KeyError('x'), OSError(errno.ENOTCONN, 'x', '/d/f')]), '/d/f: '),
    ],
)  # fmt: skip
def test_whichever_library_reports_it(error, words, tmp_path):
  assert words in disk_lib.trouble(error, tmp_path)


@pytest.mark.parametrize(
    'error',
    [
        FileNotFoundError(errno.ENOENT, 'x', '/a'),
        ConnectionRefusedError(errno.ECONNREFUSED, 'x'),
        ValueError('RESOURCE_EXHAUSTED: Out of memory allocating 9 bytes'),
    ],
)
def test_what_no_disk_is_behind_keeps_its_traceback(error, tmp_path):
  assert disk_lib.trouble(error, tmp_path) is None


def test_a_disk_that_is_taken_away(tmp_path):
  error = FileNotFoundError(errno.ENOENT, 'x', str(tmp_path / 'run' / 'a'))
  assert 'is there no more' in disk_lib.trouble(error, tmp_path / 'run')


def test_room_is_looked_for_first(tmp_path):
  free = os.statvfs(tmp_path).f_bavail * os.statvfs(tmp_path).f_frsize
  disk_lib.check_room(tmp_path / 'not' / 'yet', free // 2)
  with pytest.raises(disk_lib.UserError, match='make room'):
    disk_lib.check_room(tmp_path, free * 2)
  disk_lib.check_room('gs://bucket/run', free * 2)

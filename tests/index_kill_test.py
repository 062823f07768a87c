"""A local index whose builds are killed at any instant, and started again."""

from __future__ import annotations

import os
import random
import signal
import subprocess
import sys
import time

import bm25s  # noqa: F401  Imported late otherwise, and counted as building.
import pytest

from gog_jax.errors import UserError
from gog_jax.index.backend import LocalIndex
from gog_jax.index.build import build
from tests.index_helpers import encoded
from tests.index_helpers import picture
from tests.index_helpers import ROOT
from tests.index_helpers import write_docs
from tests.index_helpers import write_images

# Says when it begins, so that kills hit the build and not Python's start.
_BUILD = """
import sys
import bm25s
from gog_jax.index import build, chunks
chunks.SIZE = 4
print('begin', flush=True)
print(build.build(sys.argv[1], docs=sys.argv[2], images=sys.argv[3]))
"""
_CHUNK = 4


def start(*arguments) -> subprocess.Popen:
  process = subprocess.Popen(
      [sys.executable, '-c', _BUILD, *map(str, arguments)],
      cwd=ROOT,
      env={**os.environ, 'PYTHONPATH': str(ROOT)},
      stdout=subprocess.PIPE,
      stderr=subprocess.DEVNULL,
      text=True,
  )
  while process.stdout.readline() != 'begin\n':
    assert process.poll() is None
  return process


def n_features(index) -> int:
  return _CHUNK * len(list(index.glob('parts/features/*/*.safetensors')))


def opened(index) -> str:
  """The version that can be searched, or '' if nothing has been built."""
  try:
    found = LocalIndex(str(index))
  except UserError as error:
    assert 'there is no index' in str(error)
    return ''
  assert found.image(encoded(picture(1)), 1)[0][0]['id'] == '1.png'
  assert found.text('shared', 1)
  return found.version


@pytest.mark.slow
def test_killed_at_any_instant(tmp_path):
  draw = random.Random(4)
  images = write_images(tmp_path / 'im', {f'{i}.png': i for i in range(60)})
  index, docs = tmp_path / 'ix', tmp_path / 'c.jsonl'
  more = [{'id': i, 'text': f'shared words {i}'} for i in range(3000)]
  write_docs(docs, *more[:2000])

  def uninterrupted(name: str) -> tuple[str, float]:
    begun = time.perf_counter()
    made = build(str(tmp_path / name), docs=str(docs), images=str(images))
    return f'index/{made.version}', time.perf_counter() - begun

  first, seconds = uninterrupted('first')
  kept = ''
  for goal in (first, None):
    if goal is None:  # The second time over a whole index of fewer images.
      write_images(images, {f'{i}.png': i for i in range(60, 120)})
      write_docs(docs, *more)
      goal, _ = uninterrupted('second')
    n_killed = 0
    while n_killed < 6:
      before = n_features(index)
      process = start(index, docs, images)
      time.sleep(draw.uniform(0, 0.15 * seconds))
      process.send_signal(signal.SIGKILL)
      if process.wait() == -signal.SIGKILL:
        n_killed += 1
      # What was there is there still, or the next generation is, whole.
      version = opened(index)
      assert version in (kept, goal)
      assert n_features(index) >= before or version == goal
      if version == goal:
        break
    assert n_killed >= 5
    process = start(index, docs, images)
    said, _ = process.communicate()
    assert process.returncode == 0 and 'index ' in said
    assert opened(index) == goal
    assert len(list(index.glob('parts/*-*'))) == 2  # Texts and images.
    assert not list(index.rglob('*.partial'))
    kept = goal
  answers = [
      LocalIndex(str(folder)).image(encoded(picture(70)), 10)
      for folder in (index, tmp_path / 'second')
  ]
  assert answers[0] == answers[1]

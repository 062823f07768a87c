"""Questions of the embedded world, pixels of scenes, lessons in writing."""

from __future__ import annotations

import asyncio
import io
import subprocess
import sys

import numpy as np
from PIL import Image

from gog_jax.boxes import BoxSpec
from gog_jax.toy import expert
from gog_jax.toy import knowledge
from gog_jax.toy import questions
from gog_jax.toy import scenes
from gog_jax.toy import vocabulary
from gog_jax.toy.backend import WorldBackend

# The expert's habits without its faults: it never errs.
ORACLE = expert.Habits(
    glance_big=0.0,
    glance=0.0,
    knows_twins=True,
    wrong_gaze=0.0,
    jitter=0.0,
    needless=0.0,
    persist=1.0,
)
_BACKEND = WorldBackend()
_SPEC = BoxSpec(kind='resized_pixels', min_side=16, step=7)


def halved(box):
  """As the toy writes it: 84 x 84 pixels of a 168 x 168 scene, in sevens."""
  size = (scenes.SIZE, scenes.SIZE)
  return _SPEC.to_model(box, original_size=size, seen_size=(84, 84))


def pixels_of(data: bytes) -> np.ndarray:
  with Image.open(io.BytesIO(data)) as image:
    assert image.format == 'PNG'
    assert image.mode == 'RGB'
    return np.asarray(image).astype(int)


def questions_of(
    split: str, n: int, first: int = 0
) -> list[questions.WorldQuestion]:
  return [
      questions.make_question(
          knowledge.make_scope(split, first + i // 16), i % 16
      )
      for i in range(n)
  ]


def by_text(query: str, scope: str, top_k: int = 1):
  found = _BACKEND.search_text(query, scope=scope, top_k=top_k)
  return asyncio.run(found).hits


def by_image(data: bytes, scope: str, top_k: int = 1):
  found = _BACKEND.search_image(data, scope=scope, top_k=top_k)
  return asyncio.run(found).hits


def stdout_of(script: str, **env: str) -> str:
  """What a script prints in a process that has `env` alone."""
  return subprocess.run(
      [sys.executable, '-c', script],
      env={'PYTHONPATH': ':'.join(sys.path), **env},
      check=True,
      capture_output=True,
      text=True,
  ).stdout


def bare(text: str) -> str:
  """Boxes without the call around them: [x1,y1,x2,y2]."""
  text = text.replace(vocabulary.BOX_START, '[')
  return text.replace(vocabulary.BOX_END, ']')


def argument_of(exchange, name: str):
  """What its call passes, e.g. as 'query'; None without such a call."""
  found = [call.arguments[name] for call in exchange.calls
           if name in call.arguments]
  return found[0] if found else None


def written(exchange) -> str:
  """The message as text, a gaze as its box: 'thought answer'."""
  box = str(argument_of(exchange, 'bbox_2d') or '').replace(' ', '')
  query = argument_of(exchange, 'query')
  parts = (exchange.thought, box, query, bare(exchange.answer))
  return ' '.join(part for part in parts if part)


def said(exchange):
  """All that is said, in order: what came before, then the exchange."""
  before = said(exchange.before) if exchange.before else ()
  return (*before, exchange)

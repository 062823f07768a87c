"""Examples and trajectories made by hand, for the tests of the report."""

from __future__ import annotations

import dataclasses
import io

import numpy as np
from PIL import Image
from PIL import ImageDraw

from gog_jax.report.results import Evaluated
from gog_jax.rewards import parts
from gog_jax.types import Example
from gog_jax.types import ParsedTurn
from gog_jax.types import StopReason
from gog_jax.types import ToolCall
from gog_jax.types import ToolResult
from gog_jax.types import ToolStatus
from gog_jax.types import Trajectory
from gog_jax.types import Turn
from gog_jax.types import View

GOLD = (10.0, 10.0, 50.0, 50.0)
HIT = (10, 10, 50, 45)  # IoU 1400 / 1600.
MISS = (60, 60, 90, 90)
EVIL = '<script>alert("x")</script><img src=http://evil.example/x onerror=y>'


def png(width=100, height=100, colour='teal'):
  image = Image.new('RGB', (width, height), colour)
  ImageDraw.Draw(image).rectangle(GOLD, fill='gold')
  buffer = io.BytesIO()
  image.save(buffer, format='PNG')
  return buffer.getvalue()


SCENE = png()


def example(name, *, gold=(GOLD,), hops=1, **more):
  fields = dict(
      id=name,
      images=(SCENE,),
      question=f'What is {name}?',
      answers=('kelo', 'kelo the great'),
      source='test',
      scope='s',
      gold_regions=gold,
      hops=hops,
  )
  return Example(**{**fields, **more})


def result(status=ToolStatus.OK, *, box=None, hits=(), error='', root=0):
  view = None
  if box is not None:
    view = View(data=png(30, 30, 'plum'), root=root, box=box)
  return ToolResult(
      status=status,
      view=view,
      hits=hits,
      error=error,
      n_searches=int(status == ToolStatus.OK),
  )


def gaze(box, **more):
  call = ToolCall(name='gaze', arguments={'bbox_2d': list(box), 'image': 1})
  return call, result(box=box, **more)


def text(query='who?', **more):
  return ToolCall(name='text_search', arguments={'query': query}), result(
      **more
  )


def glance(**more):
  return ToolCall(name='image_search', arguments={}), result(**more)


def trajectory(name, *turns, right=True, well_formed=True, answer='kelo'):
  """`turns`: one tuple of (call, result) pairs each; then it answers."""
  said = [
      Turn(
          parsed=ParsedTurn(
              text='t', thought='hm', calls=tuple(call for call, _ in pairs)
          ),
          results=tuple(result for _, result in pairs),
      )
      for pairs in turns
  ]
  said.append(Turn(parsed=ParsedTurn(text='t', thought='so', answer=answer)))
  made = Trajectory(
      example_id=name,
      sample=0,
      token_ids=np.arange(4, dtype=np.int32),
      loss_mask=np.array([0, 0, 1, 1], np.int8),
      sampler_logprobs=np.zeros(4, np.float32),
      images=(View(data=SCENE, root=0, box=(0, 0, 100, 100)),),
      placements=(),
      turns=tuple(said),
      stop_reason=StopReason.ANSWER,
      answer=answer,
      reward=0.9 * right + 0.1 * well_formed,
  )
  asked = example(name)
  measured = {
      'accuracy': float(right),
      'format': float(well_formed),
      'exact_match': parts.exact_match(asked, made),
      'f1': parts.token_f1(asked, made),
  }
  return dataclasses.replace(made, reward_parts=measured)


def ten():
  """Right on 7 of 10; first gazes miss on 5, of which 3 hit later."""
  gaze_hit, gaze_miss = (gaze(HIT),), (gaze(MISS),)
  played = {
      # name: (hops, right, turns)
      'a': (0, True, []),
      'b': (0, True, []),
      'c': (0, False, []),
      'd': (1, True, [gaze_hit]),
      'e': (1, True, [gaze_miss, gaze_hit]),
      'f': (1, False, [gaze_miss]),
      'g': (2, True, [gaze_miss, gaze_hit, (text(),)]),
      'h': (2, True, [(gaze(MISS), gaze(HIT)), (text(),), (text(),)]),
      'i': (2, False, [gaze_miss, (glance(),)]),
      'j': (2, True, [(text(),)]),
  }
  examples = {name: example(name, hops=hops) for name, (hops, *_) in
              played.items()}
  trajectories = [
      trajectory(name, *turns, right=right, well_formed=name != 'c')
      for name, (_, right, turns) in played.items()
  ]
  return Evaluated(policy='rl', examples=examples, trajectories=trajectories)

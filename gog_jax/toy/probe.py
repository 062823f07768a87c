"""Measures a base on fresh pretraining tasks, decoded greedily."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
import itertools
import re

import numpy as np

from gog_jax import boxes
from gog_jax.models.vlm import VLM
from gog_jax.rollout.policy import Conversation
from gog_jax.rollout.policy import Policy
from gog_jax.rollout.policy import Request
from gog_jax.run import Run
from gog_jax.toy import grounding
from gog_jax.toy import reading
from gog_jax.toy import scenes
from gog_jax.toy.exchange import Exchange
from gog_jax.toy.exchange import ToModelBox
from gog_jax.toy.lessons import encode
from gog_jax.toy.policy import to_model_box
from gog_jax.toy.references import asks_by_place
from gog_jax.types import Box
from gog_jax.types import Example

KINDS = grounding.KINDS + reading.KINDS
_BY_PLACE = ('look', 'box')

_BOX = re.compile(r'\[(\d+),(\d+),(\d+),(\d+)\]')
# A request needs an example, and these tasks come from no data set.
_NO_EXAMPLE = Example(
    id='probe', images=(), question='', answers=(), source='', scope=''
)


def probe(run: Run, model: VLM, *, n: int) -> dict[str, dict[str, float]]:
  """Measures a base.

  Args:
    run: Its chat, image processor and sampler settings.
    model: The base; no adapters are needed.
    n: Tasks of each kind, drawn independently of those of training.

  Returns:
    For each kind of task the share of answers that are `exact`; for tasks
    whose answers hold one box also the share that are a `hit`, that is IoU of
    boxes.HIT_IOU or more. `look by place` and `box by place` are those of the
    tasks that ask for 'the left emblem' and the like: what is learnt last.
  """
  policy = run.make_policy(model, greedy=True)
  frame = to_model_box(run, (scenes.SIZE, scenes.SIZE))
  shares = {}
  for kind in KINDS:
    rng = np.random.default_rng(run.seed('probe', kind))
    tasks = [_task(rng, kind, frame) for _ in range(n)]
    answers: list[str] = []
    for start in range(0, n, policy.capacity):
      answers += _ask(run, policy, tasks[start : start + policy.capacity])
    wanted = [
        _text(run, encode(run.chat, task, first=True)[1]) for task in tasks
    ]
    shares[kind] = _score(wanted, answers)
    placed = [asks_by_place(task.question) for task in tasks]
    if kind in _BY_PLACE and any(placed):
      shares[f'{kind} by place'] = _score(
          list(itertools.compress(wanted, placed)),
          list(itertools.compress(answers, placed)),
      )
  return shares


def _task(rng: np.random.Generator, kind: str, frame: ToModelBox) -> Exchange:
  if kind in reading.KINDS:
    return reading.ask(rng, kind=kind)
  scene = grounding.draw_scene(rng)
  return grounding.ask(rng, scene, frame, kind=kind, show=True)


def _ask(
    run: Run, policy: Policy, tasks: Sequence[Exchange]
) -> list[str]:
  asked = []
  for slot, task in enumerate(tasks):
    request = Request(example=_NO_EXAMPLE, sample=0, seed=slot)
    conversation = Conversation(request=request, slot=slot)
    conversation.append(encode(run.chat, task, first=True)[0])
    asked.append(conversation)
  return [_text(run, turn.token_ids) for turn in policy.sample(asked)]


def _text(run: Run, token_ids: Iterable[int]) -> str:
  stops = set(run.chat.stop_ids)
  return run.chat.decode([token for token in token_ids if token not in stops])


def _score(wanted: Sequence[str], got: Sequence[str]) -> dict[str, float]:
  pairs = list(zip(wanted, got, strict=True))
  scores = {'exact': float(np.mean([a == b for a, b in pairs]))}
  if all(_box(answer) for answer in wanted):
    hits = [_overlap(_box(a), _box(b)) >= boxes.HIT_IOU for a, b in pairs]
    scores['hit'] = float(np.mean(hits))
  return scores


def _box(text: str) -> Box | None:
  found = _BOX.findall(text)
  if len(found) != 1:
    return None
  x1, y1, x2, y2 = (float(side) for side in found[0])
  return x1, y1, x2, y2


def _overlap(a: Box | None, b: Box | None) -> float:
  return boxes.iou(a, b) if a and b else 0.0

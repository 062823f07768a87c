"""Measures a base on fresh pretraining tasks, decoded greedily."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
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
from gog_jax.toy.expert import to_model_box
from gog_jax.toy.lessons import encode
from gog_jax.toy.references import asks_by_place
from gog_jax.types import Example

KINDS = grounding.KINDS + reading.KINDS
_BY_PLACE = ('look', 'box')

_BOX = re.compile(r'\[(\d+),(\d+),(\d+),(\d+)\]')
# A request needs an example; these tasks come from no data set.
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
    boxes.HIT_IOU or more. `look by place` and `box by place` are over the tasks
    that ask for 'the left emblem' and the like, which is learnt last.
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
    pairs, placed = [], []
    for task, answer in zip(tasks, answers, strict=True):
      _, wanted = encode(run.chat, task, first=True)
      pairs.append((_text(run, wanted), answer))
      if kind in _BY_PLACE and asks_by_place(task.question):
        placed.append(pairs[-1])
    shares[kind] = _score(pairs)
    if placed:
      shares[f'{kind} by place'] = _score(placed)
  return shares


def _task(rng: np.random.Generator, kind: str, frame: ToModelBox) -> Exchange:
  if kind in reading.KINDS:
    return reading.ask(rng, kind=kind)
  scene = grounding.draw_scene(rng)
  return grounding.ask(rng, scene, frame, kind=kind, show=True)


def _ask(run: Run, policy: Policy, tasks: Sequence[Exchange]) -> list[str]:
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


def _score(pairs: Sequence[tuple[str, str]]) -> dict[str, float]:
  """Scores pairs of (what was wanted, what was answered)."""
  scores = {'exact': float(np.mean([a == b for a, b in pairs]))}
  found = [(_box(a), _box(b)) for a, b in pairs]
  if all(wanted for wanted, _ in found):
    hits = [
        bool(got) and boxes.iou(wanted, got) >= boxes.HIT_IOU
        for wanted, got in found
    ]
    scores['hit'] = float(np.mean(hits))
  return scores


def _box(text: str) -> list[float]:
  """The box in a text; empty unless there is exactly one."""
  found = _BOX.findall(text)
  return [float(side) for side in found[0]] if len(found) == 1 else []

"""The world's imperfect expert as a policy."""

from __future__ import annotations

from collections.abc import Callable, Sequence
import functools
from typing import Any

import numpy as np

from gog_jax import images
from gog_jax.rollout.policy import Request
from gog_jax.rollout.scripted import ScriptedPolicy
from gog_jax.run import Run
from gog_jax.toy import expert
from gog_jax.toy import vocabulary
from gog_jax.types import Box
from gog_jax.types import Turn


def to_model_box(run: Run, size: tuple[int, int]) -> Callable[[Box], Any]:
  """Converts boxes of an image of this size to what the policy would say."""
  return functools.partial(
      run.box_spec.to_model,
      original_size=size,
      seen_size=run.processor.seen_size(*size),
  )


def expert_policy(
    run: Run, *, answers_at_once: bool = False
) -> ScriptedPolicy:
  """The expert with the tools of a run.

  Args:
    run: With its chat.
    answers_at_once: Where it would call a tool it answers 'unknown' instead.
  """

  def script(request: Request, turns: tuple[Turn, ...]) -> Sequence[int]:
    seed = request.seed if answers_at_once else (request.seed, len(turns))
    thought, calls, answer = expert.expert_turn(
        request.example,
        turns,
        to_model_box(run, images.size_of(request.example.images[0])),
        np.random.default_rng(seed),
        expert.EXPERT if run.can_gaze else expert.EXPERT_WITHOUT_GAZE,
    )
    if calls and answers_at_once:
      calls, answer = (), vocabulary.UNKNOWN
    return run.chat.encode_turn(thought=thought, calls=calls, answer=answer)

  return ScriptedPolicy(script, run.config.sampler.n_slots)

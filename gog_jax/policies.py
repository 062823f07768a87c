"""The policies that an evaluation compares, by name.

    direct        the SFT policy, which has to answer at once
    full_search   the SFT policy, which has to answer after a search with the
                  whole image and one with the question (the paper's workflow)
    expert        whom SFT imitates
    sft           after stage 1
    sft_no_gaze   the same without Selective Gaze: the tool, and the demos of it
    rl, rl_...    after stage 2: the page's, or an arm's
"""

from __future__ import annotations

from collections.abc import Sequence

from flax import nnx
import numpy as np

from gog_jax.images import size_of
from gog_jax.models.vlm import VLM
from gog_jax.rollout.forced import ForcedPolicy
from gog_jax.rollout.policy import Policy
from gog_jax.rollout.policy import Request
from gog_jax.rollout.scripted import ScriptedPolicy
from gog_jax.run import Run
from gog_jax.types import ToolCall
from gog_jax.types import Turn
from gog_jax.world import expert

NO_GAZE = 'sft_no_gaze'
# All but the arms.
NAMES = ('direct', 'full_search', 'expert', 'sft', NO_GAZE, 'rl')
# Whose parameters they have, if not those of the stage of their own name.
_STAGES = {'direct': 'sft', 'full_search': 'sft', 'expert': None}


def stage_of(name: str) -> str | None:
  """The stage that trains a policy's parameters; None if nothing does."""
  return _STAGES.get(name, name)


def run_of(run: Run, name: str) -> Run:
  """The run with the tools that a policy has."""
  return run.without_gaze() if name == NO_GAZE else run


def make(run: Run, name: str) -> Policy:
  """A policy that decodes greedily; `run` is that of `run_of`.

  Raises:
    UserError: Its stage has not been run.
  """
  if name == 'expert':
    return expert_policy(run)
  stage = stage_of(name)
  assert stage is not None
  forced = name in ('direct', 'full_search')
  policy = run.make_policy(
      trained(run, stage), greedy=True, answers_at_once=forced
  )
  if name == 'full_search':
    return ForcedPolicy(policy, lambda request: _both_searches(run, request))
  return policy


def trained(run: Run, stage: str) -> VLM:
  """The base model with what a stage trained."""
  model = run.load_model()
  nnx.update(model, run.trained_params(model, stage))
  return model


def expert_policy(run: Run) -> ScriptedPolicy:
  """The world's imperfect expert, with the run's tools."""

  def script(request: Request, turns: tuple[Turn, ...]) -> Sequence[int]:
    rng = np.random.default_rng((request.seed, len(turns)))
    thought, calls, answer = expert.expert_turn(
        request.example,
        turns,
        run.to_model_box(size_of(request.example.images[0])),
        rng,
        can_gaze=run.can_gaze,
    )
    return run.chat.encode_turn(thought=thought, calls=calls, answer=answer)

  return ScriptedPolicy(
      script,
      capacity=run.config.sampler.n_slots,
      max_context=run.config.rollout.max_context,
  )


def _both_searches(run: Run, request: Request) -> list[list[int]]:
  calls = (
      ToolCall(name='image_search', arguments={}),
      ToolCall(
          name='text_search', arguments={'query': request.example.question}
      ),
  )
  return [run.chat.encode_turn(thought='', calls=(call,)) for call in calls]

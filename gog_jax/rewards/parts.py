"""The parts of a reward: functions of an example and its trajectory.

The format rule, in one sentence: a trajectory is well formed when every policy
message is one `<think>` block followed by either tool calls or one `<answer>`,
the last one answers, and no call failed through the policy's own fault.

A part returns

    a number           its value;
    a dict of numbers  its value under 'reward', and whatever else it measured;
    None               unknown: the trajectory counts neither as right nor as
                       wrong and nothing is learned from it. For outages.

A user's own, named in the config by FILE.py:NAME or MODULE:NAME, is asked about
valid trajectories alone.
"""

from __future__ import annotations

from gog_jax.rewards import answers
from gog_jax.types import Example
from gog_jax.types import StopReason
from gog_jax.types import ToolStatus
from gog_jax.types import Trajectory

PARTS = {
    'answer_match': 'gog_jax.rewards.parts:answer_match',
    'exact_match': 'gog_jax.rewards.parts:exact_match',
    'token_f1': 'gog_jax.rewards.parts:token_f1',
    'judge': 'gog_jax.rewards.parts:judge',
    'format': 'gog_jax.rewards.parts:format_reward',
}


def answer_match(example: Example, trajectory: Trajectory) -> float:
  return answers.match(trajectory.answer or '', example.answers)


def exact_match(example: Example, trajectory: Trajectory) -> float:
  return answers.exact_match(trajectory.answer or '', example.answers)


def token_f1(example: Example, trajectory: Trajectory) -> float:
  return answers.token_f1(trajectory.answer or '', example.answers)


def judge(example: Example, trajectory: Trajectory) -> float:
  """1 if a judge calls the answer right, else 0.

  Raises:
    ValueError: The trajectory is valid and there is no verdict.
  """
  if trajectory.verdict is None:
    if trajectory.valid:
      raise ValueError(f'{example.id} is not judged')
    return 0.0  # The judge is not asked about invalid trajectories.
  return float(trajectory.verdict.right is True)


def format_reward(example: Example, trajectory: Trajectory) -> float:
  """1 if the trajectory obeys the format rule above, else 0."""
  del example
  if trajectory.stop_reason != StopReason.ANSWER:
    return 0.0
  for turn in trajectory.turns:
    if turn.parsed.format_error is not None:
      return 0.0
    if any(r.status == ToolStatus.MODEL_ERROR for r in turn.results):
      return 0.0
  return 1.0

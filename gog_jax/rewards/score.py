"""Rewards: pure functions of an example and its trajectory.

The paper's reward is r = (1 - lambda) r_acc + lambda r_fmt. Beyond the paper,
an executed search may cost a share of r_acc: it is charged only where the
answer is right, so that a right answer without a search is always worth most
and a wrong one is never made better by not searching. The format rule,
in one sentence: a trajectory is well formed when every policy message is one
`<think>` block followed by either tool calls or one `<answer>`, the last one
answers, and no call failed through the policy's own fault.
"""

from __future__ import annotations

import collections
from collections.abc import Sequence
import dataclasses
import re
import string

from gog_jax.rewards import behaviour
from gog_jax.types import Example
from gog_jax.types import StopReason
from gog_jax.types import ToolStatus
from gog_jax.types import Trajectory

_ARTICLES = re.compile(r'\b(a|an|the)\b')
_PUNCTUATION = str.maketrans('', '', string.punctuation)


@dataclasses.dataclass(frozen=True, kw_only=True)
class RewardConfig:
  """How a trajectory is scored.

  Attributes:
    accuracy: 'exact_match', 'token_f1', or 'judge': the verdict that the
      trajectory holds.
    format_weight: lambda, the share of the format reward, in [0, 1].
    call_cost: Share of r_acc that an executed search takes, in [0, 1]; RL's
      alone, since a pass rate or an evaluation has no use for it.
  """

  accuracy: str
  format_weight: float
  call_cost: float = 0.0


def normalise(text: str) -> str:
  """Lower case, no punctuation, no articles, single spaces (as in SQuAD)."""
  text = text.lower().translate(_PUNCTUATION)
  return ' '.join(_ARTICLES.sub(' ', text).split())


def exact_match(answer: str, accepted: tuple[str, ...]) -> float:
  """1 if the normalised answer equals a normalised accepted form, else 0.

  An answer of which normalisation leaves nothing is wrong.
  """
  normalised = normalise(answer)
  return float(
      bool(normalised)
      and any(normalised == normalise(form) for form in accepted)
  )


def token_f1(answer: str, accepted: tuple[str, ...]) -> float:
  """The best F1 between the answer's words and an accepted form's."""

  def f1(form: str) -> float:
    words, gold = normalise(answer).split(), normalise(form).split()
    common = (collections.Counter(words) & collections.Counter(gold)).total()
    if not common:
      return 0.0
    precision, recall = common / len(words), common / len(gold)
    return 2 * precision * recall / (precision + recall)

  return max(f1(form) for form in accepted)


JUDGE = 'judge'
ACCURACIES = ('exact_match', 'token_f1', JUDGE)


def format_reward(trajectory: Trajectory) -> float:
  """1 if the trajectory obeys the format rule above, else 0."""
  if trajectory.stop_reason != StopReason.ANSWER:
    return 0.0
  for turn in trajectory.turns:
    if turn.parsed.format_error is not None:
      return 0.0
    if any(r.status == ToolStatus.MODEL_ERROR for r in turn.results):
      return 0.0
  return 1.0


def score(
    example: Example, trajectory: Trajectory, *, config: RewardConfig
) -> Trajectory:
  """The trajectory with `reward` and `reward_parts` set.

  r = (1 - lambda) r_acc max(1 - call_cost n, 0) + lambda r_fmt for n executed
  searches (Glance-or-Gaze, stage 2, where call_cost is 0). Whatever r_acc is,
  `exact_match` and `f1` stand beside its terms. Of a trajectory that is not
  valid, one whose verdict failed included, none of this says anything.

  Raises:
    ValueError: The accuracy is a verdict, and there is none.
  """
  answer = trajectory.answer or ''
  exact = exact_match(answer, example.answers)
  f1 = token_f1(answer, example.answers)
  if config.accuracy == JUDGE:
    accuracy = _verdict(trajectory)
  else:
    accuracy = {'exact_match': exact, 'token_f1': f1}[config.accuracy]
  well_formed = format_reward(trajectory)
  n_searches = behaviour.n_searches(trajectory)
  kept = max(1 - config.call_cost * n_searches, 0.0)
  reward = (
      1 - config.format_weight
  ) * accuracy * kept + config.format_weight * well_formed
  parts = {
      'accuracy': accuracy, 'format': well_formed, 'exact_match': exact,
      'f1': f1,
  }  # fmt: skip
  if config.call_cost:
    parts['budget'] = kept
  return dataclasses.replace(trajectory, reward=reward, reward_parts=parts)


def _verdict(trajectory: Trajectory) -> float:
  """1 if a judge calls the answer right, else 0."""
  if trajectory.verdict is None:
    if trajectory.valid:
      raise ValueError(f'{trajectory.example_id} is not judged')
    return 0.0  # Nobody was asked about what nothing counts.
  return float(trajectory.verdict.right is True)


def score_all(
    examples: Sequence[Example],
    trajectories: Sequence[Trajectory],
    *,
    config: RewardConfig,
) -> list[Trajectory]:
  """`score` of each trajectory, one of each example."""
  return [
      score(example, trajectory, config=config)
      for example, trajectory in zip(examples, trajectories, strict=True)
  ]

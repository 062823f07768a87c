"""Scores trajectories: a weighted sum of the parts in parts.py.

    r = (1 - lambda) r_acc max(1 - call_cost n, 0) + lambda r_fmt
        + the sum of weight * value over `extra`

for n executed searches. Without a call cost and extra parts this is the
reward of Glance-or-Gaze. A search costs a share of r_acc, so a right answer
without a search is always worth most, and a wrong one gains nothing by not
searching.
"""

from __future__ import annotations

from collections.abc import Mapping
import dataclasses
import math
from typing import Any

from gog_jax import seams
from gog_jax.config.evaluation import RewardConfig
from gog_jax.errors import RunStopped
from gog_jax.errors import UserError
from gog_jax.rewards import answers
from gog_jax.rewards import behaviour
from gog_jax.rewards import parts
from gog_jax.types import Example
from gog_jax.types import Trajectory

# Parts that are always recorded, and 'budget' where searches cost.
RECORDED = ('accuracy', 'format', 'exact_match', 'f1', 'budget')


def score(
    example: Example,
    trajectory: Trajectory,
    *,
    config: RewardConfig,
    call_cost: float = 0.0,
) -> Trajectory:
  """The trajectory with `reward`, `reward_parts` and maybe `masked` set.

  `reward_parts` holds 'accuracy', 'format', 'exact_match' and 'f1', with a
  call cost the 'budget' that was left, extra parts by name, and whatever else
  a user's part measured as NAME/KEY. Those of an invalid trajectory mean
  nothing.

  Args:
    example: What was asked.
    trajectory: Judged, where a judge is asked.
    config: The parts and their weights.
    call_cost: Share of r_acc that an executed search takes, in [0, 1].

  Raises:
    RunStopped: A user's part failed or returned no finite number.
    ValueError: A valid trajectory has no verdict where one is needed.
  """
  weights = config.weights
  values, measured = {}, {}
  for name in config.parts:
    found = _measure(name, example, trajectory)
    if found is None:
      trajectory, found = dataclasses.replace(trajectory, masked=name), {}
    values[name] = found.pop('reward', 0.0)
    if name in weights or name not in parts.PARTS:
      short = _short(name)
      measured[short] = values[name]
      measured |= {f'{short}/{key}': value for key, value in found.items()}
  accuracy = values[config.accuracy]
  if not 0 <= accuracy <= 1:
    raise RunStopped(
        f'reward part {config.accuracy} returned {accuracy} on example '
        f'{example.id}, but an accuracy is from 0 to 1'
    )
  well_formed = parts.format_reward(example, trajectory)
  kept = max(1 - call_cost * behaviour.n_searches(trajectory), 0.0)
  reward = (
      1 - config.format_weight
  ) * accuracy * kept + config.format_weight * well_formed
  for name, weight in weights.items():
    reward += weight * values[name]
  reward_parts = {
      'accuracy': accuracy,
      'format': well_formed,
      'exact_match': parts.exact_match(example, trajectory),
      'f1': parts.token_f1(example, trajectory),
      **({'budget': kept} if call_cost else {}),
      **measured,
  }
  return dataclasses.replace(
      trajectory, reward=reward, reward_parts=reward_parts
  )


def check(config: RewardConfig) -> None:
  """Loads every part.

  Raises:
    UserError: There is no such part, a weight is no number, or two parts would
      be recorded under one name.
  """
  seams.load(config.accuracy, parts.PARTS, field='config.reward.accuracy')
  taken = {*RECORDED, *parts.PARTS}
  for name in dict.fromkeys(config.parts):
    seams.load(name, parts.PARTS, field='config.reward.extra')
    if name not in parts.PARTS and _short(name) in taken:
      raise UserError(
          f'config.reward: another part is recorded as {_short(name)!r}, '
          f'rename the function {name}'
      )
    taken.add(_short(name))


def identity(config: RewardConfig) -> dict[str, str]:
  """For manifests: how answers are compared, and digests of users' parts."""
  return {'reward matcher': answers.VERSION} | {
      f'reward {name}': seams.digest(name, parts.PARTS, field='config.reward')
      for name in config.parts
      if name not in parts.PARTS
  }


def _short(name: str) -> str:
  """A part's name in `reward_parts`: 'mine.py:close' is 'close'."""
  return name.rpartition(':')[2]


def _measure(
    name: str, example: Example, trajectory: Trajectory
) -> dict[str, float] | None:
  """What a part measures, its value as 'reward'; None where it is unknown.

  Empty for a user's part and an invalid trajectory.
  """
  part = seams.load(name, parts.PARTS, field='config.reward')
  if name in parts.PARTS:  # What ours raise is a bug and keeps its traceback.
    return {'reward': part(example, trajectory)}
  if not trajectory.valid:
    return {}
  try:
    found: Any = part(example, trajectory)
    if found is None:
      return None
    found = found if isinstance(found, Mapping) else {'reward': found}
    found = {key: float(value) for key, value in found.items()}
    if not all(map(math.isfinite, (found['reward'], *found.values()))):
      raise ValueError(f'it returned {found}')
    return found
  except Exception as error:
    what = ' '.join(f'{type(error).__name__}: {error}'.split())
    raise RunStopped(
        f'reward part {name} failed on example {example.id}: {what}'
    ) from error

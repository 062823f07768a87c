"""Group-normalised advantages."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np


class GroupAdvantages(NamedTuple):
  """Advantages and what became of the groups.

  Attributes:
    advantages: float32[P, G]; 0 for invalid members and dead groups.
    live: bool[P]: groups with a gradient.
    format_only: bool[P]: live groups whose members differ only in format.
  """

  advantages: np.ndarray
  live: np.ndarray
  format_only: np.ndarray


def group_advantages(
    rewards: np.ndarray,
    valid: np.ndarray,
    accuracies: np.ndarray,
    *,
    eps: float,
    divide_by_std: bool = True,
) -> GroupAdvantages:
  """(reward - group mean) [/ group std], over the group's valid members.

  The standard deviation is the sample's (ddof 1). A group with fewer than two
  valid members, or whose std is below `eps`, gets advantage 0 and is not live.

  Args:
    rewards: float[P, G].
    valid: bool[P, G], False for trajectories masked out by an infra_error.
    accuracies: float[P, G], the reward's accuracy part.
    eps: Smallest standard deviation that counts as a difference.
    divide_by_std: Not so in Dr. GRPO.

  Source: DeepSeekMath (GRPO), section 4.1; Glance-or-Gaze, stage 2;
    Understanding R1-Zero-Like Training (Dr. GRPO), section 3.
  """
  rewards = rewards.astype(np.float64)
  n_valid = valid.sum(axis=1)

  def masked_std(values: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    mean = np.where(valid, values, 0).sum(axis=1) / np.maximum(n_valid, 1)
    centred = np.where(valid, values - mean[:, None], 0)
    variance = (centred**2).sum(axis=1) / np.maximum(n_valid - 1, 1)
    return centred, np.sqrt(variance)

  centred, std = masked_std(rewards)
  live = (n_valid >= 2) & (std >= eps)
  scaled = centred
  if divide_by_std:
    scaled = centred / np.where(live, std, 1.0)[:, None]
  _, accuracy_std = masked_std(accuracies.astype(np.float64))
  return GroupAdvantages(
      advantages=np.where(live[:, None], scaled, 0.0).astype(np.float32),
      live=live,
      format_only=live & (accuracy_std < eps),
  )

"""What a report counts: pure functions of examples and their trajectories.

A trajectory that an infra_error hit says nothing about its policy: it is left
out of every share and counted by itself.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
import dataclasses
from typing import Any

import numpy as np

from gog_jax import boxes
from gog_jax.types import Example
from gog_jax.types import ToolStatus
from gog_jax.types import Trajectory
from gog_jax.types import View

_TEXT, _IMAGE = 'text', 'image'
# Searching with a crop and with the whole image are one kind of search.
_KINDS = {'text_search': _TEXT, 'image_search': _IMAGE, 'gaze': _IMAGE}
_RESAMPLES = 10_000
_RESAMPLES_AT_ONCE = 500


@dataclasses.dataclass(frozen=True, kw_only=True)
class Evaluated:
  """One policy's evaluation.

  Attributes:
    policy: Its name, e.g. 'sft'.
    examples: By id; holds every trajectory's example.
    trajectories: Scored ones, in the order of the data set.
  """

  policy: str
  examples: Mapping[str, Example]
  trajectories: Sequence[Trajectory]


@dataclasses.dataclass(frozen=True, kw_only=True)
class Gaze:
  """One executed gaze.

  Attributes:
    turn: Which policy message called it, from 0.
    call: Which of that message's calls it was, from 0.
    view: The crop.
    iou: Its best overlap with a gold region; None where none is known.
  """

  turn: int
  call: int
  view: View
  iou: float | None

  @property
  def hit(self) -> bool | None:
    return None if self.iou is None else self.iou >= boxes.HIT_IOU


def gazes(example: Example, trajectory: Trajectory) -> list[Gaze]:
  """Every gaze that brought back a crop, in order.

  Gold regions lie in image 0: a crop of another image overlaps none.
  """
  found = []
  for turn_number, turn in enumerate(trajectory.turns):
    for call_number, result in enumerate(turn.results):
      view = result.view
      if view is None:
        continue
      overlap = None
      if example.gold_regions:
        overlap = max(
            boxes.iou(view.box, gold) if view.root == 0 else 0.0
            for gold in example.gold_regions
        )
      found.append(
          Gaze(turn=turn_number, call=call_number, view=view, iou=overlap)
      )
  return found


def row(evaluated: Evaluated, *, seed: int) -> dict[str, Any]:
  """The report's line for one policy; shares are fractions of 1.

  `n` and every share are over valid trajectories; `infra_errors` counts the
  others. What has nothing to divide by is None:
    accuracy, format_rate: means of the reward parts of that name.
    ci95: of accuracy; see `bootstrap`.
    no_search, single, hybrid: no, one and more than one kind of search that
      was executed, out of text and image (gaze included).
    calls_per_query: mean number of searches that came back.
    gaze_hit: of gazes at examples with gold regions, those that hit.
    recovery: of trajectories whose first gaze missed, those that hit later.
    by_hop: accuracy and n by the example's number of hops.

  Args:
    evaluated: A policy and its trajectories.
    seed: Of the bootstrap.
  """
  examples, trajectories = evaluated.examples, evaluated.trajectories
  valid = [trajectory for trajectory in trajectories if trajectory.valid]
  accuracies = [t.reward_parts['accuracy'] for t in valid]
  kinds = [_kinds(trajectory) for trajectory in valid]
  looks = [
      [gaze.hit for gaze in gazes(examples[t.example_id], t)] for t in valid
  ]
  judged = [hit for hits in looks for hit in hits if hit is not None]
  missed_first = [hits for hits in looks if hits and hits[0] is False]
  hops: dict[str, list[float]] = {}
  for trajectory, accuracy in zip(valid, accuracies, strict=True):
    hop = examples[trajectory.example_id].hops
    hops.setdefault('unknown' if hop is None else str(hop), []).append(accuracy)
  return {
      'policy': evaluated.policy,
      'accuracy': _mean(accuracies),
      'n': len(valid),
      'ci95': bootstrap(
          accuracies, [t.example_id for t in valid], seed=seed
      ),
      'format_rate': _mean([t.reward_parts['format'] for t in valid]),
      'no_search': _mean([len(kind) == 0 for kind in kinds]),
      'single': _mean([len(kind) == 1 for kind in kinds]),
      'hybrid': _mean([len(kind) > 1 for kind in kinds]),
      'calls_per_query': _mean([_n_searches(t) for t in valid]),
      'gaze_hit': _mean(judged),
      'recovery': _mean([any(hits) for hits in missed_first]),
      'infra_errors': len(trajectories) - len(valid),
      'by_hop': {
          hop: {'accuracy': _mean(values), 'n': len(values)}
          for hop, values in sorted(hops.items())
      },
  }


def bootstrap(
    values: Sequence[float], groups: Sequence[str], *, seed: int
) -> list[float] | None:
  """The 95 % percentile interval of the mean, resampling whole groups.

  Trajectories of one example are not independent, so examples are drawn. With
  one trajectory each this is the ordinary bootstrap.

  Args:
    values: One per trajectory.
    groups: Which example each belongs to.
    seed: Makes the interval reproducible.

  Returns:
    [low, high]; None without values.
  """
  if not values:
    return None
  _, index = np.unique(np.array(groups), return_inverse=True)
  totals = np.bincount(index, weights=np.array(values, np.float64))
  counts = np.bincount(index)
  rng = np.random.default_rng(seed)
  means = []
  for _ in range(_RESAMPLES // _RESAMPLES_AT_ONCE):
    drawn = rng.integers(len(counts), size=(_RESAMPLES_AT_ONCE, len(counts)))
    means.append(totals[drawn].sum(axis=1) / counts[drawn].sum(axis=1))
  low, high = np.percentile(np.concatenate(means), [2.5, 97.5])
  return [float(low), float(high)]


def _kinds(trajectory: Trajectory) -> set[str]:
  """The kinds of search it executed; a tool of no known kind is its own."""
  return {
      _KINDS.get(call.name, call.name)
      for turn in trajectory.turns
      for call, result in zip(turn.parsed.calls, turn.results)
      if result.status == ToolStatus.OK
  }


def _n_searches(trajectory: Trajectory) -> int:
  return sum(
      result.n_searches for turn in trajectory.turns for result in turn.results
  )


def _mean(values: Sequence[float]) -> float | None:
  return float(np.mean(values)) if values else None

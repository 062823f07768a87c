"""What a report counts: pure functions of examples and their trajectories.

A trajectory that an infra_error hit says nothing about its policy: it is left
out of every share and counted by itself.
"""

from __future__ import annotations

import collections
from collections.abc import Mapping, Sequence
import dataclasses
from typing import Any

import numpy as np

from gog_jax.report import intervals as report_intervals
from gog_jax.rewards import behaviour
from gog_jax.types import Example
from gog_jax.types import Trajectory

_UNKNOWN = 'unknown'  # Of examples that do not say how many hops they take.


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


def row(evaluated: Evaluated, *, seed: int) -> dict[str, Any]:
  """The report's line for one policy; shares are fractions of 1.

  `n` and every share are over valid trajectories; `infra_errors` counts the
  others. What has nothing to divide by is None:
    accuracy, format_rate: means of the reward parts of that name.
    ci95: of accuracy; see report_intervals.
    no_search, single, hybrid: no, one and more than one kind of search that
      was executed, out of text and image (gaze included).
    calls_per_query: mean number of searches that came back.
    gaze_hit: of gazes at examples with gold regions, those that hit.
    recovery: of trajectories whose first gaze missed, those that hit later.
    by_hop: accuracy, no_search, hybrid and n by the example's number of hops.

  Args:
    evaluated: A policy and its trajectories.
    seed: Of the bootstrap.
  """
  examples, trajectories = evaluated.examples, evaluated.trajectories
  valid = [trajectory for trajectory in trajectories if trajectory.valid]
  accuracies = [t.reward_parts['accuracy'] for t in valid]
  kinds = [behaviour.kinds_of_search(trajectory) for trajectory in valid]
  looks = [behaviour.gazes(examples[t.example_id], t) for t in valid]
  hits = [gaze.hit for gazes in looks for gaze in gazes]
  recoveries = [behaviour.recovered(gazes) for gazes in looks]
  by_hop: dict[str, list[tuple[float, int]]] = {}
  for trajectory, accuracy, kind in zip(valid, accuracies, kinds, strict=True):
    hop = examples[trajectory.example_id].hops
    by_hop.setdefault(_UNKNOWN if hop is None else str(hop), []).append(
        (accuracy, len(kind))
    )
  return {
      'policy': evaluated.policy,
      'accuracy': _mean(accuracies),
      'n': len(valid),
      'ci95': report_intervals.of_share(
          accuracies, [t.example_id for t in valid], seed=seed
      ),
      'format_rate': _mean([t.reward_parts['format'] for t in valid]),
      'no_search': _mean([len(kind) == 0 for kind in kinds]),
      'single': _mean([len(kind) == 1 for kind in kinds]),
      'hybrid': _mean([len(kind) > 1 for kind in kinds]),
      'calls_per_query': _mean([behaviour.n_searches(t) for t in valid]),
      'gaze_hit': _mean([hit for hit in hits if hit is not None]),
      'recovery': _mean([r for r in recoveries if r is not None]),
      'infra_errors': len(trajectories) - len(valid),
      'by_hop': {
          hop: {
              'accuracy': _mean([accuracy for accuracy, _ in values]),
              'no_search': _mean([n == 0 for _, n in values]),
              'hybrid': _mean([n > 1 for _, n in values]),
              'n': len(values),
          }
          for hop, values in sorted(by_hop.items())
      },
  }


def hops(rows: Sequence[Mapping[str, Any]]) -> list[str]:
  """The numbers of hops that rows tell apart; none where none is known."""
  found = sorted({hop for one in rows for hop in one['by_hop']})
  return [] if found == [_UNKNOWN] else found


def difference(
    first: Evaluated, second: Evaluated, *, seed: int
) -> dict[str, Any]:
  """What `first` does better than `second` on the same questions.

  Trajectories are paired by example and by order of occurrence: those of
  several seeds stand one after another. Only pairs of valid ones count.

  Returns:
    `policy` and `against`; `accuracy`, `gaze_hit` and `recovery`, each
    {'difference', 'ci95', 'n'}, None without pairs. The share of gazes that hit
    is compared where both gazed, recovery where the first gaze of both missed.
  """
  others = _by_occurrence(second)
  pairs = [
      (first.examples[key[0]], a, others[key])
      for key, a in _by_occurrence(first).items()
      if key in others and a.valid and others[key].valid
  ]

  def compare(values: list[tuple[str, float]]) -> dict[str, Any] | None:
    if not values:
      return None
    groups, differences = zip(*values, strict=True)
    return {
        'difference': _mean(differences),
        'ci95': report_intervals.of_difference(differences, groups, seed=seed),
        'n': len(values),
    }

  def subtract(measure) -> list[tuple[str, float]]:
    found = []
    for example, a, b in pairs:
      here, there = measure(example, a), measure(example, b)
      if here is not None and there is not None:
        found.append((example.id, float(here) - float(there)))
    return found

  return {
      'policy': first.policy,
      'against': second.policy,
      'accuracy': compare(subtract(lambda _, t: t.reward_parts['accuracy'])),
      'gaze_hit': compare(subtract(_share_of_hits)),
      'recovery': compare(
          subtract(lambda e, t: behaviour.recovered(behaviour.gazes(e, t)))
      ),
  }


def _share_of_hits(example: Example, trajectory: Trajectory) -> float | None:
  hits = [gaze.hit for gaze in behaviour.gazes(example, trajectory)]
  return _mean([hit for hit in hits if hit is not None])


def _by_occurrence(
    evaluated: Evaluated,
) -> dict[tuple[str, int], Trajectory]:
  found: dict[tuple[str, int], Trajectory] = {}
  seen = collections.Counter()
  for trajectory in evaluated.trajectories:
    name = trajectory.example_id
    found[name, seen[name]] = trajectory
    seen[name] += 1
  return found


def _mean(values: Sequence[float]) -> float | None:
  return float(np.mean(values)) if values else None

"""How a policy answers and behaves, beyond the report's first table.

Pure functions of examples and their trajectories, like report_metrics.py.
"""

from __future__ import annotations

import collections
from collections.abc import Sequence
import dataclasses
from typing import Any

import numpy as np

from gog_jax import boxes
from gog_jax.report import costs as report_costs
from gog_jax.report import intervals as report_intervals
from gog_jax.report.metrics import Evaluated
from gog_jax.rewards import answers as answers_lib
from gog_jax.rewards import behaviour
from gog_jax.storage import files
from gog_jax.types import Example
from gog_jax.types import ToolStatus
from gog_jax.types import Trajectory
from gog_jax.types import View

# From this overlap (intersection over union) on two crops show the same.
SAME_REGION_IOU = 0.7

Pairs = Sequence[tuple[Example, Trajectory]]


def describe(evaluated: Evaluated, *, seed: int) -> dict[str, Any]:
  """All that is measured of one policy; shares are fractions of 1.

  Over valid trajectories, but for `calls`, `stop_reasons` and the total of
  `cost`'s price, which are over all. What has nothing to divide by is None.

  Returns:
    policy, n; infra_errors and unjudged: trajectories left out because a search
    or an endpoint failed, or else the judge. answers, behaviour, calibration,
    calls: see the functions of these names. stop_reasons: how many of each.
    cost: see `report_costs.costs`. budget: see `report_costs.curves`.
  """
  examples, trajectories = evaluated.examples, evaluated.trajectories
  pairs = [(examples[t.example_id], t) for t in trajectories if t.valid]
  invalid = [t for t in trajectories if not t.valid]
  unjudged = sum(
      dataclasses.replace(t, verdict=None).valid for t in invalid
  )
  stops = collections.Counter(t.stop_reason.value for t in trajectories)
  return {
      'policy': evaluated.policy,
      'n': len(pairs),
      'infra_errors': len(invalid) - unjudged,
      'unjudged': unjudged,
      'answers': answers(pairs, seed=seed),
      'behaviour': behaviour_of(pairs),
      'calibration': calibration(pairs),
      'calls': calls(trajectories),
      'stop_reasons': dict(sorted(stops.items())),
      'cost': report_costs.costs([t for _, t in pairs], trajectories),
      'budget': report_costs.curves([t for _, t in pairs]),
  }


def answers(pairs: Pairs, *, seed: int) -> dict[str, Any]:
  """Every measure of being right: {'mean', 'ci95', 'n'} by name.

  accuracy is what the run was told to score; exact_match and f1 are always
  there; judge is a judge's word, None where nobody was asked.
  """
  judged = [(e, t) for e, t in pairs if t.verdict is not None]

  def measured(some: Pairs, measure) -> dict[str, Any] | None:
    if not some:
      return None
    values = [float(measure(e, t)) for e, t in some]
    groups = [t.example_id for _, t in some]
    return {
        'mean': float(np.mean(values)),
        'ci95': report_intervals.of_share(values, groups, seed=seed),
        'n': len(values),
    }

  return {
      'accuracy': measured(pairs, lambda _, t: t.reward_parts['accuracy']),
      'exact_match': measured(pairs, exact_match),
      'f1': measured(pairs, f1),
      'judge': measured(judged, lambda _, t: bool(t.verdict.right)),
  }


def exact_match(example: Example, trajectory: Trajectory) -> float:
  """As it was scored; of records that lack it, counted anew."""
  return _part(example, trajectory, 'exact_match', answers_lib.exact_match)


def f1(example: Example, trajectory: Trajectory) -> float:
  """As `exact_match`."""
  return _part(example, trajectory, 'f1', answers_lib.token_f1)


def _part(example: Example, trajectory: Trajectory, name: str, count) -> float:
  if name in trajectory.reward_parts:
    return trajectory.reward_parts[name]
  if trajectory.answer is None or not example.answers:
    return 0.0
  return count(trajectory.answer, example.answers)


def behaviour_of(pairs: Pairs) -> dict[str, float | None]:
  """How it searches and gazes.

    no_search, one_kind, hybrid: see `report_metrics.row`.
    gazes: share of trajectories with a crop; gazes_per_query: crops each.
    gaze_hit: of crops where gold regions are known, those that hit.
    recovery: of trajectories whose first gaze missed, those that hit later.
    reflection: of gazes that missed, those after which a later turn looked at
      another region or used another tool.
    redundant_crops: of crops, those that show again what an earlier one of the
      same image showed (IoU of SAME_REGION_IOU or more).
    redundant_searches: of searches without a crop, those that ask again what
      was asked before.
    turns: messages a trajectory.
  """
  kinds = [len(behaviour.kinds_of_search(t)) for _, t in pairs]
  looks = [behaviour.gazes(e, t) for e, t in pairs]
  hits = [gaze.hit for gazes in looks for gaze in gazes]
  recoveries = [behaviour.recovered(gazes) for gazes in looks]
  return {
      'no_search': _mean([n == 0 for n in kinds]),
      'one_kind': _mean([n == 1 for n in kinds]),
      'hybrid': _mean([n > 1 for n in kinds]),
      'gazes': _mean([bool(gazes) for gazes in looks]),
      'gazes_per_query': _mean([len(gazes) for gazes in looks]),
      'gaze_hit': _mean([hit for hit in hits if hit is not None]),
      'recovery': _mean([r for r in recoveries if r is not None]),
      'reflection': _mean([r for e, t in pairs for r in reflections(e, t)]),
      'redundant_crops': _mean([
          any(same_region(gaze.view, earlier.view) for earlier in gazes[:i])
          for gazes in looks
          for i, gaze in enumerate(gazes)
      ]),
      'redundant_searches': _mean([r for _, t in pairs for r in _repeats(t)]),
      'turns': _mean([len(t.turns) for _, t in pairs]),
  }


def reflections(example: Example, trajectory: Trajectory) -> list[bool]:
  """Of each gaze that missed, whether a later turn tried something else."""
  found = []
  for gaze in behaviour.gazes(example, trajectory):
    if gaze.hit is False:
      later = [
          result.view
          for turn in trajectory.turns[gaze.turn + 1 :]
          for result in turn.results
          if result.status == ToolStatus.OK
      ]
      found.append(
          any(
              view is None or not same_region(view, gaze.view)
              for view in later
          )
      )
  return found


def same_region(one: View, other: View) -> bool:
  """Whether two crops show the same part of the same image."""
  return (
      one.root == other.root
      and boxes.iou(one.box, other.box) >= SAME_REGION_IOU
  )


def _repeats(trajectory: Trajectory) -> list[bool]:
  """Of each search without a crop, whether it was made before."""
  seen, found = set(), []
  for turn in trajectory.turns:
    for call, result in zip(turn.parsed.calls, turn.results):
      if result.status != ToolStatus.OK or result.view is not None:
        continue
      arguments = {
          name: ' '.join(value.casefold().split())
          if isinstance(value, str) else value
          for name, value in call.arguments.items()
      }  # fmt: skip
      key = files.dumps([call.name, arguments])
      found.append(key in seen)
      seen.add(key)
  return found


def calibration(pairs: Pairs) -> dict[str, dict[str, Any]]:
  """Whether it searches where it has to: n and accuracy of each case.

  By what the example says of itself (required, free, unknown) and by what was
  done (searched, not_searched).
  """
  cases: dict[tuple[str, str], list[float]] = collections.defaultdict(list)
  labels = {True: 'required', False: 'free', None: 'unknown'}
  for example, trajectory in pairs:
    searched = bool(behaviour.kinds_of_search(trajectory))
    cases[
        labels[example.search_required],
        'searched' if searched else 'not_searched',
    ].append(trajectory.reward_parts['accuracy'])
  return {
      label: {
          done: {'n': len(values), 'accuracy': _mean(values)}
          for done in ('searched', 'not_searched')
          for values in [cases[label, done]]
      }
      for label in labels.values()
  }


def calls(trajectories: Sequence[Trajectory]) -> dict[str, dict[str, int]]:
  """How many calls ended how, by tool and in 'all'.

  A name that never was a tool's is counted under 'unknown': policies invent
  them without end.
  """
  made = [
      (call.name, result.status)
      for trajectory in trajectories
      for turn in trajectory.turns
      for call, result in zip(turn.parsed.calls, turn.results)
  ]
  tools = set(behaviour.TOOLS) | {
      name for name, status in made if status != ToolStatus.MODEL_ERROR
  }
  counts = {'all': collections.Counter()}
  for name, status in made:
    for row in ('all', name if name in tools else 'unknown'):
      counts.setdefault(row, collections.Counter())[status] += 1
  return {
      name: {status.value: counted[status] for status in ToolStatus}
      for name, counted in sorted(counts.items())
  }


def _mean(values: Sequence[float]) -> float | None:
  return float(np.mean(values)) if values else None

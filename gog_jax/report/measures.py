"""What a report says of a policy: pure functions of what it did.

Trajectories that are not valid say nothing about their policy: they are left
out of every share and mean and counted by themselves.
"""

from __future__ import annotations

import collections
from collections.abc import Callable, Mapping, Sequence
import dataclasses
from typing import Any

import numpy as np

from gog_jax.config.tools import SEARCHES
from gog_jax.report import intervals
from gog_jax.report.reading import Evaluated
from gog_jax.rewards import behaviour
from gog_jax.rewards import parts
from gog_jax.rewards.behaviour import mean
from gog_jax.rewards.behaviour import Pairs
from gog_jax.rewards.score import RECORDED
from gog_jax.types import Example
from gog_jax.types import ToolStatus
from gog_jax.types import Trajectory

_UNKNOWN = 'unknown'  # Of examples that do not say how many hops they take.
_SEARCH_LABELS = {True: 'required', False: 'free', None: 'unknown'}
_QUANTILES = 11  # Points of a curve whose budgets are no small integers.


def describe(evaluated: Evaluated, *, seed: int) -> dict[str, Any]:
  """All that is measured of one policy; shares are fractions of 1.

  Over valid trajectories, but for `calls`, `stop_reasons` and the total of
  `cost`'s price, which are over all. What has nothing to divide by is None.

  Args:
    evaluated: A policy and its trajectories.
    seed: Of the bootstrap.

  Returns:
    policy, n; infra_errors and unjudged: trajectories left out because a search
    or an endpoint failed, or else because the judge or a reward part did not
    know. answers: see `answers`. parts: means of users' reward parts. format:
    share of well-formed ones. behaviour: see `behaviour.measure`. by_hop:
    accuracy, no_search, hybrid and n by the example's number of hops.
    calibration, calls, cost, budget: see `calibration`, `calls`, `costs` and
    `curves`. stop_reasons: how many of each.
  """
  examples, trajectories = evaluated.examples, evaluated.trajectories
  valid = [t for t in trajectories if t.valid]
  pairs = [(examples[t.example_id], t) for t in valid]
  n_invalid = len(trajectories) - len(valid)
  unjudged = -len(valid) + sum(
      dataclasses.replace(t, verdict=None, masked='').valid
      for t in trajectories
  )
  by_hop: dict[str, list[tuple[Example, Trajectory]]] = {}
  for example, trajectory in pairs:
    hop = _UNKNOWN if example.hops is None else str(example.hops)
    by_hop.setdefault(hop, []).append((example, trajectory))
  stops = collections.Counter(t.stop_reason.value for t in trajectories)
  return {
      'policy': evaluated.policy,
      'n': len(valid),
      'infra_errors': n_invalid - unjudged,
      'unjudged': unjudged,
      'answers': answers(pairs, seed=seed),
      'parts': {
          name: mean([t.reward_parts.get(name) for t in valid])
          for name in sorted({n for t in valid for n in t.reward_parts})
          if name not in RECORDED
      },
      'format': mean([t.reward_parts['format'] for t in valid]),
      'behaviour': behaviour.measure(pairs),
      'by_hop': {
          hop: {
              'accuracy': mean([accuracy(t) for _, t in some]),
              **{
                  name: behaviour.measure(some)[name]
                  for name in ('no_search', 'hybrid')
              },
              'n': len(some),
          }
          for hop, some in sorted(by_hop.items())
      },
      'calibration': calibration(pairs),
      'calls': calls(trajectories),
      'stop_reasons': dict(sorted(stops.items())),
      'cost': costs(valid, trajectories),
      'budget': curves(valid),
  }


def accuracy(trajectory: Trajectory) -> float:
  return trajectory.reward_parts['accuracy']


def hops(rows: Sequence[Mapping[str, Any]]) -> list[str]:
  """The numbers of hops that rows tell apart; none where none is known."""
  found = sorted({hop for row in rows for hop in row['by_hop']})
  return [] if found == [_UNKNOWN] else found


def answers(pairs: Pairs, *, seed: int) -> dict[str, Any]:
  """Every measure of being right: {'mean', 'ci95', 'n'} by name.

  accuracy is what the run was told to score; exact_match and f1 are always
  there; judge is a judge's word. None where there is nothing to measure.
  """

  def measured(
      some: Pairs, value: Callable[[Example, Trajectory], float]
  ) -> dict[str, Any] | None:
    if not some:
      return None
    values = [float(value(e, t)) for e, t in some]
    groups = [t.example_id for _, t in some]
    return {
        'mean': mean(values),
        'ci95': intervals.of_share(values, groups, seed=seed),
        'n': len(values),
    }

  def recorded(name: str, part: Callable[[Example, Trajectory], float]):
    """As it was scored; counted anew for records that lack it."""

    def value(example: Example, trajectory: Trajectory) -> float:
      if name in trajectory.reward_parts:
        return trajectory.reward_parts[name]
      return part(example, trajectory) if example.answers else 0.0

    return value

  judged = [(e, t) for e, t in pairs if t.verdict is not None]
  exact_match = recorded('exact_match', parts.exact_match)
  return {
      'accuracy': measured(pairs, lambda _, t: accuracy(t)),
      'exact_match': measured(pairs, exact_match),
      'f1': measured(pairs, recorded('f1', parts.token_f1)),
      'judge': measured(judged, parts.judge),
  }


def calibration(pairs: Pairs) -> dict[str, dict[str, Any]]:
  """Whether it searches where it has to: n and accuracy of each case.

  By what the example says of itself (required, free, unknown) and by what was
  done (searched, not_searched).
  """
  cases: dict[tuple[str, bool], list[float]] = collections.defaultdict(list)
  for example, trajectory in pairs:
    searched = bool(behaviour.kinds_of_search(trajectory))
    label = _SEARCH_LABELS[example.search_required]
    cases[label, searched].append(accuracy(trajectory))
  return {
      label: {
          name: {
              'n': len(cases[label, searched]),
              'accuracy': mean(cases[label, searched]),
          }
          for name, searched in (('searched', True), ('not_searched', False))
      }
      for label in _SEARCH_LABELS.values()
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
  tools = set(SEARCHES) | {
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


def costs(
    valid: Sequence[Trajectory], trajectories: Sequence[Trajectory]
) -> dict[str, Any]:
  """Means per query, and quantiles of the seconds.

  Args:
    valid: Whom the means are over.
    trajectories: Whom totals are over: what failed was paid for as well.

  Returns:
    searches: By tool and in 'all'; sub-queries that came back.
    tokens: Of the record, each counted once, by who put it there: 'prompt'
      (what the policy read, but for images), 'vision' and 'completion'.
    billed: Where an endpoint says what it took, which reads a conversation
      anew for every message: 'prompt', 'completion' and of how many, 'n'.
    seconds: {'mean', 'p50', 'p95'} by part and in 'all'.
    price: US dollars, of searches and endpoints: 'per_query' and 'total'.
  """
  searches: dict[str, int] = collections.Counter({'all': 0})
  for trajectory in valid:
    for turn in trajectory.turns:
      for call, result in zip(turn.parsed.calls, turn.results):
        if result.n_searches:
          searches[call.name] += result.n_searches
          searches['all'] += result.n_searches
  vision = [sum(p.n_tokens for p in t.placements) for t in valid]
  completion = [int(t.loss_mask.sum()) for t in valid]
  lengths = [len(t.token_ids) for t in valid]
  billed = [t.usage for t in valid if 'prompt_tokens' in t.usage]
  seconds = {
      part: [t.seconds.get(part, 0.0) for t in valid]
      for part in sorted({part for t in valid for part in t.seconds})
  } | {'all': [sum(t.seconds.values()) for t in valid]}
  return {
      'searches': {
          name: number / len(valid) if valid else None
          for name, number in sorted(searches.items())
      },
      'tokens': {
          'prompt': mean(
              [n - v - c for n, v, c in zip(lengths, vision, completion)]
          ),
          'vision': mean(vision),
          'completion': mean(completion),
      },
      'billed': {
          'prompt': mean([usage['prompt_tokens'] for usage in billed]),
          'completion': mean([u.get('completion_tokens', 0) for u in billed]),
          'n': len(billed),
      },
      'seconds': {
          part: {
              'mean': mean(values),
              'p50': float(np.quantile(values, 0.5)) if values else None,
              'p95': float(np.quantile(values, 0.95)) if values else None,
          }
          for part, values in seconds.items()
      },
      'price': {
          'per_query': mean([price(t) for t in valid]),
          'total': float(sum(price(t) for t in trajectories)),
      },
  }


def curves(valid: Sequence[Trajectory]) -> dict[str, list[dict[str, float]]]:
  """Accuracy against budget, by what is spent: searches, tokens, dollars.

  A trajectory that took more than the budget counts as not answered, so as
  wrong: what its policy would have said if it had been stopped is not known,
  and a policy that knows its budget may do better. Tokens are those an endpoint
  bills, where it says so, else those of the record.

  Returns:
    {'budget', 'accuracy', 'within'} for rising budgets, the last being enough
    for all; `within` is the share that took no more. None for dollars where
    nothing cost any.
  """
  right = np.array([accuracy(t) for t in valid], np.float64)

  def curve(used: Sequence[float], budgets: Sequence[float]):
    spent = np.array(used)
    return [
        {
            'budget': budget,
            'accuracy': float((right * (spent <= budget)).mean()),
            'within': float((spent <= budget).mean()),
        }
        for budget in budgets
    ]

  def levels(used: Sequence[float]) -> list[float]:
    """What was used at tenths of the trajectories, ordered."""
    if not any(used):
      return []
    # 'higher': what somebody used, so that comparing is exact.
    shares = np.linspace(0, 1, _QUANTILES)
    return np.unique(np.quantile(used, shares, method='higher')).tolist()

  searches = [behaviour.n_searches(t) for t in valid]
  tokens = [float(n_tokens(t)) for t in valid]
  dollars = [price(t) for t in valid]
  return {
      'searches': curve(searches, range(max(searches, default=-1) + 1)),
      'tokens': curve(tokens, levels(tokens)),
      'dollars': curve(dollars, levels(dollars)),
  }


def price(trajectory: Trajectory) -> float:
  """US dollars that its searches and, where it has one, its endpoint took."""
  return trajectory.usage.get('price', 0.0) + sum(
      result.price for turn in trajectory.turns for result in turn.results
  )


def n_tokens(trajectory: Trajectory) -> float:
  """Billed ones where an endpoint says so, else all of the record."""
  usage = trajectory.usage
  if 'prompt_tokens' in usage:
    return usage['prompt_tokens'] + usage.get('completion_tokens', 0)
  return len(trajectory.token_ids)


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

  def compare(
      value: Callable[[Example, Trajectory], float | None],
  ) -> dict[str, Any] | None:
    groups, values = [], []
    for example, a, b in pairs:
      here, there = value(example, a), value(example, b)
      if here is not None and there is not None:
        groups.append(example.id)
        values.append(float(here) - float(there))
    if not values:
      return None
    return {
        'difference': mean(values),
        'ci95': intervals.of_difference(values, groups, seed=seed),
        'n': len(values),
    }

  return {
      'policy': first.policy,
      'against': second.policy,
      'accuracy': compare(lambda _, t: accuracy(t)),
      'gaze_hit': compare(
          lambda e, t: mean([gaze.hit for gaze in behaviour.gazes(e, t)])
      ),
      'recovery': compare(
          lambda e, t: behaviour.recovered(behaviour.gazes(e, t))
      ),
  }


def _by_occurrence(
    evaluated: Evaluated,
) -> dict[tuple[str, int], Trajectory]:
  found, seen = {}, collections.Counter()
  for trajectory in evaluated.trajectories:
    seen[trajectory.example_id] += 1
    found[trajectory.example_id, seen[trajectory.example_id]] = trajectory
  return found

"""The numbers in a report: pure functions of what a policy did.

Trajectories that are not valid say nothing about their policy: they are left
out of every share and mean and counted by themselves.
"""

from __future__ import annotations

import collections
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np

from gog_jax.config.tools import SEARCHES
from gog_jax.report import intervals
from gog_jax.report.results import Evaluated
from gog_jax.rewards import behaviour
from gog_jax.rewards.behaviour import mean
from gog_jax.rewards.behaviour import Pairs
from gog_jax.rewards.score import RECORDED
from gog_jax.types import Example
from gog_jax.types import ToolStatus
from gog_jax.types import Trajectory

_UNKNOWN = 'unknown'  # Hops of examples that do not say how many they take.
_SEARCH_LABELS = {True: 'required', False: 'free', None: 'unknown'}
_QUANTILES = 11  # Points of curves over tokens and dollars.


def describe(evaluated: Evaluated, *, seed: int) -> dict[str, Any]:
  """All that is measured of one policy; shares are fractions of 1.

  Over valid trajectories, except `calls`, `stop_reasons` and the total price in
  `cost`, which are over all. Shares and means of nothing are None.

  Args:
    evaluated: A policy and its trajectories.
    seed: The seed of the bootstrap.

  Returns:
    policy, n; infra_errors and unjudged: trajectories left out because a search
    or an endpoint failed, or else because the judge or a reward part did not
    know. answers: see `answers`. parts: means of users' reward parts. format:
    share of well-formed ones. behaviour: see `behaviour.measure`. by_hop:
    accuracy, no_search, hybrid and n by the example's number of hops.
    calibration, calls, cost, budget: see `calibration`, `calls`, `costs` and
    `curves`. stop_reasons: how many of each.
  """
  trajectories = evaluated.trajectories
  valid = [t for t in trajectories if t.valid]
  pairs = [(evaluated.examples[t.example_id], t) for t in valid]
  unjudged = sum(t.unjudged for t in trajectories)
  by_hop: dict[str, list[tuple[Example, Trajectory]]] = {}
  for example, trajectory in pairs:
    hop = _UNKNOWN if example.hops is None else str(example.hops)
    by_hop.setdefault(hop, []).append((example, trajectory))
  stops = collections.Counter(t.stop_reason.value for t in trajectories)
  return {
      'policy': evaluated.policy,
      'n': len(valid),
      'infra_errors': len(trajectories) - len(valid) - unjudged,
      'unjudged': unjudged,
      'answers': answers(valid, seed=seed),
      'parts': {
          name: mean([t.reward_parts.get(name) for t in valid])
          for name in sorted({n for t in valid for n in t.reward_parts})
          if name not in RECORDED
      },
      'format': mean([t.reward_parts['format'] for t in valid]),
      'behaviour': behaviour.measure(pairs),
      'by_hop': {hop: _of_hop(by_hop[hop]) for hop in sorted(by_hop)},
      'calibration': calibration(pairs),
      'calls': calls(trajectories),
      'stop_reasons': dict(sorted(stops.items())),
      'cost': costs(valid, trajectories),
      'budget': curves(valid),
  }


def accuracy(trajectory: Trajectory) -> float:
  return trajectory.reward_parts['accuracy']


def _of_hop(pairs: Pairs) -> dict[str, Any]:
  shares = behaviour.measure(pairs)
  return {
      'accuracy': mean([accuracy(t) for _, t in pairs]),
      'no_search': shares['no_search'],
      'hybrid': shares['hybrid'],
      'n': len(pairs),
  }


def hops(rows: Sequence[Mapping[str, Any]]) -> list[str]:
  """The numbers of hops that rows tell apart; none where none is known."""
  found = sorted({hop for row in rows for hop in row['by_hop']})
  return [] if found == [_UNKNOWN] else found


def answers(
    valid: Sequence[Trajectory], *, seed: int
) -> dict[str, dict[str, Any] | None]:
  """Every measure of being right: {'mean', 'ci95', 'n'} by name.

  accuracy is what the run was told to score; exact_match (SQuAD's) and f1 are
  always there; judge is a judge's word. None where there is nothing to measure.
  """
  scores = {
      name: [(t.example_id, t.reward_parts[name]) for t in valid]
      for name in ('accuracy', 'exact_match', 'f1')
  }
  scores['judge'] = [
      (t.example_id, float(t.verdict.right is True))
      for t in valid
      if t.verdict
  ]
  return {name: _measured(found, seed=seed) for name, found in scores.items()}


def _measured(
    scores: Sequence[tuple[str, float]], *, seed: int
) -> dict[str, Any] | None:
  if not scores:
    return None
  groups, values = zip(*scores, strict=True)
  return {
      'mean': mean(values),
      'ci95': intervals.of_share(values, groups, seed=seed),
      'n': len(values),
  }


def calibration(pairs: Pairs) -> dict[str, dict[str, Any]]:
  """Whether it searches where it has to: n and accuracy of each case.

  By what the example says of itself (required, free, unknown) and by what was
  done (searched, not_searched).
  """
  cases = collections.defaultdict(list)
  for example, trajectory in pairs:
    searched = bool(behaviour.kinds_of_search(trajectory))
    cases[example.search_required, searched].append(accuracy(trajectory))

  def case(*key: bool | None) -> dict[str, Any]:
    return {'n': len(cases[key]), 'accuracy': mean(cases[key])}

  return {
      label: {
          'searched': case(required, True),
          'not_searched': case(required, False),
      }
      for required, label in _SEARCH_LABELS.items()
  }


def calls(trajectories: Sequence[Trajectory]) -> dict[str, dict[str, int]]:
  """The number of calls by how they ended, for each tool and for 'all'.

  Calls of tools that do not exist are counted under 'unknown': policies invent
  names without end.
  """
  made = [
      (call.name, result.status)
      for trajectory in trajectories
      for call, result in trajectory.calls
  ]
  tools = set(SEARCHES) | {
      name for name, status in made if status != ToolStatus.MODEL_ERROR
  }
  counts = collections.Counter(
      (row, status)
      for name, status in made
      for row in ('all', name if name in tools else 'unknown')
  )
  return {
      row: {status.value: counts[row, status] for status in ToolStatus}
      for row in sorted({'all', *(row for row, _ in counts)})
  }


def costs(
    valid: Sequence[Trajectory], trajectories: Sequence[Trajectory]
) -> dict[str, Any]:
  """Means per query, and quantiles of the seconds.

  Args:
    valid: The means are over these.
    trajectories: Totals are over these: what failed was paid for as well.

  Returns:
    searches: By tool and in 'all'; sub-queries that came back.
    tokens: Those in the record, each counted once, by who wrote it: 'prompt'
      (what the policy read, but for images), 'vision' and 'completion'.
    billed: Where an endpoint says what it took, which reads a conversation
      anew for every message: 'prompt', 'completion' and of how many, 'n'.
    seconds: {'mean', 'p50', 'p95'} by part and in 'all'.
    price: US dollars, of searches and endpoints: 'per_query' and 'total'.
  """
  searches = collections.Counter()
  for trajectory in valid:
    for call, result in trajectory.calls:
      searches[call.name] += result.n_searches
  searches = {**+searches, 'all': searches.total()}
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
      'seconds': {part: _spread(values) for part, values in seconds.items()},
      'price': {
          'per_query': mean([t.price for t in valid]),
          'total': float(sum(t.price for t in trajectories)),
      },
  }


def _spread(values: Sequence[float]) -> dict[str, float | None]:
  p50 = p95 = None
  if values:
    p50, p95 = np.quantile(values, (0.5, 0.95)).tolist()
  return {'mean': mean(values), 'p50': p50, 'p95': p95}


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
    """The deciles of what was used."""
    if not any(used):
      return []
    # 'higher' gives values that occur, so that comparisons are exact.
    shares = np.linspace(0, 1, _QUANTILES)
    return np.unique(np.quantile(used, shares, method='higher')).tolist()

  searches = [behaviour.n_searches(t) for t in valid]
  tokens = [float(n_tokens(t)) for t in valid]
  dollars = [t.price for t in valid]
  return {
      'searches': curve(searches, range(max(searches, default=-1) + 1)),
      'tokens': curve(tokens, levels(tokens)),
      'dollars': curve(dollars, levels(dollars)),
  }


def n_tokens(trajectory: Trajectory) -> float:
  """Billed tokens where an endpoint reports them, else those of the record."""
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


def _by_occurrence(evaluated: Evaluated) -> dict[tuple[str, int], Trajectory]:
  found, seen = {}, collections.Counter()
  for trajectory in evaluated.trajectories:
    seen[trajectory.example_id] += 1
    found[trajectory.example_id, seen[trajectory.example_id]] = trajectory
  return found

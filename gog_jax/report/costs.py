"""What a policy costs, and how right it is for how much."""

from __future__ import annotations

import collections
from collections.abc import Sequence
from typing import Any

import numpy as np

from gog_jax.rewards import behaviour
from gog_jax.types import Trajectory

_QUANTILES = 11  # Points of a curve whose budgets are no small integers.


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
  counted = [_tokens(t) for t in valid]
  billed = [t.usage for t in valid if 'prompt_tokens' in t.usage]
  parts = sorted({part for t in valid for part in t.seconds})
  seconds = {
      part: [t.seconds.get(part, 0.0) for t in valid] for part in parts
  } | {'all': [sum(t.seconds.values()) for t in valid]}
  return {
      'searches': {
          name: number / len(valid) if valid else None
          for name, number in sorted(searches.items())
      },
      'tokens': {
          kind: _mean([tokens[kind] for tokens in counted])
          for kind in ('prompt', 'vision', 'completion')
      },
      'billed': {
          'prompt': _mean([usage['prompt_tokens'] for usage in billed]),
          'completion': _mean(
              [usage.get('completion_tokens', 0) for usage in billed]
          ),
          'n': len(billed),
      },
      'seconds': {
          part: {
              'mean': _mean(values),
              'p50': _quantile(values, 0.5),
              'p95': _quantile(values, 0.95),
          }
          for part, values in seconds.items()
      },
      'price': {
          'per_query': _mean([price(t) for t in valid]),
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
  accuracies = [t.reward_parts['accuracy'] for t in valid]
  searches = [behaviour.n_searches(t) for t in valid]
  dollars = [price(t) for t in valid]
  tokens = [float(n_tokens(t)) for t in valid]
  return {
      'searches': _curve(
          accuracies, searches, range(max(searches, default=-1) + 1)
      ),
      'tokens': _curve(accuracies, tokens, _levels(tokens)),
      'dollars': _curve(
          accuracies, dollars, _levels(dollars) if any(dollars) else []
      ),
  }


def _curve(
    accuracies: Sequence[float],
    used: Sequence[float],
    budgets: Sequence[float],
) -> list[dict[str, float]]:
  right, spent = np.array(accuracies, np.float64), np.array(used)
  return [
      {
          'budget': budget,
          'accuracy': float((right * (spent <= budget)).mean()),
          'within': float((spent <= budget).mean()),
      }
      for budget in budgets
  ]


def _levels(used: Sequence[float]) -> list[float]:
  """What was used at tenths of the trajectories, ordered."""
  if not used:
    return []
  # 'higher': what somebody used, so that comparing is exact.
  levels = np.quantile(used, np.linspace(0, 1, _QUANTILES), method='higher')
  return np.unique(levels).tolist()


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


def _tokens(trajectory: Trajectory) -> dict[str, int]:
  vision = sum(placement.n_tokens for placement in trajectory.placements)
  completion = int(trajectory.loss_mask.sum())
  prompt = len(trajectory.token_ids) - completion - vision
  return {'prompt': prompt, 'vision': vision, 'completion': completion}


def _quantile(values: Sequence[float], share: float) -> float | None:
  return float(np.quantile(values, share)) if values else None


def _mean(values: Sequence[float]) -> float | None:
  return float(np.mean(values)) if values else None

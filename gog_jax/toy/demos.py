"""What SFT imitates: trajectories of the world's imperfect expert.

The expert plays through the same rollout loop, chat and executor as the policy
will, so that its trajectories have the tokens, masks and images of a rollout.
"""

from __future__ import annotations

from collections.abc import Sequence
import math
from typing import Any

from etils import epath
import numpy as np

from gog_jax.errors import UserError
from gog_jax.rewards import behaviour
from gog_jax.run import Run
from gog_jax.storage import metrics
from gog_jax.storage import trajectories as trajectories_lib
from gog_jax.toy.expert import expert_policy
from gog_jax.types import Example
from gog_jax.types import Trajectory


def make_demos(run: Run, folder: epath.Path) -> dict[str, Any]:
  """Rolls out the scripted expert and keeps a mixture of its trajectories.

  Raises:
    UserError: There are too few candidates of a kind that the mixture needs.
  """
  c = run.config.sft
  examples = list(run.examples('train', n=c.n_candidates))
  with metrics.Progress('demos', total=len(examples)) as progress:
    groups = run.rollout(
        expert_policy(run),
        examples,
        samples=1,
        seed=('demos',),
        what='demos',
        progress=progress,
    )
  candidates = [candidate for (candidate,) in groups]
  kinds = [
      kind_of(example, demo)
      for example, demo in zip(examples, candidates, strict=True)
  ]
  kept = mix(
      kinds,
      n=c.n_demos,
      no_search=c.no_search,
      recovered=c.recovered * run.can_gaze,
  )
  demos = [candidates[i] for i in kept]
  trajectories_lib.write(
      folder / 'trajectories.jsonl', demos, [examples[i] for i in kept]
  )
  return {
      'n': len(demos),
      'expert_accuracy': float(
          np.mean([demo.reward_parts['accuracy'] for demo in candidates])
      ),
      **{
          kind: float(np.mean([kinds[i] == kind for i in kept]))
          for kind in ('no_search', 'recovered')
      },
  }


def kind_of(example: Example, demo: Trajectory) -> str:
  """'no_search', 'recovered' from a wrong first gaze, or 'other'."""
  if not behaviour.kinds_of_search(demo):
    return 'no_search'
  looks = behaviour.gazes(example, demo)
  return 'recovered' if behaviour.recovered(looks) else 'other'


def mix(
    kinds: Sequence[str], *, n: int, no_search: float, recovered: float
) -> list[int]:
  """Chooses `n` candidates, the first of each kind, in their own order.

  Args:
    kinds: One per candidate, see `kind_of`.
    n: The number to choose.
    no_search: Share of that kind, exact to one demo (43.5 % in the paper).
    recovered: The least share of that kind.

  Raises:
    UserError: There are too few of a kind.
  """
  n_no_search, n_recovered = round(no_search * n), math.ceil(recovered * n)
  by_kind = {
      kind: [i for i, other in enumerate(kinds) if other == kind]
      for kind in ('no_search', 'recovered', 'other')
  }
  chosen = by_kind['no_search'][:n_no_search]
  chosen += by_kind['recovered'][:n_recovered]
  rest = sorted(by_kind['recovered'][n_recovered:] + by_kind['other'])
  chosen += rest[: n - len(chosen)]
  for kind, needed in (('no_search', n_no_search), ('recovered', n_recovered)):
    if len(by_kind[kind]) < needed:
      raise UserError(
          f'{len(by_kind[kind])} of {len(kinds)} demos are of kind {kind}, '
          f'{needed} are needed: raise --config.sft.n_candidates or lower '
          f'--config.sft.{kind}'
      )
  if len(chosen) < n:
    raise UserError(
        f'the mixture makes {len(chosen)} demos of {len(kinds)} candidates, '
        f'not {n}: raise --config.sft.n_candidates'
    )
  return sorted(chosen)

"""What an evaluation would take, before anything is run.

Bounds follow from the config: turns, a call a turn, tokens, prices. What is
expected follows from items that are done: the policy's own, or those of its
finished evaluation on another benchmark. No weights are read.
"""

from __future__ import annotations

from collections.abc import Mapping
import dataclasses
import math
from typing import Any

from etils import epath
from flax import nnx
import jax
import jax.numpy as jnp

from gog_jax import models
from gog_jax.config import paradigms
from gog_jax.config.paradigms import Named
from gog_jax.evaluation import evaluate
from gog_jax.evaluation import policies
from gog_jax.evaluation.collect import USAGE
from gog_jax.remote import ledger
from gog_jax.run import Run
from gog_jax.storage import rollouts

# Parts of an estimate, as people read them.
_SHOWN = {
    'turns': 'turns',
    'calls': 'tool calls',
    'judged': 'judge calls',
    'prompt_tokens': 'tokens read',
    'completion_tokens': 'tokens written',
}


@dataclasses.dataclass(frozen=True, kw_only=True)
class Estimate:
  """What the items of a policy that are not done yet would take.

  Attributes:
    policy: Its name.
    items: The number of all items.
    done: The number of items that are done.
    parameters: Those of the model that is loaded; 0 where none is.
    bytes: The size of the parameters in the config's dtype.
    most: Bounds: 'turns', 'calls', 'judged', 'prompt_tokens',
      'completion_tokens' (of a remote model), 'price' (US dollars); of a judge
      that costs, 'judge_price', the cap for all policies together.
    expected: The same as far as what is done tells, and 'seconds'; empty where
      nothing is done.
    told_by: The items that `expected` is extrapolated from.
  """

  policy: str
  items: int
  done: int
  parameters: int
  bytes: int
  most: Mapping[str, float]
  expected: Mapping[str, float]
  told_by: str


def estimate(run: Run) -> list[Estimate]:
  """One for each policy of `config.eval.policies`.

  Raises:
    UserError: What is evaluated on is not there, or another version has begun.
  """
  return [_of_policy(run, name) for name in run.config.eval.policies]


def _of_policy(run: Run, name: str) -> Estimate:
  c = run.config
  policy = paradigms.parse(name, c.arms)
  own = policies.run_of(run, name)
  done = list(rollouts.items(evaluate.folder_of(run, name)).values())
  if c.eval.retry_errors:
    done = [item for item in done if item['valid']]
  if c.world_split:  # The data set may have to be made yet.
    n = c.eval.n_examples
  else:
    n = len(evaluate.items(run).examples)
  left = max(n - len(done), 0)
  parameters, n_bytes = _size(own, policy)
  told_by, known = _known(run, name, done)
  expected = {}
  if known:
    sums = evaluate.summary(known)
    parts = ('turns', 'calls', *USAGE, 'price', 'seconds')
    expected = {part: left * sums[part] / len(known) for part in parts}
    expected['judged'] = float(left * own.config.reward.asks_judge)
  return Estimate(
      policy=name,
      items=n,
      done=len(done),
      parameters=parameters,
      bytes=n_bytes,
      most=_most(own, policy, left),
      expected=expected,
      told_by=told_by,
  )


def _size(own: Run, policy: Named) -> tuple[int, int]:
  """Parameters and bytes of the model that is loaded, from its config."""
  if policy.stage is None and policy.model != paradigms.BASE:
    return 0, 0
  model = models.abstract(own.model_config, dtype=own.dtype)
  leaves = jax.tree.leaves(nnx.state(model, nnx.Param))
  parameters = sum(math.prod(leaf.shape) for leaf in leaves)
  return parameters, parameters * jnp.dtype(own.dtype).itemsize


def _most(own: Run, policy: Named, left: int) -> dict[str, float]:
  limits = own.limits
  turns = limits.max_turns
  # The last turn's are not made.
  calls = turns - 1 if own.executor.tools else 0
  caps = [limits.max_calls.get(tool, 0) for tool in own.executor.tools]
  if caps and all(caps):
    calls = min(calls, sum(caps))
  most: dict[str, float] = {
      'turns': left * turns,
      'calls': left * calls,
      'judged': left * own.config.reward.asks_judge,
      'price': left * calls * max(own.executor.prices, default=0.0),
  }
  judge = own.config.judge
  if most['judged'] and (judge.price_in or judge.price_out):
    most['judge_price'] = judge.max_spend
  if policy.model == paradigms.REMOTE:
    # Those said for it are not asked for.
    asked = turns - 2 if policy.paradigm == paradigms.FULL_SEARCH else turns
    c = own.config.remote
    said = c.max_tokens or limits.max_turn_tokens
    most['prompt_tokens'] = left * asked * limits.max_context
    most['completion_tokens'] = left * asked * said
    most['price'] += ledger.dollars(
        c, most['prompt_tokens'], most['completion_tokens']
    )
  return most


def _known(
    run: Run, name: str, items: list[Mapping[str, Any]]
) -> tuple[str, list[Mapping[str, Any]]]:
  """Finished items to extrapolate from, and what they are called."""
  if items:
    return 'what is done', items
  for folder in sorted(run.workdir.glob(f'eval*/{name}')):
    folder = epath.Path(folder)
    if evaluate.progress_of(folder).get('complete'):
      found = list(rollouts.items(folder).values())
      if found:
        return f'{folder.parent.name}/{name}', found
  return '', []


def describe(found: list[Estimate]) -> str:
  """For a terminal, a few lines for each policy and a sum."""
  lines = []
  for one in found:
    lines.append(f'{one.policy}: {one.items} items, {one.done} done')
    if one.parameters:
      lines[-1] += (
          f'; {one.parameters / 1e6:,.1f} million parameters, '
          f'{one.bytes / 2**30:,.2f} GiB'
      )
    lines.append(f'  at most   {_line(one.most)}')
    if one.expected:
      lines.append(f'  expected  {_line(one.expected)} (by {one.told_by})')
  judge = max((one.most.get('judge_price', 0.0) for one in found), default=0)
  most = sum(one.most['price'] for one in found) + judge
  expected = [one.expected['price'] for one in found if one.expected]
  total = f'all: at most ${most:,.4f}'
  if len(expected) == len(found):
    total += f', expected ${sum(expected):,.4f}'
    total += ' without the judge' if judge else ''
  return '\n'.join([*lines, total, 'nothing was run (--dry_run)'])


def _line(values: Mapping[str, float]) -> str:
  parts = [
      f'{values[key]:,.0f} {word}'
      for key, word in _SHOWN.items()
      if key in ('turns', 'calls') or values.get(key)
  ]
  if values.get('seconds'):
    parts.append(f'{values["seconds"] / 3600:,.2f} h of work')
  parts.append(f'${values["price"]:,.4f}')
  if values.get('judge_price'):
    parts.append(f'and ${values["judge_price"]:,.4f} for the judge of all')
  return ', '.join(parts)

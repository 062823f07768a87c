"""What an evaluation, or other rollouts, would take before anything is run.

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

from gog_jax import models
from gog_jax.config import paradigms
from gog_jax.config.paradigms import Named
from gog_jax.config.tools import EndpointConfig
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
    most: What `most` gives.
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


def estimate(run: Run, name: str) -> Estimate:
  """What is left of a policy's evaluation.

  Raises:
    UserError: What is evaluated on is not there, or another version has begun.
  """
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
  loads = policy.stage is not None or policy.model == paradigms.BASE
  parameters = n_parameters(own) if loads else 0
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
      bytes=parameters * own.dtype.itemsize,
      most=most(own, policy, left),
      expected=expected,
      told_by=told_by,
  )


def n_parameters(run: Run) -> int:
  """Those of the model, from its config."""
  model = models.abstract(run.model_config, dtype=run.dtype)
  leaves = jax.tree.leaves(nnx.state(model, nnx.Param))
  return sum(math.prod(leaf.shape) for leaf in leaves)


def most(own: Run, policy: Named, left: int) -> dict[str, float]:
  """Bounds of `left` conversations of a policy, whose run is `own`.

  Returns:
    'turns', 'calls', 'judged', and of a remote model 'prompt_tokens' and
    'completion_tokens'; 'price', US dollars without the judge, NaN where it is
    unknown.
  """
  limits = own.limits
  turns = limits.max_turns
  # The last turn's are not made.
  calls = turns - 1 if own.executor.tools else 0
  caps = [limits.max_calls.get(tool, 0) for tool in own.executor.tools]
  if caps and all(caps):
    calls = min(calls, sum(caps))
  found: dict[str, float] = {
      'turns': left * turns,
      'calls': left * calls,
      'judged': left * own.config.reward.asks_judge,
      'price': left * calls * price_of_call(own) if left * calls else 0.0,
  }
  if policy.model == paradigms.REMOTE:
    # Those said for it are not asked for.
    asked = turns - 2 if policy.paradigm == paradigms.FULL_SEARCH else turns
    c = own.config.remote
    said = c.max_tokens or limits.max_turn_tokens
    found['prompt_tokens'] = left * asked * limits.max_context
    found['completion_tokens'] = left * asked * said
    if left:
      found['price'] += price_of(
          c, found['prompt_tokens'], found['completion_tokens']
      )
  return found


def price_of(
    prices: EndpointConfig, tokens_in: float, tokens_out: float
) -> float:
  """US dollars for tokens; NaN where a section gives no price."""
  if not (prices.price_in or prices.price_out):
    return math.nan
  return ledger.dollars(prices, tokens_in, tokens_out)


def price_of_call(own: Run) -> float:
  """US dollars of the dearest call of a tool; NaN where no price is given.

  What is searched on this machine costs nothing.
  """
  tools = own.config.tools
  elsewhere = {tools.text, tools.image} - {'world', 'index', ''}
  dearest = max(own.executor.prices, default=0.0)
  if not dearest and elsewhere and tools.mode != 'replay':
    return math.nan
  return dearest


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


def describe(one: Estimate) -> list[str]:
  """For a terminal, a few lines."""
  lines = [f'{one.items:,} items, {one.done:,} done']
  if one.parameters:
    lines[-1] += (
        f'; {one.parameters / 1e6:,.1f} million parameters, '
        f'{one.bytes / 2**30:,.2f} GiB'
    )
  lines.append(f'at most   {line(one.most)}')
  if one.expected:
    lines.append(f'expected  {line(one.expected)} (by {one.told_by})')
  return lines


def line(values: Mapping[str, float]) -> str:
  """What `most` gives, in one line."""
  parts = [
      f'{values[key]:,.0f} {word}'
      for key, word in _SHOWN.items()
      if key in ('turns', 'calls') or values.get(key)
  ]
  if values.get('seconds'):
    parts.append(f'{values["seconds"] / 3600:,.2f} h of work')
  return ', '.join([*parts, dollars(values['price'])])


def dollars(price: float) -> str:
  return 'price unknown' if math.isnan(price) else f'${price:,.4f}'

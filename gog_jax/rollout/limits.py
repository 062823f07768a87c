"""The limits of a conversation, and what becomes of calls beyond them."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
import dataclasses
from typing import Any

from gog_jax.chat import Dialect
from gog_jax.errors import UserError
from gog_jax.types import ToolCall
from gog_jax.types import Turn


@dataclasses.dataclass(frozen=True, kw_only=True)
class RolloutConfig:
  """Limits of one conversation.

  Attributes:
    max_turns: Policy messages before stop_reason turns.
    max_turn_tokens: Tokens of one policy message.
    max_context: Tokens of the whole conversation.
    max_patches: Image patches of the whole conversation, before merging.
    max_calls: Calls of each tool; 0, or a tool that is not named, is no limit.
  """

  max_turns: int
  max_turn_tokens: int
  max_context: int
  max_patches: int
  max_calls: Mapping[str, int] = dataclasses.field(default_factory=dict)


def limits_of(config: Any, dialect: Dialect) -> RolloutConfig:
  """The tighter of a config's limits and a dialect's.

  Raises:
    UserError: Training could not pack such conversations, or the dialect
      limits a tool that there is not.
  """
  own, row = config.rollout, config.batch
  if own.max_context > row.row_tokens:
    raise UserError(
        f'rollout.max_context={own.max_context} is more than '
        f'batch.row_tokens={row.row_tokens}: training could not pack '
        'such a conversation'
    )
  if unknown := sorted(set(dialect.max_calls) - set(own.max_calls)):
    raise UserError(
        f'dialect {dialect.name} limits calls of {", ".join(unknown)}; the '
        f'tools are {", ".join(sorted(own.max_calls))}: mend its max_calls'
    )
  fields = dict(own) | {
      'max_turns': _tighter(own.max_turns, dialect.max_turns),
      'max_calls': {
          tool: _tighter(limit, dialect.max_calls.get(tool, 0))
          for tool, limit in own.max_calls.items()
      },
  }
  # What a packed row cannot hold, no conversation may grow to.
  return RolloutConfig(**fields, max_patches=row.row_patches)


def calls_within(
    max_calls: Mapping[str, int], turns: Sequence[Turn]
) -> tuple[ToolCall, ...]:
  """The calls of the last turn; those beyond a limit get an error.

  It is the executor that answers them, as it does malformed calls. A malformed
  call counts for nothing; one that failed has been made, and counts.
  """
  made: Counter[str] = Counter()
  calls: tuple[ToolCall, ...] = ()
  for turn in turns:
    calls = tuple(_counted(call, made, max_calls) for call in turn.parsed.calls)
  return calls


def _counted(
    call: ToolCall, made: Counter[str], max_calls: Mapping[str, int]
) -> ToolCall:
  if call.error is not None:
    return call
  made[call.name] += 1
  limit = max_calls.get(call.name, 0)
  if not limit or made[call.name] <= limit:
    return call
  return dataclasses.replace(
      call, error=f'a conversation may call {call.name} {_times(limit)}'
  )


def _times(limit: int) -> str:
  return 'once' if limit == 1 else f'{limit} times'


def _tighter(one: int, other: int) -> int:
  """Of two limits, where 0 is none."""
  return min(one, other) if one and other else one or other

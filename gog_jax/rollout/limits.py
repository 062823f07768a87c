"""Limits of a conversation, and what happens to calls beyond them."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
import dataclasses

from gog_jax.chat import Dialect
from gog_jax.config import Config
from gog_jax.errors import UserError
from gog_jax.types import TokenChunk
from gog_jax.types import ToolCall
from gog_jax.types import Turn


@dataclasses.dataclass(frozen=True, kw_only=True)
class ConversationLimits:
  """Limits of one conversation: the tighter of config and dialect.

  Attributes:
    max_turns: Messages of the policy before stop_reason turns.
    max_turn_tokens: Tokens of one policy message.
    min_turn_tokens: Tokens that a context must still hold for another.
    max_context: Tokens of the whole conversation.
    max_patches: Image patches of the whole conversation, before merging.
    max_calls: Calls of each tool; 0, or a tool not named, means no limit.
  """

  max_turns: int
  max_turn_tokens: int
  min_turn_tokens: int
  max_context: int
  max_patches: int
  max_calls: Mapping[str, int] = dataclasses.field(default_factory=dict)

  def leave_room(self, conversation: TokenChunk) -> bool:
    """Whether a turn may follow, and training could pack the images."""
    n_tokens = len(conversation.token_ids) + self.min_turn_tokens
    return (
        n_tokens <= self.max_context
        and conversation.n_patches <= self.max_patches
    )


def limits_of(config: Config, dialect: Dialect) -> ConversationLimits:
  """The tighter of a config's limits and a dialect's.

  Raises:
    UserError: The dialect limits a tool that does not exist.
  """
  own, row = config.rollout, config.batch
  if unknown := sorted(set(dialect.max_calls) - set(own.max_calls)):
    raise UserError(
        f'dialect {dialect.name} limits calls of {", ".join(unknown)}; the '
        f'tools are {", ".join(sorted(own.max_calls))}: mend its max_calls'
    )
  return ConversationLimits(
      max_turns=_tighter(own.max_turns, dialect.max_turns),
      max_turn_tokens=own.max_turn_tokens,
      min_turn_tokens=min(own.min_turn_tokens, own.max_turn_tokens),
      max_context=own.max_context,
      max_patches=row.row_patches,  # What a packed row holds.
      max_calls={
          tool: _tighter(limit, dialect.max_calls.get(tool, 0))
          for tool, limit in own.max_calls.items()
      },
  )


def calls_within(
    max_calls: Mapping[str, int], turns: Sequence[Turn]
) -> tuple[ToolCall, ...]:
  """The calls of the last turn; those beyond a limit get an error.

  The executor answers them like malformed calls. Malformed calls do not count
  towards a limit; calls that were made and failed do.
  """
  made: Counter[str] = Counter()
  calls: list[ToolCall] = []
  for turn in turns:
    calls = []
    for call in turn.parsed.calls:
      if call.error is None:
        made[call.name] += 1
        limit = max_calls.get(call.name, 0)
        if limit and made[call.name] > limit:
          times = 'once' if limit == 1 else f'{limit} times'
          error = f'a conversation may call {call.name} {times}'
          call = dataclasses.replace(call, error=error)
      calls.append(call)
  return tuple(calls)


def _tighter(one: int, other: int) -> int:
  """The smaller of two limits, where 0 means no limit."""
  return min(one, other) if one and other else one or other

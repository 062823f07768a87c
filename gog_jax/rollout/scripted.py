"""Policies that follow a script: experts for SFT, preludes, fixed plays."""

from __future__ import annotations

from collections.abc import Callable, Sequence
import dataclasses

from gog_jax.rollout.policy import Conversation
from gog_jax.rollout.policy import Policy
from gog_jax.rollout.policy import Request
from gog_jax.rollout.policy import said
from gog_jax.rollout.policy import SampledTurn
from gog_jax.types import Turn

# The request and the turns so far, with their results -> the next message, as
# token ids with the closing token.
Script = Callable[[Request, tuple[Turn, ...]], Sequence[int]]
# The request -> the first messages of the conversation, likewise.
Prelude = Callable[[Request], Sequence[Sequence[int]]]


@dataclasses.dataclass
class ScriptedPolicy:
  """Plays `script` in every conversation. Its logprobs are 0."""

  script: Script
  capacity: int

  def sample(
      self, conversations: Sequence[Conversation]
  ) -> list[SampledTurn]:
    return [
        said(self.script(c.request, tuple(c.turns))) for c in conversations
    ]


@dataclasses.dataclass(frozen=True)
class ForcedPolicy:
  """Begins every conversation with a prelude, then `policy` goes on.

  `policy` samples as if the prelude were its own. Forced turns have logprobs 0.
  """

  policy: Policy
  prelude: Prelude

  @property
  def capacity(self) -> int:
    return self.policy.capacity

  def sample(
      self, conversations: Sequence[Conversation]
  ) -> list[SampledTurn]:
    turns: dict[Conversation, SampledTurn] = {}
    for conversation in conversations:
      prelude = self.prelude(conversation.request)
      n_turns = len(conversation.turns)
      if n_turns < len(prelude):
        turns[conversation] = said(prelude[n_turns])
    others = [c for c in conversations if c not in turns]
    if others:
      turns |= zip(others, self.policy.sample(others), strict=True)
    return [turns[conversation] for conversation in conversations]

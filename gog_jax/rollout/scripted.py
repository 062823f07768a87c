"""Policies that follow a script: experts for SFT, openings, fixed plays."""

from __future__ import annotations

from collections.abc import Callable, Sequence

from gog_jax.rollout.policy import Conversation
from gog_jax.rollout.policy import Policy
from gog_jax.rollout.policy import Request
from gog_jax.rollout.policy import said
from gog_jax.rollout.policy import SampledTurn
from gog_jax.types import Turn

# What was asked, and the turns so far with their results -> the next message,
# as token ids with the closing token.
Script = Callable[[Request, tuple[Turn, ...]], Sequence[int]]
# What was asked -> the first messages of the conversation, likewise.
Opening = Callable[[Request], Sequence[Sequence[int]]]


class ScriptedPolicy:
  """Plays `script` in every conversation. A script is certain: logprobs 0."""

  def __init__(self, script: Script, *, capacity: int, max_context: int):
    self.capacity = capacity
    self.max_context = max_context
    self._script = script

  def sample(
      self, conversations: Sequence[Conversation]
  ) -> list[SampledTurn]:
    return [
        said(self._script(c.request, tuple(c.turns))) for c in conversations
    ]


class ForcedPolicy:
  """Says an opening in every conversation, then `policy` goes on.

  `policy` samples as if it had said the opening itself. Forced turns have
  logprobs 0.
  """

  def __init__(self, policy: Policy, opening: Opening):
    self.capacity = policy.capacity
    self.max_context = policy.max_context
    self._policy = policy
    self._opening = opening

  def sample(
      self, conversations: Sequence[Conversation]
  ) -> list[SampledTurn]:
    turns: dict[Conversation, SampledTurn] = {}
    for conversation in conversations:
      opening = self._opening(conversation.request)
      n_turns = len(conversation.turns)
      if n_turns < len(opening):
        turns[conversation] = said(opening[n_turns])
    others = [c for c in conversations if c not in turns]
    if others:
      turns |= zip(others, self._policy.sample(others), strict=True)
    return [turns[conversation] for conversation in conversations]

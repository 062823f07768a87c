"""A policy that follows a script: experts for SFT, fixed plays for tests."""

from __future__ import annotations

from collections.abc import Callable, Sequence

from gog_jax.rollout.policy import Request
from gog_jax.rollout.policy import said
from gog_jax.rollout.policy import SampledTurn
from gog_jax.types import TokenChunk
from gog_jax.types import Turn

# What was asked, and the turns so far with their results -> the next message,
# as token ids with the closing token.
Script = Callable[[Request, tuple[Turn, ...]], Sequence[int]]


class ScriptedPolicy:
  """Plays `script` in every conversation. A script is certain: logprobs 0."""

  def __init__(self, script: Script, *, capacity: int, max_context: int):
    self.capacity = capacity
    self.max_context = max_context
    self._script = script
    self._conversations: dict[int, tuple[Request, tuple[Turn, ...]]] = {}

  def start(self, slot: int, request: Request, prompt: TokenChunk) -> None:
    del prompt
    self._conversations[slot] = (request, ())

  def extend(self, slot: int, observation: TokenChunk, turn: Turn) -> None:
    del observation
    request, turns = self._conversations[slot]
    self._conversations[slot] = (request, turns + (turn,))

  def sample(self, slots: Sequence[int]) -> list[SampledTurn]:
    return [said(self._script(*self._conversations[slot])) for slot in slots]

  def release(self, slot: int) -> None:
    del self._conversations[slot]

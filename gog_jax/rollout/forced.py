"""A policy whose first turns are said for it."""

from __future__ import annotations

from collections.abc import Callable, Sequence

from gog_jax.rollout.policy import Policy
from gog_jax.rollout.policy import Request
from gog_jax.rollout.policy import said
from gog_jax.rollout.policy import SampledTurn
from gog_jax.types import TokenChunk
from gog_jax.types import Turn

# The first messages of a conversation, closing tokens included.
Opening = Callable[[Request], Sequence[Sequence[int]]]


class ForcedPolicy:
  """Says an opening in every conversation, then `policy` goes on.

  What was said for it is part of the prompt to `policy`: it samples as if it
  had said that itself. Forced turns have logprobs 0.
  """

  def __init__(self, policy: Policy, opening: Opening):
    self.capacity = policy.capacity
    self.max_context = policy.max_context
    self._policy = policy
    self._opening = opening
    # Per slot: what is yet to be said, and what `policy` has not read.
    self._to_say: dict[int, list[Sequence[int]]] = {}
    self._unread: dict[int, tuple[Request, TokenChunk]] = {}

  def start(self, slot: int, request: Request, prompt: TokenChunk) -> None:
    self._to_say[slot] = list(self._opening(request))
    self._unread[slot] = (request, prompt)

  def extend(self, slot: int, observation: TokenChunk, turn: Turn) -> None:
    if slot in self._unread:
      request, chunk = self._unread[slot]
      self._unread[slot] = (request, chunk + observation)
    else:
      self._policy.extend(slot, observation, turn)

  def sample(self, slots: Sequence[int]) -> list[SampledTurn]:
    turns = {}
    for slot in slots:
      if self._to_say[slot]:
        token_ids = self._to_say[slot].pop(0)
        request, chunk = self._unread[slot]
        spoken = TokenChunk(token_ids=tuple(token_ids))
        self._unread[slot] = (request, chunk + spoken)
        turns[slot] = said(token_ids)
      elif slot in self._unread:
        self._policy.start(slot, *self._unread.pop(slot))
    own = [slot for slot in slots if slot not in turns]
    if own:
      turns.update(zip(own, self._policy.sample(own), strict=True))
    return [turns[slot] for slot in slots]

  def release(self, slot: int) -> None:
    if self._unread.pop(slot, None) is None:
      self._policy.release(slot)
    del self._to_say[slot]

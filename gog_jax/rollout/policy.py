"""The interface between the rollout loop and whatever samples."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
import dataclasses
from typing import Protocol

import numpy as np

from gog_jax.types import Example
from gog_jax.types import TokenChunk
from gog_jax.types import Turn


@dataclasses.dataclass(frozen=True, kw_only=True)
class Request:
  """One rollout to make.

  Attributes:
    example: What is asked.
    sample: Which member of the example's group, from 0.
    seed: Drives this rollout's sampling alone, so that a trajectory depends
      neither on its neighbours nor on the slot it was given.
    origin: What it is made for, for recordings: no two policies of a run have
      the same origin, example and seed.
  """

  example: Example
  sample: int
  seed: int
  origin: str = ''


@dataclasses.dataclass(frozen=True, kw_only=True, eq=False)
class SampledTurn:
  """One policy message, verbatim.

  Attributes:
    token_ids: int32[T], the closing token included unless truncated.
    logprobs: float32[T], of the unmodified distribution.
    truncated: The turn's token limit cut it off.
    error: One line if no message could be sampled: there are no tokens, and
      the conversation ends with stop_reason error.
    usage: What the message took, if an endpoint says so: see Trajectory.usage.
  """

  token_ids: np.ndarray
  logprobs: np.ndarray
  truncated: bool
  error: str = ''
  usage: Mapping[str, float] = dataclasses.field(default_factory=dict)


def said(token_ids: Sequence[int]) -> SampledTurn:
  """A message that was given, not sampled: logprobs 0."""
  return SampledTurn(
      token_ids=np.array(token_ids, np.int32),
      logprobs=np.zeros(len(token_ids), np.float32),
      truncated=False,
  )


class Policy(Protocol):
  """Holds up to `capacity` conversations, each named by a slot."""

  capacity: int
  max_context: int  # Tokens a conversation may hold.

  def start(self, slot: int, request: Request, prompt: TokenChunk) -> None:
    """Begins a conversation in a free slot."""

  def extend(self, slot: int, observation: TokenChunk, turn: Turn) -> None:
    """Appends tokens that the policy did not sample.

    `turn` is what they answer, results included: policies that speak in
    messages, or follow a script, read it in place of the tokens.
    """

  def sample(self, slots: Sequence[int]) -> list[SampledTurn]:
    """Samples the next turn of each of these conversations."""
    ...

  def release(self, slot: int) -> None:
    """Ends a conversation; its slot is free."""

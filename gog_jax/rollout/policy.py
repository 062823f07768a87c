"""The interface between the rollout loop and whatever samples."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
import dataclasses
from typing import Protocol

from gog_jax.rollout.transcript import Transcript
from gog_jax.types import Example


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


@dataclasses.dataclass(frozen=True, kw_only=True)
class SampledTurn:
  """One policy message, verbatim.

  Attributes:
    token_ids: The closing token included unless truncated.
    logprobs: Of each token, by the unmodified distribution.
    truncated: The turn's token limit cut it off.
    error: One line if no message could be sampled: there are no tokens, and
      the conversation ends with stop_reason error.
    usage: What the message took, if an endpoint says so: see Trajectory.usage.
  """

  token_ids: tuple[int, ...]
  logprobs: Sequence[float]
  truncated: bool
  error: str = ''
  usage: Mapping[str, float] = dataclasses.field(default_factory=dict)


def said(token_ids: Sequence[int]) -> SampledTurn:
  """A message that was given, not sampled: logprobs 0."""
  return SampledTurn(
      token_ids=tuple(token_ids),
      logprobs=[0.0] * len(token_ids),
      truncated=False,
  )


@dataclasses.dataclass(eq=False, kw_only=True)
class Conversation(Transcript):
  """A rollout under way.

  Attributes:
    request: What is rolled out.
    slot: Which of the policy's places it takes, from 0. Once it is over,
      another conversation may take it.
    seconds: Wall time by part, see Trajectory.
    usage: What its messages took, see Trajectory.
  """

  request: Request
  slot: int
  seconds: dict[str, float] = dataclasses.field(
      default_factory=lambda: {'sample': 0.0, 'tools': 0.0}
  )
  usage: dict[str, float] = dataclasses.field(default_factory=dict)


class Policy(Protocol):
  """Samples turns of up to `capacity` conversations that are under way."""

  @property
  def capacity(self) -> int:
    ...

  def sample(
      self, conversations: Sequence[Conversation]
  ) -> list[SampledTurn]:
    """Samples the next turn of each; appending it is for the caller.

    What a policy keeps of a conversation, such as keys and values, is that of
    its first tokens: between two calls it only grows, by the turn that was
    sampled and what answers it. A policy that speaks in messages or follows a
    script reads the turns, results included, in place of the tokens.
    """
    ...

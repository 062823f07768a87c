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
    example: The question.
    sample: Which member of the example's group, from 0.
    seed: Drives this rollout's sampling only, so that a trajectory depends
      neither on its neighbours nor on its slot.
    origin: The purpose of the rollout, for recordings: no two policies of a run
      share origin, example and seed.
  """

  example: Example
  sample: int
  seed: int
  origin: str = ''


@dataclasses.dataclass(frozen=True, kw_only=True)
class SampledTurn:
  """One message of the policy, verbatim.

  Attributes:
    token_ids: The closing token included unless truncated.
    logprobs: Of each token, by the unmodified distribution.
    truncated: The turn's token limit cut it off.
    error: One line if no message could be sampled: there are no tokens, and the
      conversation ends with stop_reason error.
    usage: What the message took, if an endpoint reports it: see Trajectory.
    untagged: The answer of a remote model that was to answer at once and did,
      but without the tags: it counts, with a format error.
  """

  token_ids: tuple[int, ...]
  logprobs: Sequence[float]
  truncated: bool
  error: str = ''
  usage: Mapping[str, float] = dataclasses.field(default_factory=dict)
  untagged: str = ''


def said(token_ids: Sequence[int]) -> SampledTurn:
  """A message that was given, not sampled: its logprobs are 0."""
  return SampledTurn(
      token_ids=tuple(token_ids),
      logprobs=[0.0] * len(token_ids),
      truncated=False,
  )


@dataclasses.dataclass(eq=False, kw_only=True)
class Conversation(Transcript):
  """A rollout under way.

  Attributes:
    request: The rollout to make.
    slot: Its place among the `capacity` that are under way, from 0; reused once
      the conversation is over.
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
    """Samples the next turn of each; the caller appends it.

    Between two calls a conversation only grows: by the turn that was sampled,
    then by what answers it. So a policy may cache what it made of the tokens
    that it has read. Policies that follow a script read the turns instead.
    """
    ...

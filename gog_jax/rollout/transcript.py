"""A trajectory in the making."""

from __future__ import annotations

from collections.abc import Sequence
import dataclasses
from typing import Any

import numpy as np

from gog_jax.types import StopReason
from gog_jax.types import TokenChunk
from gog_jax.types import Trajectory
from gog_jax.types import Turn


@dataclasses.dataclass(eq=False, kw_only=True)
class Transcript:
  """The tokens of a conversation so far.

  Attributes:
    chunk: All tokens and images.
    loss_mask: Per token, 1 for targets of training.
    logprobs: Per token, 0 where it was not sampled.
    turns: The same conversation, parsed.
  """

  chunk: TokenChunk = TokenChunk(token_ids=())
  loss_mask: list[int] = dataclasses.field(default_factory=list)
  logprobs: list[float] = dataclasses.field(default_factory=list)
  turns: list[Turn] = dataclasses.field(default_factory=list)

  def append(
      self,
      chunk: TokenChunk,
      *,
      target: bool = False,
      logprobs: Sequence[float] | None = None,
  ) -> None:
    """Appends tokens.

    Args:
      chunk: A prompt, a message of the policy or an observation.
      target: Whether to train on them: they are the policy's own.
      logprobs: Of the tokens, where they were sampled.
    """
    n = len(chunk.token_ids)
    self.chunk += chunk
    self.loss_mask += [int(target)] * n
    self.logprobs += [0.0] * n if logprobs is None else logprobs

  def trajectory(
      self,
      example_id: str,
      stop_reason: StopReason,
      *,
      sample: int = 0,
      **fields: Any,
  ) -> Trajectory:
    """The finished record; `fields` are further ones of Trajectory."""
    return Trajectory(
        example_id=example_id,
        sample=sample,
        token_ids=np.array(self.chunk.token_ids, np.int32),
        loss_mask=np.array(self.loss_mask, np.int8),
        sampler_logprobs=np.array(self.logprobs, np.float32),
        images=self.chunk.images,
        placements=self.chunk.placements,
        turns=tuple(self.turns),
        stop_reason=stop_reason,
        answer=self.turns[-1].parsed.answer if self.turns else None,
        **fields,
    )

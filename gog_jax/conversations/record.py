"""A question with a trajectory of it."""

from __future__ import annotations

from collections.abc import Mapping
import dataclasses
from typing import Any

from gog_jax.types import Example
from gog_jax.types import Trajectory


@dataclasses.dataclass(frozen=True, kw_only=True)
class Record:
  """A question, a trajectory of it, and facts about them.

  Attributes:
    example: The question.
    trajectory: Its trajectory.
    facts: Plain values (text, numbers, None, lists and mappings of them), e.g.
      {'kind': 'no_search', 'teacher': 'expert'}.
  """

  example: Example
  trajectory: Trajectory
  facts: Mapping[str, Any] = dataclasses.field(default_factory=dict)

  @property
  def name(self) -> str:
    """Unique in a set: an example may have several trajectories."""
    sample = self.trajectory.sample
    return f'{self.example.id}#{sample}' if sample else self.example.id

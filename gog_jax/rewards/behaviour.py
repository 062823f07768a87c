"""What a trajectory did: its searches, and where it gazed."""

from __future__ import annotations

from collections.abc import Sequence
import dataclasses

import numpy as np

from gog_jax import boxes
from gog_jax.types import Example
from gog_jax.types import ToolStatus
from gog_jax.types import Trajectory
from gog_jax.types import View

_TEXT, _IMAGE = 'text', 'image'
# Searching with a crop and with the whole image are one kind of search.
_KINDS = {'text_search': _TEXT, 'image_search': _IMAGE, 'gaze': _IMAGE}
TOOLS = tuple(_KINDS)


@dataclasses.dataclass(frozen=True, kw_only=True)
class Gaze:
  """One executed gaze.

  Attributes:
    turn: Which policy message called it, from 0.
    call: Which of that message's calls it was, from 0.
    view: The crop.
    iou: Its best overlap with a gold region; None where none is known.
  """

  turn: int
  call: int
  view: View
  iou: float | None

  @property
  def hit(self) -> bool | None:
    return None if self.iou is None else self.iou >= boxes.HIT_IOU


def gazes(example: Example, trajectory: Trajectory) -> list[Gaze]:
  """Every gaze that brought back a crop, in order.

  Gold regions lie in image 0: a crop of another image overlaps none.
  """
  found = []
  for turn_number, turn in enumerate(trajectory.turns):
    for call_number, result in enumerate(turn.results):
      view = result.view
      if view is None:
        continue
      overlap = None
      if example.gold_regions:
        overlap = max(
            boxes.iou(view.box, gold) if view.root == 0 else 0.0
            for gold in example.gold_regions
        )
      found.append(
          Gaze(turn=turn_number, call=call_number, view=view, iou=overlap)
      )
  return found


def recovered(looks: Sequence[Gaze]) -> bool | None:
  """Whether a later gaze hit; None unless the first one missed."""
  hits = [gaze.hit for gaze in looks]
  return any(hits) if hits[:1] == [False] else None


def kinds_of_search(trajectory: Trajectory) -> set[str]:
  """The kinds of search it executed; a tool of no known kind is its own."""
  return {
      _KINDS.get(call.name, call.name)
      for turn in trajectory.turns
      for call, result in zip(turn.parsed.calls, turn.results)
      if result.status == ToolStatus.OK
  }


def n_searches(trajectory: Trajectory) -> int:
  """Searches that came back, over all calls."""
  return sum(
      result.n_searches for turn in trajectory.turns for result in turn.results
  )


def mean_parts(trajectories: Sequence[Trajectory]) -> dict[str, float]:
  """The mean of each of their reward parts, over those that have it."""
  names = dict.fromkeys(name for t in trajectories for name in t.reward_parts)
  return {
      name: float(
          np.mean([
              t.reward_parts[name]
              for t in trajectories
              if name in t.reward_parts
          ])
      )
      for name in names
  }

"""What trajectories did: how they searched, and where they gazed."""

from __future__ import annotations

from collections.abc import Sequence
import dataclasses

import numpy as np

from gog_jax import boxes
from gog_jax.config.tools import SEARCHES
from gog_jax.language import words
from gog_jax.storage import files
from gog_jax.types import Example
from gog_jax.types import ToolCall
from gog_jax.types import ToolStatus
from gog_jax.types import Trajectory
from gog_jax.types import View

# From this overlap (intersection over union) on two crops show the same.
SAME_REGION_IOU = 0.7

Pairs = Sequence[tuple[Example, Trajectory]]


def measure(pairs: Pairs) -> dict[str, float | None]:
  """How a policy searches and gazes; None where there is nothing to divide by.

  Returns:
    no_search, one_kind, hybrid: shares of trajectories with no, one and more
      than one kind of executed search, out of text and image (gaze included).
    searches: that came back, per trajectory.
    gazes: share of trajectories with a crop; gazes_per_query: crops each.
    gaze_hit: share of crops that hit, where gold regions are known.
    recovery: of trajectories whose first gaze missed, those that hit later.
    reflection: of gazes that missed, those after which a later turn looked at
      another region or used another tool.
    redundant_crops: of crops, those that show again what an earlier one of the
      same image showed (IoU of SAME_REGION_IOU or more).
    redundant_searches: of searches without a crop, those that ask again what
      was asked before.
    turns: messages per trajectory.
  """
  kinds = [len(kinds_of_search(t)) for _, t in pairs]
  looks = [gazes(e, t) for e, t in pairs]
  return {
      'no_search': mean([n == 0 for n in kinds]),
      'one_kind': mean([n == 1 for n in kinds]),
      'hybrid': mean([n > 1 for n in kinds]),
      'searches': mean([n_searches(t) for _, t in pairs]),
      'gazes': mean([bool(found) for found in looks]),
      'gazes_per_query': mean([len(found) for found in looks]),
      'gaze_hit': mean([g.hit for found in looks for g in found]),
      'recovery': mean([recovered(found) for found in looks]),
      'reflection': mean([r for e, t in pairs for r in reflections(e, t)]),
      'redundant_crops': mean([
          any(same_region(gaze.view, earlier.view) for earlier in found[:i])
          for found in looks
          for i, gaze in enumerate(found)
      ]),
      'redundant_searches': mean([r for _, t in pairs for r in _repeats(t)]),
      'turns': mean([len(t.turns) for _, t in pairs]),
  }


def mean(values: Sequence[float | None]) -> float | None:
  """The mean of the known values; None where none is known."""
  known = [value for value in values if value is not None]
  return float(np.mean(known)) if known else None


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


def reflections(example: Example, trajectory: Trajectory) -> list[bool]:
  """For each gaze that missed, whether a later turn tried something else."""
  return [
      any(
          result.view is None or not same_region(result.view, gaze.view)
          for turn in trajectory.turns[gaze.turn + 1 :]
          for result in turn.results
          if result.status == ToolStatus.OK
      )
      for gaze in gazes(example, trajectory)
      if gaze.hit is False
  ]


def same_region(one: View, other: View) -> bool:
  """Whether two crops show the same part of the same image."""
  return (
      one.root == other.root
      and boxes.iou(one.box, other.box) >= SAME_REGION_IOU
  )


def _repeats(trajectory: Trajectory) -> list[bool]:
  """For each search without a crop, whether it was made before."""
  seen, found = set(), []
  for call, result in trajectory.calls:
    if result.status == ToolStatus.OK and result.view is None:
      key = call_key(call)
      found.append(key in seen)
      seen.add(key)
  return found


def call_key(call: ToolCall) -> str:
  """Calls that ask the same have the same, however they spell it."""
  arguments = {
      name: words.same(value) or value
      if isinstance(value, str) else value
      for name, value in call.arguments.items()
  }  # fmt: skip
  return f'{call.name} {files.dumps(arguments)}'


def kinds_of_search(trajectory: Trajectory) -> set[str]:
  """The kinds of search that came back; a tool not in SEARCHES is its own."""
  return {
      SEARCHES[call.name].kind if call.name in SEARCHES else call.name
      for call, result in trajectory.calls
      if result.status == ToolStatus.OK and result.n_searches
  }


def n_searches(trajectory: Trajectory) -> int:
  """Searches that came back, over all calls."""
  return sum(result.n_searches for _, result in trajectory.calls)

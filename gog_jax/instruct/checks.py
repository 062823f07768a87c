"""What a trajectory has to be to be imitated, each check with its reason.

The first check that fails names the reason, in the order of `REASONS`; so the
counts add up. What the infrastructure spoilt is no failure of the teacher's.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
import dataclasses
from typing import Any

from gog_jax.evaluation.collect import infra_error
from gog_jax.images import size_of
from gog_jax.rewards import answers
from gog_jax.rewards import behaviour
from gog_jax.rewards import parts
from gog_jax.storage import files
from gog_jax.types import Example
from gog_jax.types import ToolCall
from gog_jax.types import ToolResult
from gog_jax.types import ToolStatus
from gog_jax.types import Trajectory

# The infrastructure's.
SPOILT = ('model failed', 'tool failed', 'judge failed', 'reward unknown')
REASONS = (
    'no answer',
    'wrong answer',
    'format',
    'box outside the image',
    'gaze misses the gold region',
    'no evidence',
    'repeated call',
)

# Width and height of an image file -> of the frame in which boxes are written.
Frame = Callable[[int, int], tuple[int, int]]


@dataclasses.dataclass(frozen=True, kw_only=True)
class Checks:
  """Which checks there are, see `config.instruct`.

  Attributes:
    frame: Where boxes are written.
    gold: 'any', 'each' or 'off': how many gazes must hit a gold region.
    gold_iou: Overlap from which one hits.
    evidence: Whether an accepted answer must stand in the results.
    repeats: Whether a call may be made twice.
  """

  frame: Frame
  gold: str
  gold_iou: float
  evidence: bool
  repeats: bool


@dataclasses.dataclass(frozen=True, kw_only=True)
class Failure:
  """Why a trajectory is not taken: a few words, and a line."""

  reason: str
  detail: str


def checks_of(run: Any) -> Checks:
  """The checks of a run, for its policy's frame of boxes."""
  c = run.config.instruct
  thousandths = run.box_spec.kind == 'thousandths'
  return Checks(
      frame=lambda *size: (1000, 1000)
      if thousandths
      else run.processor.seen_size(*size),
      gold=c.gold,
      gold_iou=c.gold_iou,
      evidence=c.evidence,
      repeats=c.repeats,
  )


def spoilt(trajectory: Trajectory) -> Failure | None:
  """What the infrastructure did to it; None where it is valid."""
  if trajectory.valid:
    return None
  reason, detail = infra_error(trajectory)
  return Failure(reason=reason, detail=detail)


def failure(
    example: Example, trajectory: Trajectory, checks: Checks
) -> Failure | None:
  """The first check that a valid, scored trajectory fails."""
  for reason, check in zip(REASONS, _CHECKS, strict=True):
    if detail := check(example, trajectory, checks):
      return Failure(reason=reason, detail=detail)
  return None


def kind_of(trajectory: Trajectory) -> str:
  """'search' where a call brought something back, else 'no_search'."""
  return 'search' if any(True for _ in _found(trajectory)) else 'no_search'


def _answered(
    example: Example, trajectory: Trajectory, checks: Checks
) -> str | None:
  del example, checks
  if trajectory.answer is None:
    return f'it ended with {trajectory.stop_reason.value}'
  return None


def _right(
    example: Example, trajectory: Trajectory, checks: Checks
) -> str | None:
  del checks
  if trajectory.reward_parts['accuracy'] == 1.0:
    return None
  return f'{trajectory.answer!r} in place of {example.answers[0]!r}'


def _well_formed(
    example: Example, trajectory: Trajectory, checks: Checks
) -> str | None:
  del checks
  if parts.format_reward(example, trajectory) == 1.0:
    return None
  for number, turn in enumerate(trajectory.turns, start=1):
    if turn.parsed.format_error:
      return f'message {number}: {turn.parsed.format_error}'
  for call, result in _made(trajectory):
    if result.status == ToolStatus.MODEL_ERROR:
      return f'{call.name}: {result.error}'
  return f'it ended with {trajectory.stop_reason.value}'


def _boxes_inside(
    example: Example, trajectory: Trajectory, checks: Checks
) -> str | None:
  """The executor clamps a box to the image; a teacher should not need it."""
  del example
  for turn in trajectory.turns:
    for call, result in zip(turn.parsed.calls, turn.results):
      if result.view is None:
        continue
      view = trajectory.images[int(call.arguments.get('image', 1)) - 1]
      width, height = checks.frame(*size_of(view.data))
      box = call.arguments['bbox_2d']
      x1, y1, x2, y2 = box
      if not (0 <= x1 < x2 <= width and 0 <= y1 < y2 <= height):
        return f'{list(box)} in an image of {width} x {height}'
  return None


def _gold_hit(
    example: Example, trajectory: Trajectory, checks: Checks
) -> str | None:
  looks = behaviour.gazes(example, trajectory)
  if checks.gold == 'off' or not example.gold_regions or not looks:
    return None
  overlaps = [look.iou or 0.0 for look in looks]
  hits = [overlap >= checks.gold_iou for overlap in overlaps]
  if all(hits) if checks.gold == 'each' else any(hits):
    return None
  shown = ', '.join(f'{overlap:.2f}' for overlap in overlaps)
  return f'overlaps {shown}, {checks.gold_iou:g} is needed'


def _evidence_found(
    example: Example, trajectory: Trajectory, checks: Checks
) -> str | None:
  """Whole words of an accepted answer in a title or text that came back."""
  found = list(_found(trajectory))
  if not checks.evidence or not found:
    return None
  forms = [answers.normalise(form) for form in example.answers]
  for result in found:
    for hit in result.hits:
      text = f' {answers.normalise(f"{hit.title} {hit.text}")} '
      if any(form and f' {form} ' in text for form in forms):
        return None
  n_hits = sum(len(result.hits) for result in found)
  return f'{example.answers[0]!r} stands in none of {n_hits} results'


def _not_repeated(
    example: Example, trajectory: Trajectory, checks: Checks
) -> str | None:
  del example
  seen: set[str] = set()
  for call, _ in _made(trajectory):
    text = files.dumps([call.name, dict(call.arguments)])
    if text in seen and not checks.repeats:
      return f'{call.name} {files.dumps(dict(call.arguments))}'
    seen.add(text)
  return None


_CHECKS = (
    _answered,
    _right,
    _well_formed,
    _boxes_inside,
    _gold_hit,
    _evidence_found,
    _not_repeated,
)


def _made(trajectory: Trajectory) -> Iterator[tuple[ToolCall, ToolResult]]:
  """Calls that were made, with what they brought back."""
  for turn in trajectory.turns:
    yield from zip(turn.parsed.calls, turn.results)


def _found(trajectory: Trajectory) -> Iterator[ToolResult]:
  for _, result in _made(trajectory):
    if result.status == ToolStatus.OK:
      yield result

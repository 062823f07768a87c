"""The checks that a trajectory has to pass to be imitated.

The first that fails gives the reason, so that counts add up. A trajectory that
a tool or the judge spoilt has reasons of its own: it is no fault of the
teacher's.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
import dataclasses

from gog_jax.config.evaluation import InstructConfig
from gog_jax.evaluation.collect import infra_error
from gog_jax.images import size_of
from gog_jax.rewards import answers
from gog_jax.rewards import behaviour
from gog_jax.rewards import parts
from gog_jax.run import Run
from gog_jax.types import Example
from gog_jax.types import ToolStatus
from gog_jax.types import Trajectory

# From the size of an image to that of the frame in which boxes are written.
Frame = Callable[[int, int], tuple[int, int]]


@dataclasses.dataclass(frozen=True)
class Failure:
  """Why a trajectory is not taken: in a few words, and in a line."""

  reason: str
  detail: str


def frame_of(run: Run) -> Frame:
  """The frame in which a run's policy writes boxes."""
  if run.box_spec.kind == 'thousandths':
    return lambda *size: (1000, 1000)
  return run.processor.seen_size


def failure(
    example: Example, trajectory: Trajectory, c: InstructConfig, frame: Frame
) -> Failure | None:
  """The first failure of a scored trajectory; None if it passes all checks.

  Args:
    example: The question.
    trajectory: A trajectory of it.
    c: Says which checks to make.
    frame: The frame in which the policy writes boxes.
  """
  return next(_failures(example, trajectory, c, frame), None)


def _failures(
    example: Example, trajectory: Trajectory, c: InstructConfig, frame: Frame
) -> Iterator[Failure]:
  """The failures, in the order of checks."""
  if not trajectory.valid:
    yield Failure(*infra_error(trajectory))
  ended = f'it ended with {trajectory.stop_reason.value}'
  if trajectory.answer is None:
    yield Failure('no answer', ended)
  if trajectory.reward_parts['accuracy'] != 1.0:
    detail = f'{trajectory.answer!r} in place of {example.answers[0]!r}'
    yield Failure('wrong answer', detail)
  if parts.format_reward(example, trajectory) != 1.0:
    yield Failure('format', _format_error(trajectory) or ended)
  if detail := _box_outside(trajectory, frame):
    yield Failure('box outside the image', detail)
  if detail := _gold_missed(example, trajectory, c):
    yield Failure('gaze misses the gold region', detail)
  if detail := _no_evidence(example, trajectory, c):
    yield Failure('no evidence', detail)
  if not c.repeats and (detail := _repeated(trajectory)):
    yield Failure('repeated call', detail)


def kind_of(trajectory: Trajectory) -> str:
  """'search' if a search came back, else 'no_search'."""
  return 'search' if behaviour.kinds_of_search(trajectory) else 'no_search'


def _format_error(trajectory: Trajectory) -> str:
  for number, turn in enumerate(trajectory.turns, start=1):
    if turn.parsed.format_error:
      return f'message {number}: {turn.parsed.format_error}'
  for call, result in trajectory.calls:
    if result.status == ToolStatus.MODEL_ERROR:
      return f'{call.name}: {result.error}'
  return ''


def _box_outside(trajectory: Trajectory, frame: Frame) -> str:
  """The executor clamps boxes to the image; a teacher should not need that."""
  for call, result in trajectory.calls:
    if result.view is None:
      continue
    view = trajectory.images[int(call.arguments.get('image', 1)) - 1]
    width, height = frame(*size_of(view.data))
    x1, y1, x2, y2 = box = call.arguments['bbox_2d']
    if not (0 <= x1 < x2 <= width and 0 <= y1 < y2 <= height):
      return f'{list(box)} in an image of {width} x {height}'
  return ''


def _gold_missed(
    example: Example, trajectory: Trajectory, c: InstructConfig
) -> str:
  looks = behaviour.gazes(example, trajectory)
  if c.gold == 'off' or not example.gold_regions or not looks:
    return ''
  overlaps = [look.iou or 0.0 for look in looks]
  hits = [overlap >= c.gold_iou for overlap in overlaps]
  if all(hits) if c.gold == 'each' else any(hits):
    return ''
  shown = ', '.join(f'{overlap:.2f}' for overlap in overlaps)
  return f'overlaps {shown}, {c.gold_iou:g} is needed'


def _no_evidence(
    example: Example, trajectory: Trajectory, c: InstructConfig
) -> str:
  """Looks for an accepted answer, as whole words, in the results."""
  results = [result for _, result in trajectory.calls]
  found = [result for result in results if result.status == ToolStatus.OK]
  if not c.evidence or not found:
    return ''
  forms = [answers.normalise(form) for form in example.answers]
  texts = [f'{hit.title} {hit.text}' for one in found for hit in one.hits]
  texts += [one.text for one in found if one.text]
  for text in texts:
    words = f' {answers.normalise(text)} '
    if any(form and f' {form} ' in words for form in forms):
      return ''
  return f'{example.answers[0]!r} stands in none of {len(texts)} results'


def _repeated(trajectory: Trajectory) -> str:
  seen: set[str] = set()
  for call, _ in trajectory.calls:
    key = behaviour.call_key(call)
    if key in seen:
      return key
    seen.add(key)
  return ''

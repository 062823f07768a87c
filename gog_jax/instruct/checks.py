"""The checks that a trajectory has to pass to be imitated.

The first that fails gives the reason, so that counts add up. A trajectory that
a tool or the judge spoilt has reasons of its own: it is no fault of the
teacher's.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
import dataclasses
import functools
from typing import Any

from gog_jax.config.evaluation import InstructConfig
from gog_jax.evaluation.collect import infra_error
from gog_jax.rewards import answers
from gog_jax.rewards import behaviour
from gog_jax.rewards import parts
from gog_jax.run import Run
from gog_jax.tools import gaze
from gog_jax.tools.base import ModelError
from gog_jax.types import Example
from gog_jax.types import ToolStatus
from gog_jax.types import Trajectory
from gog_jax.types import View

# The arguments of a gaze and all images before it -> what it shows; raises
# ModelError.
Region = Callable[[Mapping[str, Any], Sequence[View]], object]


@dataclasses.dataclass(frozen=True)
class Failure:
  """Why a trajectory is not taken: in a few words, and in a line."""

  reason: str
  detail: str


def region_of(run: Run) -> Region:
  """The tool's own check of a box, of the policy of a run.

  The executor helps with boxes that leave their image; a teacher should not
  need that.
  """
  return functools.partial(
      gaze.region,
      box_spec=run.box_spec,
      seen_size=run.processor.seen_size,
      exact=True,
  )


def failure(
    example: Example, trajectory: Trajectory, c: InstructConfig, region: Region
) -> Failure | None:
  """The first failure of a scored trajectory; None if it passes all checks.

  Args:
    example: The question.
    trajectory: A trajectory of it.
    c: Says which checks to make.
    region: Checks its boxes, see `region_of`.
  """
  return next(_failures(example, trajectory, c, region), None)


def _failures(
    example: Example, trajectory: Trajectory, c: InstructConfig, region: Region
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
  if detail := _box_outside(trajectory, region):
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


def _box_outside(trajectory: Trajectory, region: Region) -> str:
  for call, result in trajectory.calls:
    if result.view is not None:
      try:
        region(call.arguments, trajectory.images)
      except ModelError as error:
        return str(error)
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
  forms = [' '.join(answers.keys(form)) for form in example.answers]
  texts = [f'{hit.title} {hit.text}' for one in found for hit in one.hits]
  texts += [one.text for one in found if one.text]
  for text in texts:
    words = f' {" ".join(answers.keys(text))} '
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

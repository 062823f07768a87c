"""Scripted experts: one to imitate, imperfect on purpose, and an oracle.

An expert knows the gold data, but acts on what the conversation showed: it
reads names out of image hits and facts out of text hits. Its thoughts name
what is *sought*, so that the reply to a wrong gaze contradicts the thought
before it, and the next thought can say so.
"""

from __future__ import annotations

from collections.abc import Sequence
import dataclasses

import numpy as np

from gog_jax.types import Example
from gog_jax.types import ToolCall
from gog_jax.types import Turn
from gog_jax.world import scenes
from gog_jax.world import vocabulary
from gog_jax.world.exchange import ToModelBox
from gog_jax.world.questions import Question
from gog_jax.world.questions import question_of
from gog_jax.world.references import think

Action = tuple[str, tuple[ToolCall, ...], str | None]

_MATCHES = [[match] for match in vocabulary.MATCHES]
_MAX_LOOKS = 2  # Image searches and gazes before an expert gives up.


@dataclasses.dataclass(frozen=True, kw_only=True)
class Habits:
  """How often an expert does what; probabilities.

  Attributes:
    glance_big: Searches the whole image first when a big emblem is asked.
    glance: The same for any other emblem.
    wrong_gaze: Gazes first at an emblem that is not asked.
    jitter: Moves each side of a box by up to `jitter_pixels`.
    jitter_pixels: In pixels of the scene.
    gaze_again: Gazes anew when a reply contradicts what is sought.
    needless: Gazes although the picture answers the question.
    look_up: Goes on to text search.
    follow_alias: Follows an alias that a text search found.
  """

  glance_big: float
  glance: float
  wrong_gaze: float
  jitter: float
  jitter_pixels: int
  gaze_again: float
  needless: float
  look_up: float
  follow_alias: float


EXPERT = Habits(
    glance_big=0.5,
    glance=0.12,
    wrong_gaze=0.42,
    jitter=0.15,
    jitter_pixels=14,
    gaze_again=0.9,
    needless=0.12,
    look_up=0.72,
    follow_alias=0.55,
)
ORACLE = Habits(
    glance_big=0.0,
    glance=0.0,
    wrong_gaze=0.0,
    jitter=0.0,
    jitter_pixels=0,
    gaze_again=1.0,
    needless=0.0,
    look_up=1.0,
    follow_alias=1.0,
)


def expert_turn(
    example: Example,
    turns: Sequence[Turn],
    to_model_box: ToModelBox,
    rng: np.random.Generator,
) -> Action:
  """Says what the imperfect expert does next.

  Args:
    example: One of this world's.
    turns: The conversation so far, the expert's own turns included.
    to_model_box: From pixels of the scene to the policy's frame.
    rng: For the decisions of this turn.

  Returns:
    Thought, calls, answer: either one call and no answer, or the reverse. An
    episode takes five turns at most.

  Raises:
    UserError: When the example is not one of this world's.
  """
  return _act(question_of(example), turns, to_model_box, rng, EXPERT)


def oracle_turn(
    example: Example,
    turns: Sequence[Turn],
    to_model_box: ToModelBox,
    rng: np.random.Generator,
) -> Action:
  """Says what one that never errs does next; arguments as `expert_turn`."""
  return _act(question_of(example), turns, to_model_box, rng, ORACLE)


def _act(
    question: Question,
    turns: Sequence[Turn],
    to_model_box: ToModelBox,
    rng: np.random.Generator,
    habits: Habits,
) -> Action:
  example, target, entity = question.example, question.target, question.entity
  if example.hops == 0:
    if target is None:
      return _answer('count', example.answers[0], count=example.answers[0])
    if not turns and rng.random() < habits.needless:
      call = _gaze(target, to_model_box, rng, habits)
      return think('check', target, question.ref), (call,), None
    return think('see', target, question.ref), (), example.answers[0]
  assert entity is not None  # Questions that need a search have one.
  name = entity.name
  if target is not None:
    found = _name_shown(turns, target)
    if found is None:
      return _look(question, target, turns, to_model_box, rng, habits)
    name = found
    if question.kind == 'name':
      return think('name', target, question.ref), (), name
  return _look_up(name, question.kind, turns, rng, habits)


def _look(
    question: Question,
    target: scenes.Emblem,
    turns: Sequence[Turn],
    to_model_box: ToModelBox,
    rng: np.random.Generator,
    habits: Habits,
) -> Action:
  """Looks for the target's name, for the first time or again."""
  scene = question.scene
  if not turns:
    big = scene.main and target is scene.emblems[0]
    if rng.random() < (habits.glance_big if big else habits.glance):
      call = ToolCall(name='image_search', arguments={})
      return think('glance', target, question.ref), (call,), None
    aim = target
    if rng.random() < habits.wrong_gaze:
      others = [emblem for emblem in scene.emblems if emblem is not target]
      aim = others[rng.integers(len(others))]
    call = _gaze(aim, to_model_box, rng, habits)
    return think('find', target, question.ref), (call,), None
  glanced = any(
      call.name == 'image_search' for call in turns[-1].parsed.calls
  )
  if len(turns) < _MAX_LOOKS and (
      glanced or rng.random() < habits.gaze_again
  ):
    call = _gaze(target, to_model_box, rng, habits)
    return think('again', target, question.ref), (call,), None
  return _answer('lost', vocabulary.UNKNOWN)


def _look_up(
    name: str,
    attribute: str,
    turns: Sequence[Turn],
    rng: np.random.Generator,
    habits: Habits,
) -> Action:
  """Searches for a fact, or answers with it once it is shown."""
  value = _fact_shown(turns, name, attribute)
  thought, keep_on = 'need', habits.look_up
  if value is not None and value.startswith(vocabulary.ALIAS + ' '):
    name = value.partition(' ')[2]
    value = _fact_shown(turns, name, attribute)
    thought, keep_on = 'alias', habits.follow_alias
  if value is not None:
    return _answer('found', value, attribute=attribute, name=name)
  query = vocabulary.TEXT_QUERY.format(name=name, attribute=attribute)
  asked = any(
      call.arguments.get('query') == query
      for turn in turns
      for call in turn.parsed.calls
  )
  if asked or rng.random() >= keep_on:
    return _answer('lost', vocabulary.UNKNOWN)
  text = vocabulary.THOUGHTS[thought].format(
      attribute=attribute, name=name, alias=name
  )
  call = ToolCall(name='text_search', arguments={'query': query})
  return text, (call,), None


def _answer(thought: str, answer: str, **slots: str) -> Action:
  return vocabulary.THOUGHTS[thought].format(**slots), (), answer


def _gaze(
    emblem: scenes.Emblem,
    to_model_box: ToModelBox,
    rng: np.random.Generator,
    habits: Habits,
) -> ToolCall:
  box = []
  for side in emblem.box:
    if rng.random() < habits.jitter:
      reach = habits.jitter_pixels
      side += float(rng.integers(-reach, reach + 1))
    box.append(min(max(side, 0.0), float(scenes.SIZE)))
  x1, y1, x2, y2 = box
  sides = [int(side) for side in to_model_box((x1, y1, x2, y2))]
  return ToolCall(name='gaze', arguments={'bbox_2d': sides})


def _name_shown(
    turns: Sequence[Turn], target: scenes.Emblem
) -> str | None:
  """Returns the name of the latest image hit that looks like the target."""
  wanted = [target.identity.colour, target.identity.shape]
  for turn in reversed(turns):
    for result in turn.results:
      for hit in result.hits:
        words = hit.text.split()
        if words[1:3] == wanted and words[3:] in _MATCHES:
          return words[0]
  return None


def _fact_shown(
    turns: Sequence[Turn], name: str, attribute: str
) -> str | None:
  """Returns what a text hit says after '{name} {attribute}'."""
  start = vocabulary.TEXT_QUERY.format(name=name, attribute=attribute) + ' '
  for turn in turns:
    for result in turn.results:
      for hit in result.hits:
        if hit.text.startswith(start):
          return hit.text[len(start) :]
  return None

"""Scripted experts: one to imitate, imperfect on purpose, and an oracle.

An expert knows the gold data, but acts on what the conversation showed: it
reads names out of image hits and facts out of text hits, and of twins it does
not know which is which until a gaze shows it. Its thoughts name what is
*sought*, so that the reply to a wrong gaze contradicts the thought before it,
and the next thought can say so.

What the imperfect one lacks is persistence, not skill: where the first reply
does not answer the question it often gives up, and where it goes on it goes on
to the end. That is left for RL to learn.
"""

from __future__ import annotations

from collections.abc import Sequence
import dataclasses
import hashlib

import numpy as np

from gog_jax import boxes
from gog_jax.toy import scenes
from gog_jax.toy import vocabulary
from gog_jax.toy.exchange import ToModelBox
from gog_jax.toy.questions import Question
from gog_jax.toy.questions import question_of
from gog_jax.toy.references import first_look
from gog_jax.toy.references import reflect
from gog_jax.toy.references import tells_pattern
from gog_jax.toy.references import think
from gog_jax.types import Example
from gog_jax.types import ToolCall
from gog_jax.types import Turn

Action = tuple[str, tuple[ToolCall, ...], str | None]

_VERSION = 1  # Goes up with any change to what the functions below do.
_MAX_LOOKS = 2  # Image searches and gazes before an expert gives up.


@dataclasses.dataclass(frozen=True, kw_only=True)
class Habits:
  """How often an expert does what; probabilities.

  Attributes:
    gazes: Whether it gazes at all.
    glance_big: Searches the whole image first when a big emblem is asked.
    glance: The same for any other emblem.
    knows_twins: Whether it can tell twins apart before a gaze shows which is
      which; else it gazes at the first of them first.
    wrong_gaze: Gazes first at an emblem that looks otherwise.
    jitter: Moves each side of a box by up to `jitter_pixels`.
    jitter_pixels: In pixels of the scene.
    needless: Gazes although the picture answers the question.
    persist: Goes on where a first search does not answer the question: gazes
      anew when the reply contradicts what is sought, describes in words what
      image search does not know, searches the text, follows an alias. Who has
      gone on once does so to the end.
  """

  gazes: bool = True
  glance_big: float
  glance: float
  knows_twins: bool
  wrong_gaze: float
  jitter: float
  jitter_pixels: int
  needless: float
  persist: float


EXPERT = Habits(
    glance_big=0.5,
    glance=0.06,
    knows_twins=False,
    wrong_gaze=0.2,
    jitter=0.06,
    jitter_pixels=14,
    needless=0.08,
    persist=0.25,
)
NO_GAZE = dataclasses.replace(
    EXPERT, gazes=False, glance_big=1.0, glance=1.0, needless=0.0
)
ORACLE = Habits(
    glance_big=0.0,
    glance=0.0,
    knows_twins=True,
    wrong_gaze=0.0,
    jitter=0.0,
    jitter_pixels=0,
    needless=0.0,
    persist=1.0,
)


def version() -> str:
  """Of the imperfect expert: another one behaves or speaks otherwise."""
  said = (vocabulary.THOUGHTS, vocabulary.SOUGHT, vocabulary.REFLECTION)
  text = repr((_VERSION, EXPERT, NO_GAZE, said))
  return 'expert/' + hashlib.sha256(text.encode()).hexdigest()[:16]


def expert_turn(
    example: Example,
    turns: Sequence[Turn],
    to_model_box: ToModelBox,
    rng: np.random.Generator,
    *,
    can_gaze: bool = True,
) -> Action:
  """Says what the imperfect expert does next.

  Args:
    example: One of this world's.
    turns: The conversation so far, the expert's own turns included.
    to_model_box: From pixels of the scene to the policy's frame.
    rng: For the decisions of this turn.
    can_gaze: Whether there is such a tool; else it searches with the whole
      image in its place.

  Returns:
    Thought, calls, answer: either one call and no answer, or the reverse. An
    episode takes five turns at most.

  Raises:
    UserError: When the example is not one of this world's.
  """
  habits = EXPERT if can_gaze else NO_GAZE
  return _act(question_of(example), turns, to_model_box, rng, habits)


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
  """Reflects on the look that the last reply showed, if it did, and acts."""
  thought, calls, answer = _decide(question, turns, to_model_box, rng, habits)
  shown = _look_shown(turns)
  if shown and question.target is not None:
    meant, ref = question.target.identity, question.ref
    thought = reflect(shown, thought, meant, ref, question.kind)
  return thought, calls, answer


def _think(kind: str, question: Question) -> str:
  """Says a thought about the emblem that is asked about."""
  assert question.target is not None
  meant, ref = question.target.identity, question.ref
  return think(kind, meant, ref, question.kind)


def _decide(
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
      return _think('check', question), (call,), None
    return _think('see', question), (), example.answers[0]
  assert entity is not None  # Questions that need a search have one.
  name = entity.name
  if question.kind == 'pattern':
    assert target is not None
    # Whoever is found: the crop shows it, a glance does not.
    if turns and _gazed_at(turns[-1], target, to_model_box):
      return _think('pattern', question), (), example.answers[0]
    return _look(question, target, turns, to_model_box, rng, habits)
  if target is not None:
    ref, meant = question.ref, target.identity
    found = _name_shown(turns, target, by_pattern=tells_pattern(ref, meant))
    if found is None:
      return _look(question, target, turns, to_model_box, rng, habits)
    name = found
    if question.kind == 'name':
      return _think('name', question), (), name
  return _look_up(name, question, turns, rng, habits)


def _look(
    question: Question,
    target: scenes.Emblem,
    turns: Sequence[Turn],
    to_model_box: ToModelBox,
    rng: np.random.Generator,
    habits: Habits,
) -> Action:
  """Looks for the target's name, for the first time or again."""
  if not turns:
    scene = question.scene
    big = scene.main and target is scene.emblems[0]
    glance = habits.glance_big if big else habits.glance
    if rng.random() < glance:
      call = ToolCall(name='image_search', arguments={})
      return _think('glance', question), (call,), None
    aim = _first_aim(question, target, rng, habits)
    call = _gaze(aim, to_model_box, rng, habits)
    return _think('find', question), (call,), None
  (call,) = turns[-1].parsed.calls
  alike = _shows_like(turns, target)
  if call.name == 'image_search':  # Nobody stops at a glance.
    if habits.gazes:
      aim = _one_of_twins(question, target, habits)
      call = _gaze(aim, to_model_box, rng, habits)
      return _think('again', question), (call,), None
    return _answer('lost', vocabulary.UNKNOWN)
  if (
      call.name == 'gaze'
      and len(turns) < _MAX_LOOKS
      and _goes_on(turns, rng, habits)
  ):
    weak = _look_shown(turns).endswith(vocabulary.WEAK)
    if not alike and weak and question.kind != 'pattern':
      look = dataclasses.asdict(target.identity)
      query = vocabulary.LOOK_QUERY.format(**look)
      call = ToolCall(name='text_search', arguments={'query': query})
      return _think('describe', question), (call,), None
    aim = target if alike else _one_of_twins(question, target, habits)
    call = _gaze(aim, to_model_box, rng, habits)
    return _think('twin' if alike else 'again', question), (call,), None
  return _answer('lost', vocabulary.UNKNOWN)


def _goes_on(
    turns: Sequence[Turn], rng: np.random.Generator, habits: Habits
) -> bool:
  """Whether it goes on where the last reply does not answer the question."""
  names = [call.name for turn in turns for call in turn.parsed.calls]
  first = 2 if names[:2] == ['image_search', 'gaze'] else 1
  return len(names) > first or bool(rng.random() < habits.persist)


def _first_aim(
    question: Question,
    target: scenes.Emblem,
    rng: np.random.Generator,
    habits: Habits,
) -> scenes.Emblem:
  """Which emblem to gaze at when nothing has been looked at yet."""
  own = target.identity
  unlike = [
      emblem
      for emblem in question.scene.emblems
      if not emblem.identity.looks_like(own)
  ]
  if unlike and rng.random() < habits.wrong_gaze:
    return unlike[rng.integers(len(unlike))]
  return _one_of_twins(question, target, habits)


def _one_of_twins(
    question: Question, target: scenes.Emblem, habits: Habits
) -> scenes.Emblem:
  """The target, or of twins told by pattern that nothing showed, the first."""
  if habits.knows_twins:
    return target
  return first_look(question.scene, target, question.ref)


def _look_up(
    name: str,
    question: Question,
    turns: Sequence[Turn],
    rng: np.random.Generator,
    habits: Habits,
) -> Action:
  """Searches for a fact, or answers with it once it is shown."""
  attribute = question.kind
  value = _fact_shown(turns, name, attribute)
  thought = 'need'
  if value is not None and value.startswith(vocabulary.ALIAS + ' '):
    name = value.partition(' ')[2]
    value = _fact_shown(turns, name, attribute)
    thought = 'alias'
  if value is not None:
    return _answer('found', value, attribute=attribute, name=name)
  query = vocabulary.TEXT_QUERY.format(name=name, attribute=attribute)
  asked = any(
      call.arguments.get('query') == query
      for turn in turns
      for call in turn.parsed.calls
  )
  # A name without a picture has to be looked up at least.
  if asked or (turns and not _goes_on(turns, rng, habits)):
    if question.target is not None and _look_shown(turns):
      return _think('stop', question), (), vocabulary.UNKNOWN
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


def _gazed_at(
    turn: Turn, target: scenes.Emblem, to_model_box: ToModelBox
) -> bool:
  """Whether a turn gazed at the target, or all but: its like was found."""
  (call,) = turn.parsed.calls
  if call.name != 'gaze':
    return False
  overlap = boxes.iou(call.arguments['bbox_2d'], to_model_box(target.box))
  return overlap >= boxes.HIT_IOU or _shows_like([turn], target)


def _shows_like(turns: Sequence[Turn], target: scenes.Emblem) -> bool:
  """Whether the last turn's image hit has the target's colour and shape."""
  own = target.identity
  return _look_shown(turns).split()[1:3] == [own.colour, own.shape]


def _look_shown(turns: Sequence[Turn]) -> str:
  """Returns what the last turn's image hit says of a look; '' without one."""
  if turns and turns[-1].parsed.calls[0].name != 'text_search':
    for result in turns[-1].results:
      for hit in result.hits:
        return hit.text.partition(' ')[2]
  return ''


def _name_shown(
    turns: Sequence[Turn], target: scenes.Emblem, *, by_pattern: bool
) -> str | None:
  """Returns the name of the latest hit that looks like the target.

  Args:
    turns: The conversation.
    target: Whose name.
    by_pattern: Whether its pattern was told, too, and has to agree.
  """
  own = target.identity
  for turn in reversed(turns):
    for result in turn.results:
      for hit in result.hits:
        name, pattern, *look = [*hit.text.split()[:4], '', '']
        if look[:2] == [own.colour, own.shape]:
          if pattern == own.pattern or not by_pattern:
            return name
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

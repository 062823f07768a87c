"""The scripted expert that SFT imitates, imperfect on purpose.

It knows the gold data, but acts on what the conversation showed: it
reads names out of image hits and facts out of text hits, and of twins it does
not know which is which until a gaze shows it. Its thoughts name what is
*sought*, so that the reply to a wrong gaze contradicts the thought before it,
and the next thought can say so.

What it lacks is persistence, not skill: where the first reply
does not answer the question it often gives up, and where it goes on it goes on
to the end. That is left for RL to learn.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
import dataclasses
import functools
import hashlib

import numpy as np

from gog_jax import boxes
from gog_jax import images
from gog_jax.rollout.policy import Request
from gog_jax.rollout.scripted import ScriptedPolicy
from gog_jax.run import Run
from gog_jax.toy import scenes
from gog_jax.toy import vocabulary
from gog_jax.toy.exchange import Calls
from gog_jax.toy.exchange import gaze
from gog_jax.toy.exchange import text_search
from gog_jax.toy.exchange import ToModelBox
from gog_jax.toy.knowledge import pick
from gog_jax.toy.questions import question_of
from gog_jax.toy.questions import WorldQuestion
from gog_jax.toy.references import first_look
from gog_jax.types import Example
from gog_jax.types import Hit
from gog_jax.types import ToolCall
from gog_jax.types import Turn

# Thought, calls, answer.
Action = tuple[str, Calls, str | None]

_VERSION = 1  # Raise it with any change to what the functions below do.
_GLANCE = (ToolCall(name='image_search', arguments={}),)
_MAX_LOOKS = 2  # Image searches and gazes before an expert gives up.


@dataclasses.dataclass(frozen=True, kw_only=True)
class Habits:
  """How often an expert does what; the defaults are those of EXPERT.

  Attributes:
    gazes: Whether it gazes at all.
    glance_big: Searches with the whole image first when asked about a big
      emblem.
    glance: The same for any other emblem.
    knows_twins: Whether it can tell twins apart before a gaze shows which is
      which; else it gazes at the first of them first.
    wrong_gaze: Gazes first at an emblem that looks different.
    jitter: Moves each side of a box by up to `jitter_pixels`.
    jitter_pixels: In pixels of the scene.
    needless: Gazes although the picture answers the question.
    persist: Goes on where a first search does not answer the question: gazes
      anew when the reply contradicts what is sought, describes in words what
      image search does not know, searches the text, follows an alias. Having
      gone on once, it does so to the end.
  """

  gazes: bool = True
  glance_big: float = 0.5
  glance: float = 0.06
  knows_twins: bool = False
  wrong_gaze: float = 0.2
  jitter: float = 0.06
  jitter_pixels: int = 14
  needless: float = 0.08
  persist: float = 0.25


EXPERT = Habits()
EXPERT_WITHOUT_GAZE = dataclasses.replace(
    EXPERT, gazes=False, glance_big=1.0, glance=1.0, needless=0.0
)


def version() -> str:
  """Identifies the imperfect expert: changes with what it does or says."""
  said = (vocabulary.THOUGHTS, vocabulary.SOUGHT, vocabulary.REFLECTION)
  text = repr((_VERSION, EXPERT, EXPERT_WITHOUT_GAZE, said))
  return 'expert/' + hashlib.sha256(text.encode()).hexdigest()[:16]


def to_model_box(run: Run, size: tuple[int, int]) -> ToModelBox:
  """Converts boxes of an image of this size to what the policy would say."""
  return functools.partial(
      run.box_spec.to_model,
      original_size=size,
      seen_size=run.processor.seen_size(*size),
  )


def expert_policy(run: Run, *, answers_at_once: bool = False) -> ScriptedPolicy:
  """The expert with the tools of a run.

  Args:
    run: Its chat writes what the expert says.
    answers_at_once: Where it would call a tool it answers 'unknown' instead.
  """

  def script(request: Request, turns: tuple[Turn, ...]) -> Sequence[int]:
    seed = request.seed if answers_at_once else (request.seed, len(turns))
    thought, calls, answer = expert_turn(
        request.example,
        turns,
        to_model_box(run, images.size_of(request.example.images[0])),
        np.random.default_rng(seed),
        EXPERT if run.can_gaze else EXPERT_WITHOUT_GAZE,
    )
    if calls and answers_at_once:
      calls, answer = (), vocabulary.UNKNOWN
    return run.chat.encode_turn(thought=thought, calls=calls, answer=answer)

  return ScriptedPolicy(script, run.config.sampler.n_slots)


def expert_turn(
    example: Example,
    turns: Sequence[Turn],
    to_model_box: ToModelBox,
    rng: np.random.Generator,
    habits: Habits = EXPERT,
) -> Action:
  """What an expert does next.

  Args:
    example: One of this world's.
    turns: The conversation so far, the expert's own turns included.
    to_model_box: From pixels of the scene to the policy's frame.
    rng: For the decisions of this turn.
    habits: EXPERT_WITHOUT_GAZE searches with the whole image.

  Returns:
    Thought, calls, answer: either one call and no answer, or the reverse. An
    episode takes five turns at most.

  Raises:
    UserError: When the example is not one of this world's.
  """
  return _Expert(question_of(example), turns, to_model_box, rng, habits).act()


@dataclasses.dataclass(frozen=True)
class _Expert:
  """An expert at one point of a conversation."""

  question: WorldQuestion
  turns: Sequence[Turn]
  to_model_box: ToModelBox
  rng: np.random.Generator
  habits: Habits

  def act(self) -> Action:
    """Reflects on the look that the last reply showed, if any, and acts."""
    thought, calls, answer = self._decide()
    if self.turns and self.question.target is not None:
      if shown := _look_shown(self.turns[-1]):
        thought = self.question.sought.reflect(shown, thought)
    return thought, calls, answer

  def _decide(self) -> Action:
    question, target = self.question, self.question.target
    kind, known = question.kind, question.example.answers[0]
    if question.example.hops == 0:
      if target is None:
        return _answer('count', known, count=known)
      if not self.turns and self.rng.random() < self.habits.needless:
        return self._gaze('check', target)
      return self._say('see', known)
    assert question.entity is not None  # Questions that need a search have one.
    name = question.entity.name
    if target is None:
      return self._look_up(name)
    if kind == 'pattern':
      # The crop shows it whoever is found; a glance does not.
      if self.turns and self._gazed_at(target):
        return self._say('pattern', known)
      return self._look(target)
    found = self._name_shown(target)
    if found is None:
      return self._look(target)
    if kind == 'name':
      return self._say('name', found)
    return self._look_up(found)

  def _look(self, target: scenes.Emblem) -> Action:
    """Looks for the target's name, for the first time or again."""
    question, habits = self.question, self.habits
    if not self.turns:
      scene = question.scene
      big = scene.main and target is scene.emblems[0]
      if self.rng.random() < (habits.glance_big if big else habits.glance):
        return self._call('glance', _GLANCE)
      return self._gaze('find', self._first_aim(target))
    last = self.turns[-1]
    (call,) = last.parsed.calls
    alike = _shows_like(last, target)
    if call.name == 'image_search':  # No expert stops at a glance.
      if habits.gazes:
        return self._gaze('again', self._one_of_twins(target))
    elif call.name == 'gaze' and len(self.turns) < _MAX_LOOKS:
      if self._goes_on():
        weak = _look_shown(last).endswith(vocabulary.WEAK)
        if not alike and weak and question.kind != 'pattern':
          query = target.identity.describe(vocabulary.LOOK_QUERY)
          return self._call('describe', text_search(query))
        if alike:
          return self._gaze('twin', target)
        return self._gaze('again', self._one_of_twins(target))
    return _answer('lost', vocabulary.UNKNOWN)

  @property
  def _calls(self) -> list[ToolCall]:
    """The calls so far, one a turn."""
    return [call for turn in self.turns for call in turn.parsed.calls]

  def _goes_on(self) -> bool:
    """Whether it goes on where the last reply does not answer the question."""
    names = [call.name for call in self._calls]
    first = 2 if names[:2] == ['image_search', 'gaze'] else 1
    return len(names) > first or self.rng.random() < self.habits.persist

  def _first_aim(self, target: scenes.Emblem) -> scenes.Emblem:
    """Which emblem to gaze at when nothing has been looked at yet."""
    unlike = [
        emblem
        for emblem in self.question.scene.emblems
        if not emblem.identity.looks_like(target.identity)
    ]
    if unlike and self.rng.random() < self.habits.wrong_gaze:
      return pick(self.rng, unlike)
    return self._one_of_twins(target)

  def _one_of_twins(self, target: scenes.Emblem) -> scenes.Emblem:
    """The target; if only a gaze tells it from its twin, the first of them."""
    if self.habits.knows_twins:
      return target
    return first_look(self.question.scene, target, self.question.ref)

  def _look_up(self, name: str) -> Action:
    """Searches for a fact, or answers with it once it is shown."""
    attribute, thought = self.question.kind, 'need'
    value = self._fact_shown(name)
    if value is not None and value.startswith(vocabulary.ALIAS + ' '):
      name, thought = value.partition(' ')[2], 'alias'
      value = self._fact_shown(name)
    if value is not None:
      return _answer('found', value, attribute=attribute, name=name)
    query = vocabulary.TEXT_QUERY.format(name=name, attribute=attribute)
    asked = text_search(query)[0] in self._calls
    # If only a name is given, it always makes the first search.
    if asked or (self.turns and not self._goes_on()):
      if self.question.target is not None and _look_shown(self.turns[-1]):
        return self._say('stop', vocabulary.UNKNOWN)
      return _answer('lost', vocabulary.UNKNOWN)
    text = vocabulary.THOUGHTS[thought].format(
        attribute=attribute, name=name, alias=name
    )
    return text, text_search(query), None

  def _say(self, thought: str, answer: str) -> Action:
    return self.question.sought.think(thought), (), answer

  def _call(self, thought: str, calls: Calls) -> Action:
    return self.question.sought.think(thought), calls, None

  def _gaze(self, thought: str, emblem: scenes.Emblem) -> Action:
    box = []
    for side in emblem.box:
      if self.rng.random() < self.habits.jitter:
        reach = self.habits.jitter_pixels
        side += float(self.rng.integers(-reach, reach + 1))
      box.append(min(max(side, 0.0), float(scenes.SIZE)))
    x1, y1, x2, y2 = box
    return self._call(thought, gaze(self.to_model_box((x1, y1, x2, y2))))

  def _gazed_at(self, target: scenes.Emblem) -> bool:
    """Whether the last gaze hit the target, or found what looks like it."""
    (call,) = self.turns[-1].parsed.calls
    if call.name != 'gaze':
      return False
    box = self.to_model_box(target.box)
    overlap = boxes.iou(call.arguments['bbox_2d'], box)
    return overlap >= boxes.HIT_IOU or _shows_like(self.turns[-1], target)

  def _name_shown(self, target: scenes.Emblem) -> str | None:
    """The name of the latest hit that looks as the question says."""
    own = target.identity
    for turn in reversed(self.turns):
      for hit in _hits(turn):
        name, pattern, *look = [*hit.text.split()[:4], '', '']
        if look[:2] == [own.colour, own.shape]:
          if pattern == own.pattern or not self.question.sought.by_pattern:
            return name
    return None

  def _fact_shown(self, name: str) -> str | None:
    """What a text hit says after '{name} {attribute}'."""
    start = vocabulary.TEXT_QUERY.format(
        name=name, attribute=self.question.kind
    )
    for turn in self.turns:
      for hit in _hits(turn):
        if hit.text.startswith(start + ' '):
          return hit.text.removeprefix(start + ' ')
    return None


def _answer(thought: str, answer: str, **slots: str) -> Action:
  return vocabulary.THOUGHTS[thought].format(**slots), (), answer


def _hits(turn: Turn) -> Iterator[Hit]:
  for result in turn.results:
    yield from result.hits


def _look_shown(turn: Turn) -> str:
  """How a turn's image hit describes the emblem; '' without a hit."""
  if turn.parsed.calls[0].name != 'text_search':
    for hit in _hits(turn):
      return hit.text.partition(' ')[2]
  return ''


def _shows_like(turn: Turn, target: scenes.Emblem) -> bool:
  """Whether a turn's image hit has the target's colour and shape."""
  own = target.identity
  return _look_shown(turn).split()[1:3] == [own.colour, own.shape]

"""Questions about scenes, of zero or more hops, with their gold data."""

from __future__ import annotations

import dataclasses
import functools

import numpy as np

from gog_jax.errors import UserError
from gog_jax.toy import scenes
from gog_jax.toy import vocabulary
from gog_jax.toy.knowledge import Entity
from gog_jax.toy.knowledge import pick
from gog_jax.toy.knowledge import rng_of
from gog_jax.toy.knowledge import World
from gog_jax.toy.knowledge import world_of
from gog_jax.toy.references import references
from gog_jax.toy.references import Sought
from gog_jax.types import Example

SOURCE = 'world'
_P_MAIN = 0.15
# Shares of questions about what the picture shows; about the name, a fact or
# the pattern of an emblem in it; about a fact of somebody named.
_P_KIND = {
    'look': 0.3, 'name': 0.18, 'fact': 0.38, 'pattern': 0.03, 'named': 0.11,
}
_P_LOOK = {'colour': 0.42, 'shape': 0.42, 'count': 0.16}
_P_ALIASED = 0.5  # Of facts of somebody named, those under the alias.
_P_TWINS_BESIDE = 0.3  # Of scenes not asked about twins, those with some.


@dataclasses.dataclass(frozen=True, kw_only=True, eq=False)
class WorldQuestion:
  """An example with its gold data.

  Attributes:
    example: What the policy and the judge get.
    kind: A key of `vocabulary.QUESTIONS`: what is asked.
    scene: The picture and its emblems.
    target: The emblem asked about; None where the picture does not matter or
      where all of it does.
    ref: The words that point at the target, or the entity's name; empty where
      all of the picture is asked about.
    entity: The owner whose name or fact is asked, if any.
  """

  example: Example
  kind: str
  scene: scenes.Scene
  target: scenes.Emblem | None
  ref: str
  entity: Entity | None

  @property
  def sought(self) -> Sought:
    """The target, in words."""
    assert self.target is not None
    return Sought(self.target.identity, self.ref, self.kind)


def _draw_scene(
    rng: np.random.Generator, world: World, *, twins: bool = False
) -> scenes.Scene:
  """Draws a scene of emblems whose owners the world knows.

  Args:
    rng: Where every choice comes from.
    world: The world whose emblems are drawn.
    twins: Whether the first two emblems are twins, both pictured.
  """
  main = not twins and bool(rng.random() < _P_MAIN)
  count = 2 if main else int(rng.integers(2, world.difficulty.emblems + 1))
  by_colour: dict[str, list[scenes.Identity]] = {}
  order = rng.permutation(len(world.entities))
  if twins:
    order = sorted(order, key=lambda index: not world.entities[index].pictured)
  for index in order:
    identity = world.entities[index].identity
    same = by_colour.setdefault(identity.colour, [])
    if not same or same[0].looks_like(identity):
      same.append(identity)
  looks = list(by_colour.values())
  chosen = [look[0] for look in looks]
  if twins or (not main and count > 2 and rng.random() < _P_TWINS_BESIDE):
    chosen[:1] = looks[0][:2]
  return scenes.make_scene(
      rng, tuple(chosen[:count]), main=main, small=world.difficulty.small
  )


def _draw_target(
    rng: np.random.Generator, world: World, kind: str, *, twins: bool = False
) -> tuple[scenes.Scene, scenes.Emblem, str]:
  """Draws a scene, one of its emblems (a twin or not), a reference to it."""
  while True:
    scene = _draw_scene(rng, world, twins=twins)
    emblems = scene.emblems[:2] if twins else scene.emblems
    target = emblems[rng.integers(len(emblems))]
    known = references(scene, target, asked=kind)
    if twins:
      return scene, target, known['pattern']
    known.pop('pattern', None)
    if known:
      return scene, target, pick(rng, tuple(known.values()))


@functools.lru_cache(maxsize=4096)
def make_question(scope: str, index: int) -> WorldQuestion:
  """Makes the question `index` of a scope.

  Args:
    scope: As `knowledge.make_scope` writes it.
    index: From 0; any number of questions may share a scope.

  Returns:
    The same question and picture for the same arguments, in every process.

  Raises:
    UserError: When the scope is of another world.
  """
  world = world_of(scope)
  rng = rng_of(scope, 'question', index)
  subject = str(rng.choice(tuple(_P_KIND), p=tuple(_P_KIND.values())))
  target = entity = None
  if subject == 'look':
    kind = str(rng.choice(tuple(_P_LOOK), p=tuple(_P_LOOK.values())))
    hops = 0
    if kind == 'count':
      scene, ref = _draw_scene(rng, world), ''
      answers = (str(len(scene.emblems)),)
    else:
      scene, target, ref = _draw_target(rng, world, kind)
      answers = (getattr(target.identity, kind),)
  elif subject == 'named':
    # A fact filed under the name takes one search, under the alias two.
    options = [
        (owner, attribute)
        for owner in world.entities
        for attribute in vocabulary.ATTRIBUTES
    ]
    aliased = rng.random() < _P_ALIASED
    entity, kind = max(
        (options[i] for i in rng.permutation(len(options))),
        key=lambda option: (option[1] in option[0].aliased) == aliased,
    )
    hops = 1 + (kind in entity.aliased)
    scene, ref = _draw_scene(rng, world), entity.name
    answers = (entity.facts[kind],)
  else:
    kind = pick(rng, vocabulary.ATTRIBUTES) if subject == 'fact' else subject
    twins = kind != 'pattern' and rng.random() < world.difficulty.twins
    scene, target, ref = _draw_target(rng, world, kind, twins=bool(twins))
    entity = world.by_identity[target.identity]
    # A gaze shows the pattern whoever is found.
    hops = 1 if kind == 'pattern' else 1 + (not entity.pictured)
    if kind == 'pattern':
      answers = (target.identity.pattern,)
    elif kind == 'name':
      answers = (entity.name, entity.alias)
    else:
      hops += 1 + (kind in entity.aliased)
      answers = (entity.facts[kind],)
  example = Example(
      id=f'{scope}/{index}',
      images=(scene.data,),
      question=pick(rng, vocabulary.QUESTIONS[kind]).format(ref=ref),
      answers=answers,
      source=SOURCE,
      scope=scope,
      search_required=hops > 0,
      gold_regions=() if target is None else (target.box,),
      hops=hops,
  )
  return WorldQuestion(
      example=example,
      kind=kind,
      scene=scene,
      target=target,
      ref=ref,
      entity=entity,
  )


def question_of(example: Example) -> WorldQuestion:
  """Returns the question that an example of this world was made from.

  Args:
    example: Made here, also when it went through a data set on disk.

  Returns:
    The question with its gold data.

  Raises:
    UserError: When the example comes from elsewhere or from another version.
  """
  scope, _, index = example.id.rpartition('/')
  if example.source == SOURCE and scope == example.scope and index.isdigit():
    question = make_question(scope, int(index))
    if question.example.question == example.question:
      return question
  raise UserError(
      f'example {example.id!r} is not one of this world: make the data set '
      'anew, or use an expert that knows where it comes from'
  )

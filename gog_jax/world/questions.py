"""Questions about scenes, of no hop, one and more, with their gold data."""

from __future__ import annotations

import dataclasses
import functools

import numpy as np

from gog_jax.errors import UserError
from gog_jax.types import Example
from gog_jax.world import scenes
from gog_jax.world import vocabulary
from gog_jax.world.exchange import pick
from gog_jax.world.knowledge import Entity
from gog_jax.world.knowledge import rng_of
from gog_jax.world.knowledge import World
from gog_jax.world.knowledge import world_of
from gog_jax.world.references import references

SOURCE = 'world'
_P_MAIN = 0.2
# Shares of questions that need no search, one search, and two or three.
_P_HOPS = (0.38, 0.24, 0.38)
# Of those about the picture alone, by what they ask.
_P_LOOK = {'colour': 0.35, 'shape': 0.35, 'pattern': 0.15, 'count': 0.15}
# Of the others, those that name their subject and ignore the picture.
_P_NAMED = (0.4, 0.2)


@dataclasses.dataclass(frozen=True, kw_only=True, eq=False)
class Question:
  """An example together with what only its maker knows.

  Attributes:
    example: What the policy and the judge get.
    kind: A key of `vocabulary.QUESTIONS`: what is asked.
    scene: The picture and its emblems.
    target: The emblem asked about; None where the picture does not matter or
      where all of it does.
    ref: The words that point at the target, or the entity's name; empty where
      all of the picture is asked about.
    entity: Whose name or fact is asked, if any.
  """

  example: Example
  kind: str
  scene: scenes.Scene
  target: scenes.Emblem | None
  ref: str
  entity: Entity | None


def _draw_scene(rng: np.random.Generator, world: World) -> scenes.Scene:
  main = bool(rng.random() < _P_MAIN)
  count = 2 if main else int(rng.integers(2, 5))
  by_colour: dict[str, scenes.Identity] = {}
  for index in rng.permutation(len(world.entities)):
    identity = world.entities[index].identity
    by_colour.setdefault(identity.colour, identity)
  chosen = tuple(by_colour.values())[:count]
  return scenes.make_scene(rng, chosen, main=main)


def _draw_target(
    rng: np.random.Generator, world: World, kind: str
) -> tuple[scenes.Scene, scenes.Emblem, str]:
  """Draws a scene, one of its emblems, and a reference to it."""
  while True:
    scene = _draw_scene(rng, world)
    target = scene.emblems[rng.integers(len(scene.emblems))]
    known = references(scene, target, asked=kind)
    if known:
      return scene, target, pick(rng, tuple(known.values()))


@functools.lru_cache(maxsize=4096)
def make_question(scope: str, index: int) -> Question:
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
  depth = int(rng.choice(3, p=_P_HOPS))
  target = entity = None
  hops = 0
  if depth == 0:
    kind = str(rng.choice(tuple(_P_LOOK), p=tuple(_P_LOOK.values())))
    if kind == 'count':
      scene, ref = _draw_scene(rng, world), ''
      answers = (str(len(scene.emblems)),)
    else:
      scene, target, ref = _draw_target(rng, world, kind)
      answers = (getattr(target.identity, kind),)
  elif rng.random() < _P_NAMED[depth - 1]:
    # Filed under the name it takes one search, under the alias two.
    options = [
        (owner, attribute)
        for owner in world.entities
        for attribute in vocabulary.ATTRIBUTES
        if (attribute in owner.aliased) == (depth == 2)
    ]
    entity, kind = options[rng.integers(len(options))]
    scene, ref, hops = _draw_scene(rng, world), entity.name, depth
    answers = (entity.facts[kind],)
  else:
    kind = 'name' if depth == 1 else pick(rng, vocabulary.ATTRIBUTES)
    scene, target, ref = _draw_target(rng, world, kind)
    entity = world.by_identity[target.identity]
    if kind == 'name':
      hops, answers = 1, (entity.name, entity.alias)
    else:
      hops = 3 if kind in entity.aliased else 2
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
  return Question(
      example=example,
      kind=kind,
      scene=scene,
      target=target,
      ref=ref,
      entity=entity,
  )


def question_of(example: Example) -> Question:
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

"""The facts of a scope: who owns which emblem, and the documents about them.

A scope is a string `world/<version>/<split>/<seed>/<difficulty>`, from which
everything else follows. Facts are drawn afresh in every scope and the splits
share no name, so nothing can be memorised: answers have to be searched for.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
import dataclasses
import functools
import hashlib
import json
from typing import TypeVar

import numpy as np

from gog_jax.config.evaluation import DifficultyConfig
from gog_jax.errors import UserError
from gog_jax.storage import typed
from gog_jax.toy import vocabulary
from gog_jax.toy.scenes import Identity

T = TypeVar('T')

# Raise it with any change to what a scope holds: old data sets are then
# refused, not answered from another world.
VERSION = 4
SPLITS = ('train', 'validation', 'test', 'hard')
N_ENTITIES = 48
# Syllable pairs are dealt into eight buckets; each split has its own.
_BUCKETS = {'train': range(5), 'validation': (5,), 'test': (6,), 'hard': (7,)}
USUAL = DifficultyConfig(
    emblems=4, small=0.0, twins=0.7, aliased=0.35, unpictured=0.08, noise=0.0
)


@dataclasses.dataclass(frozen=True, kw_only=True)
class Entity:
  """The owner of an emblem, about whom documents tell facts.

  Attributes:
    identity: The emblem.
    name: What an image search calls it.
    alias: Its other name.
    facts: Attribute to value.
    aliased: Attributes whose fact is filed under the alias.
    pictured: Whether image search knows the emblem.
  """

  identity: Identity
  name: str
  alias: str
  facts: Mapping[str, str]
  aliased: frozenset[str]
  pictured: bool


@dataclasses.dataclass(frozen=True, kw_only=True, eq=False)
class World:
  """All that a scope holds: entities, and documents as (subject, text)."""

  scope: str
  difficulty: DifficultyConfig
  entities: tuple[Entity, ...]
  documents: tuple[tuple[str, str], ...]

  @functools.cached_property
  def by_identity(self) -> Mapping[Identity, Entity]:
    return {entity.identity: entity for entity in self.entities}


def rng_of(*parts: str | int) -> np.random.Generator:
  """Returns a generator that depends on nothing but `parts`."""
  text = '\0'.join(str(part) for part in parts)
  digest = hashlib.sha256(text.encode()).digest()
  return np.random.default_rng(int.from_bytes(digest[:16], 'big'))


def pick(rng: np.random.Generator, options: Sequence[T]) -> T:
  """Draws one of the options."""
  return options[int(rng.integers(len(options)))]


def draw_names(rng: np.random.Generator, n: int, split: str) -> list[str]:
  """Draws different names of a split."""
  pool = names_of(split)
  return [pool[i] for i in rng.choice(len(pool), n, replace=False)]


def make_scope(
    split: str, seed: int, difficulty: DifficultyConfig = USUAL
) -> str:
  """Names a scope, e.g. 'world/4/train/7/4-0-0.7-0.35-0.08-0'."""
  if split not in SPLITS or seed < 0:
    raise ValueError(f'no scope for split {split!r} and seed {seed}')
  values = '-'.join(f'{value:g}' for value in dataclasses.astuple(difficulty))
  return f'world/{VERSION}/{split}/{seed}/{values}'


def _parse(scope: str) -> tuple[str, DifficultyConfig]:
  """Returns a scope's split and difficulty.

  Raises:
    UserError: When it is not a scope of this version of the world.
  """
  try:
    _, _, split, seed, text = scope.split('/')
    names = [field.name for field in dataclasses.fields(DifficultyConfig)]
    values = map(json.loads, text.split('-'))
    fields = dict(zip(names, values, strict=True))
    difficulty = typed.read(DifficultyConfig, fields)
    if scope == make_scope(split, int(seed), difficulty):
      return split, difficulty
  except ValueError:
    pass
  raise UserError(
      f'scope {scope!r} is not one of world version {VERSION}: make the data '
      'set anew, or search it with the backend that it was made for'
  )


@functools.lru_cache(maxsize=len(SPLITS))
def names_of(split: str) -> tuple[str, ...]:
  """Returns every name that a split's scopes draw from."""
  return tuple(
      head + tail
      for i, head in enumerate(vocabulary.HEADS)
      for j, tail in enumerate(vocabulary.TAILS)
      if (3 * i + j) % 8 in _BUCKETS[split]
  )


@functools.lru_cache(maxsize=1024)
def world_of(scope: str) -> World:
  """The world of a scope.

  Args:
    scope: As `make_scope` writes it.

  Returns:
    The same world for the same scope, in every process.

  Raises:
    UserError: When it is not a scope of this version of the world.
  """
  split, difficulty = _parse(scope)
  rng = rng_of(scope, 'knowledge')
  names = draw_names(rng, 2 * N_ENTITIES, split)
  # In pairs, or a search would find the other twin's picture instead.
  n_pictured = N_ENTITIES - 2 * round(difficulty.unpictured * N_ENTITIES / 2)
  entities, documents = [], []
  for index, identity in enumerate(_draw_identities(rng)):
    name, alias = names[2 * index], names[2 * index + 1]
    facts, aliased = {}, set()
    for attribute in vocabulary.ATTRIBUTES:
      value = pick(rng, vocabulary.VALUES[attribute])
      slots = {'name': name, 'alias': alias, 'attribute': attribute}
      facts[attribute] = value
      if rng.random() < difficulty.aliased:
        aliased.add(attribute)
        documents.append((name, vocabulary.ALIAS_HIT.format(**slots)))
        slots['name'] = alias
      text = vocabulary.FACT_HIT.format(value=value, **slots)
      documents.append((slots['name'], text))
    pictured = index < n_pictured
    if not pictured:
      text = identity.describe(vocabulary.LOOK_HIT, name=name)
      documents.append((name, text))
    entities.append(
        Entity(
            identity=identity,
            name=name,
            alias=alias,
            facts=facts,
            aliased=frozenset(aliased),
            pictured=pictured,
        )
    )
  return World(
      scope=scope,
      difficulty=difficulty,
      entities=tuple(entities),
      documents=tuple(documents),
  )


def _draw_identities(rng: np.random.Generator) -> list[Identity]:
  """Draws pairs of twins: half of all looks occur, each twice."""
  looks = [(c, s) for c in vocabulary.COLOURS for s in vocabulary.SHAPES]
  identities = []
  for index in rng.permutation(len(looks))[: N_ENTITIES // 2]:
    colour, shape = looks[index]
    for pattern in rng.permutation(len(vocabulary.PATTERNS))[:2]:
      identities.append(Identity(colour, shape, vocabulary.PATTERNS[pattern]))
  return identities

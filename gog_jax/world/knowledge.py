"""What is true in a scope: who owns which emblem, and the documents on them.

A scope is a string `world/<version>/<split>/<seed>`; all else follows from it.
Facts are drawn afresh in every scope and the splits share no name, so nothing
can be memorised: an answer has to come out of a search.
"""

from __future__ import annotations

from collections.abc import Mapping
import dataclasses
import functools
import hashlib

import numpy as np

from gog_jax.errors import UserError
from gog_jax.world import vocabulary
from gog_jax.world.scenes import IDENTITIES
from gog_jax.world.scenes import Identity

# Goes up with any change to what a scope holds, so that old data sets are
# refused instead of answered from another world.
VERSION = 3
SPLITS = ('train', 'validation', 'test')
N_ENTITIES = 48
_P_ALIASED = 0.25
# Of eight buckets of syllable pairs, which are a split's own.
_BUCKETS = {'train': range(6), 'validation': range(6, 7), 'test': range(7, 8)}


@dataclasses.dataclass(frozen=True, kw_only=True)
class Entity:
  """The owner of an emblem.

  Attributes:
    identity: The emblem.
    name: What an image search calls it.
    alias: Its other name.
    facts: Attribute to value.
    aliased: Attributes whose fact is filed under the alias.
  """

  identity: Identity
  name: str
  alias: str
  facts: Mapping[str, str]
  aliased: frozenset[str]


@dataclasses.dataclass(frozen=True, kw_only=True, eq=False)
class World:
  """All that a scope holds: entities, and documents as (subject, text)."""

  scope: str
  split: str
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


def make_scope(split: str, seed: int) -> str:
  """Names a scope, e.g. 'world/3/train/7'."""
  if split not in SPLITS or seed < 0:
    raise ValueError(f'no scope for split {split!r} and seed {seed}')
  return f'world/{VERSION}/{split}/{seed}'


def split_of(scope: str) -> str:
  """Returns a scope's split.

  Args:
    scope: As `make_scope` writes it.

  Returns:
    'train', 'validation' or 'test'.

  Raises:
    UserError: When it is not a scope of this version of the world.
  """
  parts = scope.split('/')
  if (
      len(parts) == 4
      and parts[:2] == ['world', str(VERSION)]
      and parts[2] in SPLITS
      and parts[3].isascii()
      and parts[3].isdigit()
  ):
    return parts[2]
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
  """Makes what a scope holds.

  Args:
    scope: As `make_scope` writes it.

  Returns:
    The same world for the same scope, in every process.

  Raises:
    UserError: When it is not a scope of this version of the world.
  """
  split = split_of(scope)
  rng = rng_of(scope, 'knowledge')
  pool = names_of(split)
  names = [
      pool[i] for i in rng.choice(len(pool), 2 * N_ENTITIES, replace=False)
  ]
  entities, documents = [], []
  chosen = rng.choice(len(IDENTITIES), N_ENTITIES, replace=False)
  for index, identity in enumerate(chosen):
    name, alias = names[2 * index], names[2 * index + 1]
    facts, aliased = {}, set()
    for attribute in vocabulary.ATTRIBUTES:
      values = vocabulary.VALUES[attribute]
      value = values[rng.integers(len(values))]
      slots = {'name': name, 'alias': alias, 'attribute': attribute}
      facts[attribute] = value
      if rng.random() < _P_ALIASED:
        aliased.add(attribute)
        documents.append((name, vocabulary.ALIAS_HIT.format(**slots)))
        slots['name'] = alias
      text = vocabulary.FACT_HIT.format(value=value, **slots)
      documents.append((slots['name'], text))
    entities.append(
        Entity(
            identity=IDENTITIES[identity],
            name=name,
            alias=alias,
            facts=facts,
            aliased=frozenset(aliased),
        )
    )
  return World(
      scope=scope,
      split=split,
      entities=tuple(entities),
      documents=tuple(documents),
  )

"""Search in the embedded world: by picture and by words."""

from __future__ import annotations

import dataclasses

import numpy as np

from gog_jax.toy import knowledge
from gog_jax.toy import scenes
from gog_jax.toy import vocabulary
from tests.world_helpers import by_image
from tests.world_helpers import by_text
from tests.world_helpers import questions_of
from tests.world_helpers import stdout_of


def test_a_tight_crop_finds_its_emblem():
  tight, rough = [], []
  rng = np.random.default_rng(0)
  for question in questions_of('test', 320):
    world = knowledge.world_of(question.example.scope)
    for emblem in question.scene.emblems:
      owner = world.by_identity[emblem.identity]
      if not owner.pictured:
        continue
      name = owner.name
      for found, reach in ((tight, 2), (rough, 5)):
        box = np.array(emblem.box) + rng.integers(-reach, reach + 1, 4)
        box = tuple(np.clip(box, 0, scenes.SIZE))
        data = scenes.crop(question.scene.data, box)
        hit = by_image(data, world.scope)[0]
        found.append(hit.title == name)
  assert len(tight) > 400
  assert np.mean(tight) >= 0.98
  assert np.mean(rough) >= 0.92


def test_what_is_not_pictured_is_found_weakly_and_looks_otherwise():
  strong = {True: [], False: []}
  for question in questions_of('test', 320):
    world = knowledge.world_of(question.example.scope)
    for emblem in question.scene.emblems:
      owner = world.by_identity[emblem.identity]
      data = scenes.crop(question.scene.data, emblem.box)
      words = by_image(data, world.scope)[0].text.split()
      look = [emblem.identity.colour, emblem.identity.shape]
      assert (words[2:4] == look) == owner.pictured
      strong[owner.pictured].append(words[-1] == vocabulary.STRONG)
      if not owner.pictured:
        described = ' '.join((emblem.identity.pattern, *look))
        (hit,) = by_text(described, world.scope)
        assert hit.text == f'{owner.name} {described}'
  assert len(strong[False]) > 40
  assert np.mean(strong[True]) > 0.95 > 0.1 > np.mean(strong[False])


def test_noise_misleads_and_is_the_same_every_time():
  noisy = dataclasses.replace(knowledge.USUAL, noise=0.2)
  clear = questions_of('test', 32)
  scope = knowledge.make_scope('test', 0, noisy)
  crops = [
      scenes.crop(q.scene.data, q.target.box) for q in clear if q.target
  ]
  found = [by_image(crop, scope)[0].title for crop in crops]
  assert found == [by_image(crop, scope)[0].title for crop in crops]
  world = knowledge.world_of(scope)
  right = [
      world.by_identity.get(q.target.identity)
      for q in clear
      if q.target
  ]
  names = [owner.name if owner else None for owner in right]
  assert np.mean([a == b for a, b in zip(found, names)]) < 0.7


def test_a_whole_scene_finds_only_a_big_emblem():
  right, strong = {True: [], False: []}, {True: [], False: []}
  for question in questions_of('train', 240):
    scene = question.scene
    world = knowledge.world_of(question.example.scope)
    hit = by_image(scene.data, world.scope)[0]
    owner = world.by_identity[scene.emblems[0].identity]
    right[scene.main].append(hit.title == owner.name or not owner.pictured)
    strong[scene.main].append(hit.text.endswith(vocabulary.STRONG))
  assert np.mean(right[True]) >= 0.75 > 0.35 >= np.mean(right[False])
  assert np.mean(strong[False]) <= 0.02


def test_text_search_finds_facts_and_aliases():
  scope = knowledge.make_scope('validation', 1)
  for owner in knowledge.world_of(scope).entities:
    for attribute, value in owner.facts.items():
      (hit,) = by_text(f'{owner.name} {attribute}', scope)
      if attribute in owner.aliased:
        assert hit.text == f'{owner.name} {attribute} aka {owner.alias}'
        (hit,) = by_text(f'{owner.alias} {attribute}', scope)
        assert hit.title == owner.alias
        assert hit.text == f'{owner.alias} {attribute} {value}'
      else:
        assert hit.title == owner.name
        assert hit.text == f'{owner.name} {attribute} {value}'


def test_text_search_forgives_form_but_invents_nothing():
  scope = knowledge.make_scope('train', 0)
  owner = knowledge.world_of(scope).entities[0]
  (plain,) = by_text(f'{owner.name} city', scope)
  (shouted,) = by_text(f' CITY?? {owner.name.upper()}! city', scope)
  assert shouted == plain
  assert by_text('zzz <tool_call> {"', scope) == ()
  assert by_text('', scope) == ()
  hits = by_text(owner.name, scope, top_k=3)
  assert [hit.title for hit in hits] == [owner.name] * 3
  assert hits[0].score >= hits[2].score > 0
  images = by_image(questions_of('train', 1)[0].scene.data, scope, top_k=2)
  assert images[0].title != images[1].title
  assert images[0].score >= images[1].score


def test_importing_the_backend_starts_no_device():
  script = 'import sys, gog_jax.toy.backend; print("jax" in sys.modules)'
  assert stdout_of(script) == 'False\n'

"""A policy whose first turns are said for it goes on as if it had said them."""

from __future__ import annotations

import jax.numpy as jnp
import numpy as np
import pytest

from gog_jax.rollout.scripted import ForcedPolicy
from tests import tiny

SEEDS = (0, 1, 2)


@pytest.fixture(scope='module')
def vlm():
  return tiny.model()


def play(policy, seeds):
  return tiny.conversations(policy, seeds)


@pytest.mark.parametrize('n_forced', [1, 2, 3])
def test_what_follows_is_what_it_would_have_said(vlm, n_forced):
  own = play(tiny.policy(vlm, greedy=True), SEEDS)

  def opening(request):
    # What it said itself, turn by turn, in that conversation.
    trajectory = own[SEEDS.index(request.seed)]
    edges = np.flatnonzero(np.diff(trajectory.loss_mask, prepend=0, append=0))
    turns = [
        trajectory.token_ids[start:end]
        for start, end in edges.reshape(-1, 2)
    ]
    return turns[:n_forced]

  forced = play(
      ForcedPolicy(tiny.policy(vlm, greedy=True), opening), SEEDS
  )
  for a, b in zip(own, forced, strict=True):
    np.testing.assert_array_equal(a.token_ids, b.token_ids)
    said = b.sampler_logprobs == 0
    assert said[b.loss_mask == 1].any()
    np.testing.assert_allclose(
        a.sampler_logprobs[~said], b.sampler_logprobs[~said], atol=1e-4
    )
    assert (said[b.loss_mask == 1].all()) == (n_forced == 3)


def test_openings_may_differ_and_slots_are_used_again(vlm):
  inner = tiny.policy(vlm, greedy=True)
  said = {0: [[20, 21, tiny.STOP]], 1: [], 2: [[22, tiny.STOP]] * 2}
  policy = ForcedPolicy(inner, lambda request: said[request.seed])
  first = play(policy, SEEDS)
  again = play(policy, SEEDS[::-1])[::-1]
  plain = play(tiny.policy(vlm, greedy=True), SEEDS)
  for a, b in zip(first, again, strict=True):
    np.testing.assert_array_equal(a.token_ids, b.token_ids)
  np.testing.assert_array_equal(first[1].token_ids, plain[1].token_ids)
  assert first[0].token_ids.tolist() != plain[0].token_ids.tolist()


def test_a_banned_token_is_not_taken(vlm):
  free = play(tiny.policy(vlm, greedy=True), SEEDS)
  taken = int(free[0].token_ids[free[0].loss_mask == 1][0])
  sampler = tiny.policy(vlm, greedy=True)
  sampler._decode_limits['banned_ids'] = (taken,)
  for trajectory in play(sampler, SEEDS):
    assert taken not in trajectory.token_ids[trajectory.loss_mask == 1]
    assert jnp.isfinite(trajectory.sampler_logprobs).all()

"""GRPO's loss, gradient and advantages against independent NumPy."""

from __future__ import annotations

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from gog_jax.rollout.batching import loss_weights
from gog_jax.train import losses
from gog_jax.train.advantages import group_advantages

pytestmark = pytest.mark.quick

CONFIG = losses.GRPOConfig(
    clip_low=0.2, clip_high=0.28, kl_coef=0.05, max_importance_weight=2.0
)


def numpy_grpo(logps, olds, samplers, refs, rewards, valid, config, eps=1e-4):
  """The objective, token by token, from the formulas of the docstrings.

  Ragged lists [P][G] of per-token arrays; returns loss and d loss / d logps.
  """
  n_valid = sum(v for group in valid for v in group)
  total, grads = 0.0, []
  for p, group in enumerate(logps):
    members = [r for r, v in zip(rewards[p], valid[p]) if v]
    mean = sum(members) / len(members) if members else 0.0
    std = 0.0
    if len(members) > 1:
      variance = sum((r - mean) ** 2 for r in members) / (len(members) - 1)
      std = variance**0.5
    grads.append([])
    for g, tokens in enumerate(group):
      advantage = (rewards[p][g] - mean) / std if std >= eps else 0.0
      grad = np.zeros(len(tokens))
      if valid[p][g]:
        for t, logp in enumerate(tokens):
          old, ref = olds[p][g][t], refs[p][g][t]
          ratio = np.exp(logp - old)
          clipped = min(max(ratio, 1 - config.clip_low), 1 + config.clip_high)
          weight = min(
              np.exp(old - samplers[p][g][t]), config.max_importance_weight
          )
          use_ratio = ratio * advantage <= clipped * advantage
          surrogate = (ratio if use_ratio else clipped) * advantage
          kl = np.exp(ref - logp) - (ref - logp) - 1
          scale = 1 / (len(tokens) * n_valid)
          total += scale * (-weight * surrogate + config.kl_coef * kl)
          # Where both sides of min are equal (inside the clip range), they
          # are the same function, with the ratio's gradient.
          slope = ratio * advantage if use_ratio else 0.0
          grad[t] = scale * (
              -weight * slope + config.kl_coef * (1 - np.exp(ref - logp))
          )
      grads[-1].append(grad)
  return total, grads


def random_case(seed, *, on_policy):
  """Ragged groups: equal rewards, masked members, one-token answers."""
  rng = np.random.default_rng(seed)
  lengths = [[5, 1, 7, 3], [2, 2, 9, 1], [4, 6, 1, 1], [3, 3, 3, 3]]
  rewards = [[1.0, 0.1, 0.0, 1.0], [0.1] * 4, [1.0, 0.0, 1.0, 0.0], [0.9] * 4]
  valid = [[1, 1, 1, 1], [1, 1, 1, 1], [1, 1, 0, 1], [1, 0, 0, 0]]
  rewards[3][1] = 0.0  # Differs, but is not valid: the group is dead.

  def draw(base=None, scale=0.0):
    if base is None:
      return [[-rng.exponential(1.0, n) for n in row] for row in lengths]
    return [
        [x + scale * rng.standard_normal(len(x)) for x in row] for row in base
    ]

  logps = draw()
  olds = logps if on_policy else draw(logps, 0.3)
  return logps, olds, draw(olds, 0.4), draw(logps, 0.2), rewards, valid


@pytest.mark.parametrize('on_policy', [True, False])
@pytest.mark.parametrize('seed', range(5))
def test_grpo_matches_numpy(seed, on_policy):
  with jax.enable_x64(True):
    logps, olds, samplers, refs, rewards, valid = random_case(
        seed, on_policy=on_policy
    )
    want_loss, want_grads = numpy_grpo(
        logps, olds, samplers, refs, rewards, valid, CONFIG
    )
    groups = group_advantages(
        np.array(rewards),
        np.array(valid, bool),
        np.array(rewards),
        eps=1e-4,
    )
    flat_lengths = [len(x) for row in logps for x in row]
    weights = loss_weights(
        flat_lengths,
        [bool(v) for row in valid for v in row],
        aggregation='sequence_mean',
    )

    def flatten(ragged):
      return jnp.concatenate([jnp.asarray(x) for row in ragged for x in row])

    repeat = lambda x: np.repeat(np.asarray(x, np.float64), flat_lengths)

    def loss_fn(logprobs):
      old = logprobs if on_policy else flatten(olds)
      token_loss, _ = losses.grpo_loss(
          logprobs,
          old_logprobs=old,
          sampler_logprobs=flatten(samplers),
          ref_logprobs=flatten(refs),
          advantages=repeat(groups.advantages.reshape(-1)),
          config=CONFIG,
      )
      return (token_loss * repeat(weights)).sum()

    loss, grads = jax.value_and_grad(loss_fn)(flatten(logps))
    np.testing.assert_allclose(loss, want_loss, rtol=1e-5)
    np.testing.assert_allclose(
        grads,
        np.concatenate([x for row in want_grads for x in row]),
        rtol=1e-5,
        atol=1e-8,
    )
    # The case is not vacuous: something is clipped, something is capped.
    if not on_policy:
      ratio = np.exp(flatten(logps) - flatten(olds))
      assert (ratio > 1.28).any()
      assert (ratio < 0.8).any()
    assert (np.exp(flatten(olds) - flatten(samplers)) > 2).any()


def test_advantages_by_hand():
  groups = group_advantages(
      np.array([[1.0, 0.0, 0.0, 1.0], [0.5] * 4, [1, 0, 0, 0], [0.1, 0, 0, 0]]),
      np.array([[1, 1, 1, 1], [1, 1, 1, 1], [1, 0, 0, 0], [1, 1, 1, 1]], bool),
      np.array([[1.0, 0.0, 0.0, 1.0], [0.5] * 4, [1, 0, 0, 0], [0, 0, 0, 0]]),
      eps=1e-4,
  )
  # std of (1, 0, 0, 1) with ddof 1 is sqrt(1/3).
  half = 0.5 * 3**0.5
  np.testing.assert_allclose(
      groups.advantages[0], [half, -half, -half, half], rtol=1e-6
  )
  np.testing.assert_array_equal(groups.advantages[1], 0)
  np.testing.assert_array_equal(groups.advantages[2], 0)
  np.testing.assert_array_equal(groups.live, [True, False, False, True])
  np.testing.assert_array_equal(
      groups.format_only, [False, False, False, True]
  )


def test_invalid_members_change_nothing():
  valid = np.array([[True, True, False, True]])
  rewards = np.array([[1.0, 0.0, 0.7, 0.3]])
  changed = np.array([[1.0, 0.0, -9.0, 0.3]])
  a = group_advantages(rewards, valid, rewards, eps=1e-4)
  b = group_advantages(changed, valid, changed, eps=1e-4)
  np.testing.assert_array_equal(a.advantages, b.advantages)
  assert a.advantages[0, 2] == 0


def test_loss_weights_by_hand():
  np.testing.assert_allclose(
      loss_weights([4, 1, 5], [True, True, False], aggregation='sequence_mean'),
      [1 / 8, 1 / 2, 0],
  )
  np.testing.assert_allclose(
      loss_weights([4, 1, 5], [True, True, False], aggregation='token_mean'),
      [1 / 5, 1 / 5, 0],
  )
  np.testing.assert_array_equal(
      loss_weights([4], [False], aggregation='token_mean'), [0]
  )

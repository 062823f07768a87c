"""GRPO's loss, gradient and advantages against independent NumPy."""

from __future__ import annotations

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from gog_jax.rollout.batching import loss_weights
from gog_jax.train import losses
from gog_jax.train.advantages import group_advantages

pytestmark = pytest.mark.quick

KL, CAP, MOST = 0.05, 2.0, 12


def numpy_objective(
    variant, clip, logps, olds, samplers, refs, rewards, valid, eps=1e-4
):
  """The objective of a published variant, token by token, from its formulas.

  Ragged lists [P][G] of per-token arrays; knows nothing of the code's tables.
  """
  low, high = clip
  n_valid = sum(v for group in valid for v in group)
  n_tokens = sum(
      len(tokens)
      for group, ok in zip(logps, valid)
      for tokens, v in zip(group, ok)
      if v
  )
  total = 0.0
  for p, group in enumerate(logps):
    members = [r for r, v in zip(rewards[p], valid[p]) if v]
    mean = sum(members) / len(members) if members else 0.0
    std = 0.0
    if len(members) > 1:
      variance = sum((r - mean) ** 2 for r in members) / (len(members) - 1)
      std = variance**0.5
    for g, tokens in enumerate(group):
      if not valid[p][g]:
        continue
      advantage = rewards[p][g] - mean if std >= eps else 0.0
      if variant != 'dr_grpo' and std >= eps:
        advantage /= std
      change = [logp - old for logp, old in zip(tokens, olds[p][g])]
      for t, logp in enumerate(tokens):
        ratio = np.exp(
            sum(change) / len(change) if variant == 'gspo' else change[t]
        )
        clipped = min(max(ratio, 1 - low), 1 + high)
        surrogate = min(ratio * advantage, clipped * advantage)
        weight = min(np.exp(olds[p][g][t] - samplers[p][g][t]), CAP)
        ref = refs[p][g][t]
        kl = np.exp(ref - logp) - (ref - logp) - 1
        scale = {
            'grpo': 1 / (len(tokens) * n_valid),
            'gspo': 1 / (len(tokens) * n_valid),
            'dapo': 1 / n_tokens,
            'dr_grpo': 1 / (MOST * n_valid),
        }[variant]
        total += scale * (-weight * surrogate + KL * kl)
  return total


def numpy_gradient(objective, logps, step=1e-6):
  """By central differences, one token after another."""
  grads = []
  for group in logps:
    for tokens in group:
      for t in range(len(tokens)):
        kept = tokens[t]
        sides = []
        for sign in (1, -1):
          tokens[t] = kept + sign * step
          sides.append(objective())
        tokens[t] = kept
        grads.append((sides[0] - sides[1]) / (2 * step))
  return np.array(grads)


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
@pytest.mark.parametrize('seed', range(3))
@pytest.mark.parametrize(
    ('name', 'clip'),
    [
        ('grpo', (0.2, 0.2)),
        ('grpo', (0.1, 0.3)),
        ('dr_grpo', (0.2, 0.2)),
        ('dapo', (0.2, 0.28)),
        ('gspo', (3e-4, 4e-4)),
        ('gspo', (0.1, 0.2)),
    ],
)
def test_variants_match_numpy(name, clip, seed, on_policy):
  logps, olds, samplers, refs, rewards, valid = random_case(
      seed, on_policy=on_policy
  )
  # What is old does not move with what is new.
  fixed = [[np.array(x) for x in row] for row in olds]

  def objective():
    return numpy_objective(
        name, clip, logps, fixed, samplers, refs, rewards, valid
    )

  want_grads = numpy_gradient(objective, logps)
  variant = losses.VARIANTS[name]
  lengths = [len(x) for row in logps for x in row]
  groups = group_advantages(
      np.array(rewards),
      np.array(valid, bool),
      np.array(rewards),
      eps=1e-4,
      divide_by_std=variant.divide_by_std,
  )
  weights = loss_weights(
      lengths,
      [bool(v) for row in valid for v in row],
      aggregation=variant.aggregation,
      most_targets=MOST,
  )
  variant = dataclasses.replace(
      variant, clip=clip, kl_coef=KL, max_importance_weight=CAP
  )
  # Packed: all in one row, a position that nobody sampled between any two.
  width = sum(lengths) + len(lengths)
  at = np.concatenate(
      [
          sum(lengths[:i]) + i + np.arange(length)
          for i, length in enumerate(lengths)
      ]
  )

  def packed(values):
    row = np.zeros(width)
    row[at] = values
    return row[None]

  def flatten(ragged):
    return packed(np.concatenate([x for row in ragged for x in row]))

  repeat = lambda x: packed(np.repeat(np.asarray(x, np.float64), lengths))
  segments = np.repeat(np.arange(len(lengths)) + 1, np.array(lengths) + 1)

  with jax.enable_x64(True):

    def loss_fn(logprobs):
      token_loss, _ = losses.grpo_loss(
          logprobs,
          old_logprobs=logprobs if on_policy else jnp.asarray(flatten(olds)),
          sampler_logprobs=jnp.asarray(flatten(samplers)),
          ref_logprobs=jnp.asarray(flatten(refs)),
          advantages=jnp.asarray(repeat(groups.advantages.reshape(-1))),
          segment_ids=jnp.asarray(segments[None]),
          loss_mask=jnp.asarray(packed(1.0)),
          variant=variant,
      )
      return (token_loss * repeat(weights)).sum()

    loss, grads = jax.value_and_grad(loss_fn)(jnp.asarray(flatten(logps)))
  np.testing.assert_allclose(loss, objective(), rtol=1e-5)
  np.testing.assert_allclose(
      np.asarray(grads)[0, at], want_grads, rtol=2e-5, atol=1e-7
  )
  # The case is not vacuous: something is clipped, something is capped.
  if not on_policy:
    ratio = np.exp(flatten(logps) - flatten(olds))
    assert (ratio > 1 + clip[1]).any()
    assert (ratio < 1 - clip[0]).any()
  assert (np.exp(flatten(olds) - flatten(samplers)) > CAP).any()


@pytest.mark.parametrize('name', ['grpo', 'gspo'])
@pytest.mark.parametrize('far', ['old_logprobs', 'sampler', 'ref_logprobs'])
@pytest.mark.parametrize('gap', [19.0, 150.0, -150.0])
def test_a_log_ratio_is_cut_before_exp(name, far, gap):
  """In float32 exp(150) is inf; within 20 nothing is cut."""
  logprobs = jnp.full((1, 3), -1.0)
  given = dict.fromkeys(('old_logprobs', 'sampler', 'ref_logprobs'), logprobs)
  given[far] = logprobs - gap
  variant = dataclasses.replace(losses.VARIANTS[name], kl_coef=KL)

  def loss_of(logprobs):
    loss, parts = losses.grpo_loss(
        logprobs,
        old_logprobs=given['old_logprobs'],
        sampler_logprobs=given['sampler'],
        ref_logprobs=given['ref_logprobs'],
        advantages=jnp.full((1, 3), -1.0),
        segment_ids=jnp.ones((1, 3), int),
        loss_mask=jnp.ones((1, 3)),
        variant=variant,
    )
    return loss.sum(), parts

  (loss, parts), grads = jax.value_and_grad(loss_of, has_aux=True)(logprobs)
  assert np.isfinite(loss)
  assert np.isfinite(grads).all()
  cut = np.clip(gap, -20, 20)
  if far == 'old_logprobs':
    np.testing.assert_allclose(parts['ratio'], np.exp(cut), rtol=1e-5)
    # What is old is nearer to the sampler's by as much.
    cut = -cut
  if far == 'ref_logprobs':
    want = np.exp(-cut) + cut - 1
    np.testing.assert_allclose(parts['kl'], want, rtol=1e-5)
  else:
    want = np.exp(cut)
    np.testing.assert_allclose(parts['importance_weight'], want, rtol=1e-5)


def test_published_clips():
  assert losses.VARIANTS['grpo'].clip == (0.2, 0.2)
  assert losses.VARIANTS['dapo'].clip == (0.2, 0.28)


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
  np.testing.assert_allclose(
      loss_weights(
          [4, 1, 5],
          [True, True, False],
          aggregation='constant',
          most_targets=10,
      ),
      [1 / 20, 1 / 20, 0],
  )

"""Whole rows, packed rows and cached rows give the same hidden states."""

from __future__ import annotations

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from gog_jax import models
from gog_jax.models import sharding
from gog_jax.models import text
from gog_jax.models.families import FAMILIES
from tests import helpers

CONFIG = helpers.tiny_config()  # Conversations are the same for both.
TURNS = ((5, (1, 6, 10), 7), (3, (1, 8, 6), 4))
OTHER = ((9,), (2, (1, 4, 4), 6))


@pytest.fixture(scope='module', params=FAMILIES)
def model(request):
  return helpers.tiny_model(helpers.tiny_config(family=request.param))


@jax.jit
def full(model, tokens, positions, segment_ids, inputs, image_index):
  features = model.vision(inputs)
  return model.text.hidden(
      tokens, positions, segment_ids, features, image_index
  )


@jax.jit
def extend(model, tokens, positions, n_valid, inputs, image_index, cache):
  features = None if inputs is None else model.vision(inputs)
  return model.text.extend(
      tokens, positions, n_valid, features, image_index, cache
  )


def pack(model, rows, *, n_patches=160):
  config = model.config.vision
  return models.pack_images(rows, n_patches=n_patches, config=config)


def packed_row(model, conversations):
  """Arguments of `full` for conversations that share one row of 96 tokens."""
  tokens, segments, index = np.zeros((3, 1, 96), np.int32)
  positions = np.zeros((1, 3, 96), np.int32)
  images, start, n_features = [], 0, 0
  index[:] = -1
  for segment, conversation in enumerate(conversations, start=1):
    for turn in conversation:
      here = slice(start, start + len(turn.tokens))
      tokens[0, here] = turn.tokens
      positions[0, :, here] = turn.positions  # They start again at 0.
      segments[0, here] = segment
      index[0, here] = turn.image_index(first_feature=n_features)
      start += len(turn.tokens)
      n_features += int((turn.tokens == helpers.IMAGE_TOKEN).sum())
      images += turn.images
  return tokens, positions, segments, pack(model, [images]), index


def alone(model, conversation):
  """Hidden states of a conversation that has its row to itself: [T, D]."""
  n_tokens = sum(len(turn.tokens) for turn in conversation)
  hidden = full(model, *packed_row(model, [conversation]))
  return np.asarray(hidden)[0, :n_tokens]


def test_prefill_and_decode_over_two_turns_equal_the_full_forward(model):
  conversations = [
      helpers.model_inputs(TURNS, CONFIG, seed=0),
      helpers.model_inputs(OTHER, CONFIG, seed=1),
  ]
  expected = [alone(model, c) for c in conversations]
  actual = [np.zeros_like(e) for e in expected]
  cache = model.text.init_cache(2, 80, jnp.float32)
  lengths = np.zeros(2, int)

  def feed(chunks, inputs):
    """One call; each row's chunk is (tokens, positions, image_index)."""
    nonlocal cache, lengths
    width = 1 if inputs is None else 40
    tokens = np.full((2, width), 99)  # What pads must not matter.
    positions = np.full((2, 3, width), 7)
    index = np.full((2, width), -1)
    n_valid = np.array([len(tokens) for tokens, _, _ in chunks])
    for row, (ids, places, features) in enumerate(chunks):
      tokens[row, : len(ids)] = ids
      positions[row, :, : len(ids)] = places
      index[row, : len(ids)] = features
    hidden, cache = extend(
        model, tokens, positions, n_valid, inputs, index, cache
    )
    for row, n in enumerate(n_valid):
      actual[row][lengths[row] : lengths[row] + n] = hidden[row, :n]
    lengths += n_valid

  for turn in range(2):
    chunks = []
    for conversation in conversations:
      t = conversation[turn]
      chunks.append((t.tokens, t.positions, t.image_index()))
    # All but the last four tokens at once, those one by one; the rows have
    # different lengths throughout.
    inputs = pack(model, [c[turn].images for c in conversations])
    feed([(t[:-4], p[:, :-4], i[:-4]) for t, p, i in chunks], inputs)
    for back in (-4, -3, -2, -1):
      stop = back + 1 or None
      feed(
          [
              (t[back:stop], p[:, back:stop], i[back:stop])
              for t, p, i in chunks
          ],
          None,
      )
  np.testing.assert_array_equal(cache.lengths, lengths)
  for ours, theirs in zip(actual, expected, strict=True):
    np.testing.assert_allclose(ours, theirs, rtol=0, atol=2e-5)


def test_rows_without_new_tokens_keep_their_cache(model):
  rng = np.random.default_rng(0)
  cache = model.text.init_cache(2, 6, jnp.float32)

  def step(n_valid, width=4):
    nonlocal cache
    tokens = rng.integers(20, 128, (2, width))
    positions = np.broadcast_to(cache.lengths[:, None, None], (2, 3, width))
    hidden, cache = extend(
        model, tokens, positions, np.array(n_valid), None, None, cache
    )
    return hidden

  step([4, 2])
  before = cache
  hidden = step([0, 1])
  assert np.isfinite(hidden).all()
  np.testing.assert_array_equal(cache.lengths, [4, 3])
  for old, new in zip(before.k + before.v, cache.k + cache.v, strict=True):
    np.testing.assert_array_equal(old[0], new[0])
    np.testing.assert_array_equal(old[1, :, :2], new[1, :, :2])
    assert np.abs(new[1, :, 2]).max() > 0
    assert not new[1, :, 3:].any()  # The invalid tokens left no trace.
  # What does not fit is dropped, and shifts nothing.
  before = cache
  step([4, 4])
  np.testing.assert_array_equal(cache.lengths, [6, 6])
  for old, new in zip(before.k, cache.k, strict=True):
    np.testing.assert_array_equal(old[0, :, :4], new[0, :, :4])


def test_extend_runs_in_a_while_loop(model):
  """Each token that a loop decodes is the full forward's most likely one."""

  @jax.jit
  def decode(model, hidden, cache):
    def step(carry):
      t, hidden, cache, tokens = carry
      token = model.text.logits(hidden).argmax(-1)
      positions = jnp.broadcast_to(cache.lengths[:, None, None], (1, 3, 1))
      hidden, cache = model.text.extend(
          token[:, None], positions, jnp.ones(1, int), None, None, cache
      )
      return t + 1, hidden[:, 0], cache, tokens.at[:, t].set(token)

    carry = (0, hidden, cache, jnp.zeros((1, 5), int))
    return jax.lax.while_loop(lambda c: c[0] < 5, step, carry)[-1]

  tokens = np.arange(30, 38)[None]
  positions = np.broadcast_to(np.arange(8), (1, 3, 8))
  hidden, cache = extend(
      model,
      tokens,
      positions,
      np.array([8]),
      None,
      None,
      model.text.init_cache(1, 16, jnp.float32),
  )
  sampled = np.asarray(decode(model, hidden[:, -1], cache))
  tokens = np.concatenate([tokens, sampled], axis=1)
  logits = model(tokens, np.ones_like(tokens))
  np.testing.assert_array_equal(sampled, logits[:, 7:-1].argmax(-1))


def test_a_packed_row_equals_its_conversations(model):
  conversations = [
      helpers.model_inputs(TURNS, CONFIG, seed=0),
      helpers.model_inputs(OTHER, CONFIG, seed=1),
  ]
  row = np.asarray(full(model, *packed_row(model, conversations)))[0]
  assert np.isfinite(row).all()  # Padding too.
  expected = np.concatenate([alone(model, c) for c in conversations])
  np.testing.assert_allclose(
      row[: len(expected)], expected, rtol=0, atol=2e-5
  )


def test_nothing_later_nor_in_another_segment_is_seen(model):
  """Causality by gradient: token 6's state depends on tokens 4, 5, 6."""
  segments = np.array([[1, 1, 1, 1, 2, 2, 2, 2, 0, 0]])
  positions = np.broadcast_to([0, 1, 2, 3, 0, 1, 2, 3, 0, 0], (1, 3, 10))

  def state_of_6(features):
    hidden = model.text.hidden(
        np.full((1, 10), 50), positions, segments, features, np.arange(10)[None]
    )
    return hidden[0, 6].sum()

  width = model.config.vision.feature_width
  features = jax.random.normal(jax.random.key(0), (1, 10, width))
  gradient = jax.jit(jax.grad(state_of_6))(features)[0]
  seen = np.abs(gradient).max(axis=-1) > 0
  np.testing.assert_array_equal(seen, [0, 0, 0, 0, 1, 1, 1, 0, 0, 0])


def test_padding_gives_finite_gradients(model):
  """A batch of nothing but padding, through both towers."""
  inputs = pack(model, [[]], n_patches=16)

  def loss(model):
    features = model.vision(inputs)
    zeros = np.zeros((1, 6), int)
    hidden = model.text.hidden(
        zeros, np.zeros((1, 3, 6), int), zeros, features, zeros - 1
    )
    return jnp.sum(hidden * 0) + jnp.sum(features * 0)

  for leaf in jax.tree.leaves(jax.jit(jax.grad(loss))(model)):
    assert np.isfinite(leaf).all()


@pytest.mark.parametrize('n_new', [1, 4, 9])
@pytest.mark.parametrize('on_mesh', [False, True])
def test_appending_to_the_cache(n_new, on_mesh):
  """Row by row against NumPy: nothing, some, all, and beyond the end."""
  rng = helpers.rng(n_new)
  held = rng.standard_normal((8, 2, 8, 3), np.float32)
  new = rng.standard_normal((8, n_new, 2, 3), np.float32)
  lengths = np.array([0, 0, 3, 7, 8, 5, 2, 6], np.int32)
  n_valid = np.minimum([0, 1, n_new, 1, n_new, n_new, 2, 0], n_new)
  expected = held.copy()
  for row, (length, n) in enumerate(zip(lengths, n_valid, strict=True)):
    for i in range(min(n, 8 - length)):
      expected[row, :, length + i] = new[row, i]
  append = jax.jit(text.append_to_cache)
  call = lambda: append(held, new, lengths=lengths, n_valid=n_valid)
  if not on_mesh:
    np.testing.assert_array_equal(call(), expected)
    return
  if jax.device_count() != 8:
    pytest.skip('needs the eight devices that conftest.py asks for')
  with jax.set_mesh(sharding.make_mesh(2, 2, 2)):
    np.testing.assert_array_equal(call(), expected)

"""Operations, against the compiler's count and sums by hand."""

from __future__ import annotations

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from gog_jax import models
from gog_jax.aot import costs
from gog_jax.models.layers import Execution
from tests import helpers

pytestmark = pytest.mark.quick


@pytest.mark.parametrize('family', ['qwen2_5_vl', 'qwen3_vl'])
def test_text_flops_are_the_compilers(family):
  """Unrolled, with all pairs of tokens: what XLA counts, but for the rest.

  The rest (norms, softmax, rotations) is not counted by us: a few per cent at
  these widths.
  """
  config = helpers.tiny_config(family=family, tied=False)
  text = dataclasses.replace(
      config.text, width=256, ffn=1024, n_layers=2, vocab_size=512
  )
  config = dataclasses.replace(
      config, text=text,
      vision=dataclasses.replace(config.vision, out_width=256),
  )  # fmt: skip
  model = models.abstract(config, dtype=jnp.float32)
  n = 64
  cache = jax.eval_shape(lambda: model.text.init_cache(1, n, jnp.float32))

  def run(model, tokens, positions, n_valid, cache):
    text = model.text
    hidden, cache = text.extend(tokens, positions, n_valid, None, None, cache)
    return text.logits(hidden), cache

  ints = lambda *shape: jax.ShapeDtypeStruct(shape, jnp.int32)
  compiled = (
      jax.jit(run)
      .lower(model, ints(1, n), ints(1, 3, n), ints(1), cache)
      .compile()
  )
  counted = costs.text_flops(text, n_tokens=n, n_pairs=n * n, n_logits=n)
  ratio = compiled.cost_analysis()['flops'] / counted
  assert 1 <= ratio < 1.06


def test_vision_flops_are_the_compilers():
  """Of one image, which is what all its patches attend to."""
  config = helpers.tiny_config(family='qwen3_vl', tied=False)
  vision = dataclasses.replace(
      config.vision, width=128, ffn=512, n_heads=4, n_kv_heads=4, head_dim=32,
      n_layers=4,
  )  # fmt: skip
  config = dataclasses.replace(config, vision=vision)
  model = models.abstract(config, dtype=jnp.float32)
  n = 144
  inputs = models.pack_images([[]], n_patches=n, config=vision)

  def run(model, inputs):
    return model.vision(inputs, Execution(scan=False))

  compiled = jax.jit(run).lower(model, inputs).compile()
  counted = costs.vision_flops(vision, n, n)
  ratio = compiled.cost_analysis()['flops'] / counted
  assert 1 <= ratio < 1.12


def test_an_update_by_hand():
  """2 flops for each weight and token: one pass is 2 N T; 3 or 5 of those."""
  config = models.published_config('qwen3_vl_8b')
  text = config.text
  weights = text.n_layers * (
      text.width * text.head_dim * 2 * (text.n_heads + text.n_kv_heads)
      + 3 * text.width * text.ffn
  )
  head = text.width * text.vocab_size
  t = 8192
  attention = 2 * text.n_layers * text.n_heads * text.head_dim * t * (t + 1)
  linear = 2 * weights * t
  how = {
      'row_tokens': t,
      'row_patches': 0,
      'longest_image': 4096,
      'trains_vision': False,
      'has_reference': True,
  }
  # Reference, policy, backward, of attention by either factor and so as often
  # as two passes; of the head the policy's is computed again.
  lora = costs.grpo_flops(config, trains_base=False, remat='none', **how)
  np.testing.assert_allclose(
      lora, 3 * linear + 4 * attention + 4 * 2 * head * t
  )
  full = costs.grpo_flops(config, trains_base=True, remat='full', **how)
  np.testing.assert_allclose(
      full, 5 * (linear + attention) + 5 * 2 * head * t
  )
  # Without a KL there is no reference: a pass less.
  alone = how | {'has_reference': False}
  lora = costs.grpo_flops(config, trains_base=False, remat='none', **alone)
  np.testing.assert_allclose(
      lora, 2 * linear + 3 * attention + 3 * 2 * head * t
  )


def test_bounds():
  chip = costs.Chip(flops=10, memory=1, memory_rate=5, link_rate=2, n_axes=1)
  least = costs.roofline(chip, flops=20, memory_bytes=20, link_bytes=4)
  assert (least.compute, least.memory, least.links) == (2, 4, 2)
  assert (least.seconds, least.bound) == (4, 'memory')

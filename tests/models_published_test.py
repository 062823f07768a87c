"""Published sizes: our shapes against those of transformers' own classes."""

from __future__ import annotations

import math

from flax import nnx
import jax
import jax.numpy as jnp
import pytest

from gog_jax import errors
from gog_jax import models
from gog_jax.models import hf_config
from gog_jax.models import hf_table
from tests import helpers

# As the Hugging Face hub counts them; a tied head counts once.
N_PARAMETERS = {
    'qwen2_5_vl_3b': 3_754_622_976,
    'qwen2_5_vl_7b': 8_292_166_656,
    'qwen3_vl_2b': 2_127_532_032,
    'qwen3_vl_4b': 4_437_815_808,
    'qwen3_vl_8b': 8_767_123_696,
}


def test_every_published_size_is_in_the_table():
  assert {path.name for path in hf_config.PUBLISHED.iterdir()} == set(
      N_PARAMETERS
  )


@pytest.mark.parametrize('name', N_PARAMETERS)
def test_number_of_parameters(name):
  config = models.published_config(name)
  params = nnx.state(models.abstract(config, dtype=jnp.bfloat16))
  n = sum(math.prod(x.shape) for x in jax.tree.leaves(params))
  assert n == N_PARAMETERS[name]


@pytest.mark.parametrize('name', N_PARAMETERS)
def test_tensors_are_those_of_transformers(name):
  torch = helpers.require_torch()
  transformers = helpers.require('transformers')
  their_config = transformers.AutoConfig.from_pretrained(
      hf_config.PUBLISHED / name
  )
  with torch.device('meta'):
    theirs = transformers.AutoModelForImageTextToText.from_config(their_config)
  assert sum(x.numel() for x in theirs.parameters()) == N_PARAMETERS[name]
  config = models.published_config(name)
  assert hf_table.their_shapes(hf_table.table(config)) == {
      hf_table.published_key(key): tuple(value.shape)
      # Tied weights come once.
      for key, value in theirs.named_parameters()
  }


def test_an_unknown_name_gets_the_nearest():
  with pytest.raises(errors.UserError, match="mean 'qwen3_vl_8b'"):
    models.published_config('qwen3-vl-8b')

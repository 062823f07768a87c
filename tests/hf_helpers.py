"""transformers as the oracle: tiny models of theirs, and ours beside them."""

from __future__ import annotations

import json
import pathlib
from typing import Any

import jax.numpy as jnp

from gog_jax import models
from gog_jax.models import config as config_lib
from gog_jax.models import hf_config
from gog_jax.models import vlm
from gog_jax.models.families import FAMILIES
from tests import helpers


def hf_class(family):
  transformers = helpers.require('transformers')
  return getattr(transformers, FAMILIES[family].hf_class)


def hf_model(folder, config):
  """A tiny random transformers model made from our own config.json."""
  torch = helpers.require_torch()
  cls = hf_class(config.family)
  folder.mkdir(exist_ok=True)
  (folder / 'config.json').write_text(json.dumps(hf_config.to_dict(config)))
  torch.manual_seed(0)
  model = cls(cls.config_class.from_pretrained(folder)).eval()
  # Random initialisation leaves biases at zero and norms at one: a port that
  # forgets them would pass.
  with torch.no_grad():
    for parameter in model.parameters():
      parameter.add_(0.2 * torch.randn_like(parameter))
  return model


def hf_inputs(
    tokens, mask, pixels=None, grids=None, image_token=helpers.IMAGE_TOKEN
):
  torch = helpers.require_torch()
  inputs = {
      'input_ids': torch.tensor(tokens, dtype=torch.long),
      'attention_mask': torch.tensor(mask),
      # Without these transformers silently takes other positions.
      'mm_token_type_ids': torch.tensor(tokens == image_token).int(),
  }
  if grids is not None:
    inputs['pixel_values'] = torch.tensor(pixels)
    inputs['image_grid_thw'] = torch.tensor(grids)
  return inputs


def hf_logits(model, *inputs, **more):
  torch = helpers.require_torch()
  with torch.no_grad():
    return model(**hf_inputs(*inputs, **more)).logits.numpy()


def pair(
    folder: pathlib.Path, config: config_lib.VLMConfig
) -> tuple[Any, vlm.VLM]:
  """(theirs, ours): the same weights, through a folder."""
  theirs = hf_model(folder, config)
  theirs.save_pretrained(folder)
  ours, loaded = models.from_pretrained(folder, dtype=jnp.float32)
  assert loaded == config
  return theirs, ours

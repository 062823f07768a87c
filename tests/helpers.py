"""What several tests need: a tiny model, and torch where it is an oracle."""

from __future__ import annotations

from collections.abc import Sequence
import dataclasses
import importlib
import os
from typing import Any

from flax import nnx
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from gog_jax import models
from gog_jax import types
from gog_jax.config.evaluation import RewardConfig
from gog_jax.models import config as config_lib
from gog_jax.models import rope
from gog_jax.models import vlm

IMAGE_TOKEN = 10
# The paper's reward.
REWARD = RewardConfig(accuracy='answer_match', format_weight=0.1, extra=())


def require(module: str) -> Any:
  """An oracle; the test is skipped where it is not installed.

  On a CI machine (CI set) its absence is a failure: there it has to speak.
  """
  if os.environ.get('CI'):
    return importlib.import_module(module)
  return pytest.importorskip(module, reason=f'{module} is not installed')


def require_torch() -> Any:
  """torch, with one thread, see `require`."""
  torch = require('torch')
  torch.set_num_threads(1)
  return torch


def tiny_config(
    *, tied: bool = True, family: str = 'qwen2_5_vl'
) -> config_lib.VLMConfig:
  """Small in every direction.

  Qwen2.5-VL's windows are smaller than the images of tests; Qwen3-VL's table of
  positions is smaller than some and larger than others, its heads are wider
  than the model.
  """
  qwen3 = family == 'qwen3_vl'
  return config_lib.VLMConfig(
      family=family,
      text=config_lib.TextConfig(
          vocab_size=128,
          width=64,
          n_layers=3 if qwen3 else 2,
          n_heads=4,
          n_kv_heads=2,
          head_dim=24 if qwen3 else 16,
          ffn=96,
          norm_eps=1e-6,
          rope_theta=5e6 if qwen3 else 1e6,
          mrope_sections=(6, 3, 3) if qwen3 else (2, 3, 3),
          mrope_interleaved=qwen3,
          qkv_bias=not qwen3,
          qk_norm=qwen3,
      ),
      vision=config_lib.VisionConfig(
          width=32,
          n_layers=3,
          n_heads=2,
          n_kv_heads=2,
          head_dim=16,
          ffn=48,
          qkv_bias=True,
          other_bias=True,
          out_width=64,
          in_channels=3,
          patch_size=14,
          temporal_patch_size=2,
          merge_size=2,
          window_size=0 if qwen3 else 56,
          full_attention_layers=() if qwen3 else (1,),
          n_positions=49 if qwen3 else 0,
          deepstack_layers=(0, 2) if qwen3 else (),
          layer_norm=qwen3,
          gated=not qwen3,
          patch_bias=qwen3,
          norm_eps=1e-6,
          rope_theta=1e4,
      ),
      tied=tied,
      image_token_id=IMAGE_TOKEN,
      video_token_id=11,
      vision_start_token_id=12,
      vision_end_token_id=13,
      eos_token_id=14,
      pad_token_id=15,
  )


def rng(seed: int = 0) -> np.random.Generator:
  return np.random.default_rng(seed)


def model_inputs(
    turns: Sequence[Sequence[int | tuple[int, int, int]]],
    config: config_lib.VLMConfig,
    *,
    seed: int = 0,
) -> list[ModelInputs]:
  """Random turns of a conversation.

  Args:
    turns: Each a sequence of text lengths and image grids (1, h, w).
    config: Of the model.
    seed: Of tokens and pixels.
  """
  random = np.random.default_rng(seed)
  result, position = [], 0
  for parts in turns:
    ids: list[int] = []
    images, placements = [], []
    for part in parts:
      if isinstance(part, int):
        ids += random.integers(20, config.text.vocab_size, part).tolist()
        continue
      n_patches = int(np.prod(part))
      n_tokens = n_patches // config.vision.merge_size**2
      shape = (n_patches, config.vision.patch_dim)
      ids.append(config.vision_start_token_id)
      placements.append(
          types.Placement(
              start=len(ids), image=len(images), grid=part, n_tokens=n_tokens
          )
      )
      images.append((random.standard_normal(shape).astype(np.float32), part))
      ids += [config.image_token_id] * n_tokens
      ids.append(config.vision_end_token_id)
    positions, position = rope.mrope_positions(
        len(ids),
        placements,
        merge_size=config.vision.merge_size,
        start=position,
    )
    result.append(ModelInputs(np.array(ids, np.int32), positions, images))
  return result


@dataclasses.dataclass(frozen=True)
class ModelInputs:
  """One turn: int32[T] tokens, int32[3, T] positions, (patches, grid) pairs."""

  tokens: np.ndarray
  positions: np.ndarray
  images: list[tuple[np.ndarray, tuple[int, int, int]]]

  def image_index(self, *, first_feature: int = 0) -> np.ndarray:
    """int32[T]: the features in order at image tokens, -1 elsewhere."""
    is_image = self.tokens == IMAGE_TOKEN
    index = np.cumsum(is_image) - 1 + first_feature
    return np.where(is_image, index, -1).astype(np.int32)


def tiny_model(config: config_lib.VLMConfig, *, seed: int = 0) -> vlm.VLM:
  """A float32 model, every parameter of which differs from its default."""
  model = models.init(config, jax.random.key(seed), dtype=jnp.float32)
  graphdef, state = nnx.split(model)
  random = np.random.default_rng(seed + 1)

  def perturb(leaf):
    noise = random.standard_normal(leaf.shape, np.float32)
    return leaf + np.float32(0.2) * noise

  return nnx.merge(graphdef, jax.tree.map(perturb, state))

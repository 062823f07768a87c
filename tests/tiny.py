"""A tiny policy and hand-made conversations, for rollout and train tests."""

from __future__ import annotations

from typing import Any

from flax import nnx
import jax
import jax.numpy as jnp
import numpy as np
from PIL import Image

from gog_jax import images
from gog_jax import models
from gog_jax.images import ImageProcessor
from gog_jax.models.vlm import VLM
from gog_jax.rollout.batching import BatchConfig
from gog_jax.rollout.policy import Conversation
from gog_jax.rollout.policy import Request
from gog_jax.rollout.sampler import JaxPolicy
from gog_jax.types import Example
from gog_jax.types import ParsedTurn
from gog_jax.types import Placement
from gog_jax.types import StopReason
from gog_jax.types import TokenChunk
from gog_jax.types import Trajectory
from gog_jax.types import Turn
from gog_jax.types import View
from tests import helpers

STOP = 14
TURN = Turn(parsed=ParsedTurn(text=''))
BATCH = BatchConfig(row_tokens=96, row_patches=80, micro_rows=8)


def model(
    *,
    lora: bool = False,
    seed: int = 0,
    family: str = 'qwen2_5_vl',
    dtype: Any = jnp.float32,
) -> VLM:
  """Random, every parameter off its initial value, logits spread out."""
  vlm = models.init(
      helpers.tiny_config(family=family),
      jax.random.key(seed),
      dtype=dtype,
  )
  if lora:
    models.add_lora(vlm, rank=4, alpha=8, rngs=nnx.Rngs(1), vision=False)
  rng = helpers.rng(seed)
  state = nnx.state(vlm)
  nnx.update(
      vlm,
      jax.tree.map(
          # A NumPy product with 0.1 is no bfloat16 any more.
          lambda x: (
              x + 0.1 * rng.standard_normal(x.shape).astype(x.dtype)
          ).astype(x.dtype),
          state,
      ),
  )
  return vlm


def processor() -> ImageProcessor:
  return ImageProcessor(
      patch_size=14,
      merge_size=2,
      temporal_patch_size=2,
      min_pixels=28 * 28,
      max_pixels=84 * 84,
      image_mean=(0.5, 0.5, 0.5),
      image_std=(0.5, 0.5, 0.5),
  )


def picture(width: int, height: int, seed: int) -> bytes:
  pixels = helpers.rng(seed).integers(0, 256, (height, width, 3), np.uint8)
  return images.encode_png(Image.fromarray(pixels))


def chunk(n_before: int, n_after: int, *, seed: int, size=None) -> TokenChunk:
  """Random text, and an image of `size` (width, height) in its middle."""
  rng = helpers.rng(seed)
  text = lambda n: rng.integers(16, 128, n).tolist()
  if size is None:
    return TokenChunk(token_ids=tuple(text(n_before + n_after)))
  data = picture(*size, seed)
  grid = processor().grid(*size)
  n = grid[1] * grid[2] // 4
  return TokenChunk(
      token_ids=tuple(
          text(n_before) + [helpers.IMAGE_TOKEN] * n + text(n_after)
      ),
      images=(View(data=data, root=0, box=(0, 0, *size)),),
      placements=(Placement(start=n_before, image=0, grid=grid, n_tokens=n),),
  )


def policy(
    vlm: VLM,
    *,
    n_slots: int = 3,
    greedy: bool = False,
    max_context: int = 96,
    mesh=None,
) -> JaxPolicy:
  return JaxPolicy(
      vlm,
      processor=processor(),
      n_slots=n_slots,
      max_context=max_context,
      max_turn_tokens=10,
      chunk=16,
      stop_ids=(STOP,),
      greedy=greedy,
      mesh=mesh,
  )


def request(seed: int) -> Request:
  example = Example(
      id=str(seed), images=(), question='', answers=(), source='', scope=''
  )
  return Request(example=example, sample=0, seed=seed)


def conversations(
    sampler: JaxPolicy, seeds, *, n_turns: int = 3
) -> list[Trajectory]:
  """Rolls out fixed observations, one conversation per seed, side by side.

  Prompts and observations have images of several sizes, so that windows are
  partial, chunks are split and positions run behind token counts.
  """
  sizes = [(84, 56), (56, 84), (28, 56), None]
  under_way = []
  for i, seed in enumerate(seeds):
    conversation = Conversation(request=request(seed), slot=i)
    conversation.append(chunk(5 + seed % 3, 4, seed=seed, size=sizes[seed % 2]))
    under_way.append(conversation)
  for turn in range(n_turns):
    sampled = sampler.sample(under_way)
    for seed, conversation, said in zip(seeds, under_way, sampled, strict=True):
      conversation.append(
          TokenChunk(token_ids=said.token_ids),
          target=True,
          logprobs=said.logprobs,
      )
      conversation.turns.append(TURN)
      if turn < n_turns - 1:
        size = sizes[(seed + turn) % 4]
        piece = chunk(3, 2 + seed % 5, seed=100 * turn + seed, size=size)
        conversation.append(piece)
  return [
      conversation.trajectory(str(seed), StopReason.ANSWER)
      for seed, conversation in zip(seeds, under_way)
  ]

"""The vision-language model: images and tokens in, hidden states out.

    features = model.vision(vision_inputs)                        # [B, M, F]
    hidden = model.text.hidden(tokens, positions, segment_ids,    # [B, T, D]
                               features, image_index)
    logprobs, entropy = token_logprobs(hidden, model.text.head(), targets,
                                       chunk=..)

The same with a cache, for sampling: `text.init_cache`, then `text.extend` with
a prompt, a token at a time, an observation. Both are pure; whole and cached
rows give the same numbers (tested).

A token's embedding is replaced by the row's feature `image_index` where that
is not -1. Features are an argument, not computed inside: the sampler keeps
those of a frozen vision tower by image. A feature is one vector, F long: the D
numbers that are embedded, then D for each of the decoder's first layers whose
output they are added to (deepstack, Qwen3-VL; Qwen2.5-VL has none, F is D).
"""

from __future__ import annotations

from typing import Any

from flax import nnx
import jax
import jax.numpy as jnp
from jaxtyping import Array, Float
import numpy as np

from gog_jax.models import config as config_lib
from gog_jax.models import hf_inputs
from gog_jax.models import layers
from gog_jax.models import text
from gog_jax.models import vision


class VLM(nnx.Module):
  """Qwen2.5-VL or Qwen3-VL, as its config says.

  Activations have the dtype of the token embedding.
  """

  def __init__(
      self, config: config_lib.VLMConfig, *, dtype: Any, draw: layers.Draw
  ):
    """Use models.init or models.from_pretrained.

    Args:
      config: Sizes.
      dtype: Of the parameters.
      draw: Makes the initial values.
    """
    self.config = config
    self.text = text.TextTower(
        config.text, tied=config.tied, dtype=dtype, draw=draw
    )
    self.vision = vision.VisionTower(config.vision, dtype=dtype, draw=draw)

  def __call__(
      self,
      input_ids: np.ndarray,
      attention_mask: np.ndarray | None = None,
      pixel_values: np.ndarray | None = None,
      image_grid_thw: np.ndarray | None = None,
      mm_token_type_ids: np.ndarray | None = None,
      pixel_values_videos: np.ndarray | None = None,
      video_grid_thw: np.ndarray | None = None,
  ) -> Float[Array, 'B T V']:
    """float32 logits from what a Hugging Face processor returns.

        inputs = processor(text=..., images=..., return_tensors='np')
        logits = model(**inputs)

    For trying a model out: every new batch shape is compiled again, and all
    logits are in memory at once.

    Args:
      input_ids: int[B, T].
      attention_mask: int[B, T], 0 at padding on either side, whose logits mean
        nothing; None for no padding.
      pixel_values: float[sum of P, C], the patches of all images in order.
      image_grid_thw: int[I, 3], their grids.
      mm_token_type_ids: Not read: the ids say which tokens are an image's.
      pixel_values_videos: Not supported.
      video_grid_thw: Not supported.

    Raises:
      ValueError: Shapes, images and image tokens do not belong together, or
        there is a video.
    """
    del mm_token_type_ids
    if pixel_values_videos is not None or video_grid_thw is not None:
      raise ValueError(
          'videos are not supported (pixel_values_videos, video_grid_thw): '
          'pass frames as images'
      )
    inputs = hf_inputs.from_processor(
        self.config, input_ids, attention_mask, pixel_values, image_grid_thw
    )
    return _logits(self, inputs)


def abstract(config: config_lib.VLMConfig, *, dtype: Any) -> VLM:
  """A model of jax.ShapeDtypeStructs: shapes and axes, no memory."""
  return nnx.eval_shape(
      lambda: VLM(config, dtype=dtype, draw=lambda shape, _: jnp.zeros(shape))
  )


def init(
    config: config_lib.VLMConfig, key: jax.Array, *, dtype: Any = jnp.float32
) -> VLM:
  """Random parameters: kernels ~ gain / sqrt(fan in), biases 0, norms 1."""
  # On the host: compiling a draw for every shape takes longer than all draws.
  generator = np.random.default_rng(np.asarray(jax.random.key_data(key)))

  def draw(shape, std):
    return generator.standard_normal(shape, np.float32) * np.float32(std)

  return VLM(config, dtype=dtype, draw=draw)


@jax.jit
def _logits(model: VLM, inputs: hf_inputs.Inputs) -> jax.Array:
  hidden = model.text.hidden(
      inputs.tokens,
      inputs.positions,
      inputs.segment_ids,
      None if inputs.vision is None else model.vision(inputs.vision),
      inputs.image_index,
  )
  return model.text.logits(hidden)

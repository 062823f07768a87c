"""The vision-language model: images and tokens in, hidden states out.

    features = model.encode_images(vision_inputs)              # [B, M, D]
    hidden = model.hidden(tokens, positions, segment_ids,      # [B, T, D]
                          features, image_index)
    logprobs, entropy = token_logprobs(hidden, model.head(), targets, chunk=..)

The same with a cache, for sampling: `init_cache`, then `extend` with a prompt,
a token at a time, an observation. Both are pure; `full` and cached rows give
the same numbers (tested).

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
from jaxtyping import Array, Float, Int
import numpy as np

from gog_jax.models import config as config_lib
from gog_jax.models import hf_inputs
from gog_jax.models import layers
from gog_jax.models import sharding
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

  def encode_images(
      self,
      inputs: vision.VisionInputs,
      how: layers.Execution = layers.Execution(),
      *,
      longest_image: int | None = None,
  ) -> Float[Array, 'B M F']:
    """One feature per merge_size x merge_size patches, in patch order.

    No image may have more patches than `longest_image`; a bound makes rows of
    several images cheaper.
    """
    return self.vision(
        inputs,
        dtype=self.text.embedding.dtype,
        how=how,
        longest_image=longest_image,
    )

  def hidden(
      self,
      tokens: Int[Array, 'B T'],
      positions: Int[Array, 'B 3 T'],
      segment_ids: Int[Array, 'B T'],
      image_features: Float[Array, 'B M F'] | None,
      image_index: Int[Array, 'B T'] | None,
      how: layers.Execution = layers.Execution(),
  ) -> Float[Array, 'B T D']:
    """Hidden states after the final norm, over whole (packed) rows.

    Args:
      tokens: Ids; any at image tokens and padding.
      positions: M-RoPE positions, from rope.mrope_positions.
      segment_ids: Which trajectory of the row a token belongs to; 0 is
        padding. A token sees its own segment up to itself.
      image_features: From encode_images; None where no row has an image.
      image_index: Which of the row's features stands here; -1 for text.
        Not read where image_features is None.
      how: The decoder runs.
    """
    x, deepstack = self._embed(tokens, image_features, image_index)
    return self.text.full(x, deepstack, positions, segment_ids, how)

  def extend(
      self,
      tokens: Int[Array, 'B T'],
      positions: Int[Array, 'B 3 T'],
      n_valid: Int[Array, ' B'],
      image_features: Float[Array, 'B M F'] | None,
      image_index: Int[Array, 'B T'] | None,
      cache: text.KVCache,
  ) -> tuple[Float[Array, 'B T D'], text.KVCache]:
    """Appends up to T tokens to each row, at the row's own length.

    Args:
      tokens: Ids; T = 1 is a step of decoding.
      positions: M-RoPE positions; they go on from the row's last turn.
      n_valid: How many of a row's tokens are real; the others leave no trace
        in the cache, and their hidden states mean nothing.
      image_features: From encode_images, or None.
      image_index: Which of the row's features stands here; -1 for text.
        Not read where image_features is None.
      cache: From init_cache or the last call. Donate it: it is updated in
        place. What does not fit into its S slots is dropped, so the caller
        stops a row before it is full.

    Returns:
      Hidden states after the final norm, and the cache with its lengths grown
      by n_valid.
    """
    x, deepstack = self._embed(tokens, image_features, image_index)
    return self.text.extend(x, deepstack, positions, n_valid, cache)

  def init_cache(
      self,
      batch: int,
      max_len: int,
      dtype: Any,
      mesh: jax.sharding.Mesh | None = None,
  ) -> text.KVCache:
    """An empty cache of `max_len` slots for each of `batch` rows.

    On a mesh, rows are split as those of a batch are, and heads.
    """
    config = self.config.text
    shape = (batch, config.n_kv_heads, max_len, config.head_dim)

    place = None if mesh is None else sharding.cache_sharding(shape, mesh)

    def empty():
      # One buffer each: they are donated, which a shared one could not be.
      return tuple(
          jnp.zeros(shape, dtype, device=place) for _ in range(config.n_layers)
      )

    return text.KVCache(
        k=empty(), v=empty(), lengths=jnp.zeros((batch,), jnp.int32)
    )

  def head(self) -> Float[Array, 'D V']:
    """The output head's weights, for logprobs computed in chunks."""
    return self.text.head()

  def logits(self, hidden: Float[Array, '*B D']) -> Float[Array, '*B V']:
    """float32 logits; for single positions, not for whole rows."""
    return jnp.dot(
        sharding.constrain_widths(hidden),
        self.head().astype(hidden.dtype),
        preferred_element_type=jnp.float32,
    )

  def _embed(self, tokens, image_features, image_index):
    """Embeddings [B, T, D], and what deepstack adds [E, B, T, D] or None."""
    x = self.text.embedding[...][tokens]
    if image_features is None:
      return x, None
    features = jnp.take_along_axis(
        image_features, jnp.maximum(image_index, 0)[..., None], axis=1
    )
    is_image = image_index[..., None] >= 0
    features = jnp.where(is_image, features.astype(x.dtype), 0)
    features = features.reshape(*x.shape[:-1], -1, x.shape[-1])
    x = jnp.where(is_image, features[..., 0, :], x)
    if features.shape[-2] == 1:
      return x, None
    return x, jnp.moveaxis(features[..., 1:, :], -2, 0)

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

    To try a model with: every new length of a batch is compiled anew, and all
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
  features = None
  if inputs.vision is not None:
    features = model.encode_images(inputs.vision)
  hidden = model.hidden(
      inputs.tokens,
      inputs.positions,
      inputs.segment_ids,
      features,
      inputs.image_index,
  )
  return model.logits(hidden)

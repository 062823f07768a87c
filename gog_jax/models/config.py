"""Sizes and structure of a vision-language model, in our words.

models/hf_config.py reads them from a folder's config.json.
"""

from __future__ import annotations

import dataclasses
import math

# The architectures, by the model_type of their config.json.
FAMILIES = ('qwen2_5_vl', 'qwen3_vl')


@dataclasses.dataclass(frozen=True, kw_only=True)
class TextConfig:
  """The decoder.

  Attributes:
    vocab_size: V.
    width: D.
    n_layers: L.
    n_heads: N, query heads.
    n_kv_heads: K, divides n_heads.
    head_dim: H.
    ffn: F.
    norm_eps: Added to the mean square before its root.
    rope_theta: Base of the rotary frequencies.
    mrope_sections: How many of the H / 2 frequencies follow the temporal,
      vertical and horizontal position.
    mrope_interleaved: Whether those take turns (Qwen3-VL), or stand one after
      the other (Qwen2.5-VL).
    qkv_bias: Whether queries, keys and values have biases (Qwen2.5-VL).
    qk_norm: Whether each head's queries and keys are normalised (Qwen3-VL).
  """

  vocab_size: int
  width: int
  n_layers: int
  n_heads: int
  n_kv_heads: int
  head_dim: int
  ffn: int
  norm_eps: float
  rope_theta: float
  mrope_sections: tuple[int, int, int]
  mrope_interleaved: bool
  qkv_bias: bool
  qk_norm: bool

  def __post_init__(self):
    if self.n_heads % self.n_kv_heads:
      raise ValueError(
          f'{self.n_kv_heads} key-value heads do not divide {self.n_heads}'
      )
    if len(self.mrope_sections) != 3:
      raise ValueError(f'mrope_section {self.mrope_sections} needs 3 parts')
    if 2 * sum(self.mrope_sections) != self.head_dim:
      raise ValueError(
          f'mrope_section {self.mrope_sections} does not sum to half of '
          f'head_dim {self.head_dim}'
      )


@dataclasses.dataclass(frozen=True, kw_only=True)
class VisionConfig:
  """The vision transformer.

  Attributes:
    width: Of its residual stream.
    n_layers: Depth.
    n_heads: Attention heads; every one has its own keys and values.
    ffn: Feed-forward width.
    out_width: Width of a merged feature, the decoder's D.
    in_channels: 3.
    patch_size: Side of a patch in pixels.
    temporal_patch_size: Frames per patch; a still image is repeated.
    merge_size: merge_size x merge_size patches become one feature.
    window_size: Side of an attention window in pixels; None where every layer
      sees the whole image (Qwen3-VL).
    full_attention_layers: Layers that do so where others have windows.
    n_positions: Rows of the table of learned positions, a square that is
      stretched over each image (Qwen3-VL); 0 for none.
    deepstack_layers: After these, and at the end, features are taken: the i-th
      are added to what the decoder's layer i puts out (Qwen3-VL, after
      arXiv 2406.04334).
    layer_norm: LayerNorm in place of RMSNorm.
    gated: SwiGLU in place of a plain MLP with tanh-approximated GELU.
    patch_bias: Whether the patch embedding has one.
    norm_eps: Added to the mean square, or variance, before its root.
    rope_theta: Base of the rotary frequencies.
  """

  width: int
  n_layers: int
  n_heads: int
  ffn: int
  out_width: int
  in_channels: int
  patch_size: int
  temporal_patch_size: int
  merge_size: int
  window_size: int | None
  full_attention_layers: tuple[int, ...]
  n_positions: int
  deepstack_layers: tuple[int, ...]
  layer_norm: bool
  gated: bool
  patch_bias: bool
  norm_eps: float
  rope_theta: float

  def __post_init__(self):
    if self.width % (4 * self.n_heads):
      raise ValueError(
          f'vision width {self.width} is not a multiple of 4 x {self.n_heads} '
          'heads, which the two-dimensional rotation needs'
      )
    merged = self.patch_size * self.merge_size
    if self.window_size is not None and self.window_size % merged:
      raise ValueError(
          f'window_size {self.window_size} is not a whole number of merged '
          f'patches ({merged} pixels)'
      )
    if self.position_side**2 != self.n_positions:
      raise ValueError(
          f'num_position_embeddings {self.n_positions} is not a square'
      )
    if list(self.deepstack_layers) != sorted(set(self.deepstack_layers)):
      raise ValueError('deepstack layers must be given once each, in order')
    if self.deepstack_layers and not (
        0 <= self.deepstack_layers[0]
        and self.deepstack_layers[-1] < self.n_layers
    ):
      raise ValueError(
          f'deepstack layers {self.deepstack_layers} are not all among '
          f'{self.n_layers} layers'
      )

  @property
  def head_dim(self) -> int:
    return self.width // self.n_heads

  @property
  def position_side(self) -> int:
    """Side of the square table of learned positions."""
    return math.isqrt(self.n_positions)

  @property
  def window_patches(self) -> int:
    """The most patches that a window has; 0 where there are no windows."""
    return ((self.window_size or 0) // self.patch_size) ** 2

  def masks_windows(self, n_patches: int) -> bool:
    """Whether windows of such a row are a mask of all its pairs.

    It is so short that all pairs are multiplied either way; no kernel is used.
    """
    return n_patches <= 3 * self.window_patches

  @property
  def feature_width(self) -> int:
    """Numbers of an image feature: what is embedded, then each deepstack's."""
    return self.out_width * (1 + len(self.deepstack_layers))

  @property
  def patch_dim(self) -> int:
    """C: how many numbers a flattened patch holds."""
    return self.in_channels * self.temporal_patch_size * self.patch_size**2


@dataclasses.dataclass(frozen=True, kw_only=True)
class VLMConfig:
  """A vision-language model.

  Attributes:
    family: One of FAMILIES.
    text: The decoder.
    vision: The vision transformer.
    tied: Whether the output head is the token embedding.
    image_token_id: The token whose embedding an image feature replaces.
    video_token_id: Reserved; videos are not supported.
    vision_start_token_id: Stands before an image.
    vision_end_token_id: Stands after it.
    eos_token_id: Ends a message; None where the file does not say.
    pad_token_id: Fills a batch; None where the file does not say.
  """

  family: str
  text: TextConfig
  vision: VisionConfig
  tied: bool
  image_token_id: int
  video_token_id: int
  vision_start_token_id: int
  vision_end_token_id: int
  eos_token_id: int | None
  pad_token_id: int | None

  def __post_init__(self):
    if len(self.vision.deepstack_layers) > self.text.n_layers:
      raise ValueError('there are more deepstack layers than decoder layers')
    if self.vision.out_width != self.text.width:
      raise ValueError(
          f'vision features of width {self.vision.out_width} do not fit a '
          f'decoder of width {self.text.width}'
      )

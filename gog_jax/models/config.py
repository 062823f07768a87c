"""Sizes and structure of a vision-language model.

models/hf_config.py reads them from a folder's config.json.
"""

from __future__ import annotations

from collections.abc import Callable
import dataclasses
import math

from gog_jax.errors import UserError
from gog_jax.images import ImageProcessor
from gog_jax.storage import typed


@dataclasses.dataclass(frozen=True, kw_only=True)
class TowerConfig:
  """A stack of transformer blocks (layers.Block).

  Attributes:
    width: D, of the residual stream.
    n_layers: L.
    n_heads: N, query heads.
    n_kv_heads: K, divides n_heads.
    head_dim: H.
    ffn: F.
    norm_eps: Added to the mean square, or variance, before its root.
    qkv_bias: Whether queries, keys and values have biases.
    other_bias: Whether the attention's output and the MLP have biases.
    qk_norm: Whether each head's queries and keys are normalised before they
      are rotated.
    layer_norm: LayerNorm in place of RMSNorm.
    gated: SwiGLU, or else a plain MLP with tanh-approximated GELU.
  """

  width: typed.Positive
  n_layers: typed.Positive
  n_heads: typed.Positive
  n_kv_heads: typed.Positive
  head_dim: typed.Positive
  ffn: typed.Positive
  norm_eps: typed.PositiveFloat
  qkv_bias: bool = False
  other_bias: bool = False
  qk_norm: bool = False
  layer_norm: bool = False
  gated: bool = True

  def __post_init__(self):
    if self.n_heads % self.n_kv_heads:
      raise ValueError(
          f'{self.n_kv_heads} key-value heads do not divide {self.n_heads}'
      )


@dataclasses.dataclass(frozen=True, kw_only=True)
class TextConfig(TowerConfig):
  """The decoder.

  Attributes:
    vocab_size: V.
    rope_theta: Base of the rotary frequencies.
    mrope_sections: How many of the H / 2 frequencies follow the temporal,
      vertical and horizontal position.
    mrope_interleaved: Whether those take turns (Qwen3-VL), or stand one after
      the other (Qwen2.5-VL).
  """

  vocab_size: typed.Positive
  rope_theta: typed.PositiveFloat
  mrope_sections: tuple[typed.Count, typed.Count, typed.Count]
  mrope_interleaved: bool = False

  def __post_init__(self):
    super().__post_init__()
    if 2 * sum(self.mrope_sections) != self.head_dim:
      raise ValueError(
          f'mrope_section {self.mrope_sections} does not sum to half of '
          f'head_dim {self.head_dim}'
      )


@dataclasses.dataclass(frozen=True, kw_only=True)
class VisionConfig(TowerConfig):
  """The vision transformer.

  Attributes:
    rope_theta: Base of the rotary frequencies.
    out_width: Width of a merged feature, the decoder's D.
    in_channels: 3.
    patch_size: Side of a patch in pixels.
    temporal_patch_size: Frames per patch; a still image is repeated.
    merge_size: merge_size x merge_size patches become one feature.
    window_size: Side of an attention window in pixels; 0 where every layer
      sees the whole image (Qwen3-VL).
    full_attention_layers: Layers that see the whole image where the others
      have windows.
    n_positions: Rows of the table of learned positions, a square that is
      stretched over each image (Qwen3-VL); 0 for none.
    deepstack_layers: Layers after which features are taken, as at the end;
      those of the i-th are added to the output of the decoder's layer i
      (Qwen3-VL, after arXiv 2406.04334).
    patch_bias: Whether the patch embedding has one.
  """

  rope_theta: typed.PositiveFloat
  out_width: typed.Positive
  in_channels: typed.Positive
  patch_size: typed.Positive
  temporal_patch_size: typed.Positive
  merge_size: typed.Positive
  window_size: typed.Count = 0
  full_attention_layers: tuple[typed.Count, ...] = ()
  n_positions: typed.Count = 0
  deepstack_layers: tuple[typed.Count, ...] = ()
  patch_bias: bool = False

  def __post_init__(self):
    super().__post_init__()
    if self.head_dim % 4 or self.head_dim * self.n_heads != self.width:
      raise ValueError(
          f'vision width {self.width} is not a multiple of 4 x {self.n_heads} '
          'heads, which the two-dimensional rotation needs'
      )
    merged = self.patch_size * self.merge_size
    if self.window_size % merged:
      raise ValueError(
          f'window_size {self.window_size} is not a whole number of merged '
          f'patches ({merged} pixels)'
      )
    if self.position_side**2 != self.n_positions:
      raise ValueError(
          f'num_position_embeddings {self.n_positions} is not a square'
      )
    if list(self.deepstack_layers) != sorted(
        set(self.deepstack_layers) & set(range(self.n_layers))
    ):
      raise ValueError(
          f'deepstack layers {self.deepstack_layers} are not some of '
          f'{self.n_layers} layers, in order'
      )

  def check_processor(self, processor: ImageProcessor) -> None:
    """Refuses an image processor that cuts other patches.

    Raises:
      UserError: Names the fields.
    """
    for field in ('patch_size', 'merge_size', 'temporal_patch_size'):
      theirs, ours = getattr(processor, field), getattr(self, field)
      if theirs != ours:
        raise UserError(
            f'the image processor has {field} {theirs}, not {ours} as '
            "config.json says; copy both from this very model's page"
        )

  @property
  def position_side(self) -> int:
    """Side of the square table of learned positions."""
    return math.isqrt(self.n_positions)

  @property
  def window_patches(self) -> int:
    """The most patches in a window; 0 where there are no windows."""
    return (self.window_size // self.patch_size) ** 2

  def masks_windows(self, n_patches: int) -> bool:
    """Whether a row of `n_patches` gets its windows from a mask.

    In so short a row all pairs are multiplied either way; no kernel is used.
    """
    return n_patches <= 3 * self.window_patches

  @property
  def feature_width(self) -> int:
    """Width of an image feature: an embedding, then one for each deepstack."""
    return self.out_width * (1 + len(self.deepstack_layers))

  @property
  def patch_dim(self) -> int:
    """C, the length of a flattened patch."""
    return self.in_channels * self.temporal_patch_size * self.patch_size**2


@dataclasses.dataclass(frozen=True, kw_only=True)
class VLMConfig:
  """A vision-language model.

  Attributes:
    family: One of families.FAMILIES.
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
  image_token_id: typed.Count
  video_token_id: typed.Count
  vision_start_token_id: typed.Count
  vision_end_token_id: typed.Count
  eos_token_id: typed.Count | None
  pad_token_id: typed.Count | None

  def __post_init__(self):
    if len(self.vision.deepstack_layers) > self.text.n_layers:
      raise ValueError('there are more deepstack layers than decoder layers')
    if self.vision.out_width != self.text.width:
      raise ValueError(
          f'vision features of width {self.vision.out_width} do not fit a '
          f'decoder of width {self.text.width}'
      )

  def check_tokenizer(
      self, vocab_size: int, id_of: Callable[[str], int | None]
  ) -> None:
    """Refuses a tokenizer of another model.

    Args:
      vocab_size: The tokenizer's.
      id_of: The id of one of its added tokens.

    Raises:
      UserError: It has more ids than the embedding, or other image tokens.
    """
    if vocab_size > self.text.vocab_size:
      raise UserError(
          f'tokenizer.json has {vocab_size} ids for '
          f'{self.text.vocab_size} rows of the vocabulary; copy it from this '
          "very model's page"
      )
    for token, index in (
        ('<|image_pad|>', self.image_token_id),
        ('<|vision_start|>', self.vision_start_token_id),
        ('<|vision_end|>', self.vision_end_token_id),
    ):
      if id_of(token) != index:
        raise UserError(
            f'{token} is {id_of(token)} in tokenizer.json, {index} '
            "in config.json; copy both from this very model's page"
        )

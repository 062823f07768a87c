"""What programs cost: operations counted by hand, chips, least times.

Counted are the multiplications and additions of matrix products, two for each
pair; XLA's own count takes the body of a loop for one layer.
"""

from __future__ import annotations

import dataclasses

from gog_jax.models.config import TextConfig
from gog_jax.models.config import VisionConfig
from gog_jax.models.config import VLMConfig


@dataclasses.dataclass(frozen=True)
class Chip:
  """An accelerator, as its maker publishes it.

  Attributes:
    flops: bfloat16 operations a second.
    memory: Bytes of HBM that the compiler lets a program have; the maker's
      figure is up to 5 % above it.
    memory_rate: Bytes a second to and from it.
    link_rate: Bytes a second to other chips, all links together, one way.
    n_axes: Of the torus that a slice is.
  """

  flops: float
  memory: float
  memory_rate: float
  link_rate: float
  n_axes: int


# Rates are from cloud.google.com/tpu/docs, the architecture page of each
# generation (which gives interchip bandwidth in Gbit/s); memory is what libtpu
# 0.0.52 names when it refuses a program that is too large.
CHIPS = {
    'v5e': Chip(197e12, 15.75 * 2**30, 819e9, 1600e9 / 8, 2),
    'v5p': Chip(459e12, 95.73 * 2**30, 2765e9, 4800e9 / 8, 3),
    'v6e': Chip(918e12, 31.24 * 2**30, 1600e9, 3200e9 / 8, 2),
}


def text_flops(
    config: TextConfig, n_tokens: int, n_pairs: float, n_logits: int
) -> float:
  """One forward pass of the decoder.

  Args:
    config: Its sizes.
    n_tokens: Tokens that go through the blocks.
    n_pairs: Of queries and keys that are multiplied, per head and layer.
    n_logits: Positions that go through the head.
  """
  d, h = config.width, config.head_dim
  projections = d * h * (2 * config.n_heads + 2 * config.n_kv_heads)
  per_token = projections + 3 * d * config.ffn
  per_pair = 2 * h * config.n_heads
  blocks = config.n_layers * (n_tokens * per_token + n_pairs * per_pair)
  return 2 * (blocks + n_logits * d * config.vocab_size)


def vision_flops(
    config: VisionConfig, n_patches: int, longest_image: int
) -> float:
  """One forward pass of the vision tower over a row of patches.

  Pairs are those of each patch with an image of the longest size (in a layer
  with windows: with a window), though kernels may multiply more.
  """
  w = config.width
  mlp = (3 if config.gated else 2) * w * config.ffn
  per_patch = config.n_layers * (4 * w * w + mlp) + config.patch_dim * w
  group = config.merge_size**2
  merged = w * group
  merger = merged * merged + merged * config.out_width
  per_patch += (1 + len(config.deepstack_layers)) * merger / group
  linear = 2 * n_patches * per_patch
  return linear + _vision_attention(config, n_patches, longest_image)


def _vision_attention(
    config: VisionConfig, n_patches: int, longest_image: int
) -> float:
  """What of vision_flops are products of pairs."""
  n_windowed = 0
  if config.window_size:
    n_windowed = config.n_layers - len(config.full_attention_layers)
  keys = min(longest_image, n_patches) * (config.n_layers - n_windowed)
  keys += min(config.window_patches, n_patches) * n_windowed
  return 4 * n_patches * config.width * keys


def n_passes(remat: str, *, has_reference: bool) -> int:
  """How often GRPO's gradients go through the layers.

  Forward for the reference, if there is one, and for the policy, with remat
  'full' that again, and backward.
  """
  return 2 + has_reference + (remat == 'full')


def grpo_flops(
    config: VLMConfig,
    *,
    row_tokens: int,
    row_patches: int,
    longest_image: int,
    trains_base: bool,
    trains_vision: bool,
    has_reference: bool,
    remat: str,
) -> float:
  """GRPO's gradients of a row that holds one trajectory.

  Backward is what is propagated, and where kernels are trained their gradients
  as well; attention has no kernels, and both its factors' gradients always. The
  head is always recomputed, one chunk of positions at a time. Adapters are left
  out: they are less than a hundredth. So is what attention's own kernels
  compute once more.
  """
  pairs = row_tokens * (row_tokens + 1) / 2
  linear = text_flops(config.text, row_tokens, 0, 0)
  attention = text_flops(config.text, 0, pairs, 0)
  head = text_flops(config.text, 0, 0, row_tokens)
  passes = n_passes(remat, has_reference=has_reference)
  total = linear * (passes + trains_base) + attention * (passes + 1)
  head_passes = n_passes('full', has_reference=has_reference)
  total += head * (head_passes + trains_base)
  vision = vision_flops(config.vision, row_patches, longest_image)
  if not trains_vision:  # Policy and reference share the features.
    return total + vision
  attention = _vision_attention(config.vision, row_patches, longest_image)
  # Recomputed whole before it is recomputed layer by layer.
  passes += remat == 'full'
  return (
      total
      + (vision - attention) * (passes + trains_base)
      + attention * (passes + 1)
  )


@dataclasses.dataclass(frozen=True)
class Roofline:
  """The least seconds that a program takes, and what keeps it from less.

  Attributes:
    compute: Seconds at the chip's peak rate of operations.
    memory: Seconds to move what must be read and written.
    links: Seconds to move what other chips have.
  """

  compute: float
  memory: float
  links: float

  @property
  def seconds(self) -> float:
    return max(self.compute, self.memory, self.links)

  @property
  def bound(self) -> str:
    by = {
        'compute': self.compute,
        'memory': self.memory,
        'links': self.links,
    }
    return max(by, key=lambda name: by[name])


def roofline(
    chip: Chip, *, flops: float, memory_bytes: float, link_bytes: float
) -> Roofline:
  """Of one chip's share of a program."""
  return Roofline(
      flops / chip.flops,
      memory_bytes / chip.memory_rate,
      link_bytes / chip.link_rate,
  )

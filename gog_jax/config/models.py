"""Sections about the model and how it samples."""

from __future__ import annotations

from collections.abc import Mapping
import dataclasses
from typing import Literal

from gog_jax.storage.typed import Count
from gog_jax.storage.typed import Finite
from gog_jax.storage.typed import Positive


@dataclasses.dataclass(frozen=True, kw_only=True)
class MeshConfig:
  """Devices along each axis; -1 is all the rest."""

  data: int
  fsdp: int
  tensor: int


@dataclasses.dataclass(frozen=True, kw_only=True)
class ModelConfig:
  """The backbone, what it is shown and how it computes."""

  path: str  # 'toy_base' ships with the package; or a folder, or a hub id.
  dtype: Literal['float32', 'bfloat16']
  dialect: str  # Prompts and wording: of chat/dialects/, or a .json file.
  # How it is told to work; a policy's name says so, see config/paradigms.py.
  paradigm: Literal['gog', 'direct', 'full_search', 'no_gaze']
  box: Literal['resized_pixels', 'thousandths']  # Its box frame, see boxes.py.
  box_step: Positive  # Corners are written in multiples of this.
  # Original pixels; smaller boxes grow to this.
  min_box_side: Positive
  # What images are cut up by: the folder's processor, or, for a model that is
  # elsewhere, one as published models have.
  processor: Literal['folder', 'general']
  max_image_tokens: Positive  # Per image, in training and evaluation.
  scan: bool  # Scan over layers; unrolled is quicker when there are few.
  remat: Literal['none', 'full', 'dots']
  # A Pallas kernel for TPUs ('splash'), or what the platform has ('auto').
  attention: Literal['auto', 'xla', 'splash', 'splash_interpret']
  logprob_chunk: Positive  # Positions whose logits exist at once.


@dataclasses.dataclass(frozen=True, kw_only=True)
class LoraConfig:
  """Adapters, where `trainable` is 'lora'."""

  rank: Positive
  alpha: Finite
  vision: bool  # Adapters on the vision tower too; else it stays frozen.


@dataclasses.dataclass(frozen=True, kw_only=True)
class RolloutConfig:
  """Limits of one conversation."""

  max_turns: Positive
  max_turn_tokens: Positive
  max_context: Positive
  # Calls of each tool; 0, or a tool that is not named, is no limit. A dialect
  # may have tighter ones.
  max_calls: Mapping[str, Count]


@dataclasses.dataclass(frozen=True, kw_only=True)
class SamplerConfig:
  """The JAX policy's cache."""

  # Conversations held at once; more where devices do not divide them.
  n_slots: Positive
  chunk: Positive  # Tokens of each that are prefilled at once.


@dataclasses.dataclass(frozen=True, kw_only=True)
class PackingConfig:
  """Packed rows, see rollout/batching.py."""

  row_tokens: Positive
  row_patches: Positive

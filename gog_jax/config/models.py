"""Sections about the model and how it samples."""

from __future__ import annotations

import dataclasses
from typing import Literal

from immutabledict import immutabledict

from gog_jax.storage import typed


@dataclasses.dataclass(frozen=True, kw_only=True)
class MeshConfig:
  """Devices along each axis; -1 for all that remain."""

  data: int
  fsdp: int
  tensor: int


@dataclasses.dataclass(frozen=True, kw_only=True)
class ModelConfig:
  """The backbone, what it is shown and how it computes."""

  path: str  # 'toy_base' ships with the package; or a folder, or a hub id.
  dtype: Literal['float32', 'bfloat16']
  dialect: str  # Prompts and wording: of chat/dialects/, or a .json file.
  # How it is told to work: part of a policy's name, see config/paradigms.py.
  paradigm: Literal['gog', 'direct', 'full_search', 'no_gaze']
  box: Literal['resized_pixels', 'thousandths']  # Its box frame, see boxes.py.
  box_step: typed.Positive  # Corners are written in multiples of this.
  # In original pixels; smaller boxes grow to this.
  min_box_side: typed.Positive
  # The image processor in the folder, or, for a model that runs elsewhere, one
  # like those of published models.
  processor: Literal['folder', 'general']
  max_image_tokens: typed.Positive  # Per image, in training and evaluation.
  scan: bool  # Scan over layers; a few are faster unrolled.
  remat: Literal['none', 'full', 'dots']
  # 'splash' is a Pallas kernel for TPUs; 'auto' takes what the platform has.
  attention: Literal['auto', 'xla', 'splash', 'splash_interpret']
  logprob_chunk: typed.Positive  # Positions whose logits exist at once.


@dataclasses.dataclass(frozen=True, kw_only=True)
class LoraConfig:
  """Adapters, where `trainable` is 'lora'."""

  rank: typed.Positive
  alpha: typed.Finite
  vision: bool  # Adapters on the vision tower too; else it stays frozen.


@dataclasses.dataclass(frozen=True, kw_only=True)
class RolloutConfig:
  """Limits of one conversation."""

  max_turns: typed.Positive
  max_turn_tokens: typed.Positive
  max_context: typed.Positive
  # Calls of each tool; 0 is no limit, nor is there one for other tools. A
  # dialect may have tighter limits.
  max_calls: immutabledict[str, typed.Count]


@dataclasses.dataclass(frozen=True, kw_only=True)
class SamplerConfig:
  """The JAX policy's cache."""

  # Conversations at once, rounded up to a multiple of the devices.
  n_slots: typed.Positive
  chunk: typed.Positive  # Tokens of a conversation that are prefilled at once.


@dataclasses.dataclass(frozen=True, kw_only=True)
class PackingConfig:
  """Packed rows, see rollout/batching.py."""

  row_tokens: typed.Positive
  row_patches: typed.Positive

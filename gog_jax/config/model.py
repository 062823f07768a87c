"""Sections about the model and how it samples."""

from __future__ import annotations

from collections.abc import Mapping
import dataclasses
from typing import Literal

from gog_jax.config.fields import at_least
from gog_jax.config.fields import FieldError
from gog_jax.config.fields import Section


@dataclasses.dataclass(frozen=True, kw_only=True)
class Mesh(Section):
  """Devices along each axis; -1 is all the rest."""

  data: int
  fsdp: int
  tensor: int


@dataclasses.dataclass(frozen=True, kw_only=True)
class Model(Section):
  """The backbone, what it is shown and how it computes."""

  path: str  # 'toy_base' ships with the package; or a folder, or a hub id.
  dtype: Literal['float32', 'bfloat16']
  dialect: str  # Prompts and wording: of chat/dialects/, or a .json file.
  # How it is told to work; a policy's name says so, see config/paradigms.py.
  paradigm: Literal['gog', 'direct', 'full_search', 'no_gaze']
  box: Literal['resized_pixels', 'thousandths']  # Its box frame, see boxes.py.
  box_step: int = at_least(1)  # Corners are written in multiples of this.
  # Original pixels; smaller boxes grow to this.
  min_box_side: int = at_least(1)
  # What images are cut up by: the folder's processor, or, for a model that is
  # elsewhere, one as published models have.
  processor: Literal['folder', 'general']
  max_image_tokens: int = at_least(1)  # Per image, in training and evaluation.
  scan: bool  # Scan over layers; unrolled is quicker when there are few.
  remat: Literal['none', 'full', 'dots']
  # A Pallas kernel for TPUs ('splash'), or what the platform has ('auto').
  attention: Literal['auto', 'xla', 'splash', 'splash_interpret']
  logprob_chunk: int = at_least(1)  # Positions whose logits exist at once.


@dataclasses.dataclass(frozen=True, kw_only=True)
class Lora(Section):
  """Adapters, where `trainable` is 'lora'."""

  rank: int = at_least(1)
  alpha: float
  vision: bool  # Adapters on the vision tower too; else it stays frozen.


@dataclasses.dataclass(frozen=True, kw_only=True)
class Rollout(Section):
  """Limits of one conversation."""

  max_turns: int = at_least(1)
  max_turn_tokens: int = at_least(1)
  max_context: int = at_least(1)
  # Calls of each tool; 0, or a tool that is not named, is no limit. A dialect
  # may have tighter ones.
  max_calls: Mapping[str, int]

  def __post_init__(self):
    super().__post_init__()
    for tool, limit in self.max_calls.items():
      if limit < 0:
        raise FieldError(f'max_calls.{tool} must be 0 or more')


@dataclasses.dataclass(frozen=True, kw_only=True)
class Sampler(Section):
  """The JAX policy's cache."""

  # Conversations held at once; more where devices do not divide them.
  n_slots: int = at_least(1)
  chunk: int = at_least(1)  # Tokens of each that are prefilled at once.


@dataclasses.dataclass(frozen=True, kw_only=True)
class Batch(Section):
  """Packed rows, see rollout/batching.py."""

  row_tokens: int = at_least(1)
  row_patches: int = at_least(1)

"""The families of backbones, and everything in which they differ.

A dense variant of a family is one more entry of FAMILIES, from which follow
reading config.json, building the model, finding its weights, writing both and
checking a folder. Only new arithmetic needs code.
"""

from __future__ import annotations

import dataclasses
from typing import Any


@dataclasses.dataclass(frozen=True, kw_only=True)
class Family:
  """What all models of one `model_type` share.

  Attributes:
    hf_class: Their class in transformers.
    box: How they write boxes, one of boxes.KINDS.
    nested_keys: Whether their weights were published in the newer layout of
      names (`model.language_model.`, `model.visual.`).
    text: Fields of TextConfig that all of them share, and config.json does not
      hold.
    vision: The same of VisionConfig.
    text_keys: Fields of TextConfig -> their names in config.json.
    vision_keys: The same of VisionConfig.
    text_defaults: transformers' values of keys that config.json omits.
      Whatever differs between published sizes must be in the file.
    vision_defaults: The same of vision_config.
    modules: Our modules -> theirs, as hf_table.entries takes them.
  """

  hf_class: str
  box: str
  nested_keys: bool
  text: dict[str, Any]
  vision: dict[str, Any]
  text_keys: dict[str, str]
  vision_keys: dict[str, str]
  text_defaults: dict[str, Any]
  vision_defaults: dict[str, Any]
  modules: dict[str, str]


HEAD = 'lm_head.weight'
EMBEDDING = 'model.embed_tokens.weight'

# Our fields -> theirs, in every family.
_TEXT_KEYS = {
    'vocab_size': 'vocab_size',
    'width': 'hidden_size',
    'n_layers': 'num_hidden_layers',
    'n_heads': 'num_attention_heads',
    'n_kv_heads': 'num_key_value_heads',
    'ffn': 'intermediate_size',
    'norm_eps': 'rms_norm_eps',
}
_VISION_KEYS = {
    'width': 'hidden_size',
    'n_layers': 'depth',
    'n_heads': 'num_heads',
    'ffn': 'intermediate_size',
    'out_width': 'out_hidden_size',
    'in_channels': 'in_channels',
    'patch_size': 'patch_size',
    'temporal_patch_size': 'temporal_patch_size',
    'merge_size': 'spatial_merge_size',
}
# Our modules -> theirs, in every family.
_MODULES = {
    'text.embedding': EMBEDDING,
    'text.norm': 'model.norm',
    'text.untied_head': HEAD,
    'text.blocks.attention_norm': 'model.layers.{layer}.input_layernorm',
    'text.blocks.mlp_norm': 'model.layers.{layer}.post_attention_layernorm',
    'text.blocks.query_norm': 'model.layers.{layer}.self_attn.q_norm',
    'text.blocks.key_norm': 'model.layers.{layer}.self_attn.k_norm',
    'text.blocks.query': 'model.layers.{layer}.self_attn.q_proj',
    'text.blocks.key': 'model.layers.{layer}.self_attn.k_proj',
    'text.blocks.value': 'model.layers.{layer}.self_attn.v_proj',
    'text.blocks.out': 'model.layers.{layer}.self_attn.o_proj',
    'text.blocks.gate': 'model.layers.{layer}.mlp.gate_proj',
    'text.blocks.up': 'model.layers.{layer}.mlp.up_proj',
    'text.blocks.down': 'model.layers.{layer}.mlp.down_proj',
    'vision.patch_embed': 'visual.patch_embed.proj',
    'vision.blocks.attention_norm': 'visual.blocks.{layer}.norm1',
    'vision.blocks.mlp_norm': 'visual.blocks.{layer}.norm2',
    'vision.blocks.query': 'visual.blocks.{layer}.attn.qkv',
    'vision.blocks.key': 'visual.blocks.{layer}.attn.qkv',
    'vision.blocks.value': 'visual.blocks.{layer}.attn.qkv',
    'vision.blocks.out': 'visual.blocks.{layer}.attn.proj',
}

# What the ViTs share.
_VISION = {'qkv_bias': True, 'other_bias': True, 'norm_eps': 1e-6}
_VISION_DEFAULTS = {
    'in_channels': 3,
    'temporal_patch_size': 2,
    'spatial_merge_size': 2,
    'rope_theta': 1e4,
}

_QWEN2_5 = Family(
    hf_class='Qwen2_5_VLForConditionalGeneration',
    box='resized_pixels',
    nested_keys=False,
    text={'qkv_bias': True},
    vision=_VISION,
    text_keys=_TEXT_KEYS,
    vision_keys=_VISION_KEYS | {
        'window_size': 'window_size',
        'full_attention_layers': 'fullatt_block_indexes',
    },
    text_defaults={
        'rms_norm_eps': 1e-5,
        'rope_theta': 1e6,
        'mrope_section': (16, 24, 24),
    },
    vision_defaults=_VISION_DEFAULTS | {
        'patch_size': 14,
        'window_size': 112,
        'fullatt_block_indexes': (7, 15, 23, 31),
    },
    modules=_MODULES | {
        'vision.merger.norm': 'visual.merger.ln_q',
        'vision.merger.up': 'visual.merger.mlp.0',
        'vision.merger.down': 'visual.merger.mlp.2',
        'vision.blocks.gate': 'visual.blocks.{layer}.mlp.gate_proj',
        'vision.blocks.up': 'visual.blocks.{layer}.mlp.up_proj',
        'vision.blocks.down': 'visual.blocks.{layer}.mlp.down_proj',
    },
)

_QWEN3 = Family(
    hf_class='Qwen3VLForConditionalGeneration',
    box='thousandths',
    nested_keys=True,
    text={'qk_norm': True, 'mrope_interleaved': True},
    vision=_VISION | {'layer_norm': True, 'gated': False, 'patch_bias': True},
    text_keys=_TEXT_KEYS | {'head_dim': 'head_dim'},
    vision_keys=_VISION_KEYS | {
        'n_positions': 'num_position_embeddings',
        'deepstack_layers': 'deepstack_visual_indexes',
    },
    text_defaults={
        'rms_norm_eps': 1e-6,
        'head_dim': 128,
        'mrope_section': (24, 20, 20),
    },
    vision_defaults=_VISION_DEFAULTS
    | {'patch_size': 16, 'num_position_embeddings': 2304},
    modules=_MODULES | {
        'vision.positions': 'visual.pos_embed.weight',
        'vision.merger.norm': 'visual.merger.norm',
        'vision.merger.up': 'visual.merger.linear_fc1',
        'vision.merger.down': 'visual.merger.linear_fc2',
        'vision.deepstack_mergers.norm':
            'visual.deepstack_merger_list.{layer}.norm',
        'vision.deepstack_mergers.up':
            'visual.deepstack_merger_list.{layer}.linear_fc1',
        'vision.deepstack_mergers.down':
            'visual.deepstack_merger_list.{layer}.linear_fc2',
        'vision.blocks.up': 'visual.blocks.{layer}.mlp.linear_fc1',
        'vision.blocks.down': 'visual.blocks.{layer}.mlp.linear_fc2',
    },
)

# By the model_type of their config.json.
FAMILIES = {'qwen2_5_vl': _QWEN2_5, 'qwen3_vl': _QWEN3}

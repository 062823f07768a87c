"""A CLIP or SigLIP folder's weights -> the vision tower.

The text tower, if there is one, is ignored.
"""

from __future__ import annotations

import hashlib

from etils import epath
from flax import nnx
import numpy as np

from gog_jax.index import encoder_config
from gog_jax.index.encoder_model import Tower
from gog_jax.models import hf_files
from gog_jax.models import hf_params
from gog_jax.models import hf_table

_PREFIX = 'vision_model.'
_PROJECTION = 'visual_projection'
# Of older folders: 0, 1, 2, ...
_POSITION_IDS = 'embeddings.position_ids'
_BLOCK = 'encoder.layers.{layer}.'
# Our modules -> theirs, of both families, as hf_table.entries takes them.
_MODULES = {
    'patch_embed': 'embeddings.patch_embedding',
    'positions': 'embeddings.position_embedding.weight',
    'blocks.attention_norm': f'{_BLOCK}layer_norm1',
    'blocks.mlp_norm': f'{_BLOCK}layer_norm2',
    'blocks.query': f'{_BLOCK}self_attn.q_proj',
    'blocks.key': f'{_BLOCK}self_attn.k_proj',
    'blocks.value': f'{_BLOCK}self_attn.v_proj',
    'blocks.out': f'{_BLOCK}self_attn.out_proj',
    'blocks.up': f'{_BLOCK}mlp.fc1',
    'blocks.down': f'{_BLOCK}mlp.fc2',
    'norm': 'post_layernorm',
    # CLIP's.
    'class_token': 'embeddings.class_embedding',
    'pre_norm': 'pre_layrnorm',  # Their spelling.
    'projection': _PROJECTION,
    # SigLIP's.
    'pool.probe': 'head.probe',
    'pool.query': 'head.attention.in_proj_',
    'pool.key': 'head.attention.in_proj_',
    'pool.value': 'head.attention.in_proj_',
    'pool.out': 'head.attention.out_proj',
    'pool.mlp_norm': 'head.layernorm',
    'pool.up': 'head.mlp.fc1',
    'pool.down': 'head.mlp.fc2',
}


def load(
    folder: epath.Path, config: encoder_config.EncoderConfig
) -> tuple[Tower, bytes]:
  """Returns the tower, and a digest of its parameters.

  Args:
    folder: With model.safetensors, or shards and their index.
    config: Of that folder.

  Raises:
    UserError: Weights are missing, incomplete, misshapen, quantised, damaged,
      non-finite, or of another vision tower; names tensors and files.
  """
  tensors = _vision_tensors(folder)
  projected = config.family == 'clip' and (
      f'{_PROJECTION}.weight' in tensors or config.needs_projection
  )
  tower = nnx.eval_shape(lambda: Tower(config, projected=projected))
  table = hf_table.entries(
      _MODULES, tower, convolution=(3, config.patch_size, config.patch_size)
  )
  hf_files.check(folder, tensors, hf_table.their_shapes(table))
  tower = hf_params.load(tower, table, tensors, folder=folder)
  params = dict(nnx.to_flat_state(nnx.state(tower)))
  digest = hashlib.sha256()
  for entry in table:
    digest.update(np.asarray(params[entry.path].get_value()).data)
  return tower, digest.digest()


def _vision_tensors(folder: epath.Path) -> dict[str, hf_files.Tensor]:
  """The vision tower's, without their prefix, and the projection."""
  tensors = {tensor.key: tensor for tensor in hf_files.tensors(folder)}
  vision = {
      key.removeprefix(_PREFIX): tensor
      for key, tensor in tensors.items()
      if key.startswith((_PREFIX, f'{_PROJECTION}.'))
  }
  # A vision tower saved alone has no prefix.
  if not any(key.startswith(_PREFIX) for key in tensors):
    vision = tensors
  vision.pop(_POSITION_IDS, None)
  return vision

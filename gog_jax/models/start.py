"""What training starts from: the base, other weights, or adapters.

`init` is config.rl.init, but for a stage of the run: 'base', or a folder.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from etils import epath
from flax import nnx
import jax

from gog_jax.errors import UserError
from gog_jax.models import lora
from gog_jax.models import peft_files
from gog_jax.models.config import VLMConfig
from gog_jax.models.hf_params import from_pretrained
from gog_jax.models.vlm import VLM


def folder_of(init: str) -> epath.Path | None:
  """The folder that `init` names; None where it is a policy of the run.

  Raises:
    UserError: There is no such folder.
  """
  if init in ('sft', 'base'):
    return None
  if not (folder := epath.Path(init)).is_dir():
    raise UserError(
        f'--config.rl.init={init} is no folder: name one with the weights of a '
        'model or with adapters of peft, or one of sft, base'
    )
  return folder


def weights_of(
    init: str, base: epath.Path
) -> tuple[epath.Path, epath.Path | None]:
  """Folders of weights and, if there are any, of adapters on them."""
  folder = folder_of(init)
  if folder is None:
    return base, None
  if (folder / peft_files.CONFIG).exists():
    return base, folder
  return folder, None


def load(
    init: str,
    base: epath.Path,
    config: VLMConfig,
    *,
    trainable: str,
    adapters: Mapping[str, Any],
    rngs: nnx.Rngs,
    dtype: Any,
    mesh: jax.sharding.Mesh,
    alone: bool = False,
) -> VLM:
  """A model; where `trainable` is 'lora', with adapters, fresh or the folder's.

  Args:
    init: As above.
    base: The folder of the base.
    config: The base's.
    trainable: As in the config.
    adapters: Of fresh ones: arguments of lora.add_lora.
    rngs: Draws them.
    dtype: Of parameters, but for adapters.
    mesh: Where they are placed.
    alone: As peft_files.load_adapters takes it.

  Raises:
    UserError: Weights are missing, damaged or of another model.
  """
  weights, peft = weights_of(init, base)
  model, found = from_pretrained(weights, dtype=dtype, mesh=mesh)
  if found != config:
    raise UserError(
        f'config.rl.init={init} holds another model than config.model.path='
        f'{base}: pass it as --config.model.path with --config.rl.init=base'
    )
  if peft is not None:
    if trainable != 'lora':
      raise UserError(
          f'config.rl.init={init} holds adapters, and config.trainable='
          f'{trainable} trains none: pass --config.trainable=lora'
      )
    peft_files.load_adapters(model, peft, alone=alone)
    lora.place(model, mesh)
  elif trainable == 'lora':
    lora.add_lora(model, **adapters, rngs=rngs, mesh=mesh)
  return model

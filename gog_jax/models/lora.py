"""Low-rank adapters (LoRA, arXiv 2106.09685) on the linear maps of the blocks.

An adapter adds (x A) B * alpha / r to x W. B starts at zero, so a new adapter
changes nothing, and the first gradient of A is zero. The adapters of a model
are one small pytree: several of them (the policy's, the reference's) share one
copy of the base:

    add_lora(model, rank=8, alpha=16, rngs=nnx.Rngs(0), vision=False)
    graphdef, adapters, base = split(model, 'lora')
    reference = jax.tree.map(jnp.copy, adapters)
    policy = nnx.merge(graphdef, adapters, base)
    frozen = nnx.merge(graphdef, reference, base)
"""

from __future__ import annotations

from collections.abc import Iterator

from flax import nnx
import jax
import jax.numpy as jnp
from jaxtyping import ArrayLike, Float

from gog_jax.models import layers
from gog_jax.models import sharding
from gog_jax.models import vlm


def _linears(model: vlm.VLM, *, vision: bool) -> Iterator[layers.Linear]:
  """The linear maps of the decoder's blocks, and of the vision tower's."""
  towers = [model.text, model.vision] if vision else [model.text]
  for tower in towers:
    for _, module in nnx.iter_modules(tower.blocks):
      if isinstance(module, layers.Linear):
        yield module


def add_lora(
    model: vlm.VLM,
    *,
    rank: int,
    alpha: float,
    rngs: nnx.Rngs,
    vision: bool,
    mesh: jax.sharding.Mesh | None = None,
) -> None:
  """Adds a float32 adapter to every linear map of every block, in place.

  Args:
    model: Has none yet.
    rank: r.
    alpha: The adapter is scaled by alpha / rank.
    rngs: Draws A, evenly from -d to d where d ** 2 = 1 / in width, as peft does
      (kaiming_uniform_ with a = sqrt(5)).
    vision: Whether the vision tower's blocks get adapters too.
    mesh: The mesh that adapters are laid out over, if any.

  Raises:
    ValueError: The model has adapters already, or there is no such rank.
  """
  if rank < 1:
    raise ValueError(f'a rank must be at least 1, not {rank}')
  for linear in _linears(model, vision=vision):
    if linear.lora_a is not None:
      raise ValueError('the model has adapters already')
    n_layers, in_width, out_width = linear.kernel.shape
    most = in_width**-0.5
    put_adapter(
        linear,
        jax.random.uniform(
            rngs.params(), (n_layers, in_width, rank), minval=-most, maxval=most
        ),
        jnp.zeros((n_layers, rank, out_width)),
        alpha / rank,
    )
  if mesh is not None:
    place(model, mesh)


def place(model: vlm.VLM, mesh: jax.sharding.Mesh) -> None:
  """Lays a model's adapters out over a mesh, in float32, in place."""
  adapters = jax.tree.map(
      lambda leaf: leaf.astype(jnp.float32), nnx.state(model, nnx.LoRAParam)
  )
  placed = sharding.param_shardings(adapters, mesh)
  nnx.update(model, jax.device_put(adapters, placed))


def put_adapter(
    linear: layers.Linear,
    a: Float[ArrayLike, 'L D r'],
    b: Float[ArrayLike, 'L r F'],
    scale: float,
) -> None:
  """Gives one (stacked) linear map an adapter, in place."""
  stacked, in_axis, out_axis = linear.kernel.get_metadata('axes')
  linear.lora_a = nnx.LoRAParam(
      jnp.asarray(a), axes=(stacked, in_axis, 'rank')
  )
  linear.lora_b = nnx.LoRAParam(
      jnp.asarray(b), axes=(stacked, 'rank', out_axis)
  )
  linear.lora_scale = scale


def split(
    model: vlm.VLM, trainable: str
) -> tuple[nnx.GraphDef, nnx.State, nnx.State]:
  """Splits a model into what is trained and what is frozen.

  Args:
    model: With adapters, where `trainable` is 'lora'.
    trainable: 'lora' for the adapters, 'full' for all parameters,
      'full_no_vision' for all but the vision tower's. The latter two train
      adapters too, if there are any.

  Returns:
    (graphdef, trained, frozen): nnx.merge of the three is the model again, and
    other trained states of the same structure may take the place of the first.

  Raises:
    ValueError: `trainable` is unknown, or there are no adapters to train.
  """
  filters = {
      'lora': nnx.LoRAParam,
      'full': nnx.Param,
      'full_no_vision': lambda path, _: 'vision' not in path,
  }
  if trainable not in filters:
    raise ValueError(f'trainable {trainable!r} is not one of {[*filters]}')
  graphdef, trained, frozen = nnx.split(model, filters[trainable], ...)
  if not jax.tree.leaves(trained):
    raise ValueError('there are no adapters to train: call add_lora first')
  return graphdef, trained, frozen

"""Compiling a run's programs for devices that are not there.

Arrays are shapes with shardings; nothing is read, nothing is run. What is
compiled is what a run calls: GRPO's gradients of a micro-batch and the
optimizer's step, and the sampler's prefill, decoding and ViT, all on one mesh
and with everything that RL holds at once: parameters, the reference, the
optimizer's state, the sampler's copy of what is trained if it needs one, and
the KV cache.
"""

from __future__ import annotations

import dataclasses
import math
from typing import Any

from flax import nnx
import jax
import jax.numpy as jnp
from jax.sharding import Mesh, NamedSharding, PartitionSpec

from gog_jax import models
from gog_jax.aot import costs
from gog_jax.aot.program import Plan
from gog_jax.aot.program import Program
from gog_jax.models import lora
from gog_jax.models import sharding
from gog_jax.models.config import VisionConfig
from gog_jax.models.config import VLMConfig
from gog_jax.models.layers import Execution
from gog_jax.models.vision import VisionInputs
from gog_jax.rollout import features
from gog_jax.rollout import sampler
from gog_jax.rollout.batching import Batch
from gog_jax.train import losses
from gog_jax.train import state as state_lib
from gog_jax.train import steps
from gog_jax.train.optimizer import make_optimizer


def make_plan(c: Any, config: VLMConfig, mesh: Mesh) -> Plan:
  """A run's programs for a mesh.

  Args:
    c: A page's config.
    config: The backbone's.
    mesh: Of any devices.
  """
  dtype = jnp.dtype(c.model.dtype)
  attention = 'splash' if c.model.attention == 'auto' else c.model.attention
  merge = config.vision.merge_size**2
  max_patches = c.model.max_image_tokens * merge
  model = _abstract_model(c, config, dtype)
  graph, params, frozen = lora.split(model, c.trainable)
  n_updates = c.rl.steps * c.rl.updates_per_batch
  optimizer = make_optimizer(c.rl.optimizer, n_steps=n_updates)
  state = jax.eval_shape(
      lambda params: state_lib.fresh(params, optimizer, seed=0), params
  )
  state = _placed(state, sharding.param_shardings(state, mesh))
  frozen = _placed(frozen, sharding.param_shardings(frozen, mesh))
  used = jax.tree.map(
      lambda leaf: jax.ShapeDtypeStruct(
          leaf.shape, dtype, sharding=leaf.sharding
      ),
      state.params,
  )
  frozen_model = state_lib.FrozenModel(
      graph,
      frozen,
      Execution(c.model.scan, c.model.remat, attention),
      c.model.logprob_chunk,
      longest_image=max_patches,
      dtype=dtype,
  )
  n_rows = sharding.next_multiple(c.rl.micro_rows, mesh)
  n_slots = sharding.next_multiple(c.sampler.n_slots, mesh)
  n_images = features.images_at_once(mesh)
  chunk = c.sampler.chunk
  variant = losses.variant_of(c.rl)
  update = steps.grpo_update(frozen_model, optimizer, state, variant)
  has_reference = bool(variant.kl_coef)
  reference = used if has_reference else None
  totals = jax.eval_shape(update.zeros, state.params).totals
  sums = steps.Sums(
      state.params, {name: _whole(mesh, (), jnp.float32) for name in totals}
  )
  cache = _cache(model, n_slots, c.rollout.max_context, dtype, mesh)
  sampled = nnx.merge_state(used, frozen)
  batch = _batch(c, config, n_rows, mesh)
  hidden = _whole(mesh, (n_slots, config.text.width), dtype)
  images = _vision_inputs(
      config, n_images, max_patches, dtype, _whole_place(mesh)
  )
  ints = lambda *shape: _whole(mesh, shape, jnp.int32)
  decode_from = (
      _whole(mesh, (n_slots,), jnp.bool_),
      ints(n_slots),
      _whole(mesh, (n_slots,), jnp.uint32),
      ints(n_slots),
  )
  chunks = (
      ints(n_slots, chunk),
      ints(n_slots, 3, chunk),
      ints(n_slots),
      jax.ShapeDtypeStruct(
          (n_slots, chunk, config.vision.feature_width),
          dtype,
          sharding=sharding.batch_sharding(mesh),
      ),
      ints(n_slots, chunk),
  )

  held = {
      'frozen parameters': frozen,
      'trained parameters': state.params,
      'optimizer': state.opt_state,
      'reference': reference,
      'KV cache': cache,
  }
  # See rl.train. The sampler may use the trained parameters themselves where
  # they are in its dtype and it gets every update's,
  exact = dtype == jnp.float32
  if not exact or c.rl.sync_every > 1:
    held['sampler\'s copy'] = used
  # and an update the sampler's, unless these are of an earlier one.
  shares = exact or c.rl.sync_every == c.rl.updates_per_batch == 1
  update_copy = 0 if shares else _bytes(used)
  held = {name: _bytes(tree) for name, tree in held.items()}

  def under_mesh(jitted, *args, **kwargs):
    def lower():
      with jax.set_mesh(mesh):
        return jitted.lower(*args, **kwargs)

    return lower

  trains_vision = state_lib.trains_vision(params)
  flops = _flops(
      c,
      config,
      n_slots=n_slots,
      max_patches=max_patches,
      trains_vision=trains_vision,
      has_reference=has_reference,
  )
  splash = {'gradients': set(), 'ViT': set()}
  if attention == 'splash':
    splash = {
        'gradients': {'causal fwd', 'causal dq', 'causal dkv'}
        | _vision_kernels(
            config.vision, c.batch.row_patches, trained=trains_vision
        ),
        'ViT': _vision_kernels(config.vision, max_patches, trained=False),
    }
  weights = _bytes(sampled)  # On each device, in the compute dtype.
  gathered_by = mesh.shape[sharding.LOGICAL_AXES['embed']]
  gathered = weights * gathered_by
  n_passes = costs.n_passes(c.model.remat, has_reference=has_reference)
  return Plan(
      held=held,
      programs={
          'gradients': Program(
              lower=under_mesh(
                  update.add, sums, used, batch, frozen, reference, None
              ),
              own_bytes=_bytes((sums, batch)) + update_copy,
              flops=n_rows * flops['gradients'],
              memory_bytes=gathered * n_passes + 2 * _bytes(sums),
              unit='a micro-batch',
              splash=frozenset(splash['gradients']),
          ),
          'optimizer': Program(
              lower=under_mesh(update.apply, state, sums),
              own_bytes=_bytes(sums) + update_copy,
              flops=0,
              memory_bytes=_bytes(sums)
              + 2 * (held['trained parameters'] + held['optimizer']),
              unit='an update',
          ),
          'prefill': Program(
              lower=under_mesh(
                  sampler.extend_rows,
                  graph, sampled, cache, hidden, None, *chunks,
              ),
              own_bytes=_bytes((hidden, chunks)),
              flops=flops['prefill'],
              memory_bytes=gathered + held['KV cache'],
              unit=f'{chunk} tokens of each slot',
          ),
          'decode': Program(
              lower=under_mesh(
                  sampler.decode,
                  graph, sampled, cache, hidden, *decode_from,
                  stop_ids=(0,),
                  max_turn_tokens=c.rollout.max_turn_tokens,
                  greedy=False,
                  banned_ids=(),
              ),
              own_bytes=_bytes((hidden, decode_from)),
              flops=flops['decode'],
              memory_bytes=weights + held['KV cache'],
              unit='a token of each slot',
          ),
          'ViT': Program(
              lower=under_mesh(
                  features.encode, graph, sampled, images, attention=attention
              ),
              own_bytes=_bytes(images),
              flops=n_images * flops['ViT'],
              memory_bytes=gathered_by * _bytes(sampled['vision']),
              unit=f'{n_images} images',
              splash=frozenset(splash['ViT']),
          ),
      },
      n_slots=n_slots,
      n_rows=n_rows,
      n_images=n_images,
  )  # fmt: skip


def _flops(
    c: Any,
    config: VLMConfig,
    *,
    n_slots: int,
    max_patches: int,
    trains_vision: bool,
    has_reference: bool,
) -> dict[str, float]:
  """Of a call of each program: a row's gradients, all slots, one image."""
  held = c.rollout.max_context  # Keys that each query is multiplied with.

  def of_slots(n_tokens):
    return costs.text_flops(
        config.text,
        n_slots * n_tokens,
        n_slots * n_tokens * held,
        n_slots if n_tokens == 1 else 0,  # Prefill predicts nothing.
    )

  return {
      'gradients': costs.grpo_flops(
          config,
          row_tokens=c.batch.row_tokens,
          row_patches=c.batch.row_patches,
          longest_image=max_patches,
          trains_base=c.trainable != 'lora',
          trains_vision=trains_vision,
          has_reference=has_reference,
          remat=c.model.remat,
      ),
      'prefill': of_slots(c.sampler.chunk),
      'decode': of_slots(1),
      'ViT': costs.vision_flops(config.vision, max_patches, max_patches),
  }


def _vision_kernels(
    config: VisionConfig, n_patches: int, *, trained: bool
) -> set[str]:
  """Those of splash attention that rows of the vision tower have to call."""
  if config.masks_windows(n_patches):
    return set()
  return {
      f'bidirectional {kernel}'
      for kernel in (('fwd', 'dq', 'dkv') if trained else ('fwd',))
  }


def _cache(model, n_slots: int, length: int, dtype: Any, mesh: Mesh) -> Any:
  cache = jax.eval_shape(lambda: model.text.init_cache(n_slots, length, dtype))

  def place(leaf):
    if leaf.ndim < 4:  # Lengths.
      return _whole(mesh, leaf.shape, leaf.dtype)
    where = sharding.cache_sharding(leaf.shape, mesh)
    return jax.ShapeDtypeStruct(leaf.shape, leaf.dtype, sharding=where)

  return jax.tree.map(place, cache)


def _abstract_model(c: Any, config: VLMConfig, dtype: Any) -> models.VLM:
  if c.trainable != 'lora':
    return models.abstract(config, dtype=dtype)

  def make():
    model = models.VLM(
        config, dtype=dtype, draw=lambda shape, _: jnp.zeros(shape)
    )
    lora.add_lora(
        model,
        rank=c.lora.rank,
        alpha=c.lora.alpha,
        vision=c.lora.vision,
        rngs=nnx.Rngs(0),
    )
    return model

  return nnx.eval_shape(make)


def _batch(c: Any, config: VLMConfig, n_rows: int, mesh: Mesh) -> Batch:
  rows = sharding.batch_sharding(mesh)
  length = c.batch.row_tokens

  def array(dtype, *shape):
    return jax.ShapeDtypeStruct((n_rows, *shape), dtype, sharding=rows)

  of_tokens = {
      field.name: array(jnp.float32, length)
      for field in dataclasses.fields(Batch)
  }
  for name in ('tokens', 'segment_ids', 'targets', 'image_index'):
    of_tokens[name] = array(jnp.int32, length)
  return Batch(**{
      **of_tokens,
      'positions': array(jnp.int32, 3, length),
      'vision': _vision_inputs(
          config,
          n_rows,
          c.batch.row_patches,
          jnp.dtype(c.model.dtype),
          rows,
      ),
  })


def _vision_inputs(
    config: VLMConfig,
    n_rows: int,
    n_patches: int,
    dtype: Any,
    place: NamedSharding,
) -> VisionInputs:
  inputs = jax.eval_shape(
      lambda: models.pack_images(
          [[]] * n_rows,
          n_patches=n_patches,
          config=config.vision,
          dtype=dtype,
      )
  )
  return jax.tree.map(
      lambda leaf: jax.ShapeDtypeStruct(leaf.shape, leaf.dtype, sharding=place),
      inputs,
  )


def _placed(tree: Any, places: Any) -> Any:
  return jax.tree.map(
      lambda leaf, place: jax.ShapeDtypeStruct(
          leaf.shape, leaf.dtype, sharding=place
      ),
      tree,
      places,
  )


def _whole_place(mesh: Mesh) -> NamedSharding:
  return NamedSharding(mesh, PartitionSpec())


def _whole(mesh: Mesh, shape: tuple[int, ...], dtype: Any) -> Any:
  return jax.ShapeDtypeStruct(shape, dtype, sharding=_whole_place(mesh))


def _bytes(tree: Any) -> int:
  """Per device."""
  return sum(
      math.prod(leaf.sharding.shard_shape(leaf.shape)) * leaf.dtype.itemsize
      for leaf in jax.tree.leaves(tree)
  )

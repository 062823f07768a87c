"""What training changes, apart from what it holds still."""

from __future__ import annotations

import dataclasses
from typing import Any

from flax import nnx
import jax
import jax.numpy as jnp
import optax

from gog_jax import sharding
from gog_jax.models import lora
from gog_jax.models.logprobs import token_logprobs
from gog_jax.models.vlm import VLM
from gog_jax.rollout.batching import Batch


@jax.tree_util.register_dataclass
@dataclasses.dataclass(frozen=True)
class TrainState:
  """Everything a step replaces, and all that a checkpoint needs of a step.

  Attributes:
    step: int32, optimizer steps taken.
    params: The trainable part of the model: LoRA adapters or full parameters.
    opt_state: The optimizer's.
    rng: The data of the run's key; see `step_seed`.
  """

  step: jax.Array
  params: nnx.State
  opt_state: optax.OptState
  rng: jax.Array


@dataclasses.dataclass(frozen=True)
class FrozenModel:
  """What a run never changes: the graph and the frozen parameters.

  Attributes:
    graph: The model's definition; `nnx.merge(graph, params, frozen)` is it.
    frozen: Parameters that no step touches and none donates.
    scan: Layers are scanned (quick to compile at depth) or unrolled.
    remat: Name of the rematerialisation policy.
    logprob_chunk: Positions whose logits exist at once.
  """

  graph: nnx.GraphDef
  frozen: nnx.State
  scan: bool
  remat: str
  logprob_chunk: int


def create(
    model: VLM,
    *,
    trainable: str,
    optimizer: optax.GradientTransformation,
    mesh: jax.sharding.Mesh,
    seed: int,
    scan: bool,
    remat: str,
    logprob_chunk: int,
) -> tuple[TrainState, FrozenModel]:
  """Splits a model into what `trainable` names ('lora', 'full', ...) and not.

  Both parts are placed on the mesh by their logical axes, and so is the
  optimizer's state.
  """
  graph, params, frozen = lora.split(model, trainable)
  state = TrainState(
      step=jnp.int32(0),
      params=params,
      opt_state=optimizer.init(params),
      rng=jax.random.key_data(jax.random.key(seed)),
  )
  state = jax.device_put(state, sharding.param_shardings(state, mesh))
  frozen = jax.device_put(frozen, sharding.param_shardings(frozen, mesh))
  return state, FrozenModel(graph, frozen, scan, remat, logprob_chunk)


def batch_logprobs(
    model: FrozenModel, params: nnx.State, frozen: nnx.State, batch: Batch
) -> tuple[jax.Array, jax.Array]:
  """Logprob of every target and entropy at every position, float32[B, T]."""
  vlm = nnx.merge(model.graph, params, frozen)
  features = None
  if batch.vision.patches.shape[1]:
    features = vlm.encode_images(
        batch.vision, scan=model.scan, remat=model.remat
    )
  hidden = vlm.hidden(
      batch.tokens,
      batch.positions,
      batch.segment_ids,
      features,
      batch.image_index,
      scan=model.scan,
      remat=model.remat,
  )
  return token_logprobs(
      hidden, vlm.head(), batch.targets, chunk=model.logprob_chunk
  )


def apply_gradients(
    state: TrainState,
    grads: Any,
    optimizer: optax.GradientTransformation,
) -> tuple[TrainState, jax.Array]:
  """One optimizer step; also the gradient's global norm, before clipping."""
  updates, opt_state = optimizer.update(grads, state.opt_state, state.params)
  return (
      dataclasses.replace(
          state,
          step=state.step + 1,
          params=optax.apply_updates(state.params, updates),
          opt_state=opt_state,
      ),
      optax.tree.norm(grads),
  )


def merged(model: FrozenModel, params: nnx.State) -> VLM:
  """The whole model with these trained parameters."""
  return nnx.merge(model.graph, params, model.frozen)


def step_seed(state: TrainState) -> int:
  """32 bits for what is random in the step that comes next."""
  key = jax.random.fold_in(jax.random.wrap_key_data(state.rng), state.step)
  return int(jax.random.bits(key))

"""What training changes, and the frozen model around it."""

from __future__ import annotations

import dataclasses
import functools
from typing import Any

from flax import nnx
import jax
import jax.numpy as jnp
import optax

from gog_jax.models import lora
from gog_jax.models import sharding
from gog_jax.models.attention import backend_for
from gog_jax.models.layers import Execution
from gog_jax.models.logprobs import token_logprobs
from gog_jax.models.vlm import VLM
from gog_jax.rollout.batching import Batch
from gog_jax.run import Run


@jax.tree_util.register_dataclass
@dataclasses.dataclass(frozen=True)
class TrainState:
  """Everything a step replaces, and all that a checkpoint needs of a step.

  Attributes:
    step: int32, optimizer steps taken.
    params: The trainable part of the model: LoRA adapters or full parameters.
    opt_state: The optimizer's.
    rng: The data of the run's key; see `step_seed`.
    sampled_by: In checkpoints of RL, where the sampler's weights may be older
      than `params`: its trained part, as it is used.
  """

  step: jax.Array
  params: nnx.State
  opt_state: optax.OptState
  rng: jax.Array
  sampled_by: nnx.State | None = None


@dataclasses.dataclass(frozen=True)
class FrozenModel:
  """What a run never changes: the graph and the frozen parameters.

  Attributes:
    graph: The model's definition; `nnx.merge(graph, params, frozen)` is it.
    frozen: Parameters that no step touches and none donates.
    execution: How the towers run.
    logprob_chunk: Positions whose logits exist at once.
    longest_image: The most patches of an image, if that is known.
    dtype: Of activations, and so of parameters where they are used; None for
      that of the parameters.
  """

  graph: nnx.GraphDef
  frozen: nnx.State
  execution: Execution
  logprob_chunk: int
  longest_image: int | None = None
  dtype: Any = None

  def in_use(self, params: nnx.State) -> nnx.State:
    """Trained parameters in the dtype that they are used in."""
    if self.dtype is None:
      return params
    return jax.tree.map(lambda leaf: leaf.astype(self.dtype), params)

  def kept(self, params: nnx.State) -> nnx.State:
    """The same in arrays of their own, as an update donates what it gets."""
    used = self.in_use(params)
    return jax.tree.map(
        lambda new, old: jnp.copy(new) if new is old else new, used, params
    )


def start_state(
    run: Run,
    optimizer: optax.GradientTransformation,
    *,
    start_from: str,
) -> tuple[VLM, TrainState, FrozenModel]:
  """A model, in the words of `rl.init`, and its fresh state."""
  c = run.config
  model = run.load_start(start_from)
  state, frozen_model = create(
      model,
      trainable=c.trainable,
      optimizer=optimizer,
      mesh=run.mesh,
      seed=run.seed('state'),
      execution=Execution(
          c.model.scan, c.model.remat, backend_for(c.model.attention)
      ),
      logprob_chunk=c.model.logprob_chunk,
      longest_image=run.processor.max_patches,
  )
  return model, state, frozen_model


def create(
    model: VLM,
    *,
    trainable: str,
    optimizer: optax.GradientTransformation,
    mesh: jax.sharding.Mesh,
    seed: int,
    **how: Any,
) -> tuple[TrainState, FrozenModel]:
  """Splits a model into what `trainable` names ('lora', 'full', ...) and not.

  Both parts are placed on the mesh by their logical axes, and so is the
  optimizer's state. What is trained is kept in float32, whatever it is used in:
  in bfloat16 most steps would be rounded away. `how` are FrozenModel's fields.
  """
  graph, params, frozen = lora.split(model, trainable)
  state = fresh(params, optimizer, seed=seed)
  state = jax.device_put(state, sharding.param_shardings(state, mesh))
  frozen = jax.device_put(frozen, sharding.param_shardings(frozen, mesh))
  dtype = model.text.embedding.dtype
  return state, FrozenModel(graph, frozen, dtype=dtype, **how)


def fresh(
    params: nnx.State, optimizer: optax.GradientTransformation, *, seed: int
) -> TrainState:
  """The state before the first step; `params` as they are loaded."""
  params = jax.tree.map(lambda leaf: leaf.astype(jnp.float32), params)
  return TrainState(
      step=jnp.int32(0),
      params=params,
      opt_state=optimizer.init(params),
      rng=jax.random.key_data(jax.random.key(seed)),
  )


def image_features(
    model: FrozenModel, params: nnx.State, frozen: nnx.State, batch: Batch
) -> jax.Array | None:
  """The vision tower's [B, M, F]; None where the batch has no images."""
  if not batch.vision.patches.shape[1]:
    return None
  vlm = nnx.merge(model.graph, model.in_use(params), frozen)
  return vlm.vision(
      batch.vision, model.execution, longest_image=model.longest_image
  )


def trains_vision(params: nnx.State) -> bool:
  """Whether image features depend on what is trained."""
  return any('vision' in path for path, _ in nnx.to_flat_state(params))


def batch_logprobs(
    model: FrozenModel,
    params: nnx.State,
    frozen: nnx.State,
    batch: Batch,
    features: jax.Array | None = None,
) -> tuple[jax.Array, jax.Array]:
  """Logprob of every target and entropy at every position, float32[B, T].

  `features` are the batch's, if they have been computed already.
  """
  vlm = nnx.merge(model.graph, model.in_use(params), frozen)
  if features is None:
    encode = functools.partial(image_features, model)
    if model.execution.remat == 'full':
      # Or what is kept of each of the tower's layers would wait for the
      # decoder's backward pass, where memory is scarcest.
      encode = jax.checkpoint(encode)
    features = encode(params, frozen, batch)
  hidden = vlm.text.hidden(
      batch.tokens,
      batch.positions,
      batch.segment_ids,
      features,
      batch.image_index,
      model.execution,
  )
  return token_logprobs(
      hidden, vlm.text.head(), batch.targets, chunk=model.logprob_chunk
  )


def merged(model: FrozenModel, params: nnx.State) -> VLM:
  """The whole model with these trained parameters, as they are used."""
  return nnx.merge(model.graph, model.in_use(params), model.frozen)


def step_seed(state: TrainState) -> int:
  """32 bits for what is random in the step that comes next."""
  key = jax.random.fold_in(jax.random.wrap_key_data(state.rng), state.step)
  return int(jax.random.bits(key))

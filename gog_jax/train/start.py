"""Where training starts: the base model, or what a finished stage trained."""

from __future__ import annotations

from flax import nnx
import optax

from gog_jax.models.attention import backend_for
from gog_jax.models.vlm import VLM
from gog_jax.run import Run
from gog_jax.train import state as state_lib


def start_state(
    run: Run,
    optimizer: optax.GradientTransformation,
    *,
    start_from: str | None,
) -> tuple[VLM, state_lib.TrainState, state_lib.FrozenModel]:
  """The run's model and its fresh state: the base, or a finished stage's."""
  c = run.config
  model = run.load_model()
  if start_from is not None:
    nnx.update(model, run.trained_params(model, start_from))
  state, frozen_model = state_lib.create(
      model,
      trainable=c.trainable,
      optimizer=optimizer,
      mesh=run.mesh,
      seed=run.seed('state'),
      scan=c.model.scan,
      remat=c.model.remat,
      logprob_chunk=c.model.logprob_chunk,
      attention=backend_for(c.model.attention),
      longest_image=run.processor.max_patches,
  )
  return model, state, frozen_model

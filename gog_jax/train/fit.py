"""The supervised loop, shared by pretraining and SFT."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

from etils import epath
import grain
import jax
import numpy as np

from gog_jax import interrupt
from gog_jax.config import Config
from gog_jax.models.config import VisionConfig
from gog_jax.rollout.batching import loss_weights
from gog_jax.rollout.batching import MicroBatches
from gog_jax.run import Run
from gog_jax.storage import checkpoint
from gog_jax.storage import metrics as metrics_lib
from gog_jax.train.state import TrainState
from gog_jax.types import Trajectory

Step = Callable[
    [TrainState, MicroBatches], tuple[TrainState, dict[str, jax.Array]]
]


def fit(
    state: TrainState,
    step: Step,
    batches: grain.DatasetIterator,
    *,
    what: str,
    config: Config,
    folder: epath.Path,
    n_steps: int,
    checkpoint_every: int,
    stop: Callable[[TrainState, int], bool] = lambda state, n: False,
) -> TrainState:
  """Runs `step` up to `n_steps`, from the newest checkpoint if there is one.

  On a signal the state is saved at the next step boundary, so that a restart
  continues with the very next batch.

  Args:
    state: Fresh; replaced by the checkpoint's where there is one.
    step: (state, micro-batches) -> (state, metrics). Donates the state.
    batches: Endless; its position is part of the checkpoint.
    what: Name on the progress bar.
    config: The run's, which says where its metrics go.
    folder: Holds `checkpoints/`, `metrics.jsonl` and `events/`.
    n_steps: Optimizer steps of the whole run.
    checkpoint_every: Steps.
    stop: (state, steps done) -> whether that is enough; asked before a step.
  """
  with checkpoint.Checkpointer(
      folder / 'checkpoints', every=checkpoint_every, keep=2
  ) as saver:
    if saver.latest_step() is not None:
      state = saver.restore(state, batches)
    first = int(state.step)
    with (
        metrics_lib.open_log(config, folder, resume_step=first) as log,
        metrics_lib.Progress(what, total=n_steps, start=first) as progress,
    ):
      pending = None  # Written a step late: the device waits for no host.

      def write_pending() -> None:
        nonlocal pending
        if pending is not None:
          log.write(*pending)
          progress.advance(loss=float(pending[1]['loss']))
        pending = None

      def save(n: int) -> None:
        write_pending()
        saver.save(n, state, batches)

      for n in range(first, n_steps):
        try:
          interrupt.check()
          enough = stop(state, n)
        except interrupt.Interrupted:
          save(n)
          raise
        if enough:
          save(n)
          break
        state, metrics = step(state, next(batches))
        write_pending()
        pending = (n + 1, metrics)
        if saver.is_due(n + 1) or n + 1 == n_steps:
          save(n + 1)
  return state


def supervised_batches(
    run: Run,
    trajectories: Sequence[Trajectory],
    *,
    vision_config: VisionConfig,
    micro_rows: int,
    dtype: Any,
) -> MicroBatches:
  """Packs what is to be imitated; every target weighs the same."""
  return MicroBatches(
      trajectories,
      advantages=np.zeros(len(trajectories)),
      weights=loss_weights(
          [int(t.loss_mask.sum()) for t in trajectories],
          [t.valid for t in trajectories],
          aggregation='token_mean',
      ),
      processor=run.processor,
      vision_config=vision_config,
      config=run.batch_config(micro_rows=micro_rows, dtype=dtype),
  )

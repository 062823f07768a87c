"""A training stage under way; the supervised loop of SFT and pretraining."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
import contextlib
import dataclasses
from typing import Any

from etils import epath
import grain
import jax

from gog_jax import interrupt
from gog_jax.config import Config
from gog_jax.errors import RunStopped
from gog_jax.errors import UserError
from gog_jax.rollout.batching import MicroBatches
from gog_jax.storage import checkpoint
from gog_jax.storage import heartbeat
from gog_jax.storage import metrics as metrics_lib
from gog_jax.train.state import TrainState

Step = Callable[
    [TrainState, MicroBatches], tuple[TrainState, dict[str, jax.Array]]
]
# Steps in a row whose updates were skipped, see steps.Update: one may be bad
# luck, these are not.
_MOST_SKIPPED = 3


@dataclasses.dataclass(frozen=True)
class Session:
  """A stage from its newest checkpoint on.

  Attributes:
    what: Its name.
    state: The checkpoint's; without one, the state that was given.
    first: Steps that were done before.
    n_steps: Steps of the whole stage.
    log: Its metrics.
    progress: Its bar.
    saver: Its checkpoints.
    data: Their data iterator.
    watch: Laps from row to row.
  """

  what: str
  state: TrainState
  first: int
  n_steps: int
  log: metrics_lib.MetricsWriter
  progress: metrics_lib.Progress
  saver: checkpoint.Checkpointer
  data: grain.DatasetIterator
  watch: metrics_lib.Stopwatch = dataclasses.field(
      default_factory=metrics_lib.Stopwatch
  )

  def is_due(self, n: int) -> bool:
    """Whether the state after `n` steps is saved in any case."""
    return n == self.n_steps or self.saver.is_due(n)

  def write(self, n: int, values: Mapping[str, Any]) -> None:
    """Logs what step `n` came to, once the device has come to it.

    `seconds_step` are those since the row before, with all that was done in
    them; `tokens_per_second` are `n_tokens`, those trained on, over these.

    Raises:
      UserError: Its update was skipped, and so were those of the steps before.
    """
    jax.block_until_ready(values)
    self.watch.lap('step')
    row = {**values, **self.watch.seconds, **metrics_lib.peak_memory()}
    row['tokens_per_second'] = row['n_tokens'] / row['seconds_step']
    self.log.write(n, row)
    recent = self.log.rows[-_MOST_SKIPPED:]
    if recent[-1]['skipped']:
      metrics_lib.say(
          f'{self.what}: step {n} is skipped: its loss is '
          f'{recent[-1]["loss"]:g}, its gradient\'s norm '
          f'{recent[-1]["grad_norm"]:g}'
      )
    if sum(bool(row.get('skipped')) for row in recent) == _MOST_SKIPPED:
      raise UserError(
          f'{self.what} stopped at step {n}: the last {_MOST_SKIPPED} steps '
          'had a loss or gradient that is not finite, and changed nothing; the '
          'checkpoints before them are kept. Check the data and weights, or '
          'begin anew in another --workdir with a lower '
          f'--config.{self.what}.optimizer.learning_rate'
      )

  def save(self, n: int, state: TrainState) -> None:
    """Saves the state after `n` steps, and where the data iterator stands."""
    with heartbeat.doing(f'{self.what}: saving step {n}'):
      self.saver.save(n, state, self.data)


@contextlib.contextmanager
def opened(
    state: TrainState,
    data: grain.DatasetIterator,
    *,
    what: str,
    config: Config,
    folder: epath.Path,
    n_steps: int,
    checkpoint_every: int,
) -> Iterator[Session]:
  """Opens a stage's folder; goes on from the newest checkpoint there.

  Args:
    state: Fresh.
    data: Endless; moved to where it stood.
    what: Its name: on the progress bar, and of the config's section.
    config: The run's, which says where its metrics go.
    folder: Holds `checkpoints/`, `metrics.jsonl` and `events/`.
    n_steps: Steps of the whole stage.
    checkpoint_every: Steps.
  """
  with checkpoint.Checkpointer(
      folder / 'checkpoints', every=checkpoint_every, keep=2
  ) as saver:
    first = saver.latest_step() or 0
    if first:
      state = saver.restore(state, data)
    with (
        metrics_lib.open_log(config, folder, resume_step=first) as log,
        metrics_lib.Progress(what, total=n_steps, start=first) as progress,
    ):
      yield Session(what, state, first, n_steps, log, progress, saver, data)


def fit(
    state: TrainState,
    step: Step,
    batches: grain.DatasetIterator,
    *,
    stop: Callable[[TrainState, int], bool] = lambda state, n: False,
    **stage,
) -> TrainState:
  """Runs `step` up to `n_steps`, from the newest checkpoint if there is one.

  On a signal the state is saved at the next step boundary, so that a restart
  continues with the very next batch.

  Args:
    state: Fresh; replaced by the checkpoint's where there is one.
    step: (state, micro-batches) -> (state, metrics). Donates the state.
    batches: Endless; its position is part of the checkpoint.
    stop: (state, steps done) -> whether that is enough; asked before a step.
    **stage: For `opened`.

  Raises:
    UserError: As `Session.write`.
  """
  with opened(state, batches, **stage) as session:
    state = session.state
    pending = None  # Written a step late: the device waits for no host.

    def write_pending() -> None:
      nonlocal pending
      if pending is not None:
        session.write(*pending)
        session.progress.advance(loss=float(pending[1]['loss']))
      pending = None

    def save(n: int) -> None:
      write_pending()
      session.save(n, state)

    for n in range(session.first, session.n_steps):
      try:
        interrupt.check()
        enough = stop(state, n)
      except (interrupt.Interrupted, RunStopped):
        save(n)
        raise
      if enough:
        save(n)
        break
      state, metrics = step(state, next(batches))
      write_pending()
      pending = (n + 1, metrics)
      if session.is_due(n + 1):
        save(n + 1)
  return state

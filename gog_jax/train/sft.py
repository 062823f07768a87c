"""Stage 1: reflective behaviour alignment. SFT on expert trajectories.

The demos are those of toy/demos.py, or a file's, see conversations/sft_data.py.
"""

from __future__ import annotations

from collections.abc import Sequence
import contextlib
import functools
import math
from typing import Any

from etils import epath
from flax import nnx

from gog_jax import seams
from gog_jax.config.training import SFTConfig
from gog_jax.rollout.sampler import JaxPolicy
from gog_jax.run import Run
from gog_jax.storage import checkpoint
from gog_jax.storage import heartbeat
from gog_jax.storage import metrics
from gog_jax.train import state as state_lib
from gog_jax.train import steps
from gog_jax.train.batches import to_batches
from gog_jax.train.fit import fit
from gog_jax.train.optimizer import make_optimizer
from gog_jax.train.pipeline import endless_batches
from gog_jax.train.state import TrainState
from gog_jax.train.validation import Validation

# What reads demos and a user's data; of a package this one does not import.
_DATA = {'data': 'gog_jax.conversations.sft_data:read'}


def train(
    run: Run, folder: epath.Path, *, demos: str
) -> dict[str, Any]:
  """Trains the adapters (or what `trainable` names) on the demos.

  Until `sft.steps` (of a file, `sft.epochs`), or until accuracy on validation
  questions is flat.

  Args:
    run: Its policies act with its tools.
    folder: For what is made.
    demos: The stage that made them; '' learns from `sft.data` in their place.

  Raises:
    UserError: Nothing in `sft.data` is of use.
  """
  c = run.config.sft
  data = '' if demos else c.data
  read = seams.load('data', _DATA, field='config.sft.data')
  with heartbeat.doing(f'reading {data or demos}'):
    shown, facts = read(run, folder, demos=demos, path=data)
  n_steps = n_steps_of(c, len(shown), of_data=bool(data))
  optimizer = make_optimizer(c.optimizer, n_steps=n_steps)
  _, state, model = state_lib.start_state(run, optimizer, start_from='base')
  sft_step = steps.make_sft_step(model, optimizer, state)
  batches = endless_batches(
      shown,
      batch_size=c.batch_size,
      seed=run.seed('sft'),
      workers=c.data_workers,
      transform=functools.partial(to_batches, run, micro_rows=c.micro_rows),
  )
  validation = Validation(
      run, folder, n=c.n_validation, every=c.eval_every, n_steps=n_steps
  )
  policy: JaxPolicy | None = None  # Its cache is large.

  def is_flat(state: TrainState, n: int) -> bool:
    """Whether accuracy is flat; False between measurements."""
    nonlocal policy
    if not validation.is_due(n):
      return False
    if validation.at(n) is None:
      now = state_lib.merged(model, state.params)
      policy = policy or run.make_policy(now, greedy=True)
      policy.update(
          nnx.state(now), vision_changed=state_lib.trains_vision(state.params)
      )
      validation.measure(n, policy)
    return flat_after(accuracies(n), n=validation.n)

  def accuracies(n: int) -> list[float]:
    return [row['accuracy'] for row in validation.rows(n)]

  with contextlib.closing(batches):  # It may have processes.
    state = fit(
        state,
        sft_step,
        batches,
        what='sft',
        config=run.config,
        folder=folder,
        n_steps=n_steps,
        checkpoint_every=c.checkpoint_every,
        stop=is_flat,
    )
  n_steps = int(state.step)
  flat = is_flat(state, n_steps)  # It was not asked after the last step.
  if c.n_validation and not flat:
    field = 'epochs' if data and c.epochs else 'steps'
    metrics.say(
        f'sft: accuracy was not flat yet after {n_steps} steps; raise '
        f'--config.sft.{field} to train on'
    )
  checkpoint.save_pytree(folder / 'params', state.params)
  return {
      'steps': n_steps,
      **facts,
      'validation_accuracy': accuracies(n_steps),
      'flat': flat,
  }


def n_steps_of(c: SFTConfig, n: int, *, of_data: bool) -> int:
  """Steps on `n` trajectories; epochs are those of a user's data."""
  if of_data and c.epochs:
    return math.ceil(c.epochs * n / c.batch_size)
  return c.steps


def flat_after(accuracies: Sequence[float], *, n: int) -> bool:
  """Whether the last two accuracies are no better than one before them.

  Better is what exceeds it by more than its standard error, of `n` questions.
  As long as nothing is right, nothing is flat: it has not begun to learn.
  """
  if len(accuracies) < 3:
    return False
  *before, last, newest = accuracies
  best = max(before)
  return 0 < max(last, newest) <= best + math.sqrt(best * (1 - best) / n)

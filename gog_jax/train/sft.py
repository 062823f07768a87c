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
import numpy as np

from gog_jax import seams
from gog_jax.rollout.sampler import JaxPolicy
from gog_jax.run import Run
from gog_jax.storage import checkpoint
from gog_jax.storage import files
from gog_jax.storage import metrics
from gog_jax.train import state as state_lib
from gog_jax.train import steps
from gog_jax.train.batches import to_batches
from gog_jax.train.fit import fit
from gog_jax.train.optimizer import make_optimizer
from gog_jax.train.pipeline import endless_batches
from gog_jax.train.state import FrozenModel
from gog_jax.train.state import TrainState

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
  shown, facts = read(run, folder, demos=demos, path=data)
  n_steps = c.steps
  if data and c.epochs:
    n_steps = math.ceil(c.epochs * len(shown) / c.batch_size)
  optimizer = make_optimizer(c.optimizer, n_steps=n_steps)
  _, state, model = state_lib.start_state(run, optimizer, start_from=None)
  sft_step = steps.make_sft_step(model, optimizer, state)
  batches = endless_batches(
      shown,
      batch_size=c.batch_size,
      seed=run.seed('sft'),
      workers=c.data_workers,
      transform=functools.partial(to_batches, run, micro_rows=c.micro_rows),
  )
  validation = Validation(run, model, folder / 'validation.jsonl')
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
        stop=validation.is_flat,
    )
  validation.measure(state, int(state.step))  # If the last step is due.
  flat = flat_after(validation.accuracies, n=validation.n)
  if c.n_validation and not flat:
    field = 'epochs' if data and c.epochs else 'steps'
    metrics.say(
        f'sft: accuracy was not flat yet after {n_steps} steps; raise '
        f'--config.sft.{field} to train on'
    )
  checkpoint.save_pytree(folder / 'params', state.params)
  return {
      'steps': int(state.step),
      **facts,
      'validation_accuracy': validation.accuracies,
      'flat': flat,
  }


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


class Validation:
  """Greedy accuracy on the validation split, measured now and then.

  Attributes:
    accuracies: So far, one every `sft.eval_every` steps.
  """

  def __init__(self, run: Run, model: FrozenModel, path: epath.Path):
    """Goes on with what `path` already holds."""
    self._run = run
    self._model = model
    self._path = path
    self._policy: JaxPolicy | None = None  # Its cache is large.
    n = run.config.sft.n_validation
    self._examples = list(run.examples('validation', n=n)) if n else []
    self.n = len(self._examples)
    self.accuracies: list[float] = []
    if path.exists():
      self.accuracies = [row['accuracy'] for row in files.read_jsonl(path)]

  def is_flat(self, state: TrainState, n_steps: int) -> bool:
    """Whether accuracy is flat, see `flat_after`.

    False between measurements; at one, it is made first.
    """
    if not self.measure(state, n_steps):
      return False
    return flat_after(self.accuracies, n=self.n)

  def measure(self, state: TrainState, n_steps: int) -> bool:
    """Measures if it is time to and not done yet; whether it is time."""
    every = self._run.config.sft.eval_every
    if not self._examples or n_steps % every or not n_steps:
      return False
    del self.accuracies[n_steps // every :]  # A run that got further.
    if len(self.accuracies) < n_steps // every:
      now = state_lib.merged(self._model, state.params)
      if self._policy is None:
        self._policy = self._run.make_policy(now, greedy=True)
      self._policy.update(
          nnx.state(now), vision_changed=state_lib.trains_vision(state.params)
      )
      groups = self._run.rollout(
          self._policy,
          self._examples,
          samples=1,
          seed=('validation',),
          what=f'step {n_steps}',
      )
      right = [t.reward_parts['accuracy'] for (t,) in groups if t.valid]
      self.accuracies.append(float(np.mean(right)) if right else 0.0)
      files.write_jsonl(
          self._path,
          (
              {'step': (i + 1) * every, 'accuracy': accuracy}
              for i, accuracy in enumerate(self.accuracies)
          ),
      )
      metrics.say(f'sft: step {n_steps}, accuracy {self.accuracies[-1]:.3f}')
    return True

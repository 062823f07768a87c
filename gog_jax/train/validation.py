"""Accuracy on the validation questions, while a stage trains."""

from __future__ import annotations

from collections.abc import Mapping
import time
from typing import Any

from etils import epath

from gog_jax.errors import RunStopped
from gog_jax.rewards.behaviour import mean
from gog_jax.rollout.policy import Policy
from gog_jax.run import Run
from gog_jax.storage import files
from gog_jax.storage import metrics


class Validation:
  """One rollout of each validation question, now and then.

  FOLDER/validation.jsonl has a line for each time: `step`; `accuracy`, `reward`
  and `calls`, means over the `n` questions that count; how many `failed`, which
  the infrastructure spoilt; `price`, in US dollars; `seconds`.

  What is random comes from the questions alone: training is as without it.

  Attributes:
    n: Questions.
  """

  def __init__(
      self,
      run: Run,
      folder: epath.Path,
      *,
      n: int,
      every: int,
      n_steps: int,
      call_cost: float = 0.0,
  ):
    """Goes on with what the folder holds.

    Args:
      run: Its policies act with its tools.
      folder: The stage's.
      n: Questions, if there are as many; 0 measures nothing.
      every: Steps between two measurements.
      n_steps: Of the whole stage; the last is measured in any case.
      call_cost: As in rewards/score.py.
    """
    self._run, self._stage = run, folder.name
    self._path = folder / 'validation.jsonl'
    self._every, self._n_steps = every, n_steps
    self._call_cost = call_cost
    self._examples = list(run.examples('validation', n=n)) if n else []
    self._checked = False
    self._rows = metrics.read_rows(self._path)

  @property
  def n(self) -> int:
    return len(self._examples)

  def is_due(self, step: int) -> bool:
    """Whether the policy is measured after so many steps."""
    regular = step % self._every == 0 or step == self._n_steps
    return bool(self._examples and step) and regular

  def rows(self, step: int) -> list[dict[str, Any]]:
    """What was measured up to a step; a run may have been further before."""
    return [row for row in self._rows if row['step'] <= step]

  def at(self, step: int) -> Mapping[str, Any] | None:
    """What was measured after a step, if it was."""
    return next((row for row in self._rows if row['step'] == step), None)

  def best(self, step: int) -> Mapping[str, Any]:
    """The most accurate up to a step; of equals that of most reward, the first.
    """
    return max(
        self.rows(step), key=lambda row: (row['accuracy'], row['reward'])
    )

  def measure(self, step: int, policy: Policy) -> Mapping[str, Any]:
    """Measures a policy, greedy and with the weights after `step` steps.

    Raises:
      Interrupted: After a signal; nothing is kept of it.
      RunStopped: The infrastructure failed every question, or the judge fails.
    """
    if not self._checked:
      self._leave_out()
    began = time.monotonic()
    groups = self._run.rollout(
        policy,
        self._examples,
        samples=1,
        seed=('validation',),
        what=f'{self._stage} step {step}',
        call_cost=self._call_cost,
    )
    everyone = [trajectory for (trajectory,) in groups]
    valid = [trajectory for trajectory in everyone if trajectory.valid]
    n_failed = len(everyone) - len(valid)
    if not valid:
      raise RunStopped(
          f'{self._stage}: the infrastructure failed all {n_failed} validation '
          f'questions after step {step}: once that is mended, the same command '
          'goes on'
      )
    row = {
        'step': step,
        'accuracy': mean([t.reward_parts['accuracy'] for t in valid]),
        'reward': mean([t.reward for t in valid]),
        'n': len(valid),
        'calls': mean([len(t.calls) for t in valid]),
        'failed': n_failed,
        'price': sum(t.price for t in everyone),
        'seconds': time.monotonic() - began,
    }
    self._rows = sorted([*self._rows, row], key=lambda row: row['step'])
    files.write_jsonl(self._path, self._rows)
    failed = f' ({n_failed} failed)' if n_failed else ''
    metrics.say(
        f'{self._stage}: step {step}, accuracy {row["accuracy"]:.3f} of '
        f'{len(valid)} validation questions{failed}'
    )
    return row

  def _leave_out(self) -> None:
    """Leaves out, and says, what no conversation can begin with.

    Raises:
      RunStopped: That is every question.
    """
    asked, why = [], ''
    for example in self._examples:
      if why := self._run.refusal(example):
        metrics.say(f'{self._stage}: {example.id} is left out: {why}')
      else:
        asked.append(example)
    if not asked:
      raise RunStopped(
          f'{self._stage}: no validation question can be asked: {why}'
      )
    self._examples, self._checked = asked, True

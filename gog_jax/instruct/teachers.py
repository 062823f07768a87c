"""Who answers: with the tools of the run, and at once without them."""

from __future__ import annotations

from collections.abc import Sequence
import copy
import dataclasses
import functools
from typing import Any

from gog_jax.chat import load_dialect
from gog_jax.evaluation import paradigms
from gog_jax.evaluation import policies
from gog_jax.instruct import settings
from gog_jax.models.vlm import VLM
from gog_jax.rollout.policy import Policy
from gog_jax.rollout.scripted import ScriptedPolicy
from gog_jax.run import Run
from gog_jax.types import Example
from gog_jax.types import Trajectory


class Teacher:
  """A policy with its tools, and the same without; made when first asked.

  Attributes:
    run: Whose chat and tools its trajectories have.
  """

  def __init__(self, run: Run):
    """Makes nothing that takes long."""
    name = run.config.instruct.teacher
    self._name = name
    if name == policies.REMOTE:
      run = policies.without_weights(run)
    elif name != settings.MODEL:
      run = policies.run_of(run, name)
    self.run = run

  def tries(self, examples: Sequence[Example], attempt: int) -> list[Rolled]:
    """One trajectory of each example, with tools."""
    return roll(
        self.run, self._policy, examples, seed=('instruct', 'try', attempt)
    )

  def answers(self, examples: Sequence[Example], number: int) -> list[Rolled]:
    """One message of each example, without tools."""
    return roll(
        self._direct_run,
        self._direct,
        examples,
        seed=('instruct', 'direct', number),
    )

  def as_sample(
      self, examples: Sequence[Example], answers: Sequence[Trajectory]
  ) -> list[Trajectory]:
    """Direct answers as trajectories of a policy that has tools.

    A remote model was told that it has none. What it said is said again, token
    by token, in a conversation that offers them.
    """
    if self._name != policies.REMOTE or not examples:
      return list(answers)
    said = {
        t.example_id: t.token_ids[t.loss_mask > 0].tolist() for t in answers
    }
    policy = self._scripted(lambda request, _: said[request.example.id])
    groups = self.run.rollout(
        policy, examples, samples=1, seed=('instruct', 'direct')
    )
    return [trajectory for (trajectory,) in groups]

  @functools.cached_property
  def _model(self) -> VLM:
    if self._name == settings.MODEL:
      return self.run.load_model()
    stage = policies.named(self.run.config, self._name).stage
    assert stage is not None
    return policies.trained(self.run, stage)

  @functools.cached_property
  def _policy(self) -> Policy:
    if self._name == policies.REMOTE:
      return self._remote(self.run)
    if self._name == settings.EXPERT:
      return policies.expert_policy(self.run)
    return self.run.make_policy(self._model, greedy=False)

  @functools.cached_property
  def _direct(self) -> Policy:
    if self._name == policies.REMOTE:
      return self._remote(self._direct_run)
    if self._name == settings.EXPERT:
      return policies.expert_policy(self.run, answers_at_once=True)
    # Where it calls a tool all the same, it has not answered.
    return self._policy

  @functools.cached_property
  def _direct_run(self) -> Run:
    """The run of one message; a remote model's has a chat without tools."""
    run, parts = self.run, {}
    if self._name == policies.REMOTE:
      parts['config'] = config = copy.deepcopy(run.config)
      config.remote.temperature = config.instruct.direct_temperature
      direct = load_dialect(config.model.dialect, paradigms.DIRECT)
      parts |= {'dialect': direct, 'tool_names': ()}
    limits = dataclasses.replace(run.limits, max_turns=1)
    return run.changed(limits=limits, **parts)

  def _remote(self, run: Run) -> Policy:
    return policies.remote_policy(
        run, capacity=run.config.instruct.concurrency, tolerant=True
    )

  def _scripted(self, script: Any) -> ScriptedPolicy:
    c = self.run.config
    return ScriptedPolicy(
        script,
        capacity=c.sampler.n_slots,
        max_context=c.rollout.max_context,
    )


@dataclasses.dataclass(frozen=True, kw_only=True)
class Rolled:
  """A trajectory and what it took.

  Attributes:
    trajectory: Scored; invalid where every try was spoilt.
    n_spoilt: Tries that the infrastructure spoilt.
    usage: Sums over all tries, see `Trajectory.usage`.
  """

  trajectory: Trajectory
  n_spoilt: int
  usage: dict[str, float]


def roll(
    run: Run,
    policy: Policy,
    examples: Sequence[Example],
    *,
    seed: Sequence[Any],
) -> list[Rolled]:
  """One trajectory of each example; what is spoilt is begun anew.

  With the very same seed: how often the infrastructure failed changes nothing.

  Args:
    run: With the chat, tools and limits.
    policy: Who is asked.
    examples: What is asked.
    seed: Of all of them, see `Run.rollout`.

  Raises:
    UserError: The policy cannot be asked at all.
  """
  latest: dict[int, Trajectory] = {}
  n_spoilt = [0] * len(examples)
  usage: list[dict[str, float]] = [{} for _ in examples]
  waiting = list(range(len(examples)))
  for _ in range(1 + run.config.instruct.retries):
    if not waiting:
      break
    groups = run.rollout(
        policy, [examples[i] for i in waiting], samples=1, seed=seed
    )
    for i, (trajectory,) in zip(waiting, groups, strict=True):
      latest[i] = trajectory
      n_spoilt[i] += not trajectory.valid
      for name, value in trajectory.usage.items():
        usage[i][name] = usage[i].get(name, 0) + value
    waiting = [i for i in waiting if not latest[i].valid]
  return [
      Rolled(trajectory=latest[i], n_spoilt=n_spoilt[i], usage=usage[i])
      for i in range(len(examples))
  ]

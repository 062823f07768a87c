"""The teacher, who answers with the run's tools, or directly without any."""

from __future__ import annotations

from collections.abc import Sequence
import dataclasses
import functools

from gog_jax.config import paradigms
from gog_jax.config.pages import InstructPage
from gog_jax.evaluation import policies
from gog_jax.questions import sources
from gog_jax.rollout.policy import Policy
from gog_jax.rollout.scripted import ScriptedPolicy
from gog_jax.run import RunOf
from gog_jax.storage import metrics
from gog_jax.types import Trajectory

InstructRun = RunOf[InstructPage]


def config_of(config: InstructPage) -> InstructPage:
  """The config with the tools, wording and limits that the teacher has."""
  return policies.config_of(config, config.instruct.teacher)


def name_of(config: InstructPage) -> str:
  """Who teaches, for people."""
  name = config.instruct.teacher
  if name == paradigms.REMOTE:
    return f'{config.remote.model} (by an OpenAI-compatible endpoint)'
  return f'{name} ({config.profile})'


def stages_of(config: InstructPage) -> tuple[str, ...]:
  """The stages whose output a build reads."""
  data = ('data',) if sources.WORLD in config.questions.train else ()
  trained = paradigms.parse(config.instruct.teacher, config.arms).stage
  return (*data, trained) if trained else data


class Teacher:
  """A policy with tools and one without, both made on first use.

  Attributes:
    run: Its chat and tools are those of the trajectories.
  """

  def __init__(self, run: InstructRun):
    """Makes nothing that takes long."""
    self.run = run
    self._name = run.config.instruct.teacher
    self.is_remote = self._name == paradigms.REMOTE
    self._probed = False

  def repeating(self, answers: Sequence[Trajectory]) -> Policy:
    """A policy that repeats what was sampled in these, token by token."""
    said = {
        t.example_id: t.token_ids[t.loss_mask > 0].tolist() for t in answers
    }
    return ScriptedPolicy(
        lambda request, _: said[request.example.id],
        self.run.config.sampler.n_slots,
    )

  @functools.cached_property
  def policy(self) -> Policy:
    """The policy that answers with tools."""
    if self.is_remote:
      return self._remote(self.run)
    return policies.make(self.run, self._name, greedy=False)

  @functools.cached_property
  def direct(self) -> Policy:
    """The policy that answers directly, in `direct_run`."""
    if self.is_remote:
      return self._remote(self.direct_run)
    if self._name == paradigms.EXPERT:
      return policies.expert_policy(self.run, answers_at_once=True)
    # If it calls a tool nevertheless, it has not answered.
    return self.policy

  @functools.cached_property
  def direct_run(self) -> InstructRun:
    """A run with a single turn; for a remote model, without tools."""
    c = self.run.config
    if self.is_remote:
      own = policies.config_of(c, f'{paradigms.DIRECT}@{paradigms.REMOTE}')
      temperature = c.instruct.direct_temperature
      remote = dataclasses.replace(c.remote, temperature=temperature)
      own = dataclasses.replace(own, remote=remote)
    else:
      rollout = dataclasses.replace(c.rollout, max_turns=1)
      own = dataclasses.replace(c, rollout=rollout)
    return self.run.with_config(own)

  def _remote(self, run: InstructRun) -> Policy:
    policy = policies.remote_policy(
        run, capacity=run.config.instruct.concurrency, tolerant=True
    )
    if not self._probed:  # Before it is asked for the first time.
      if remark := policy.endpoint.probe():
        metrics.say(f'instruct: {remark}')
      self._probed = True
    return policy

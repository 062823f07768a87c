"""Makes the policies that config/paradigms.py names."""

from __future__ import annotations

import dataclasses
from typing import TypeVar

from gog_jax import seams
from gog_jax.config import Config
from gog_jax.config import paradigms
from gog_jax.config.paradigms import Named
from gog_jax.errors import UserError
from gog_jax.evaluation import scripts
from gog_jax.remote.endpoint import Endpoint
from gog_jax.rollout.policy import Policy
from gog_jax.rollout.policy import Request
from gog_jax.rollout.remote import RemotePolicy
from gog_jax.rollout.scripted import ForcedPolicy
from gog_jax.rollout.scripted import Prelude
from gog_jax.rollout.scripted import Script
from gog_jax.rollout.scripted import ScriptedPolicy
from gog_jax.run import Run
from gog_jax.storage.typed import FieldError
from gog_jax.types import ToolCall

C = TypeVar('C', bound=Config)

REMOTE = paradigms.REMOTE
# Policies of other packages, which this one does not import.
SCRIPTED = {'expert': 'gog_jax.toy.policy:expert_policy'}


def config_of(config: C, name: str) -> C:
  """The config of a policy: its tools, its wording and its limits.

  Raises:
    UserError: There is no such policy.
  """
  policy = paradigms.parse(name, config.arms)
  general = config.general if _is_general(config, policy) else None
  own = general or config
  model, rollout = own.model, own.rollout
  if policy.paradigm == paradigms.MMSEARCH_R1:
    model = dataclasses.replace(model, dialect=paradigms.MMSEARCH_R1)
  elif policy.stage is None:
    model = dataclasses.replace(model, paradigm=policy.paradigm)
  elif not policy.gazes:  # Else it is asked in the words it was trained with.
    model = dataclasses.replace(model, paradigm=paradigms.NO_GAZE)
  if policy.max_turns:
    n = min(policy.max_turns, rollout.max_turns)
    rollout = dataclasses.replace(rollout, max_turns=n)
  tools = dataclasses.replace(
      own.tools,
      offered=policy.offered(own.tools.offered),
      extra=policy.offered(own.tools.extra),
  )
  try:
    return dataclasses.replace(
        config, model=model, rollout=rollout, batch=own.batch, tools=tools
    )
  except FieldError as error:
    raise UserError(f'policy {name}: config.{error}') from error


def run_of(run: Run, name: str) -> Run:
  """The run with a policy's own config."""
  return run.with_config(config_of(run.config, name))


def make(run: Run, name: str, *, tolerant: bool = True) -> Policy:
  """A policy that decodes greedily; `run` is that of `run_of`.

  Args:
    run: With its tools and wording.
    name: The policy's.
    tolerant: Of a remote model, see `RemotePolicy`.

  Raises:
    UserError: Its stage has not been run, or what its config names cannot be
      used.
  """
  policy = paradigms.parse(name, run.config.arms)
  searched = policy.paradigm == paradigms.FULL_SEARCH
  prelude = _both_searches(run) if searched else None
  if policy.model == paradigms.EXPERT:
    return expert_policy(run)
  if policy.model == paradigms.SCRIPT:
    script = scripts.script_of(run.config.eval.script, run.chat)
    made = scripted(run, script)
  elif policy.model == REMOTE:
    made = remote_policy(
        run, capacity=run.config.remote.concurrency, tolerant=tolerant
    )
  else:
    made = run.make_policy(
        run.load_model(policy.stage),
        greedy=True,
        answers_at_once=searched or policy.paradigm == paradigms.DIRECT,
    )
  return ForcedPolicy(made, prelude) if prelude else made


def expert_policy(run: Run, *, answers_at_once: bool = False) -> Policy:
  """See `toy.policy.expert_policy`."""
  make = seams.load('expert', SCRIPTED, field='config.eval.policies')
  return make(run, answers_at_once=answers_at_once)


def scripted(run: Run, script: Script) -> ScriptedPolicy:
  """A policy that says what the script says."""
  return ScriptedPolicy(script, run.config.sampler.n_slots)


def _both_searches(run: Run) -> Prelude:
  """What is said for a policy: a search with the image, one with the words."""

  def prelude(request: Request) -> list[list[int]]:
    query = {'query': request.example.question}
    calls = (
        ToolCall(name='image_search', arguments={}),
        ToolCall(name='text_search', arguments=query),
    )
    return [
        run.chat.encode_turn(thought='', calls=(call,))
        for call in calls
        if call.name in run.executor.tools  # The backend may lack one.
    ]

  return prelude


def remote_policy(
    run: Run, *, capacity: int, tolerant: bool = False
) -> RemotePolicy:
  """The model behind `config.remote`; with the chat that reads what it says.

  Args:
    run: With the chat that reads what it says.
    capacity: Conversations that it is asked about at once.
    tolerant: See `RemotePolicy`.
  """
  c = run.config
  return RemotePolicy(
      endpoint=Endpoint(c.remote, name='remote', workdir=run.workdir),
      chat=run.chat,
      capacity=capacity,
      max_turn_tokens=c.rollout.max_turn_tokens,
      exact_size=c.model.box == 'resized_pixels',
      tolerant=tolerant,
  )


def _is_general(config: Config, policy: Named) -> bool:
  """Whether the toy's small values are too small for it."""
  if policy.model == paradigms.SCRIPT:
    return not config.world_split or policy.paradigm == paradigms.MMSEARCH_R1
  return policy.model == REMOTE

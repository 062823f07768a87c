"""Makes the policies that paradigms.py names."""

from __future__ import annotations

from collections.abc import Callable
import copy
import dataclasses
from typing import Any

from flax import nnx

from gog_jax import seams
from gog_jax.chat import load_dialect
from gog_jax.errors import UserError
from gog_jax.evaluation import paradigms
from gog_jax.evaluation import scripts as plays
from gog_jax.evaluation.paradigms import Named
from gog_jax.images import ImageProcessor
from gog_jax.models.vlm import VLM
from gog_jax.remote.endpoint import Endpoint
from gog_jax.remote.ledger import Ledger
from gog_jax.rollout.forced import ForcedPolicy
from gog_jax.rollout.policy import Policy
from gog_jax.rollout.policy import Request
from gog_jax.rollout.remote import RemotePolicy
from gog_jax.rollout.scripted import Script
from gog_jax.rollout.scripted import ScriptedPolicy
from gog_jax.run import Run
from gog_jax.run import TOY_BASE
from gog_jax.types import ToolCall

NO_GAZE = paradigms.SFT_NO_GAZE
REMOTE = paradigms.REMOTE
NAMES = paradigms.SHORT
# Policies of other packages, which this one does not import.
SCRIPTED = {'expert': 'gog_jax.toy.policy:expert_policy'}


def named(config: Any, name: str) -> Named:
  """A policy's name, taken apart.

  Raises:
    UserError: As `paradigms.parse`.
  """
  return paradigms.parse(name, config.arms)


def run_of(run: Run, name: str) -> Run:
  """The run with the tools, the words and the limits that a policy has.

  Raises:
    UserError: There is no such policy, or the dialect has no words for it.
  """
  policy = named(run.config, name)
  if _is_general(run.config, policy):
    run = general_run(run)
  words = run.config.model.dialect
  if policy.paradigm == paradigms.MMSEARCH_R1:
    dialect, tools = load_dialect(paradigms.MMSEARCH_R1), policy.tools
  elif policy.stage is None and policy.paradigm != paradigms.GOG:
    dialect, tools = load_dialect(words, policy.paradigm), policy.tools
  else:
    # As it was trained, but for a tool that it is not to have.
    gazes = policy.paradigm == paradigms.GOG or (
        policy.model != NO_GAZE and policy.paradigm != paradigms.NO_GAZE
    )
    own = run if gazes else run.without_gaze()
    dialect, tools = own.dialect, own.tool_names
  if policy.max_turns:
    dialect = dataclasses.replace(dialect, max_turns=policy.max_turns)
  return run.changed(dialect=dialect, tool_names=tools)


def make(run: Run, name: str, *, tolerant: bool = True) -> Policy:
  """A policy that decodes greedily; `run` is that of `run_of`.

  Args:
    run: With its tools and words.
    name: The policy's.
    tolerant: Of a remote model, see `RemotePolicy`.

  Raises:
    UserError: Its stage has not been run, or what its config names cannot be
      used.
  """
  policy = named(run.config, name)
  searched = policy.paradigm == paradigms.FULL_SEARCH
  opening = _both_searches(run) if searched else None
  if policy.model == paradigms.EXPERT:
    return expert_policy(run)
  if policy.model == paradigms.SCRIPT:
    script = plays.script_of(run.config.eval.script, run.chat)
    return _scripted(run, plays.after(opening, script))
  if policy.model == REMOTE:
    made = remote_policy(
        run, capacity=run.config.remote.concurrency, tolerant=tolerant
    )
  else:
    model = trained(run, policy.stage) if policy.stage else run.load_model()
    made = run.make_policy(
        model,
        greedy=True,
        answers_at_once=searched or policy.paradigm == paradigms.DIRECT,
    )
  return ForcedPolicy(made, opening) if opening else made


def trained(run: Run, stage: str) -> VLM:
  """The base model with what a stage trained."""
  model = run.load_model()
  nnx.update(model, run.trained_params(model, stage))
  return model


def expert_policy(run: Run, *, answers_at_once: bool = False) -> Policy:
  """See `toy.policy.expert_policy`."""
  make = seams.load('expert', SCRIPTED, field='config.eval.policies')
  return make(run, answers_at_once=answers_at_once)


def _scripted(run: Run, script: Script) -> ScriptedPolicy:
  return ScriptedPolicy(
      script,
      capacity=run.config.sampler.n_slots,
      max_context=run.config.rollout.max_context,
  )


def _both_searches(run: Run) -> Callable[[Request], list[list[int]]]:
  """What is said for a policy: a search with the image, one with the words."""

  def opening(request: Request) -> list[list[int]]:
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

  return opening


def endpoint(config: Any) -> Endpoint:
  """Whom `config.remote` names.

  Raises:
    UserError: The address or the key cannot be one, or the model has no name.
  """
  return Endpoint(config.remote, name='remote')


def check_remote(config: Any) -> None:
  """Refuses a remote model that cannot be asked, or paid for.

  Raises:
    UserError: Says which field to set.
  """
  c = config.remote
  if not c.url:
    raise UserError(
        'a remote model needs an endpoint: pass --config.remote.url=, e.g. '
        'http://127.0.0.1:8080/v1, and --config.remote.model=NAME'
    )
  endpoint(config)
  if (c.price_in or c.price_out) and not c.max_spend:
    raise UserError(
        'the remote model has a price: say how much the run may spend with '
        '--config.remote.max_spend=DOLLARS'
    )


def remote_policy(
    run: Run, *, capacity: int, tolerant: bool = False
) -> RemotePolicy:
  """The model behind `config.remote`; `run` is that of `without_weights`.

  Args:
    run: With the chat that reads what it says.
    capacity: Conversations that it is asked about at once.
    tolerant: See `RemotePolicy`.
  """
  c = run.config
  return RemotePolicy(
      endpoint(c),
      run.chat,
      capacity=capacity,
      max_context=c.rollout.max_context,
      max_turn_tokens=c.rollout.max_turn_tokens,
      exact_size=c.model.box == 'resized_pixels',
      tolerant=tolerant,
      ledger=_ledger(run),
      prices=c.remote,
  )


def _ledger(run: Run) -> Ledger | None:
  c = run.config.remote
  if not (c.price_in or c.price_out):
    return None
  return Ledger(
      c.ledger or run.workdir / 'remote_spent.jsonl',
      cap=c.max_spend,
      what='messages of the remote model',
      section='remote',
  )


def _is_general(config: Any, policy: Named) -> bool:
  """Whether the toy's small values are none for it."""
  if policy.model == paradigms.SCRIPT:
    small = paradigms.is_world(config.eval.benchmark)
    return not small or policy.paradigm == paradigms.MMSEARCH_R1
  return policy.model == REMOTE


def general_run(run: Run) -> Run:
  """The run with what a general model needs, `config.general`."""
  run.toolbox  # noqa: B018  Shared, not one for each.
  config = copy.deepcopy(run.config)
  for section, fields in config.get('general', {}).items():
    config[section].update(fields)
  return without_weights(run.changed(config=config))


def without_weights(run: Run) -> Run:
  """The run for a model that is elsewhere.

  The toy's tokenizer can spell anything, but its image processor would show a
  photograph in 84 x 84 pixels: in its place stands one as published models
  have, whose means nobody looks at.
  """
  if run.model_folder != TOY_BASE:
    return run
  side = 32
  return run.changed(
      processor=ImageProcessor(
          patch_size=side // 2,
          merge_size=2,
          temporal_patch_size=2,
          min_pixels=side**2,
          max_pixels=run.config.model.max_image_tokens * side**2,
          image_mean=(0.5, 0.5, 0.5),
          image_std=(0.5, 0.5, 0.5),
      )
  )

"""Makes the policies that config/paradigms.py names.

A user's own, `config.eval.script`, is a function in Python:

    def play(request, turns):
      '''What to say: (thought, calls, answer), or the token ids of a message.

      request.example is what is asked; turns are those so far, each with
      `parsed` and `results`. Calls are ToolCalls or (name, arguments); the
      answer is None where calls are made.
      '''

or a class: a rollout/policy.py:Policy, made once, of the run.
"""

from __future__ import annotations

from collections.abc import Sequence
import dataclasses
import functools
import inspect
from typing import Any, TypeVar

from etils import epath

from gog_jax import seams
from gog_jax.config import Config
from gog_jax.config import paradigms
from gog_jax.config import settings
from gog_jax.config.paradigms import Named
from gog_jax.errors import UserError
from gog_jax.remote.endpoint import Endpoint
from gog_jax.rollout.policy import Policy
from gog_jax.rollout.policy import Request
from gog_jax.rollout.remote import RemotePolicy
from gog_jax.rollout.scripted import ForcedPolicy
from gog_jax.rollout.scripted import ScriptedPolicy
from gog_jax.run import build
from gog_jax.run import Run
from gog_jax.run import RunOf
from gog_jax.storage import manifest
from gog_jax.storage.typed import FieldError
from gog_jax.types import ToolCall
from gog_jax.types import Turn

C = TypeVar('C', bound=Config)

REMOTE = paradigms.REMOTE
# Of the config's `model`, what a trained policy was told and shown by.
_TOLD = (
    'dialect', 'paradigm', 'box', 'box_step', 'min_box_side',
    'max_image_tokens',
)  # fmt: skip
# Policies of other packages, which this one does not import.
SCRIPTED = {'expert': 'gog_jax.toy.expert:expert_policy'}


def config_of(config: C, name: str) -> C:
  """The config of a policy: its tools, its wording and its limits.

  Raises:
    UserError: There is no such policy.
  """
  policy = paradigms.parse(name, config.arms)
  own = config
  if config.general and _is_general(config, policy):
    own = config.general
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


def trained_run(config: C, workdir: epath.Path, name: str) -> RunOf[C]:
  """A policy's run; of a trained one, in the words it was trained with.

  What its stage's manifest says of them need not be given again: the dialect,
  the frame of boxes, the size of images, the tools it was told of. Where no
  model folder is given it is the stage's.

  Raises:
    UserError: There is no such policy; its stage is not complete, or was
      trained on other weights than the model folder's.
  """
  policy = paradigms.parse(name, config.arms)
  if (stage := policy.stage) is None:
    return build(config_of(config, name), workdir)
  saved = manifest.read(workdir / stage)
  if not saved.get('complete'):
    page = 'sft' if stage == paradigms.SFT else 'rl'
    train = f'python -m gog_jax.main --config=configs/{page}.py'
    raise UserError(
        f'there is no complete {stage} in {workdir}: set --workdir to where it '
        'was trained'
        # Where nothing was begun, the page would train in the embedded world.
        + f', or train it: {train} --workdir={workdir}'
        * bool(settings.read(workdir))
    )
  if not (workdir / stage / policy.params).exists():
    raise UserError(
        f'{stage} was not validated, so that none of its checkpoints is known '
        f'to be the best: choose {stage}'
    )
  made = saved['config']
  told = {field: made['model'][field] for field in _TOLD}
  path = config.model.path or made['model']['path']
  # An SFT that asked no questions has used none.
  offered = tuple(made.get('tools.offered', config.tools.offered))
  config = dataclasses.replace(
      config,
      model=dataclasses.replace(config.model, path=path, **told),
      tools=dataclasses.replace(config.tools, offered=offered),
  )
  run = build(config_of(config, name), workdir)
  now = run.inputs(config_of(config, stage), ('model',))
  if now['model_folder'] != saved['inputs']['model_folder']:
    raise UserError(
        f'{workdir / stage} was trained on the weights and wording of '
        f'{made["model"]["path"]}, which {path} does not have: set '
        '--config.model.path to that model, unchanged'
    )
  return run


def make(
    run: Run, name: str, *, greedy: bool = True, tolerant: bool = True
) -> Policy:
  """A policy; `run` is that of `run_of`.

  Args:
    run: The policy's own, with its tools and wording.
    name: The policy's.
    greedy: How a model that is loaded decodes, see `Run.make_policy`.
    tolerant: For a remote model, see `RemotePolicy`.

  Raises:
    UserError: Its stage has not been run, or what its config names cannot be
      used.
  """
  policy = paradigms.parse(name, run.config.arms)
  searched = policy.paradigm == paradigms.FULL_SEARCH
  if policy.model == paradigms.EXPERT:
    return expert_policy(run)
  if policy.model == paradigms.SCRIPT:
    made = _script(run)
  elif policy.model == REMOTE:
    made = remote_policy(
        run, capacity=run.config.remote.concurrency, tolerant=tolerant
    )
  else:
    made = run.make_policy(
        run.load_model(policy.stage, params=policy.params),
        greedy=greedy,
        answers_at_once=searched or policy.paradigm == paradigms.DIRECT,
    )
  if searched:
    return ForcedPolicy(made, functools.partial(_both_searches, run))
  return made


def expert_policy(run: Run, *, answers_at_once: bool = False) -> Policy:
  """See `toy.expert.expert_policy`."""
  make = seams.load('expert', SCRIPTED, field='config.eval.policies')
  return make(run, answers_at_once=answers_at_once)


def _script(run: Run) -> Policy:
  """A user's class, or function, that `config.eval.script` names."""
  play: Any = seams.load(run.config.eval.script, {}, field='config.eval.script')
  if inspect.isclass(play):
    return play(run)  # pyright: ignore
  script = functools.partial(_play, run, play)
  return ScriptedPolicy(script, run.config.sampler.n_slots)


def _play(
    run: Run, play: Any, request: Request, turns: tuple[Turn, ...]
) -> Sequence[int]:
  """What a user's function says, as token ids.

  Raises:
    UserError: It says neither of what it may.
  """
  said = play(request, turns)
  if isinstance(said, tuple) and len(said) == 3:
    thought, calls, answer = said
    return run.chat.encode_turn(
        thought=thought, calls=list(map(_call, calls)), answer=answer
    )
  if isinstance(said, list) and all(isinstance(x, int) for x in said):
    return said
  raise UserError(
      f'config.eval.script={run.config.eval.script} said {str(said)[:80]!r}: '
      'return (thought, calls, answer), or a list of token ids'
  )


def _call(call: Any) -> ToolCall:
  if isinstance(call, ToolCall):
    return call
  name, arguments = call
  return ToolCall(name=name, arguments=arguments)


def _both_searches(run: Run, request: Request) -> list[list[int]]:
  """What is said for a policy: a search with the image, one with the words."""
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


def remote_policy(
    run: Run, *, capacity: int, tolerant: bool = False
) -> RemotePolicy:
  """The model behind `config.remote`.

  Args:
    run: Its chat reads what the model says.
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

"""What a config comes to: model, chat, tools and limits, built once.

A policy, an RL arm or a seed that needs other values has a config of its own,
made by `dataclasses.replace` before `build`. Nothing is changed after it.
"""

from __future__ import annotations

import collections
from collections.abc import Container, Sequence
import dataclasses
import hashlib
import itertools
from typing import Any, Generic, TypeVar

from etils import epath
from flax import nnx
import jax
import jax.numpy as jnp

from gog_jax import models
from gog_jax import seams
from gog_jax.boxes import BoxSpec
from gog_jax.chat import Chat
from gog_jax.chat import load_dialect
from gog_jax.config import Config
from gog_jax.images import ImageProcessor
from gog_jax.models import lora
from gog_jax.models import sharding
from gog_jax.models import start as start_lib
from gog_jax.models.attention import backend_for
from gog_jax.models.config import VLMConfig
from gog_jax.models.folders import check_family
from gog_jax.models.folders import model_folder
from gog_jax.models.folders import processor_of
from gog_jax.models.vlm import VLM
from gog_jax.rewards import score as rewards
from gog_jax.rollout.limits import ConversationLimits
from gog_jax.rollout.limits import limits_of
from gog_jax.rollout.loop import Loop
from gog_jax.rollout.loop import refusal_of
from gog_jax.rollout.policy import Policy
from gog_jax.rollout.policy import Request
from gog_jax.rollout.sampler import JaxPolicy
from gog_jax.storage import checkpoint
from gog_jax.storage import files
from gog_jax.storage import heartbeat
from gog_jax.storage import manifest
from gog_jax.storage import metrics
from gog_jax.tools.base import describe
from gog_jax.tools.executor import ToolExecutor
from gog_jax.tools.toolbox import Toolbox
from gog_jax.types import Example
from gog_jax.types import Trajectory

# Of packages that this module does not import.
_PARTS = {
    'judge': 'gog_jax.judge.judge:Judge',
    'questions': 'gog_jax.questions.splits:open',
    'check_questions': 'gog_jax.questions.splits:check',
}

C = TypeVar('C', bound=Config, covariant=True)
D = TypeVar('D', bound=Config)
Ids = Container[str] | None  # Of some examples; None is all.


@dataclasses.dataclass(frozen=True, eq=False)
class RunOf(Generic[C]):
  """A config of a page's own kind with its parts; see `build`.

  Attributes:
    toolbox: Shared with the runs of the same workdir's other configs: they
      spend, record and count together.
    judge: Likewise, a judge.Judge; None where the reward asks nobody.
  """

  config: C
  workdir: epath.Path
  toolbox: Toolbox
  judge: Any
  mesh: jax.sharding.Mesh
  model_folder: epath.Path
  model_config: VLMConfig
  processor: ImageProcessor
  box_spec: BoxSpec
  executor: ToolExecutor
  chat: Chat
  limits: ConversationLimits

  def with_config(self, config: D) -> RunOf[D]:
    """The run of another config, with the same services and devices."""
    return build(config, self.workdir, like=self)

  @property
  def can_gaze(self) -> bool:
    return 'gaze' in self.executor.tools

  @property
  def dtype(self) -> Any:
    return jnp.dtype(self.config.model.dtype)

  def inputs(self, config: Config, sections: Container[str]) -> dict[str, str]:
    """Fingerprints of what is behind sections of a config, for manifests.

    Args:
      config: Of a policy, maybe: its dialect has another wording.
      sections: Those that the output depends on.
    """
    inputs = {}
    if 'model' in sections:
      dialect = load_dialect(config.model.dialect, config.model.paradigm)
      inputs['model_folder'] = files.model_digest(
          self.model_folder, salt=repr(dialect)
      )
    if 'tools.text' in sections:
      inputs['searched'] = self.toolbox.version
    if 'reward' in sections or 'reward.accuracy' in sections:
      inputs |= rewards.identity(config.reward)
      if self.judge is not None and config.reward.asks_judge:
        inputs['judge'] = self.judge.identity
    return inputs

  def load_start(self, init: str) -> VLM:
    """What training starts from, in the words of `rl.init`."""
    return self.load_model('sft' if init == 'sft' else None, init=init)

  def load_model(
      self, stage: str | None = None, *, init='base', params='params'
  ) -> VLM:
    """A model, on the mesh, with what a stage has trained, its `params`.

    It began from `init`, or as the stage's manifest says, as do adapters.

    Raises:
      UserError: Weights are missing, damaged, another model's or untrained.
    """
    trainable, adapters = self.config.trainable, vars(self.config.lora)
    if stage is not None:
      made = manifest.read(self.workdir / stage).get('config', {})
      trainable = made.get('trainable', trainable)
      adapters = made.get('lora', adapters)
      init = made.get('rl', {}).get('init', 'base')
    model = start_lib.load(
        init,
        self.model_folder,
        self.model_config,
        trainable=trainable,
        adapters=adapters,
        rngs=nnx.Rngs(self.seed('lora')),
        dtype=self.dtype,
        mesh=self.mesh,
        alone=self.config.rl.adapter_alone,
    )
    if stage is not None:
      _, trained, _ = lora.split(model, trainable)
      path = self.workdir / stage / params
      nnx.update(model, checkpoint.load_pytree(path, trained))
    return model

  def make_policy(
      self, model: VLM, *, greedy: bool, answers_at_once: bool = False
  ) -> JaxPolicy:
    """A sampler for `model`'s graph and present parameters.

    Args:
      model: With what stage's parameters it may be.
      greedy: The most likely token, or one by its probability.
      answers_at_once: Whether it cannot call a tool.
    """
    c = self.config
    return JaxPolicy(
        model,
        processor=self.processor,
        n_slots=sharding.next_multiple(c.sampler.n_slots, self.mesh),
        max_context=c.rollout.max_context,
        max_turn_tokens=c.rollout.max_turn_tokens,
        chunk=c.sampler.chunk,
        stop_ids=self.chat.stop_ids,
        greedy=greedy,
        banned_ids=self.chat.call_ids if answers_at_once else (),
        attention=backend_for(c.model.attention),
        mesh=self.mesh,
    )

  def rollout(
      self,
      policy: Policy,
      examples: Sequence[Example],
      *,
      samples: int,
      seed: Sequence[Any],
      what: str = '',
      call_cost: float = 0.0,
      progress: metrics.Progress | None = None,
  ) -> list[list[Trajectory]]:
    """A group of `samples` scored trajectories for each example.

    An example that occurs again gets other seeds; `what` tells apart who is
    given the same ones; `call_cost` is that of rewards/score.py.
    """
    requests = []
    drawn = collections.Counter()
    for example, n in itertools.product(examples, range(samples)):
      again = drawn[example.id]
      drawn[example.id] += 1
      requests.append(
          self.request(example, seed=seed, what=what, sample=n, again=again)
      )
    done: dict[int, Trajectory] = {}

    def finished(number: int, _: Request, trajectory: Trajectory) -> None:
      done[number] = trajectory
      if progress is not None:
        progress.advance()

    with heartbeat.doing(f'rolling out {len(requests)} conversations'):
      self.loop(policy, on_finished=finished).run(requests)
    scored = self.scored(
        [request.example for request in requests],
        [done[number] for number in range(len(requests))],
        call_cost=call_cost,
    )
    return [scored[i : i + samples] for i in range(0, len(scored), samples)]

  def loop(self, policy: Policy, **callbacks: Any) -> Loop:
    """A rollout loop with the run's tools, chat and limits."""
    return Loop(
        policy=policy, executor=self.executor, chat=self.chat,
        limits=self.limits, **callbacks,
    )  # fmt: skip

  def refusal(self, example: Example) -> str:
    """Why no conversation can begin with an example; '' where one can."""
    return refusal_of(example, self.chat, self.limits)

  def request(
      self, example: Example, *, seed: Sequence[Any], what: str = '',
      sample: int = 0, again: int = 0,
  ) -> Request:  # fmt: skip
    """For a rollout of an example; `again`: earlier draws of this example."""
    origin = ' '.join([*map(str, seed), what]).strip()
    return Request(
        example=example,
        sample=sample,
        seed=self.seed(*seed, example.id, again),
        origin=origin if self.can_gaze else f'{origin} no gaze',
    )

  def scored(
      self,
      examples: Sequence[Example],
      trajectories: Sequence[Trajectory],
      *,
      call_cost: float = 0.0,
      unjudged: bool = False,
  ) -> list[Trajectory]:
    """Trajectories, one of each example, with their rewards.

    Args:
      examples: What was asked.
      trajectories: What came of it.
      call_cost: As in rewards/score.py.
      unjudged: Nobody can be asked: valid ones are masked, to be scored later.
    """
    if unjudged:
      fresh = [
          dataclasses.replace(t, masked='not scored') if t.valid else t
          for t in trajectories
      ]
    else:
      fresh = [dataclasses.replace(t, masked='') for t in trajectories]
      if self.judge is not None and self.config.reward.asks_judge:
        fresh = self.judge.judged(examples, fresh)
    return [
        rewards.score(e, t, config=self.config.reward, call_cost=call_cost)
        for e, t in zip(examples, fresh, strict=True)
    ]

  def questions(self, split: str, *, n: int | None = None) -> Any:
    """The checked.Questions of a split, see questions/splits.py.

    At most `n`, without reading more where that is possible.

    Raises:
      UserError: A source cannot be read, or nothing in it is of use.
    """
    open_split = seams.load('questions', _PARTS, field='config.questions')
    return open_split(self.config, split, workdir=self.workdir, n=n)

  def examples(
      self, split: str, *, start: int = 0, n: int, ids: Ids = None
  ) -> Sequence[Example]:
    """Questions [start, start + n) of a split, read as they are asked for.

    Of a user's own there may be fewer. With `ids`, only those, read at once.

    Raises:
      UserError: The world's split is too small; and later, an image in it is
        damaged.
    """
    held = self.questions(split)
    if not self.config.questions.only_world(split):
      n = min(n, len(held) - start)
    asked = held.part(start, n)
    if ids is None:
      return asked
    # The world's ids are known by reading alone.
    known = held.ids[start : start + n] or (one.id for one in asked)
    return [asked[i] for i, id in enumerate(known) if id in ids]

  def graded_examples(self, ids: Ids = None) -> Sequence[Example]:
    """What follows the demos': fresh to the SFT policy, so that it is fair."""
    c = self.config
    start = c.sft.n_candidates if c.questions.only_world('train') else 0
    return self.examples('train', start=start, n=c.grade.n_queries, ids=ids)

  def seed(self, *what: Any) -> int:
    """31 bits that depend on the run's seed and on what they are for."""
    text = '/'.join(map(str, (self.config.seed, *what)))
    return int.from_bytes(hashlib.sha256(text.encode()).digest()[:4]) >> 1


# A run of any page, where only what all pages have is read.
Run = RunOf[Config]


def build(
    config: D,
    workdir: epath.PathLike,
    *,
    like: RunOf[Any] | None = None,
    mesh: jax.sharding.Mesh | None = None,
) -> RunOf[D]:
  """Makes the parts of a run; no weights are read.

  Args:
    config: Checked.
    workdir: Holds everything that the run makes.
    like: A run whose toolbox, judge and mesh are shared.
    mesh: In place of the one that the config says.

  Raises:
    UserError: The model folder is missing or not one, or the mesh, the backend
      or a conversation does not fit.
  """
  workdir = epath.Path(workdir)
  if like is not None and (config, workdir) == (like.config, like.workdir):
    return like
  rewards.check(config.reward)
  check = seams.load('check_questions', _PARTS, field='config.questions')
  check(config.questions)
  folder = model_folder(config)
  model_config = models.read_config(folder)
  check_family(config.profile, model_config.family)
  c = config.model
  processor = processor_of(config, folder)
  box_spec = BoxSpec(kind=c.box, min_side=c.min_box_side, step=c.box_step)
  dialect = load_dialect(c.dialect, c.paradigm)
  if like is not None:
    toolbox, judge, mesh = like.toolbox, like.judge, mesh or like.mesh
  else:
    toolbox, judge = Toolbox.open(config.tools, workdir), None
    if config.reward.asks_judge:
      make = seams.load('judge', _PARTS, field='config.reward.accuracy')
      judge = make(config.judge, workdir)
    mesh = mesh or sharding.make_mesh(
        config.mesh.data, config.mesh.fsdp, config.mesh.tensor
    )
  tools = toolbox.tools(
      config.tools,
      dialect.can_call,
      box_spec=box_spec,
      seen_size=processor.seen_size,
  )
  executor = ToolExecutor(tools, config.tools, toolbox)
  chat = Chat(
      folder,
      dialect=dialect,
      processor=processor,
      tools=[describe(tool) for tool in tools],
  )
  model_config.check_tokenizer(chat.codec.vocab_size, chat.codec.id_of)
  if c.processor == 'folder':
    model_config.vision.check_processor(processor)
  return RunOf(
      config=config,
      workdir=workdir,
      toolbox=toolbox,
      judge=judge,
      mesh=mesh,
      model_folder=folder,
      model_config=model_config,
      processor=processor,
      box_spec=box_spec,
      executor=executor,
      chat=chat,
      limits=limits_of(config, dialect),
  )

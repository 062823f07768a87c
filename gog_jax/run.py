"""What a config comes to: model, chat, tools and limits, built once.

A policy, an RL arm or a seed that needs other values has a config of its own,
made by `dataclasses.replace` before `build`. Nothing is changed after it.
"""

from __future__ import annotations

import collections
from collections.abc import Sequence
import dataclasses
import functools
import hashlib
from typing import Any

from etils import epath
from flax import nnx
import jax
import jax.numpy as jnp

from gog_jax import models
from gog_jax import seams
from gog_jax.boxes import BoxSpec
from gog_jax.chat import Chat
from gog_jax.chat import Dialect
from gog_jax.chat import load_dialect
from gog_jax.config import Config
from gog_jax.images import ImageProcessor
from gog_jax.models import lora
from gog_jax.models import sharding
from gog_jax.models.attention import backend_for
from gog_jax.models.config import VLMConfig
from gog_jax.models.folders import check_family
from gog_jax.models.folders import model_folder
from gog_jax.models.folders import processor_of
from gog_jax.models.vlm import VLM
from gog_jax.rewards import score as rewards
from gog_jax.rollout.batching import BatchConfig
from gog_jax.rollout.limits import ConversationLimits
from gog_jax.rollout.limits import limits_of
from gog_jax.rollout.loop import Loop
from gog_jax.rollout.policy import Policy
from gog_jax.rollout.policy import Request
from gog_jax.rollout.sampler import JaxPolicy
from gog_jax.storage import checkpoint
from gog_jax.storage import files
from gog_jax.storage import metrics
from gog_jax.tools.base import describe
from gog_jax.tools.executor import ToolExecutor
from gog_jax.tools.toolbox import Toolbox
from gog_jax.types import Example
from gog_jax.types import Trajectory

# Of packages that this module does not import.
_JUDGE = {'judge': 'gog_jax.judge.judge:Judge'}
_QUESTIONS = {'questions': 'gog_jax.questions.sources:open'}


@dataclasses.dataclass(frozen=True)
class Services:
  """What all configs of a run share: they spend and record together."""

  toolbox: Toolbox
  judge: Any  # A judge.Judge, or None where the reward asks nobody.

  @classmethod
  def open(cls, config: Config, workdir: epath.Path) -> Services:
    judge = None
    if config.reward.asks_judge:
      make = seams.load('judge', _JUDGE, field='config.reward.accuracy')
      judge = make(config.judge, workdir)
    return cls(Toolbox.open(config.tools, workdir), judge)


@dataclasses.dataclass(frozen=True, eq=False)
class Run:
  """A config with its parts; see `build`."""

  config: Any  # A Config, or a page's own kind of one.
  workdir: epath.Path
  services: Services
  mesh: jax.sharding.Mesh
  model_folder: epath.Path
  model_config: VLMConfig
  processor: ImageProcessor
  box_spec: BoxSpec
  dialect: Dialect
  executor: ToolExecutor
  chat: Chat
  limits: ConversationLimits

  def with_config(self, config: Config) -> Run:
    """The run of another config, with the same services and devices."""
    if config == self.config:
      return self
    return build(
        config, self.workdir, services=self.services, mesh=self.mesh
    )

  @property
  def toolbox(self) -> Toolbox:
    return self.services.toolbox

  @property
  def judge(self) -> Any:
    return self.services.judge

  @property
  def can_gaze(self) -> bool:
    return 'gaze' in self.executor.tools

  @functools.cached_property
  def model_digest(self) -> str:
    """Changes when weights, tokenizer or the dialect's wording change."""
    return model_digest(self.config)

  @property
  def dtype(self) -> Any:
    return jnp.dtype(self.config.model.dtype)

  def batch_config(self, *, micro_rows: int, dtype: Any) -> BatchConfig:
    """Of a stage's batches; rows divide over the mesh in any case."""
    return BatchConfig(
        row_tokens=self.config.batch.row_tokens,
        row_patches=self.config.batch.row_patches,
        micro_rows=sharding.next_multiple(micro_rows, self.mesh),
        patch_dtype=dtype,
    )

  def load_model(self) -> VLM:
    """The base model, on the mesh, with fresh adapters if the run trains them.

    Raises:
      UserError: Weights are missing or damaged.
    """
    model, _ = models.from_pretrained(
        self.model_folder, dtype=self.dtype, mesh=self.mesh
    )
    if self.config.trainable == 'lora':
      c = self.config.lora
      lora.add_lora(
          model,
          rank=c.rank,
          alpha=c.alpha,
          vision=c.vision,
          rngs=nnx.Rngs(self.seed('lora')),
          mesh=self.mesh,
      )
    return model

  def trained_params(self, model: VLM, stage: str) -> nnx.State:
    """What `stage` trained, laid out like `model`'s.

    Raises:
      UserError: The stage has not been run in this workdir.
    """
    _, params, _ = lora.split(model, self.config.trainable)
    return checkpoint.load_pytree(self.workdir / stage / 'params', params)

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
    for example in examples:
      for sample in range(samples):
        again = drawn[example.id]
        requests.append(
            self.request(
                example, sample=sample, seed=seed, what=what, again=again
            )
        )
        drawn[example.id] += 1
    done: dict[int, Trajectory] = {}

    def finished(number: int, _: Request, trajectory: Trajectory) -> None:
      done[number] = trajectory
      if progress is not None:
        progress.advance()

    Loop(
        policy=policy,
        executor=self.executor,
        chat=self.chat,
        limits=self.limits,
        on_finished=finished,
    ).run(requests)
    scored = self.scored(
        [request.example for request in requests],
        [done[number] for number in range(len(requests))],
        call_cost=call_cost,
    )
    return [
        scored[i : i + samples] for i in range(0, len(scored), samples)
    ]

  def request(
      self,
      example: Example,
      *,
      seed: Sequence[Any],
      what: str,
      sample: int = 0,
      again: int = 0,
  ) -> Request:
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
  ) -> list[Trajectory]:
    """Trajectories of these examples, with their rewards."""
    fresh = [dataclasses.replace(t, masked='') for t in trajectories]
    if self.judge is not None:
      fresh = self.judge.judged(examples, fresh)
    return rewards.score_all(
        examples, fresh, config=self.config.reward, call_cost=call_cost
    )

  def unjudged(
      self, examples: Sequence[Example], trajectories: Sequence[Trajectory]
  ) -> list[Trajectory]:
    """The same where nothing can be asked: the rewards stay unknown."""
    marked = [
        dataclasses.replace(t, masked='not scored') if t.valid else t
        for t in trajectories
    ]
    return rewards.score_all(examples, marked, config=self.config.reward)

  def questions(self, split: str) -> Any:
    """The sources.Questions that `config.questions` names for a split.

    Raises:
      UserError: A source cannot be read, or nothing in it is of use.
    """
    names = getattr(self.config.questions, split)
    if 'world' in names:  # Its data set may be made anew.
      return _opened.__wrapped__(names, split, self.workdir)
    return _opened(names, split, self.workdir)

  def examples(
      self, split: str, *, start: int = 0, n: int
  ) -> Sequence[Example]:
    """Questions [start, start + n) of a split, read as they are asked for.

    Of a user's own there may be fewer.

    Raises:
      UserError: The world's split is too small; and later, an image in it is
        damaged.
    """
    held = self.questions(split)
    if not self.config.questions.only_world(split):
      n = min(n, len(held) - start)
    return held.part(start, n)

  def graded_examples(self) -> list[Example]:
    """What follows the demos': fresh to the SFT policy, so that it is fair."""
    c = self.config
    start = c.sft.n_candidates if c.questions.only_world('train') else 0
    return list(self.examples('train', start=start, n=c.grade.n_queries))

  def seed(self, *what: Any) -> int:
    """31 bits that depend on the run's seed and on what they are for."""
    text = '/'.join(map(str, (self.config.seed, *what)))
    return int.from_bytes(hashlib.sha256(text.encode()).digest()[:4]) >> 1


@functools.lru_cache(maxsize=4)  # They are read whole to be checked.
def _opened(names: tuple[str, ...], split: str, workdir: epath.Path) -> Any:
  open_sources = seams.load('questions', _QUESTIONS, field='config.questions')
  return open_sources(
      names, split=split, workdir=workdir, field=f'config.questions.{split}'
  )


def build(
    config: Config,
    workdir: epath.PathLike,
    *,
    services: Services | None = None,
    mesh: jax.sharding.Mesh | None = None,
) -> Run:
  """Makes the parts of a run; no weights are read.

  Args:
    config: Checked.
    workdir: Holds everything that the run makes.
    services: Of a run that this one belongs to, else opened.
    mesh: In place of the one that the config says.

  Raises:
    UserError: The model folder is missing or not one, or the mesh, the backend
      or a conversation does not fit.
  """
  rewards.check(config.reward)
  workdir = epath.Path(workdir)
  folder = model_folder(config)
  model_config = models.read_config(folder)
  check_family(config.profile, model_config.family)
  c = config.model
  processor = processor_of(config, folder)
  box_spec = BoxSpec(kind=c.box, min_side=c.min_box_side, step=c.box_step)
  dialect = load_dialect(c.dialect, c.paradigm)
  if mesh is None:
    mesh = sharding.make_mesh(
        config.mesh.data, config.mesh.fsdp, config.mesh.tensor
    )
  if services is None:
    services = Services.open(config, workdir)
  tools = services.toolbox.tools(
      config.tools,
      dialect.can_call,
      box_spec=box_spec,
      seen_size=processor.seen_size,
  )
  executor = ToolExecutor(tools, config.tools, services.toolbox)
  chat = Chat(
      folder,
      dialect=dialect,
      processor=processor,
      tools=[describe(tool) for tool in tools],
  )
  model_config.check_tokenizer(chat.codec.vocab_size, chat.codec.id_of)
  if c.processor == 'folder':
    model_config.vision.check_processor(processor)
  return Run(
      config=config,
      workdir=workdir,
      services=services,
      mesh=mesh,
      model_folder=folder,
      model_config=model_config,
      processor=processor,
      box_spec=box_spec,
      dialect=dialect,
      executor=executor,
      chat=chat,
      limits=limits_of(config, dialect),
  )


def model_digest(config: Config) -> str:
  """Changes when weights, tokenizer or the dialect's wording change."""
  dialect = load_dialect(config.model.dialect, config.model.paradigm)
  return files.model_digest(model_folder(config), salt=repr(dialect))

"""What the stages of one run share, built from the config on first use.

The only place where configs become objects and where a search backend is
chosen; everything below takes what it needs as arguments.
"""

from __future__ import annotations

import collections
from collections.abc import Callable, Mapping, Sequence
import copy
import dataclasses
import functools
import hashlib
from typing import Any

from etils import epath
from flax import nnx
import jax
import jax.numpy as jnp
from ml_collections import ConfigDict

from gog_jax import models
from gog_jax.app.seeds import of_seed
from gog_jax.boxes import BoxSpec
from gog_jax.chat import Chat
from gog_jax.chat import Dialect
from gog_jax.chat import load_dialect
from gog_jax.chat.dialect import NO_GAZE
from gog_jax.errors import UserError
from gog_jax.images import ImageProcessor
from gog_jax.judge import judge as judge_lib
from gog_jax.models import lora
from gog_jax.models import sharding
from gog_jax.models.attention import backend_for
from gog_jax.models.config import VLMConfig
from gog_jax.models.vlm import VLM
from gog_jax.questions import sources
from gog_jax.rewards import score as rewards
from gog_jax.rollout.batching import BatchConfig
from gog_jax.rollout.limits import Limits
from gog_jax.rollout.limits import limits_of
from gog_jax.rollout.loop import rollout
from gog_jax.rollout.policy import Policy
from gog_jax.rollout.policy import Request
from gog_jax.rollout.sampler import JaxPolicy
from gog_jax.storage import checkpoint
from gog_jax.storage import files
from gog_jax.tools.base import describe
from gog_jax.tools.executor import ToolExecutor
from gog_jax.tools.toolbox import Toolbox
from gog_jax.tools.toolbox import TOOLS
from gog_jax.types import Box
from gog_jax.types import Example
from gog_jax.types import Trajectory

# Ships with the package; `configs/pretrain.py` makes it.
TOY_BASE = epath.Path(__file__).parent / 'assets' / 'toy_base'

class Run:
  """A config, its workdir, and what both imply."""

  def __init__(self, config: ConfigDict, workdir: epath.PathLike):
    # Its fields are dynamic; a test resolves them. Those that follow others
    # (an arm's learning rate) have their values from here on.
    self.config: Any = config.copy_and_resolve_references()
    self.workdir = epath.Path(workdir)
    self.tool_names = tuple(TOOLS)

  def changed(self, **parts: Any) -> Run:
    """The same run with other parts; it shares all that does not hang on them.
    """
    other = copy.copy(self)
    hang = ['executor', 'chat', 'limits', 'model_digest']
    hang += ['dialect', 'box_spec'] if 'config' in parts else []
    for name in hang:
      other.__dict__.pop(name, None)
    other.__dict__.update(parts)
    return other

  def without_gaze(self) -> Run:
    """The same run, whose policies cannot gaze."""
    dialect = load_dialect(self.config.model.dialect, NO_GAZE)
    names = tuple(name for name in self.tool_names if name != 'gaze')
    return self.changed(tool_names=names, dialect=dialect)

  def with_rl(self, overrides: Mapping[str, Any]) -> Run:
    """The same run with other fields of `config.rl`."""
    config = copy.deepcopy(self.config)
    config.rl.update(overrides)
    return self.changed(config=config)

  def with_seed(self, seed: int) -> Run:
    """The run of one of `config.seeds`, in a folder of its own."""
    own = Run(of_seed(self.config, seed), self.workdir / f'seed_{seed}')
    # They spend by one ledger, and make one recording.
    own.__dict__.update(toolbox=self.toolbox, judge=self.judge)
    return own

  def check(self) -> None:
    """Finds early what would otherwise stop the run late.

    Raises:
      UserError: The workdir cannot be written, the model folder is missing or
        not one, or the mesh or a conversation does not fit.
    """
    if self.config.stage == 'pretrain':
      if self.config.pretrain.start_from:
        models.read_config(self.config.pretrain.start_from)
    else:
      self.model_config.check_tokenizer(self.chat.codec)
      self.model_config.vision.check_processor(self.processor)
    self.mesh  # noqa: B018  Making it is the check,
    self.limits  # noqa: B018  and here.
    probe = self.workdir / '.writable'
    files.write_atomic(probe, '')
    probe.unlink()

  @functools.cached_property
  def model_folder(self) -> epath.Path:
    """Where weights and tokenizer are, or come to be.

    Raises:
      UserError: No path is given, or there is no such folder.
    """
    path = self.config.model.path
    if not path:
      raise UserError(
          f'profile {self.config.profile} needs weights: pass '
          '--config.model.path=FOLDER, a Hugging Face model folder or the id '
          'of one on the hub (org/name)'
      )
    return models.local_folder(TOY_BASE if path == TOY_BASE.name else path)

  @functools.cached_property
  def model_digest(self) -> str:
    """Changes when weights, tokenizer or the dialect's wording change."""
    return files.model_digest(self.model_folder, salt=repr(self.dialect))

  @functools.cached_property
  def model_config(self) -> VLMConfig:
    return models.read_config(self.model_folder)

  @functools.cached_property
  def mesh(self) -> jax.sharding.Mesh:
    return sharding.make_mesh(**self.config.mesh)

  @functools.cached_property
  def processor(self) -> ImageProcessor:
    processor = ImageProcessor.from_folder(self.model_folder)
    side = processor.patch_size * processor.merge_size
    return ImageProcessor.from_folder(
        self.model_folder,
        max_pixels=self.config.model.max_image_tokens * side**2,
    )

  @functools.cached_property
  def box_spec(self) -> BoxSpec:
    model = self.config.model
    return BoxSpec(
        kind=model.box, min_side=model.min_box_side, step=model.box_step
    )

  @functools.cached_property
  def toolbox(self) -> Toolbox:
    return Toolbox(self.config.tools, self.workdir)

  @functools.cached_property
  def judge(self) -> judge_lib.Judge | None:
    return judge_lib.for_run(self.config, self.workdir)

  @functools.cached_property
  def executor(self) -> ToolExecutor:
    names = [*self.tool_names, *self.toolbox.functions * bool(self.tool_names)]
    return self.toolbox.executor(
        self.config.tools,
        [name for name in names if self.dialect.can_call(name)],
        box_spec=self.box_spec,
        seen_size=self.processor.seen_size,
    )

  @functools.cached_property
  def dialect(self) -> Dialect:
    return load_dialect(self.config.model.dialect)

  @property
  def can_gaze(self) -> bool:
    """Whether policies may, unless it is taken from them (`without_gaze`)."""
    return 'gaze' in self.tool_names and self.dialect.can_call('gaze')

  @functools.cached_property
  def chat(self) -> Chat:
    return Chat(
        self.model_folder,
        dialect=self.dialect,
        processor=self.processor,
        tools=[describe(tool) for tool in self.executor.tools.values()],
    )

  @functools.cached_property
  def limits(self) -> Limits:
    return limits_of(self.config, self.dialect)

  def batch_config(self, *, micro_rows: int, dtype: Any) -> BatchConfig:
    """Of a stage's batches; rows divide over the mesh in any case."""
    return BatchConfig(
        row_tokens=self.config.batch.row_tokens,
        row_patches=self.config.batch.row_patches,
        micro_rows=sharding.next_multiple(micro_rows, self.mesh),
        patch_dtype=dtype,
    )

  @functools.cached_property
  def reward_config(self) -> rewards.RewardConfig:
    return rewards.RewardConfig(**self.config.reward)

  def load_model(self) -> VLM:
    """The base model, on the mesh, with fresh adapters if the run trains them.

    Raises:
      UserError: Weights are missing or damaged.
    """
    model, _ = models.from_pretrained(
        self.model_folder, dtype=self.dtype, mesh=self.mesh
    )
    if self.config.trainable == 'lora':
      rngs = nnx.Rngs(self.seed('lora'))
      lora.add_lora(model, rngs=rngs, mesh=self.mesh, **self.config.lora)
    return model

  @property
  def dtype(self):
    return jnp.dtype(self.config.model.dtype)

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
        max_patches=self.processor.max_patches,
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
      **kwargs,
  ) -> list[list[Trajectory]]:
    """A group of `samples` scored trajectories for each example.

    An example that occurs again gets other seeds; `what` tells apart who is
    given the same ones; `call_cost` is that of rewards.py; `kwargs` are for
    `rollout.loop.rollout`.
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
    trajectories = rollout(
        policy,
        self.executor,
        self.chat,
        requests,
        limits=self.limits,
        **kwargs,
    )
    rolled_out = [request.example for request in requests]
    scored = self.scored(rolled_out, trajectories, call_cost=call_cost)
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
    """For a rollout of an example, `again` for the how manieth time."""
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
        examples, fresh, config=self.reward_config, call_cost=call_cost
    )

  def unjudged(
      self, examples: Sequence[Example], trajectories: Sequence[Trajectory]
  ) -> list[Trajectory]:
    """The same, where nothing can be asked: the rewards stay unknown."""
    marked = [
        dataclasses.replace(t, masked='not scored') if t.valid else t
        for t in trajectories
    ]
    return rewards.score_all(examples, marked, config=self.reward_config)

  def to_model_box(self, size: tuple[int, int]) -> Callable[[Box], Any]:
    """Converts boxes of an image of this size to what the policy would say."""
    return functools.partial(
        self.box_spec.to_model,
        original_size=size,
        seen_size=self.processor.seen_size(*size),
    )

  def examples(
      self, split: str, *, start: int = 0, n: int
  ) -> Sequence[Example]:
    """Examples [start, start + n) of a split, read as they are asked for.

    Raises:
      UserError: The split is too small; and later, an image in it is damaged.
    """
    held = sources.open((sources.WORLD,), split=split, workdir=self.workdir)
    return held.part(start, n)

  def graded_examples(self) -> list[Example]:
    """What follows the demos': fresh to the SFT policy, so that it is fair."""
    c = self.config
    n = c.grade.n_queries
    return list(self.examples('train', start=c.sft.n_candidates, n=n))

  def seed(self, *what: Any) -> int:
    """31 bits that depend on the run's seed and on what they are for."""
    text = '/'.join(map(str, (self.config.seed, *what)))
    return int.from_bytes(hashlib.sha256(text.encode()).digest()[:4]) >> 1

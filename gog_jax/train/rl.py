"""Stage 2: complexity-adaptive GRPO on the graded level.

`train` is the loop. Beside it: which queries are drawn (curriculum.py), groups
drawn again because they teach nothing (groups.py), the update (steps.py), what
a step logs (rl_metrics.py) and when to worry (alarms.py).
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
import contextlib
from typing import Any

from etils import epath
from flax import nnx
import jax
import numpy as np

from gog_jax import interrupt
from gog_jax.config.training import RLConfig
from gog_jax.errors import RunStopped
from gog_jax.rollout.batching import loss_weights
from gog_jax.rollout.batching import MicroBatches
from gog_jax.run import Run
from gog_jax.storage import checkpoint
from gog_jax.storage import metrics as metrics_lib
from gog_jax.storage import trajectories as trajectories_lib
from gog_jax.train import alarms
from gog_jax.train import losses
from gog_jax.train import rl_metrics
from gog_jax.train import state as state_lib
from gog_jax.train import steps
from gog_jax.train.advantages import group_advantages
from gog_jax.train.advantages import GroupAdvantages
from gog_jax.train.curriculum import make_curriculum
from gog_jax.train.groups import Drawn
from gog_jax.train.groups import Groups
from gog_jax.train.groups import scores_of
from gog_jax.train.optimizer import make_optimizer
from gog_jax.train.state import TrainState
from gog_jax.types import Trajectory


def train(run: Run, folder: epath.Path) -> dict[str, Any]:
  """Trains the SFT policy on its own rollouts; KL keeps it near the SFT.

  Raises:
    UserError: The level has too few queries; or an alarm went off and
      `rl.alarms.stop` is set.
  """
  c = run.config.rl
  optimizer = make_optimizer(c.optimizer, n_steps=c.steps)
  base, state, model = state_lib.start_state(run, optimizer, start_from='sft')
  reference = model.kept(state.params)
  grpo_step = steps.make_grpo_step(model, optimizer, state, loss_config(c))
  policy = run.make_policy(base, greedy=False)
  del base  # The sampler drops it, too, when it gets the first weights.
  curriculum = make_curriculum(run, folder)

  def sync_policy(state: TrainState, *, due: bool) -> nnx.State | None:
    """Gives the policy new weights if `due`; the next update shares them."""
    if not due:
      return None
    # An update donates what the sampler would still use at the next step.
    use = model.kept if c.sync_every > 1 else model.in_use
    shared = use(state.params)
    policy.update(
        nnx.merge_state(shared, model.frozen),
        vision_changed=state_lib.trains_vision(shared),
    )
    return shared

  def train_step(
      state: TrainState, batches: MicroBatches, shared: nnx.State | None
  ):
    old_logprobs = None  # At the first update, the current ones.
    for _ in range(c.updates_per_batch):
      state, old_logprobs, metrics = grpo_step(
          state, model.frozen, reference, batches, old_logprobs, shared
      )
      shared = None  # The parameters have changed.
    return state, jax.device_get(metrics)

  with checkpoint.Checkpointer(
      folder / 'checkpoints', every=c.checkpoint_every, keep=2
  ) as saver:
    if saver.latest_step() is not None:
      state = saver.restore(state, curriculum.queries)
    first = int(state.step) // c.updates_per_batch
    curriculum.resume(first)
    with (
        metrics_lib.open_log(run.config, folder, resume_step=first) as log,
        metrics_lib.Progress('rl', total=c.steps, start=first) as progress,
    ):
      # An alarm that stopped the run stops it again, unless settings changed.
      alarms.heed(alarms.raised(log.rows, c.alarms), log.rows, c.alarms)
      for n in range(first, c.steps):
        shared = sync_policy(state, due=n == first or n % c.sync_every == 0)
        watch = metrics_lib.Stopwatch()
        seed = state_lib.step_seed(state)
        drawn = Drawn(c)
        with _saved_if_stopped(saver, n, state, curriculum.queries):
          while drawn.n_missing:  # Once, unless dynamic sampling draws again.
            examples = curriculum.draw(drawn.n_missing, step=n)  # P
            groups = run.rollout(  # P x G, scored
                policy,
                examples,
                samples=c.group_size,
                seed=('rl', seed, len(drawn.draws)),
                call_cost=c.call_cost,
            )
            scores = scores_of(run, groups)  # [P, G] each
            advantages = group_advantages(*scores, **advantage_options(c))
            drawn.draws.append(Groups(examples, groups, advantages))  # [P, G]
        watch.lap('rollout')
        learnt = drawn.learnt
        batches = to_batches(run, learnt.trajectories, learnt.advantages)
        state, metrics = train_step(state, batches, shared)  # [B, T] each
        watch.lap('update')

        values = rl_metrics.describe_step(run, drawn, metrics, watch.seconds)
        values |= curriculum.record(n + 1, drawn.everything.trajectories)
        found = alarms.raised([*log.rows, values], c.alarms)
        log.write(n + 1, values | {'alarms': list(found)})
        progress.advance(reward=values['reward'], accuracy=values['accuracy'])
        last = n + 1 == c.steps
        if last or (n + 1) % c.trajectories_every == 0:
          save_rollouts(folder, n + 1, learnt)
        if last or saver.is_due(n + 1) or (found and c.alarms.stop):
          saver.save(n + 1, state, curriculum.queries)
        alarms.heed(found, log.rows, c.alarms)
  checkpoint.save_pytree(folder / 'params', state.params)
  return {'steps': c.steps} | rl_metrics.reward_trend(log.rows)


@contextlib.contextmanager
def _saved_if_stopped(
    saver: checkpoint.Checkpointer, n: int, state: TrainState, queries: Any
) -> Iterator[None]:
  """Where rollouts are stopped, saves what a restart needs to make them again.
  """
  position = queries.get_state()
  try:
    yield
  except (interrupt.Interrupted, RunStopped):
    queries.set_state(position)
    saver.save(n, state, queries)
    raise


def loss_config(c: RLConfig) -> losses.GRPOConfig:
  """The variant's loss, with what the config says instead."""
  variant = losses.VARIANTS[c.variant]
  low, high = c.loss.clip or variant.clip
  return losses.GRPOConfig(
      ratio=variant.ratio,
      clip_low=low,
      clip_high=high,
      kl_coef=c.loss.kl_coef,
      max_importance_weight=c.loss.max_importance_weight,
  )


def advantage_options(c: RLConfig) -> dict[str, Any]:
  """What `group_advantages` is told, from the config's `rl`."""
  divide = losses.VARIANTS[c.variant].divide_by_std
  return {'eps': c.advantage_eps, 'divide_by_std': divide}


def to_batches(
    run: Run,
    groups: Sequence[Sequence[Trajectory]],
    advantages: GroupAdvantages,
) -> MicroBatches:
  """Packs P x G trajectories with their advantages.

  Groups without variance feel nothing but the KL. Unless `rl.train_dead` is
  set they are left out of the batch, though not out of any denominator: as
  long as many questions fail always, that is much of an update's time.
  """
  c = run.config.rl
  flat = [t for group in groups for t in group]
  weights = loss_weights(
      [int(t.loss_mask.sum()) for t in flat],
      [t.valid for t in flat],
      aggregation=losses.VARIANTS[c.variant].aggregation,
      most_targets=run.limits.max_turns * run.limits.max_turn_tokens,
  )
  kept = np.repeat(advantages.live, c.group_size)
  if c.train_dead or not kept.any():
    kept[:] = True
  kept = np.flatnonzero(kept)
  return MicroBatches(
      [flat[i] for i in kept],
      advantages=advantages.advantages.reshape(-1)[kept],
      weights=weights[kept],
      processor=run.processor,
      vision_config=run.model_config.vision,
      config=run.batch_config(micro_rows=c.micro_rows, dtype=run.dtype),
  )


def save_rollouts(folder: epath.Path, n: int, groups: Groups) -> None:
  """Writes what step `n` learnt from, for people and for replay."""
  trajectories_lib.write(
      folder / 'rollouts' / f'{n:06d}' / 'trajectories.jsonl',
      [t for group in groups.trajectories for t in group],
      {example.id: example for example in groups.examples}.values(),
  )

"""Stage 2: complexity-adaptive GRPO on the graded level."""

from __future__ import annotations

from collections.abc import Sequence
import dataclasses
from typing import Any

from etils import epath
from flax import nnx
import jax
import numpy as np

from gog_jax import interrupt
from gog_jax.errors import RunStopped
from gog_jax.errors import UserError
from gog_jax.evaluation import grade
from gog_jax.rollout.batching import loss_weights
from gog_jax.rollout.batching import MicroBatches
from gog_jax.rollout.policy import Policy
from gog_jax.run import Run
from gog_jax.storage import checkpoint
from gog_jax.storage import metrics as metrics_lib
from gog_jax.storage import trackers
from gog_jax.storage import trajectories as trajectories_lib
from gog_jax.train import alarms
from gog_jax.train import losses
from gog_jax.train import rl_metrics
from gog_jax.train import state as state_lib
from gog_jax.train import steps
from gog_jax.train.advantages import group_advantages
from gog_jax.train.advantages import GroupAdvantages
from gog_jax.train.curriculum import Curriculum
from gog_jax.train.curriculum import CurriculumConfig
from gog_jax.train.curriculum import select
from gog_jax.train.optimizer import make_optimizer
from gog_jax.train.optimizer import OptimizerConfig
from gog_jax.train.start import start_state
from gog_jax.train.state import TrainState
from gog_jax.types import Example
from gog_jax.types import Trajectory

Groups = list[list[Trajectory]]  # P x G.


def train(run: Run, folder: epath.Path) -> dict[str, Any]:
  """Trains the SFT policy on its own rollouts; KL keeps it near the SFT.

  Raises:
    UserError: The level has too few queries; or an alarm went off and
      `rl.alarms.stop` is set.
  """
  c = run.config.rl
  optimizer = make_optimizer(OptimizerConfig(**c.optimizer), n_steps=c.steps)
  base, state, model = start_state(run, optimizer, start_from='sft')
  ref_params = model.kept(state.params)
  grpo_step = steps.make_grpo_step(model, optimizer, state, loss_config(c))
  policy = run.make_policy(base, greedy=False)
  del base  # The sampler lets go of it, too, when it gets the first weights.
  curriculum = make_curriculum(run, folder)

  def update(state: TrainState, batches: MicroBatches, used: nnx.State | None):
    old_logprobs = None  # At the first update, the current ones.
    for _ in range(c.updates_per_batch):
      state, old_logprobs, metrics = grpo_step(
          state, model.frozen, ref_params, batches, old_logprobs, used
      )
      used = None  # They have changed.
    return state, jax.device_get(metrics)

  with checkpoint.Checkpointer(
      folder / 'checkpoints', every=c.checkpoint_every, keep=2
  ) as saver:
    if saver.latest_step() is not None:
      state = saver.restore(state, curriculum.queries)
    first = int(state.step) // c.updates_per_batch
    curriculum.resume(first)
    with (
        trackers.open_log(run.config, folder, resume_step=first) as log,
        metrics_lib.Progress('rl', total=c.steps, start=first) as progress,
    ):
      # What stopped the run does so again until its settings change.
      heed_alarms(find_alarms(c.alarms, log.rows), log.rows, stop=c.alarms.stop)
      used = None  # What the sampler and the next update use alike.
      for n in range(first, c.steps):
        if n == first or n % c.sync_every == 0:
          # An update donates what the sampler then still uses.
          use = model.kept if c.sync_every > 1 else model.in_use
          used = use(state.params)
          policy.update(
              nnx.merge_state(used, model.frozen),
              vision_changed=run.trains_vision,
          )
        here = curriculum.queries.get_state()
        watch = metrics_lib.Stopwatch()
        try:
          drawn = draw_groups(
              run, policy, curriculum, step=n, seed=state_lib.step_seed(state)
          )
        except (interrupt.Interrupted, RunStopped):
          curriculum.queries.set_state(here)
          saver.save(n, state, curriculum.queries)
          raise
        watch.lap('rollout')
        advantages = advantages_of(run, drawn.groups)  # [P, G]
        batches = rl_batches(run, drawn.groups, advantages)
        state, metrics = update(state, batches, used)
        used = None
        watch.lap('update')
        values = rl_metrics.describe(
            drawn.all_examples,
            drawn.all_groups,
            advantages_of(run, drawn.all_groups),
        )
        values |= metrics | watch.seconds | {'refilled': drawn.n_refilled}
        values |= rl_metrics.describe_tools(run.toolbox.counts.take())
        if run.judge is not None:
          values['judge'] = run.judge.counts.take()
        values |= curriculum.record(n + 1, drawn.all_groups)
        found = find_alarms(c.alarms, [*log.rows, values])
        log.write(n + 1, values | {'alarms': list(found)})
        progress.advance(reward=values['reward'], accuracy=values['accuracy'])
        last = n + 1 == c.steps
        if last or (n + 1) % c.trajectories_every == 0:
          save_rollouts(folder, n + 1, drawn)
        stopped = bool(found) and c.alarms.stop
        if last or stopped or saver.is_due(n + 1):
          saver.save(n + 1, state, curriculum.queries)
        heed_alarms(found, log.rows, stop=stopped)
  checkpoint.save_pytree(folder / 'params', state.params)
  return {'steps': c.steps} | rl_metrics.reward_trend(log.rows)


def loss_config(c: Any) -> losses.GRPOConfig:
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


def make_curriculum(run: Run, folder: epath.Path) -> Curriculum:
  """The graded examples of the level that RL trains on."""
  c = run.config
  ids = select(
      grade.read_grades(run.workdir / 'grade'),
      c.rl.level,
      at_least=c.rl.n_prompts,
  )
  return Curriculum(
      [example for example in run.graded_examples() if example.id in ids],
      config=CurriculumConfig(
          level=c.rl.level,
          regrade=c.rl.regrade,
          recheck_every=c.rl.recheck_every,
          solved=c.grade.solved,
          often_failed=c.grade.often_failed,
      ),
      seed=run.seed('rl'),
      folder=folder,
  )


@dataclasses.dataclass(frozen=True)
class Drawn:
  """A step's rollouts.

  Attributes:
    examples: P queries.
    groups: Their P groups, to learn from.
    all_examples: These and the queries that were drawn again, in order.
    all_groups: Their groups.
  """

  examples: Sequence[Example]
  groups: Groups
  all_examples: Sequence[Example]
  all_groups: Groups

  @property
  def n_refilled(self) -> int:
    return len(self.all_groups) - len(self.groups)


def draw_groups(
    run: Run, policy: Policy, curriculum: Curriculum, *, step: int, seed: int
) -> Drawn:
  """P groups; with dynamic sampling, such as have something to learn from.

  Where `rl.max_refills` draws do not bring enough of them, the step is smaller;
  were there none, the last draw is taken as it is. (DAPO, section 3.2.)
  """
  c = run.config.rl
  examples: list[Example] = []
  groups: Groups = []
  all_examples: list[Example] = []
  all_groups: Groups = []
  fresh, drawn = [], []
  for refill in range(1 + c.dynamic_sampling * c.max_refills):
    fresh = curriculum.draw(c.n_prompts - len(groups), step=step)
    drawn = run.rollout(  # P x G
        policy,
        fresh,
        samples=c.group_size,
        seed=('rl', seed, refill),
        call_cost=c.call_cost,
    )
    all_examples += fresh
    all_groups += drawn
    live = advantages_of(run, drawn).live
    for example, group, is_live in zip(fresh, drawn, live, strict=True):
      if is_live or not c.dynamic_sampling:
        examples.append(example)
        groups.append(group)
    if len(groups) == c.n_prompts:
      break
  if not groups:
    examples, groups = fresh, drawn
  return Drawn(examples, groups, all_examples, all_groups)


def advantages_of(run: Run, groups: Groups) -> GroupAdvantages:
  """Advantages [P, G] of scored groups."""

  def table(value):
    return np.array([[value(t) for t in group] for group in groups])

  rewards, valid = table(lambda t: t.reward), table(lambda t: t.valid)
  if run.config.rl.shuffle_rewards:
    # Of what was sampled: the same whenever these groups are met.
    sampled = sum(int(t.token_ids.sum()) for group in groups for t in group)
    rng = np.random.default_rng(run.seed('shuffle', sampled))
    for row, usable in zip(rewards, valid, strict=True):
      row[usable] = rng.permutation(row[usable])
  return group_advantages(
      rewards,
      valid,
      # What is left of the accuracy's part, where searches cost.
      table(
          lambda t: t.reward_parts['accuracy'] * t.reward_parts.get('budget', 1)
      ),
      eps=run.config.rl.advantage_eps,
      divide_by_std=losses.VARIANTS[run.config.rl.variant].divide_by_std,
  )


def rl_batches(
    run: Run, groups: Groups, advantages: GroupAdvantages
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


def save_rollouts(folder: epath.Path, n: int, drawn: Drawn) -> None:
  """Writes what step `n` learnt from, for people and for replay."""
  trajectories_lib.write(
      folder / 'rollouts' / f'{n:06d}' / 'trajectories.jsonl',
      [t for group in drawn.groups for t in group],
      {example.id: example for example in drawn.examples}.values(),
  )


def find_alarms(c: Any, rows: Sequence[dict[str, Any]]) -> dict[str, str]:
  """What has gone wrong for some steps, metric to explanation."""
  bounds = {metric: c[metric] for metric in alarms.METRICS}
  return alarms.raised(rows, bounds=bounds, patience=c.patience)


def heed_alarms(
    found: dict[str, str], rows: Sequence[dict[str, Any]], *, stop: bool
) -> None:
  """Says what was found at the last step and not said at the one before.

  Raises:
    UserError: Something was found and `stop` is set.
  """
  before = rows[-2]['alarms'] if len(rows) > 1 else ()
  for metric, line in found.items():
    if metric not in before:
      metrics_lib.say(f'rl: alarm at step {rows[-1]["step"]}: {line}')
    if stop:
      raise UserError(
          f'stopped by an alarm after step {rows[-1]["step"]}: {line}; go on '
          f'with another --config.rl.alarms.{metric} or with '
          '--config.rl.alarms.stop=False, or begin anew in another --workdir '
          'with other settings of rl'
      )

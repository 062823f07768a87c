"""Stage 2: complexity-adaptive GRPO on the graded level."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from etils import epath
from flax import nnx
import jax
import jax.numpy as jnp
import numpy as np

from gog_jax import checkpoint
from gog_jax import grade
from gog_jax import interrupt
from gog_jax import metrics as metrics_lib
from gog_jax import sharding
from gog_jax.data.pipeline import endless_batches
from gog_jax.rollout import trajectories as trajectories_lib
from gog_jax.rollout.batching import Batch
from gog_jax.rollout.batching import loss_weights
from gog_jax.rollout.batching import to_batch
from gog_jax.run import Run
from gog_jax.train import state as state_lib
from gog_jax.train import steps
from gog_jax.train.advantages import group_advantages
from gog_jax.train.advantages import GroupAdvantages
from gog_jax.train.losses import GRPOConfig
from gog_jax.train.optimizer import make_optimizer
from gog_jax.train.optimizer import OptimizerConfig
from gog_jax.train.start import start_state
from gog_jax.train.state import TrainState
from gog_jax.types import Example
from gog_jax.types import ToolStatus
from gog_jax.types import Trajectory

Groups = list[list[Trajectory]]  # P x G.


def train(run: Run, folder: epath.Path) -> dict[str, Any]:
  """Trains the SFT policy on its own rollouts; KL keeps it near the SFT."""
  c = run.config.rl
  optimizer = make_optimizer(OptimizerConfig(**c.optimizer), n_steps=c.steps)
  base, state, model = start_state(run, optimizer, start_from='sft')
  ref_params = jax.tree.map(jnp.copy, state.params)
  grpo_step = steps.make_grpo_step(
      model, optimizer, state, GRPOConfig(**c.loss)
  )
  policy = run.make_policy(base, greedy=False)
  prompts = endless_batches(
      level_examples(run), batch_size=c.n_prompts, seed=run.seed('rl')
  )

  def update(state: TrainState, batch: Batch):
    old_logprobs = None  # At the first update, the current ones.
    for _ in range(c.updates_per_batch):
      state, old_logprobs, metrics = grpo_step(
          state, model.frozen, ref_params, batch, old_logprobs
      )
    return state, jax.device_get(metrics)

  with checkpoint.Checkpointer(
      folder / 'checkpoints', every=c.checkpoint_every, keep=2
  ) as saver:
    if saver.latest_step() is not None:
      state = saver.restore(state, prompts)
    first = int(state.step) // c.updates_per_batch
    log = metrics_lib.MetricsWriter(folder / 'metrics.jsonl', resume_step=first)
    with metrics_lib.Progress('rl', total=c.steps, start=first) as progress:
      for n in range(first, c.steps):
        policy.update(
            nnx.merge_state(state.params, model.frozen),
            vision_changed=run.trains_vision,
        )
        here, seed = prompts.get_state(), state_lib.step_seed(state)
        watch = metrics_lib.Stopwatch()
        try:
          examples = next(prompts)  # P
          groups = run.rollout(  # P x G
              policy, examples, samples=c.group_size, seed=('rl', seed)
          )
        except interrupt.Interrupted:
          prompts.set_state(here)
          saver.save(n, state, prompts)
          raise
        watch.lap('rollout')
        advantages = advantages_of(run, groups)  # [P, G]
        batch = rl_batch(run, groups, advantages)  # [B, T]
        state, metrics = update(state, batch)
        watch.lap('update')
        values = describe(groups, advantages) | metrics | watch.seconds
        log.write(n + 1, values)
        progress.advance(reward=values['reward'], accuracy=values['accuracy'])
        last = n + 1 == c.steps
        if last or (n + 1) % c.trajectories_every == 0:
          save_rollouts(folder, n + 1, examples, groups)
        if last or saver.is_due(n + 1):
          saver.save(n + 1, state, prompts)
  checkpoint.save_pytree(folder / 'params', state.params)
  return {'steps': c.steps} | reward_trend(log.rows)


def level_examples(run: Run) -> list[Example]:
  """The graded examples of the level that RL trains on."""
  ids = grade.select_level(
      grade.read_grades(run.workdir / 'grade'),
      run.config.rl.level,
      at_least=run.config.rl.n_prompts,
  )
  return [example for example in run.graded_examples() if example.id in ids]


def advantages_of(run: Run, groups: Groups) -> GroupAdvantages:
  """Advantages [P, G] of scored groups."""

  def table(value):
    return np.array([[value(t) for t in group] for group in groups])

  return group_advantages(
      table(lambda t: t.reward),
      table(lambda t: t.valid),
      table(lambda t: t.reward_parts['accuracy']),
      eps=run.config.rl.advantage_eps,
  )


def rl_batch(run: Run, groups: Groups, advantages: GroupAdvantages) -> Batch:
  """Packs P x G trajectories with their advantages, on the mesh."""
  flat = [t for group in groups for t in group]
  weights = loss_weights(
      [int(t.loss_mask.sum()) for t in flat],
      [t.valid for t in flat],
      aggregation=run.config.rl.aggregation,
  )
  batch = to_batch(
      flat,
      advantages=advantages.advantages.reshape(-1),
      weights=weights,
      processor=run.processor,
      vision_config=run.model_config.vision,
      config=run.batch_config(row_multiple=run.config.rl.row_multiple),
  )
  return jax.device_put(batch, sharding.batch_sharding(run.mesh))


def save_rollouts(
    folder: epath.Path, n: int, examples: Sequence[Example], groups: Groups
) -> None:
  """Writes what step `n` learnt from, for people and for replay."""
  trajectories_lib.write(
      folder / 'rollouts' / f'{n:06d}' / 'trajectories.jsonl',
      [t for group in groups for t in group],
      {example.id: example for example in examples}.values(),
  )


def describe(groups: Groups, advantages: GroupAdvantages) -> dict[str, Any]:
  """Means over valid trajectories, and what was left out of them."""
  flat = [t for group in groups for t in group]
  valid = [t for t in flat if t.valid]
  results = [r for t in flat for turn in t.turns for r in turn.results]

  def mean(value) -> float:
    return float(np.mean([value(t) for t in valid])) if valid else 0.0

  def n_searches(trajectory: Trajectory) -> int:
    return sum(r.n_searches for turn in trajectory.turns for r in turn.results)

  def count(status: ToolStatus) -> int:
    return sum(r.status == status for r in results)

  return {
      'reward': mean(lambda t: t.reward),
      'accuracy': mean(lambda t: t.reward_parts['accuracy']),
      'format': mean(lambda t: t.reward_parts['format']),
      'turns': mean(lambda t: len(t.turns)),
      'searches': mean(n_searches),
      'no_search': mean(lambda t: n_searches(t) == 0),
      'tokens': mean(lambda t: len(t.token_ids)),
      'sampled_tokens': mean(lambda t: int(t.loss_mask.sum())),
      'live_groups': float(advantages.live.mean()),
      'format_only_groups': float(advantages.format_only.mean()),
      'masked': 1 - len(valid) / len(flat),
      'masked_by_calls': masked_by_calls(flat),
      'model_errors': count(ToolStatus.MODEL_ERROR),
      'infra_errors': count(ToolStatus.INFRA_ERROR),
      'price': sum(r.price for r in results),
      'seconds_tools': sum(r.latency_s for r in results),
  }


def masked_by_calls(trajectories: Sequence[Trajectory]) -> dict[str, float]:
  """Share of masked trajectories by number of calls.

  Dropping failed searches would favour not searching: this shows how much.
  """
  by_calls: dict[int, list[bool]] = {}
  for trajectory in trajectories:
    n_calls = sum(len(turn.results) for turn in trajectory.turns)
    by_calls.setdefault(n_calls, []).append(not trajectory.valid)
  return {str(n): float(np.mean(m)) for n, m in sorted(by_calls.items())}


def reward_trend(rows: Sequence[dict[str, Any]]) -> dict[str, float]:
  """Mean training reward of the first and the last fifth of the run."""
  rewards_by_step = [row['reward'] for row in rows]
  n = max(len(rewards_by_step) // 5, 1)
  return {
      'reward_first_fifth': float(np.mean(rewards_by_step[:n])),
      'reward_last_fifth': float(np.mean(rewards_by_step[-n:])),
  }

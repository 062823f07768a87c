"""Stage 2: complexity-adaptive GRPO on the graded level.

`train` is the loop. Beside it: which questions are drawn (curriculum.py), what
a group of trajectories teaches (groups.py), the update (steps.py), what a step
logs (rl_metrics.py), how good it is by then (validation.py) and when to worry
(alarms.py).
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
import contextlib
import dataclasses
from typing import Any

from etils import epath
from flax import nnx
import jax

from gog_jax import interrupt
from gog_jax.errors import RunStopped
from gog_jax.rollout.batching import MicroBatches
from gog_jax.run import Run
from gog_jax.storage import checkpoint
from gog_jax.storage import metrics as metrics_lib
from gog_jax.storage import trajectories as trajectories_lib
from gog_jax.train import alarms
from gog_jax.train import fit
from gog_jax.train import losses
from gog_jax.train import rl_metrics
from gog_jax.train import state as state_lib
from gog_jax.train import steps
from gog_jax.train.advantages import group_advantages
from gog_jax.train.batches import batches_of_groups
from gog_jax.train.curriculum import make_curriculum
from gog_jax.train.groups import Group
from gog_jax.train.groups import scores_of
from gog_jax.train.groups import to_groups
from gog_jax.train.optimizer import make_optimizer
from gog_jax.train.state import TrainState
from gog_jax.train.validation import Validation


def train(run: Run, folder: epath.Path) -> dict[str, Any]:
  """Trains a policy, `rl.init`, on its own rollouts; KL keeps it near that.

  Raises:
    UserError: The level has too few queries; an alarm went off and
      `rl.alarms.stop` is set; updates are not finite; or all of validation
      failed.
  """
  c = run.config.rl
  variant = losses.variant_of(c)
  n_updates = c.steps * c.updates_per_batch
  optimizer = make_optimizer(c.optimizer, n_steps=n_updates)
  base, state, model = state_lib.start_state(run, optimizer, start_from=c.init)
  reference = model.kept(state.params) if variant.kl_coef else None
  grpo_step = steps.make_grpo_step(model, optimizer, state, variant)
  policy = run.make_policy(base, greedy=False)
  del base  # The sampler drops it, too, when it gets the first weights.
  curriculum = make_curriculum(run, folder)
  validation = Validation(
      run,
      folder,
      n=c.n_validation if run.config.validates_rl else 0,
      every=c.eval_every,
      n_steps=c.steps,
      call_cost=c.call_cost,
  )
  if c.n_validation and not validation.n:
    metrics_lib.say(
        f'{folder.name}: not validated, as config.questions.validation names '
        "no questions of yours; ('train:5%',) holds out a share of train"
    )

  lags = c.sync_every > 1
  # An update donates what the sampler would still use at the next step.
  use = model.kept if lags else model.in_use

  def give(params: nnx.State) -> None:
    """Gives the policy trained parameters, as they are used."""
    policy.update(
        nnx.merge_state(params, model.frozen),
        vision_changed=state_lib.trains_vision(params),
    )

  def validate(state: TrainState, n: int) -> dict[str, Any]:
    """What the policy comes to after `n` steps, if that is due.

    The best of all is kept; written again where a kill came before a
    checkpoint could.
    """
    if not validation.is_due(n):
      return {}
    if (row := validation.at(n)) is None:
      give(model.in_use(state.params))
      with policy.greedily():
        row = validation.measure(n, policy)
      rl_metrics.take_counts(run)  # The next step does not count its calls.
    if validation.best(n) is row:
      checkpoint.save_pytree(folder / 'best', state.params)
    return {f'validation_{k}': row[k] for k in row if k != 'step'}

  def train_step(
      state: TrainState, batches: MicroBatches, shared: nnx.State | None
  ):
    old_logprobs = None  # At the first update, the current ones.
    skipped, n_tokens, metrics = 0, 0, {}
    for _ in range(c.updates_per_batch):
      state, old_logprobs, metrics = grpo_step(
          state, reference, batches, old_logprobs, shared
      )
      shared = None  # The parameters have changed.
      skipped += metrics['skipped']
      n_tokens += metrics['n_tokens']
    metrics |= {'skipped': skipped, 'n_tokens': n_tokens}
    return state, jax.device_get(metrics)

  if lags:
    state = dataclasses.replace(state, sampled_by=use(state.params))
  with fit.opened(
      state,
      curriculum.queries,
      what='rl',
      config=run.config,
      folder=folder,
      n_steps=c.steps,
      checkpoint_every=c.checkpoint_every,
  ) as session:
    synced: Any = session.state.sampled_by  # What the sampler has.
    state = dataclasses.replace(session.state, sampled_by=None)
    log = session.log
    curriculum.resume(session.first)
    # An alarm that stopped the run stops it again, unless settings changed.
    alarms.heed(alarms.raised(log.rows, c.alarms), log.rows, c.alarms)
    # What was stopped in its validation lacks that alone.
    validated = validate(state, session.first)
    if validated and not validated.keys() <= log.rows[-1].keys():
      log.write(session.first, validated)

    def whole() -> TrainState:
      """With what a checkpoint needs beside the state."""
      return dataclasses.replace(state, sampled_by=synced if lags else None)

    for n in range(session.first, c.steps):
      shared = None  # What the sampler and the first update both use.
      if n % c.sync_every == 0:
        shared = synced = use(state.params)
      give(synced)
      watch = metrics_lib.Stopwatch()
      seed = state_lib.step_seed(state)
      groups: list[Group] = []
      with _saved_if_stopped(session, n, whole()):
        # Once; dynamic sampling draws again for groups that teach nothing. If
        # that does not bring enough, the step is smaller (DAPO, section 3.2).
        for draw in range(1 + c.dynamic_sampling * c.max_refills):
          n_missing = c.n_prompts - sum(group.live for group in groups)
          if not n_missing:
            break
          examples = curriculum.draw(n_missing, step=n)  # P
          rollouts = run.rollout(  # P x G, scored
              policy,
              examples,
              samples=c.group_size,
              seed=('rl', seed, draw),
              call_cost=c.call_cost,
          )
          advantages = group_advantages(  # [P, G]
              *scores_of(run, rollouts),
              eps=c.advantage_eps,
              divide_by_std=variant.divide_by_std,
          )
          drawn = to_groups(examples, rollouts, advantages)
          groups += drawn
      watch.lap('rollout')
      learnt = drawn
      if c.dynamic_sampling and any(group.live for group in groups):
        learnt = [group for group in groups if group.live]
      batches = batches_of_groups(run, learnt, variant.aggregation)
      state, metrics = train_step(state, batches, shared)  # [B, T] each
      watch.lap('update')

      values = rl_metrics.describe_step(run, groups, metrics, watch.seconds)
      values['refilled'] = len(groups) - len(learnt)
      values |= curriculum.record(n + 1, groups)
      found = alarms.raised([*log.rows, values], c.alarms)
      values['alarms'] = list(found)
      if n + 1 == c.steps or (n + 1) % c.trajectories_every == 0:
        save_rollouts(folder, n + 1, learnt, keep=c.trajectories_kept)
      with _saved_if_stopped(session, n + 1, whole(), values):
        values |= validate(state, n + 1)
      session.write(n + 1, values)
      shown: dict[str, Any] = {k: values[k] for k in ('reward', 'accuracy')}
      if measured := validation.rows(n + 1):
        shown['validation'] = measured[-1]['accuracy']
      session.progress.advance(**shown)
      if session.is_due(n + 1) or (found and c.alarms.stop):
        session.save(n + 1, whole())
      alarms.heed(found, log.rows, c.alarms)
  checkpoint.save_pytree(folder / 'params', state.params)
  facts = {'best': validation.best(c.steps)} if validation.n else {}
  return {'steps': c.steps} | facts | rl_metrics.reward_trend(log.rows)


@contextlib.contextmanager
def _saved_if_stopped(
    session: fit.Session,
    n: int,
    state: TrainState,
    values: Mapping[str, Any] | None = None,
) -> Iterator[None]:
  """Where rollouts are stopped, saves what a restart needs to make them again.

  With it the `values` of step `n`, if they are not logged yet.
  """
  position = session.data.get_state()
  try:
    yield
  except (interrupt.Interrupted, RunStopped):
    if values is not None:
      session.write(n, values)
    session.data.set_state(position)
    session.save(n, state)
    raise


def save_rollouts(
    folder: epath.Path, n: int, groups: Sequence[Group], *, keep: int
) -> None:
  """Writes what step `n` learnt from, for people and for replay.

  With it the newest `keep` remain; a run that got further may have left others,
  which are written again.
  """
  newest = folder / 'rollouts' / f'{n:06d}'
  trajectories_lib.write(
      newest / 'trajectories.jsonl',
      [t for group in groups for t in group.trajectories],
      {group.example.id: group.example for group in groups}.values(),
  )
  saved = [path for path in newest.parent.iterdir() if path.name <= newest.name]
  for path in sorted(saved)[:-keep]:
    path.rmtree()

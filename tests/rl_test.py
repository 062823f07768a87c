"""RL as a whole: what its options change, on runs of a few steps."""

from __future__ import annotations

import dataclasses
import json
import shutil

import numpy as np
import pytest

from gog_jax.app import stages
from gog_jax.errors import UserError
from gog_jax.rewards import score as rewards
from gog_jax.train import groups as groups_lib
from gog_jax.train import losses
from gog_jax.train import rl
from gog_jax.train.advantages import group_advantages
from gog_jax.train.batches import batches_of_groups
from gog_jax.types import ToolStatus
from tests import mini
from tests import report_helpers as helpers


@pytest.fixture
def workdir(finished, tmp_path):
  shutil.copytree(finished.workdir, tmp_path / 'run')
  return tmp_path / 'run'


def score_some(example, trajectory, *, config, call_cost=0.0):
  """A reward that is the same for all of every other question's samples."""
  del call_cost
  scored = mini.score_by_ids(example, trajectory, config=config)
  if int(example.id.rpartition('/')[2]) % 2:
    return scored
  return dataclasses.replace(scored, reward=0.0)


@pytest.mark.slow
def test_dead_groups_are_refilled(workdir, monkeypatch):
  monkeypatch.setattr(rewards, 'score', score_some)
  options = {'rl__steps': 2}
  run = mini.make_run(
      workdir, 'rl', **options, rl__dynamic_sampling=True, rl__max_refills=8
  )
  mini.make_stages(run, 'rl')
  rows = mini.metrics_of(run, 'rl')
  assert sum(row['refilled'] for row in rows) > 0
  for row in rows:  # Described is all that was drawn, kept or not.
    assert (row['live_groups'] < 1) == (row['refilled'] > 0)


@pytest.mark.slow
def test_without_refills_dead_groups_stay_and_are_counted(
    workdir, monkeypatch
):
  monkeypatch.setattr(rewards, 'score', score_some)
  run = mini.make_run(workdir, 'rl', rl__steps=2)
  mini.make_stages(run, 'rl')
  rows = mini.metrics_of(run, 'rl')
  assert min(row['live_groups'] for row in rows) < 1
  assert all(row['refilled'] == 0 for row in rows)


def test_dead_groups_leave_the_batch_and_no_denominator(finished):
  groups = fake_groups([[0] * 4, [0, 1, 2, 3], [1] * 4, [1, 0, 0, 0]])
  (lean,), (whole,) = (
      packed(run, groups)
      for run in (
          mini.make_run(finished.workdir, 'rl', rl__train_dead=dead)
          for dead in (False, True)
      )
  )
  assert float(whole.weights.sum()) == pytest.approx(1.0)
  assert float(lean.weights.sum()) == pytest.approx(2 / 4)
  # What moves the policy is the same.
  pulls = [
      np.sort((b.weights * b.advantages)[b.advantages != 0])
      for b in (lean, whole)
  ]
  assert len(pulls[0]) > 0
  np.testing.assert_array_equal(*pulls)


@pytest.mark.slow
def test_a_second_update_of_a_batch_is_off_its_policy(workdir, monkeypatch):
  monkeypatch.setattr(rewards, 'score', mini.score_by_ids)
  options = {
      'rl__steps': 2,
      'rl__optimizer__learning_rate': 3e-3,
      'rl__optimizer__warmup_steps': 0,
  }
  for row in rows_of_rl(workdir, **options, rl__updates_per_batch=2):
    assert row['ratio'] != pytest.approx(1.0, abs=1e-5)
    # That is the trainer's doing: the sampler had its weights of then.
    assert row['importance_weight'] == pytest.approx(1.0, abs=1e-4)
    assert row['sampler_gap_p99'] < 1e-3
  shutil.rmtree(workdir / 'rl')
  for row in rows_of_rl(workdir, **options):
    assert row['ratio'] == pytest.approx(1.0, abs=1e-6)


def rows_of_rl(workdir, **options):
  run = mini.make_run(workdir, 'rl', **options)
  mini.make_stages(run, 'rl')
  return mini.metrics_of(run, 'rl')


def right_where_even(example, trajectory, *, config, call_cost=0.0):
  """All samples of every other question are right."""
  del call_cost
  scored = mini.score_by_ids(example, trajectory, config=config)
  right = float(int(example.id.rpartition('/')[2]) % 2 == 0)
  return dataclasses.replace(
      scored, reward_parts=scored.reward_parts | {'accuracy': right}
  )


@pytest.mark.slow
def test_what_is_found_easier_is_regraded(workdir, monkeypatch):
  monkeypatch.setattr(rewards, 'score', right_where_even)
  options = {'rl__level': 2, 'rl__regrade': True, 'rl__n_prompts': 2}
  run = mini.make_run(workdir, 'rl', rl__steps=2, **options)
  mini.make_hard(run)
  mini.make_stages(run, 'rl')
  lines = (workdir / 'rl' / 'regrades.jsonl').read_text().splitlines()
  assert len(lines) == 2
  found = {}
  for line, row in zip(lines, mini.metrics_of(run, 'rl'), strict=True):
    levels = json.loads(line)['levels']
    assert all(
        level == (2 if int(name.rpartition('/')[2]) % 2 else 0)
        for name, level in levels.items()
    )
    found |= levels
    n_easier = sum(level == 0 for level in found.values())
    assert row['left_out'] == n_easier / 16
  assert 0 < n_easier < len(found)


@pytest.mark.slow
def test_a_stale_sampler_shows_and_the_alarm_fires(
    workdir, monkeypatch, capfd
):
  """Its weights are four updates old on purpose."""
  monkeypatch.setattr(rewards, 'score', mini.score_by_ids)
  options = {
      'rl__steps': 8,
      'rl__optimizer__learning_rate': 3e-3,
      'rl__alarms__kl': 1e9,  # Of no interest here, nor are the others.
      'rl__alarms__no_search': 2.0,
      'rl__alarms__format': -1.0,
  }
  fresh = mini.make_run(workdir, 'rl', **options)
  mini.make_stages(fresh, 'rl')
  assert 'alarm' not in capfd.readouterr().err
  gaps = [row['sampler_gap_p99'] for row in mini.metrics_of(fresh, 'rl')]
  assert max(gaps) < 1e-3

  shutil.rmtree(workdir / 'rl')
  stale = mini.make_run(workdir, 'rl', **options, rl__sync_every=5)
  mini.make_stages(stale, 'rl')
  said = capfd.readouterr().err
  rows = mini.metrics_of(stale, 'rl')
  # As old as the update before last, and so on; then new again.
  assert max(rows[0]['sampler_gap_p99'], rows[5]['sampler_gap_p99']) < 1e-3
  assert rows[4]['sampler_gap_p99'] > 0.05
  assert rows[4]['importance_weight'] != pytest.approx(1.0, abs=1e-4)
  assert said.count('alarm') == 1
  assert {tuple(row['alarms']) for row in rows} == {(), ('sampler_gap_p99',)}
  assert 'the sampler is not the policy in training' in said


@pytest.mark.slow
def test_stopped_by_an_alarm_it_can_go_on(workdir, monkeypatch):
  monkeypatch.setattr(rewards, 'score', mini.score_by_ids)
  strict = mini.make_run(
      workdir, 'rl', rl__alarms__entropy=1e9, rl__alarms__stop=True
  )
  with pytest.raises(UserError, match='stopped by an alarm after step 3'):
    mini.make_stages(strict, 'rl')
  assert len(mini.metrics_of(strict, 'rl')) == 3
  # The same command stops there again, without a step.
  with pytest.raises(UserError, match='stopped by an alarm after step 3'):
    mini.make_stages(strict, 'rl')
  assert len(mini.metrics_of(strict, 'rl')) == 3
  # Nothing is lost: told not to stop, it goes on with the next step.
  stages.manifest_of(strict, 'rl').write(workdir / 'rl', complete=False)
  heedless = mini.make_run(workdir, 'rl')
  assert not stages.manifest_of(heedless, 'rl').is_complete(workdir / 'rl')
  before = mini.metrics_of(strict, 'rl')
  mini.make_stages(heedless, 'rl')
  rows = mini.metrics_of(heedless, 'rl')
  assert rows[:3] == before and [row['step'] for row in rows] == [1, 2, 3, 4]


def test_shuffling_keeps_rewards_in_their_group(finished, monkeypatch):
  run = mini.make_run(finished.workdir, 'rl', rl__shuffle_rewards=True)
  groups = fake_groups(np.arange(48.0).reshape(8, 6))
  shuffled = advantages_of(run, groups).advantages
  plain = advantages_of(
      mini.make_run(finished.workdir, 'rl'), groups
  ).advantages
  assert (shuffled != plain).any(axis=1).sum() >= 7
  np.testing.assert_allclose(
      np.sort(shuffled, axis=1), np.sort(plain, axis=1)
  )


def test_shuffling_leaves_spoilt_samples_out(finished):
  run = mini.make_run(finished.workdir, 'rl', rl__shuffle_rewards=True)
  down = helpers.text(status=ToolStatus.INFRA_ERROR)
  (group,) = fake_groups([[1.0, 2.0, 50.0, 60.0, 3.0, 4.0]])
  for i in (2, 3):
    spoilt = helpers.trajectory('0', (down,))
    group[i] = dataclasses.replace(group[i], turns=spoilt.turns)
    assert not group[i].valid
  found = advantages_of(run, [group]).advantages[0]
  assert found[2] == found[3] == 0
  of_four = (np.arange(1.0, 5.0) - 2.5) / np.std(np.arange(1.0, 5.0), ddof=1)
  np.testing.assert_allclose(
      np.sort(found[[0, 1, 4, 5]]), of_four, rtol=1e-3
  )


def test_each_variant_weighs_and_clips_as_published(finished):
  """Of two sequences of 1 and 3 sampled tokens; a third was spoilt."""
  down = helpers.text(status=ToolStatus.INFRA_ERROR)
  group = [
      dataclasses.replace(
          t,
          images=(),
          loss_mask=np.array(mask, np.int8),
          reward=reward,
          reward_parts={'accuracy': reward},
      )
      for t, mask, reward in (
          (helpers.trajectory('a'), [0, 0, 0, 1], 1.0),
          (helpers.trajectory('a'), [0, 1, 1, 1], 0.0),
          (helpers.trajectory('a', (down,)), [0, 1, 1, 1], 0.0),
      )
  ]
  most = finished.limits.max_turns * finished.limits.max_turn_tokens
  std = 0.5**0.5
  for variant, weights, advantage, ratio, clip in (
      ('grpo', [1 / 2, 1 / 6], 0.5 / std, 'token', (0.2, 0.2)),
      ('dr_grpo', [1 / 2 / most] * 2, 0.5, 'token', (0.2, 0.2)),
      ('dapo', [1 / 4, 1 / 4], 0.5 / std, 'token', (0.2, 0.28)),
      ('gspo', [1 / 2, 1 / 6], 0.5 / std, 'sequence', (3e-4, 4e-4)),
  ):
    run = mini.make_run(
        finished.workdir, 'rl', rl__variant=variant, rl__group_size=3
    )
    (batch,) = packed(run, [group])
    sampled = np.asarray(batch.loss_mask) > 0
    for sign, weight in zip((1, -1), weights, strict=True):
      here = sampled & (np.sign(batch.advantages) == sign)
      assert here.sum() == (1 if sign == 1 else 3)
      np.testing.assert_allclose(batch.weights[here], weight, rtol=1e-5)
      np.testing.assert_allclose(
          batch.advantages[here], sign * advantage, rtol=1e-3
      )
    found = losses.variant_of(run.config.rl)
    assert (found.ratio, found.clip) == (ratio, clip)


@pytest.mark.slow
def test_a_variant_trains_from_its_name_alone(workdir, monkeypatch):
  monkeypatch.setattr(rewards, 'score', mini.score_by_ids)
  options = {
      'rl__steps': 2,
      'rl__updates_per_batch': 2,
      'rl__optimizer__learning_rate': 3e-3,
      'rl__optimizer__warmup_steps': 0,
  }
  rows = rows_of_rl(workdir, **options, rl__variant='gspo')
  # Off its policy by far more than GSPO's clip, by less than GRPO's.
  assert max(row['clip_frac'] for row in rows) > 0.2
  shutil.rmtree(workdir / 'rl')
  others = rows_of_rl(workdir, **options)
  assert others[0]['reward'] == rows[0]['reward']  # The same rollouts,
  assert others[0]['loss'] != rows[0]['loss']  # but not the same loss.
  assert others[0]['clip_frac'] < rows[0]['clip_frac']


def test_searches_cost_in_rl_alone(finished, monkeypatch, tmp_path):
  asked = []
  score = rewards.score

  def spy(example, trajectory, *, config, call_cost):
    asked.append(call_cost)
    return score(example, trajectory, config=config, call_cost=call_cost)

  monkeypatch.setattr(rewards, 'score', spy)
  run = mini.make_run(finished.workdir, 'rl', rl__call_cost=0.1)
  policy = run.make_policy(run.load_model(), greedy=False)
  examples = run.graded_examples()[:2]
  run.rollout(policy, examples, samples=1, seed=('grade',))
  assert set(asked) == {0.0}
  asked.clear()

  class Enough(Exception):
    pass

  def stop(*unused):
    raise Enough

  monkeypatch.setattr(rl, 'batches_of_groups', stop)  # After the rollouts.
  with pytest.raises(Enough):
    rl.train(run, tmp_path)
  assert set(asked) == {0.1}


def test_groups_that_differ_in_cost_differ_in_more_than_format(finished):
  run = mini.make_run(finished.workdir, 'rl')
  dear, cheap = (
      [
          dataclasses.replace(
              t,
              reward=0.9 * kept + 0.1 * well_formed,
              reward_parts={
                  'accuracy': 1.0, 'format': well_formed, 'budget': kept
              },
          )
          for t, kept, well_formed in zip(group, keeps, forms, strict=True)
      ]
      for group, keeps, forms in zip(
          fake_groups([[0, 0], [0, 0]]),
          ((0.8, 1.0), (1.0, 1.0)),
          ((1.0, 1.0), (0.0, 1.0)),
          strict=True,
      )
  )
  found = advantages_of(run, [dear, cheap])
  assert found.live.tolist() == [True, True]
  assert found.format_only.tolist() == [False, True]


def advantages_of(run, groups):
  return group_advantages(
      *groups_lib.scores_of(run, groups),
      eps=run.config.rl.advantage_eps,
      divide_by_std=losses.variant_of(run.config.rl).divide_by_std,
  )


def packed(run, rollouts):
  """These groups of trajectories as an update gets them."""
  examples = [helpers.example(group[0].example_id) for group in rollouts]
  advantages = advantages_of(run, rollouts)
  groups = groups_lib.to_groups(examples, rollouts, advantages)
  variant = losses.variant_of(run.config.rl)
  return batches_of_groups(run, groups, variant.aggregation)


def fake_groups(rewards_of_groups):
  """Text alone, with these rewards [P, G]."""
  return [
      [
          dataclasses.replace(
              helpers.trajectory(f'{i}'),
              images=(),
              reward=reward,
              reward_parts={'accuracy': 0.0},
          )
          for reward in rewards_of_group
      ]
      for i, rewards_of_group in enumerate(rewards_of_groups)
  ]

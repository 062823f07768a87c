"""Stopped at any step and started again: the numbers of one that was not."""

from __future__ import annotations

import dataclasses
import shutil

from flax import nnx
import jax
import numpy as np
import pytest

from gog_jax import interrupt
from gog_jax.errors import UserError
from gog_jax.models import lora
from gog_jax.rewards import score as rewards
from gog_jax.storage import checkpoint
from tests import mini


def params_of(run, stage):
  return nnx.to_pure_dict(mini.trained_params(run, stage))


def assert_same(run_a, run_b, stage):
  assert mini.metrics_of(run_a, stage) == mini.metrics_of(run_b, stage)
  a, b = params_of(run_a, stage), params_of(run_b, stage)
  jax.tree.map(np.testing.assert_array_equal, a, b)
  _, fresh, _ = lora.split(run_a.load_model(), run_a.config.trainable)
  moved = jax.tree.map(
      lambda x, y: float(abs(x - y).max()), a, nnx.to_pure_dict(fresh)
  )
  assert max(jax.tree.leaves(moved)) > 1e-4


@pytest.mark.slow
def test_sft_resumes_exactly(prepared, finished, tmp_path, monkeypatch):
  shutil.copytree(prepared, tmp_path, dirs_exist_ok=True)
  run = mini.make_run(tmp_path, 'sft')
  with monkeypatch.context() as patch:
    mini.interrupt_at(patch, 3)
    with pytest.raises(interrupt.Interrupted):
      mini.make_stages(run, 'sft')
  assert [row['step'] for row in mini.metrics_of(run, 'sft')] == [1, 2]
  checks = []
  with monkeypatch.context() as patch:
    patch.setattr(interrupt, 'check', lambda: checks.append(1))
    mini.make_stages(run, 'sft')
  assert_same(run, finished, 'sft')
  # It went on; it did not begin again.
  assert len(checks) == len(mini.metrics_of(run, 'sft')) - 2


def score_that_regrades(example, trajectory, *, config, call_cost=0.0):
  """Some groups have no variance, some queries become easy."""
  del call_cost
  scored = mini.score_by_ids(example, trajectory, config=config)
  number = int(example.id.rpartition('/')[2])
  right = {'accuracy': float(number % 3 == 0)}
  return dataclasses.replace(
      scored,
      reward=scored.reward if number % 2 else 0.0,
      reward_parts=scored.reward_parts | right,
  )


@pytest.mark.slow
@pytest.mark.parametrize(
    ('score', 'options'),
    [
        (mini.score_by_ids, {}),
        # Stopped between two syncs: the sampler's weights are older.
        (mini.score_by_ids, {'rl__sync_every': 3}),
        (
            score_that_regrades,
            {
                'rl__level': 2,
                'rl__regrade': True,
                'rl__recheck_every': 2,
                'rl__dynamic_sampling': True,
            },
        ),
    ],
    ids=['plain', 'a sampler that lags', 'regrading and refills'],
)
def test_rl_resumes_exactly(finished, tmp_path, monkeypatch, score, options):
  monkeypatch.setattr(rewards, 'score', score)
  whole, parts = tmp_path / 'whole', tmp_path / 'parts'
  shutil.copytree(finished.workdir, whole)
  shutil.copytree(finished.workdir, parts)
  run = mini.make_run(whole, 'rl', **options)
  resumed = mini.make_run(parts, 'rl', **options)
  regrades = 'rl__regrade' in options
  if regrades:
    mini.make_hard(run)
    mini.make_hard(resumed)
  mini.make_stages(run, 'rl')
  rows = mini.metrics_of(run, 'rl')
  assert len(rows) == 4
  assert all(row['live_groups'] > 0 for row in rows)
  assert rows[-1]['kl'] > 0  # It has left the SFT policy.
  if regrades:
    assert sum(row['refilled'] for row in rows) > 0
    assert rows[1]['left_out'] > 0

  rollout, steps_begun = type(resumed).rollout, []

  def interrupted_in_step_3(run, *args, seed, **kwargs):
    groups = rollout(run, *args, seed=seed, **kwargs)
    step = seed[:2]  # The third part counts refills.
    if step not in steps_begun:
      steps_begun.append(step)
      if len(steps_begun) == 3:
        steps_begun.append(None)
        raise interrupt.Interrupted(2)  # After the prompts were drawn.
    return groups

  monkeypatch.setattr(type(resumed), 'rollout', interrupted_in_step_3)
  with pytest.raises(interrupt.Interrupted):
    mini.make_stages(resumed, 'rl')
  mini.make_stages(resumed, 'rl')
  # The third step was begun twice, from the same seed.
  assert len(steps_begun) == 5 and steps_begun[3] is None
  assert_same(resumed, run, 'rl')


def test_grading_goes_on_where_it_stopped(finished, tmp_path):
  shutil.copytree(finished.workdir, tmp_path, dirs_exist_ok=True)
  run = mini.make_run(tmp_path, 'grade')
  whole = (tmp_path / 'grade' / 'graded.jsonl').read_text()
  (tmp_path / 'grade' / 'graded.jsonl').unlink()
  samples = tmp_path / 'grade' / 'samples' / 'trajectories.jsonl'
  lines = samples.read_text().splitlines(keepends=True)
  samples.write_text(''.join(lines[: len(lines) // 2]) + '{"half')
  mini.make_stages(run, 'grade')
  assert (tmp_path / 'grade' / 'graded.jsonl').read_text() == whole


def test_checkpoint_of_another_shape_is_refused(finished):
  saved = finished.workdir / 'sft' / 'params'
  with pytest.raises(UserError, match='does not fit'):
    checkpoint.load_pytree(saved, {'another': np.zeros(3, np.float32)})


def test_what_a_stage_has_trained_is_loaded_whatever_the_page_trains(finished):
  page = mini.make_run(
      finished.workdir, 'rl', trainable='lora', sft__optimizer__name='adamw'
  )
  ours, theirs = (
      nnx.state(run.load_model('sft')) for run in (page, finished)
  )
  assert jax.tree.all(jax.tree.map(np.array_equal, ours, theirs))


def test_missing_params_name_the_stage(tmp_path):
  with pytest.raises(UserError, match='run the stage'):
    checkpoint.load_pytree(tmp_path / 'params', {})

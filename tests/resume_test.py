"""Stopped at any step and started again: the numbers of one that was not."""

from __future__ import annotations

import shutil

from flax import nnx
import jax
import numpy as np
import pytest

from gog_jax import checkpoint
from gog_jax import interrupt
from gog_jax import rewards
from gog_jax.errors import UserError
from gog_jax.models import lora
from tests import mini


def params_of(run, stage):
  params = run.trained_params(run.load_model(), stage)
  return nnx.to_pure_dict(params)


def assert_same(run_a, run_b, stage):
  assert mini.metrics_of(run_a, stage) == mini.metrics_of(run_b, stage)
  a, b = params_of(run_a, stage), params_of(run_b, stage)
  jax.tree.map(np.testing.assert_array_equal, a, b)
  _, fresh, _ = lora.split(run_a.load_model(), run_a.config.trainable)
  moved = jax.tree.map(
      lambda x, y: float(abs(x - y).max()), a, nnx.to_pure_dict(fresh)
  )
  assert max(jax.tree.leaves(moved)) > 1e-4


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


def test_rl_resumes_exactly(finished, tmp_path, monkeypatch):
  monkeypatch.setattr(rewards, 'score', mini.score_by_ids)
  whole, parts = tmp_path / 'whole', tmp_path / 'parts'
  shutil.copytree(finished.workdir, whole)
  shutil.copytree(finished.workdir, parts)
  run = mini.make_run(whole, 'rl')
  mini.make_stages(run, 'rl')
  rows = mini.metrics_of(run, 'rl')
  assert len(rows) == 4
  assert all(row['live_groups'] > 0 for row in rows)
  assert rows[-1]['kl'] > 0  # It has left the SFT policy.

  resumed = mini.make_run(parts, 'rl')
  rollout, steps_begun = resumed.rollout, []

  def interrupted_in_step_3(*args, seed, **kwargs):
    groups = rollout(*args, seed=seed, **kwargs)
    steps_begun.append(seed)
    if len(steps_begun) == 3:
      raise interrupt.Interrupted(2)  # After the prompts were drawn.
    return groups

  monkeypatch.setattr(resumed, 'rollout', interrupted_in_step_3)
  with pytest.raises(interrupt.Interrupted):
    mini.make_stages(resumed, 'rl')
  mini.make_stages(resumed, 'rl')
  assert len(steps_begun) == 5
  assert steps_begun[2] == steps_begun[3]  # The same step, once more.
  assert_same(resumed, run, 'rl')


def test_grading_goes_on_where_it_stopped(finished, tmp_path):
  shutil.copytree(finished.workdir, tmp_path, dirs_exist_ok=True)
  run = mini.make_run(tmp_path, 'grade')
  whole = (tmp_path / 'grade' / 'graded.jsonl').read_text()
  (tmp_path / 'grade' / 'graded.jsonl').unlink()
  (tmp_path / 'grade' / 'chunks' / '000001.jsonl').unlink()
  (tmp_path / 'grade' / 'chunks' / '000001.jsonl.partial').write_text('{"half')
  mini.make_stages(run, 'grade')
  assert (tmp_path / 'grade' / 'graded.jsonl').read_text() == whole


def test_checkpoint_of_another_shape_is_refused(finished, tmp_path):
  del tmp_path
  run = mini.make_run(finished.workdir, 'rl', trainable='lora')
  with pytest.raises(UserError, match='does not fit'):
    run.trained_params(run.load_model(), 'sft')


def test_missing_params_name_the_stage(tmp_path):
  with pytest.raises(UserError, match='run the stage'):
    checkpoint.load_pytree(tmp_path / 'params', {})

"""RL's updates: which are skipped, their schedule, what is kept of them."""

from __future__ import annotations

import dataclasses
import shutil

from etils import epath
import jax
import numpy as np
import pytest

from gog_jax.rewards import score as rewards
from gog_jax.train import groups as groups_lib
from gog_jax.train import rl
from gog_jax.train.batches import batches_of_groups
from tests import mini
from tests import report_helpers as helpers
from tests import rl_test


@pytest.fixture
def workdir(finished, tmp_path):
  shutil.copytree(finished.workdir, tmp_path / 'run')
  return tmp_path / 'run'


@pytest.mark.slow
def test_skipped_updates_are_counted(workdir, monkeypatch):
  """A step whose rewards overflow changes nothing, twice; RL goes on."""
  monkeypatch.setattr(rewards, 'score', mini.score_by_ids)
  spoil, n_tokens = iter([False, True, False]), []

  def spoilt(run, groups, aggregation):
    if next(spoil):
      advantages = np.full(len(groups[0].trajectories), np.inf, np.float32)
      groups = [dataclasses.replace(groups[0], advantages=advantages)]
    batches = batches_of_groups(run, groups, aggregation)
    n_tokens.append(np.count_nonzero([b.segment_ids for b in batches]))
    return batches

  monkeypatch.setattr(rl, 'batches_of_groups', spoilt)
  rows = rl_test.rows_of_rl(workdir, rl__steps=3, rl__updates_per_batch=2)
  assert [row['skipped'] for row in rows] == [0, 2, 0]
  assert [row['n_tokens'] for row in rows] == [2 * n for n in n_tokens]
  assert np.isfinite([row['loss'] for row in rows]).tolist() == [1, 0, 1]
  run = mini.make_run(workdir, 'rl')
  params = jax.tree.leaves(mini.trained_params(run, 'rl'))
  assert all(np.isfinite(leaf).all() for leaf in params)


@pytest.mark.slow
def test_a_cosine_spans_all_updates(workdir, monkeypatch):
  """Forty of them, four a step; without a KL there is no reference."""
  monkeypatch.setattr(rewards, 'score', mini.score_by_ids)
  rows = rl_test.rows_of_rl(
      workdir,
      rl__steps=10,
      rl__n_prompts=2,
      rl__group_size=2,
      rl__updates_per_batch=4,
      rl__optimizer__decay='cosine',
      rl__optimizer__warmup_steps=0,
      rl__optimizer__learning_rate=1e-4,
      rl__loss__kl_coef=0.0,
  )
  last = np.arange(10) * 4 + 3  # Of each step's updates, from 0.
  np.testing.assert_allclose(
      [row['learning_rate'] for row in rows],
      0.5e-4 * (1 + np.cos(np.pi * last / 40)),
      rtol=1e-4,
  )
  assert not any('kl' in row for row in rows)


def test_the_newest_rollouts_are_kept(tmp_path):
  (rollouts,) = rl_test.fake_groups([[1.0, 0.0]])
  example = helpers.example('0')
  group = groups_lib.Group(example, rollouts, np.zeros(2), True, False)
  left = tmp_path / 'rollouts' / '000050'  # By a run that got further.
  left.mkdir(parents=True)
  for n in (10, 20, 30):
    rl.save_rollouts(epath.Path(tmp_path), n, [group], keep=2)
  kept = sorted(path.name for path in left.parent.iterdir())
  assert kept == ['000020', '000030', '000050']
  assert (left.parent / '000030' / 'trajectories.jsonl').exists()

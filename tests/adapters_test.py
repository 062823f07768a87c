"""Adapters instead of whole models, from SFT to the report."""

from __future__ import annotations

import json
import shutil

from flax import nnx
import jax
import numpy as np
import pytest

from gog_jax.rewards import score as rewards
from tests import mini


def leaves(state) -> dict[str, np.ndarray]:
  return {
      '/'.join(map(str, path)): np.asarray(leaf[...])
      for path, leaf in nnx.to_flat_state(state)
  }


@pytest.mark.slow
def test_the_whole_method_with_adapters(prepared, tmp_path, monkeypatch):
  """In bfloat16; with a sampler that lags, over several updates a batch."""
  monkeypatch.setattr(rewards, 'score', mini.score_by_ids)
  workdir = tmp_path / 'run'
  shutil.copytree(prepared, workdir)
  run = mini.make_run(
      workdir,
      'rl',
      trainable='lora',
      lora__rank=4,
      model__dtype='bfloat16',
      sft__n_validation=16,
      sft__eval_every=2,
      rl__sync_every=2,
      rl__updates_per_batch=2,
      rl__micro_rows=4,
      sft__optimizer__name='adamw',
      rl__steps=2,
      eval__policies=('sft', 'rl'),
  )
  mini.make_stages(run, 'sft', 'grade', 'rl', 'eval', 'report')

  base = run.load_model()
  sft, rl = (
      leaves(mini.trained_params(run, stage)) for stage in ('sft', 'rl')
  )
  assert set(sft) == set(rl)
  assert all(name.endswith(('lora_a', 'lora_b')) for name in sft)
  assert max(array.shape[-1] for name, array in sft.items()
             if name.endswith('lora_a')) == 4
  # Both stages moved them: the second halves were zero to begin with.
  for name in sft:
    if name.endswith('lora_b'):
      assert np.abs(sft[name]).max() > 0, name
    assert np.abs(rl[name] - sft[name]).max() > 0, name
  # All else is the base as it came.
  trained = leaves(nnx.state(run.load_model('rl'), nnx.Param))
  whole = leaves(nnx.state(base, nnx.Param)) | rl
  assert set(trained) == set(whole)
  for name, array in trained.items():
    np.testing.assert_array_equal(array, whole[name], err_msg=name)
  summary = json.loads((workdir / 'report' / 'summary.json').read_text())
  assert [row['policy'] for row in summary['rows']] == ['sft', 'rl']
  assert all(row['n'] == 16 for row in summary['rows'])
  assert jax.tree.all(
      jax.tree.map(lambda x: bool(np.isfinite(x).all()), rl)
  )

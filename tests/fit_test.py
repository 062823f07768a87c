"""A supervised stage whose data turn bad: what stays, and when it stops."""

from __future__ import annotations

import dataclasses
import pathlib
import re
import time
import types

from flax import nnx
import jax
import numpy as np
import pytest

from configs import common
from gog_jax.config.training import OptimizerConfig
from gog_jax.errors import UserError
from gog_jax.models.layers import Execution
from gog_jax.rollout.batching import MicroBatches
from gog_jax.storage import checkpoint
from gog_jax.storage import metrics
from gog_jax.train import fit
from gog_jax.train import state as state_lib
from gog_jax.train import steps
from gog_jax.train.optimizer import make_optimizer
from gog_jax.train.pipeline import endless_batches
from tests import mini
from tests import tiny


@pytest.fixture(scope='module')
def trained():
  """`(fresh() -> state, step)`: every test starts anew and compiles once."""
  mesh = mini.make_mesh()

  def fresh():
    return state_lib.create(
        tiny.model(),
        trainable='full',
        optimizer=optimizer,
        mesh=mesh,
        seed=0,
        execution=Execution(scan=False),
        logprob_chunk=32,
    )

  settings = common.optimizer(
      learning_rate=1e-3, warmup_steps=0, decay='cosine'
  )
  optimizer = make_optimizer(OptimizerConfig(**settings), n_steps=8)
  state, model = fresh()
  step = steps.make_sft_step(model, optimizer, state)
  return lambda: fresh()[0], step


@pytest.fixture(scope='module')
def trajectories():
  return tiny.conversations(tiny.policy(tiny.model(), n_slots=4), range(4))


@pytest.fixture(scope='module')
def batches(trajectories):
  """Four updates of two micro-batches each."""
  processor, vision = tiny.processor(), tiny.model().config.vision
  return [
      list(
          MicroBatches(
              [one, trajectories[0]],
              advantages=[0.0, 0.0],
              weights=[0.05, 0.1],
              processor=processor,
              vision_config=vision,
              config=dataclasses.replace(tiny.BATCH, micro_rows=1),
          )
      )
      for one in trajectories
  ]


def spoilt(batch):
  """The same update with an inf in its second micro-batch."""
  whole, part = batch
  weights = part.weights.copy()
  weights[part.loss_mask > 0] = np.inf
  return [whole, dataclasses.replace(part, weights=weights)]


def run(trained, updates, folder, **stage):
  fresh, step = trained
  state = fit.fit(
      fresh(),
      step,
      endless_batches(
          updates, batch_size=1, seed=None, transform=lambda items: items[0]
      ),
      **{
          'what': 'sft',
          'config': mini.make_config('sft'),
          'folder': folder,
          'n_steps': len(updates),
          'checkpoint_every': 1,
          **stage,
      },
  )
  rows = fit.metrics_lib.read_rows(folder / 'metrics.jsonl')
  return jax.device_get(nnx.to_pure_dict(state.params)), rows


def test_a_step_that_is_not_finite_is_as_if_it_had_not_been(
    trained, batches, tmp_path, capsys
):
  first, second, *rest = batches
  plain, rows = run(trained, [first, *rest], tmp_path / 'plain')
  params, spoilt_rows = run(
      trained, [first, spoilt(second), *rest], tmp_path / 'spoilt'
  )
  jax.tree.map(np.testing.assert_array_equal, params, plain)
  assert [row['skipped'] for row in spoilt_rows] == [0, 1, 0, 0]
  assert [row['skipped'] for row in rows] == [0, 0, 0]
  rates = [5e-4 * (1 + np.cos(np.pi * n / 8)) for n in range(3)]
  np.testing.assert_allclose([r['learning_rate'] for r in rows], rates, 1e-5)
  del spoilt_rows[1]
  for name in ('loss', 'grad_norm', 'learning_rate'):
    assert [r[name] for r in spoilt_rows] == [r[name] for r in rows]
  assert 'sft: step 2 is skipped' in capsys.readouterr().err


def test_every_row_says_how_fast_and_how_much_memory(
    trained, batches, trajectories, tmp_path
):
  """Tokens as the conversations have them, padding left out."""
  began = time.perf_counter()
  slow = 0.5

  def is_enough(state, n):
    del state
    time.sleep(slow * (n == 2))
    return False

  _, rows = run(trained, batches[:3], tmp_path, stop=is_enough)
  elapsed = time.perf_counter() - began
  shared = len(trajectories[0].token_ids)
  assert [row['n_tokens'] for row in rows] == [
      shared + len(one.token_ids) for one in trajectories[:3]
  ]
  for row in rows:
    assert row['tokens_per_second'] == row['n_tokens'] / row['seconds_step']
    assert 'device_memory_gib' not in row  # A CPU does not count it.
  seconds = [row['seconds_step'] for row in rows]
  assert sum(seconds) < elapsed and max(seconds[1:]) > slow
  status = pathlib.Path('/proc/self/status').read_text()
  peak = re.search(r'VmHWM:\s+(\d+) kB', status)
  assert peak is not None
  now = int(peak[1]) / 2**20
  assert 0.1 < rows[0]['host_memory_gib'] <= rows[-1]['host_memory_gib'] <= now


def test_the_memory_of_the_fullest_device_is_said(monkeypatch):
  full = [
      types.SimpleNamespace(memory_stats=lambda n=n: {'peak_bytes_in_use': n})
      for n in (2**30, 3 * 2**29)
  ]
  monkeypatch.setattr(jax, 'local_devices', lambda: full)
  assert metrics.peak_memory()['device_memory_gib'] == 1.5


def test_three_in_a_row_stop_the_run(trained, batches, tmp_path):
  """After two and a good one it goes on; what is kept is finite."""
  good, bad = batches[0], spoilt(batches[1])
  updates = [good, bad, bad, good, bad, bad, bad, good]
  with pytest.raises(UserError, match='stopped at step 7: the last 3 steps'):
    run(trained, updates, tmp_path)
  rows = fit.metrics_lib.read_rows(tmp_path / 'metrics.jsonl')
  assert [row['step'] for row in rows] == [*range(1, 8)]
  with checkpoint.Checkpointer(
      tmp_path / 'checkpoints', every=1, keep=2
  ) as saver:
    assert saver.latest_step() == 6
    data = endless_batches(
        updates, batch_size=1, seed=None, transform=lambda items: items[0]
    )
    kept = saver.restore(trained[0](), data)
  for leaf in jax.tree.leaves(jax.device_get((kept.params, kept.opt_state))):
    assert np.isfinite(leaf).all()
  # Started again it is no better, but for ever neither.
  with pytest.raises(UserError, match='stopped at step 7'):
    run(trained, updates, tmp_path)

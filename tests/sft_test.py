"""When SFT has learnt what it can."""

from __future__ import annotations

import json

import pytest

from gog_jax.run import RunOf
from gog_jax.train import sft
from tests import mini
from tests import report_helpers as helpers


@pytest.mark.quick
@pytest.mark.parametrize(
    ('accuracies', 'flat'),
    [
        ([], False),
        ([0.5, 0.4], False),  # Nothing before the last two.
        ([0.5, 0.5, 0.5], True),
        ([0.3, 0.4, 0.5], False),
        ([0.5, 0.4, 0.6], False),  # 0.05 is the standard error, of 100.
        ([0.5, 0.4, 0.54], True),
        ([0.5, 0.56, 0.4], False),
        ([0.3, 0.6, 0.5, 0.55], True),
        ([0.0, 0.0, 0.0], False),  # It has not begun to learn.
    ],
)
def test_flat_by_hand(accuracies, flat):
  assert sft.flat_after(accuracies, n=100) == flat


def train(workdir, finished, monkeypatch, *, steps, right):
  """SFT with so many right of eight validation questions, every 2 steps."""
  for name in ('data', 'demos'):
    (workdir / name).symlink_to(finished.workdir / name)
  run = mini.make_run(
      workdir,
      'sft',
      sft__steps=steps,
      sft__eval_every=2,
      sft__checkpoint_every=2,
      sft__n_validation=8,
  )
  numbers = iter(right)

  def rollout(run, policy, examples, **unused):
    del run, policy, unused
    n = next(numbers)
    return [
        [helpers.trajectory(example.id, right=i < n)]
        for i, example in enumerate(examples)
    ]

  monkeypatch.setattr(RunOf, 'rollout', rollout)
  mini.make_stages(run, 'sft')
  return json.loads((workdir / 'sft' / 'manifest.json').read_text())['facts']


def test_training_ends_when_accuracy_is_flat(
    tmp_path, finished, monkeypatch, capfd
):
  facts = train(
      tmp_path, finished, monkeypatch, steps=12, right=[1, 5, 5, 4, 8, 8]
  )
  assert facts['validation_accuracy'] == [1 / 8, 5 / 8, 5 / 8, 4 / 8]
  assert facts['steps'] == 8 and facts['flat']
  assert 'not flat' not in capfd.readouterr().err


@pytest.mark.slow
def test_it_says_so_where_accuracy_still_rises(
    tmp_path, finished, monkeypatch, capfd
):
  facts = train(tmp_path, finished, monkeypatch, steps=8, right=[0, 2, 5, 8])
  assert facts['steps'] == 8 and not facts['flat']
  assert 'accuracy was not flat yet after 8 steps' in capfd.readouterr().err

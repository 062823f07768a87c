"""The toy run, small enough to repeat in a test."""

from __future__ import annotations

import dataclasses
import importlib
import json
from typing import Any

import jax
import numpy as np

from gog_jax import interrupt
from gog_jax.app import walk
from gog_jax.config import from_page
from gog_jax.models import lora
from gog_jax.models import sharding
from gog_jax.rewards import levels
from gog_jax.run import build
from gog_jax.run import Run
from gog_jax.storage import files

# What the command line needs for the same run.
OVERRIDES = {
    'data.n_train': 64,
    'data.n_validation': 16,
    'data.n_test': 16,
    'data.n_hard': 16,
    'sampler.n_slots': 16,
    'sft.n_candidates': 32,
    'sft.n_demos': 16,
    'sft.no_search': 0.1,
    'sft.recovered': 0.0,
    'sft.n_validation': 0,
    'sft.steps': 4,
    'sft.batch_size': 8,
    'sft.checkpoint_every': 100,
    'grade.n_queries': 16,
    'grade.samples': 2,
    # All: what a policy of a few steps answers, and so what is Level 2, hangs
    # on how this machine rounds.
    'rl.level': -1,
    'rl.steps': 4,
    'rl.n_prompts': 4,
    'rl.group_size': 4,
    'rl.n_validation': 0,
    'rl.micro_rows': 16,  # One for each trajectory at most.
    'rl.checkpoint_every': 100,
    'rl.trajectories_every': 100,
    'eval.n_examples': 16,
    'report.n_trajectories': 10,
}


def flags(**more) -> list[str]:
  return [
      f'--config.{name.replace("__", ".")}={value}'
      for name, value in (OVERRIDES | more).items()
  ]


def make_config(stage: str, profile: str = 'toy', **changes) -> Any:
  """The config of configs/STAGE.py; `a__b=1` sets `a.b`, as a flag would."""
  page = importlib.import_module(f'configs.{stage}').get_config(profile)
  given = {k.replace('__', '.'): v for k, v in changes.items()}
  page.update_from_flattened_dict(given)
  return from_page(page, given)


def changed(config: Any, **changes) -> Any:
  """A config, or a section, with other values; `a__b=1` sets `a.b`."""
  for name, value in changes.items():
    field, _, inner = name.partition('__')
    if inner:
      value = changed(getattr(config, field), **{inner: value})
    config = dataclasses.replace(config, **{field: value})
  return config


def make_run(workdir, stage: str, **more) -> Run:
  """A run of configs/STAGE.py at this size; `a__b=1` overrides `a.b`."""
  small = {k.replace('.', '__'): v for k, v in OVERRIDES.items()}
  for section in ('sft', 'rl'):
    if f'{section}__epochs' in more:
      del small[f'{section}__steps']
  return run_of(make_config(stage, **(small | more)), workdir)


def run_of(config: Any, workdir) -> Run:
  """On one of the eight simulated devices."""
  # tests/steps_test.py has the others.
  return build(config, workdir, mesh=make_mesh())


def make_mesh() -> jax.sharding.Mesh:
  """Of the first device alone."""
  return jax.sharding.Mesh(
      np.array(jax.devices()[:1]).reshape(1, 1, 1), sharding.MESH_AXES
  )


def make_stages(run: Run, *names: str) -> None:
  """Runs single stages, without those they build on."""
  for name in names:
    policies = run.config.eval.policies if name == 'eval' else ()
    for each in [f'eval {policy}' for policy in policies] or [name]:
      walk.make(run, each)


def make_hard(run: Run) -> None:
  """Makes every graded query Level 2."""
  folder = run.workdir / 'grade'
  files.write_jsonl(
      folder / 'graded.jsonl',
      (
          dataclasses.asdict(g) | {'n_correct': 0, 'level': 2}
          for g in levels.read_grades(folder)
      ),
  )


def interrupt_at(monkeypatch, n):
  """Makes the n-th check (from 1) raise, as a signal would."""
  calls = iter(range(1, 10_000))

  def check():
    if next(calls) == n:
      raise interrupt.Interrupted(2)

  monkeypatch.setattr(interrupt, 'check', check)


def trained_params(run: Run, stage: str) -> Any:
  """What a stage has trained."""
  _, params, _ = lora.split(run.load_model(stage), run.config.trainable)
  return params


def metrics_of(run: Run, stage: str) -> list[dict]:
  """Metric rows without what a clock decides."""
  text = (run.workdir / stage / 'metrics.jsonl').read_text()
  return [without_clock(json.loads(line)) for line in text.splitlines()]


# Parts of the names of what no two runs have in common.
_CLOCK = ('seconds', 'latency', 'per_second', 'memory')


def without_clock(value):
  """What time and memory it took left out, however deep that stands."""
  if isinstance(value, list):
    return [without_clock(inner) for inner in value]
  if not isinstance(value, dict):
    return value
  return {
      name: without_clock(inner)
      for name, inner in value.items()
      if not any(part in name for part in _CLOCK)
  }


def score_by_ids(example, trajectory, *, config, call_cost=0.0):
  """A reward with variance whatever the policy has learnt: from its ids."""
  del example, config, call_cost
  sampled = trajectory.token_ids[trajectory.loss_mask > 0]
  value = float(np.mean(sampled % 7) / 7)
  return dataclasses.replace(
      trajectory,
      reward=value,
      reward_parts={
          'accuracy': value, 'format': 0.0, 'exact_match': 0.0, 'f1': 0.0,
      },
  )


"""Settings that must precede the first import of jax."""

from __future__ import annotations

import os
import shutil

import hypothesis
import pytest

_FLAGS = (
    # Eight simulated devices for the tests of sharding; others use the first.
    '--xla_force_host_platform_device_count=8',
    # Tests compile for longer than they run: this halves the compile time.
    '--xla_backend_optimization_level=0',
)
# What the caller has set comes last, and wins.
os.environ['XLA_FLAGS'] = ' '.join([*_FLAGS, os.environ.get('XLA_FLAGS', '')])
os.environ.setdefault('JAX_PLATFORMS', 'cpu')
# No test may reach for the network, not even to look for a newer file.
os.environ.setdefault('HF_HUB_OFFLINE', '1')

# Property tests draw 300 cases; `--hypothesis-profile=long` draws 5,000.
for _name, _cases in (('default', 300), ('long', 5_000)):
  hypothesis.settings.register_profile(
      _name,
      max_examples=_cases,
      deadline=None,
      derandomize=_name == 'default',  # A red one is red again.
      suppress_health_check=list(hypothesis.HealthCheck),
  )
hypothesis.settings.load_profile('default')


@pytest.fixture(scope='session')
def prepared(tmp_path_factory):
  """Data and demos, shared."""
  from tests import mini  # Imports jax: not before the settings above.

  workdir = tmp_path_factory.mktemp('prepared')
  mini.make_stages(mini.make_run(workdir, 'rl'), 'data', 'demos')
  return workdir


@pytest.fixture(scope='session')
def finished(prepared, tmp_path_factory):
  """An uninterrupted SFT and grading on top of it: a run."""
  from tests import mini

  workdir = tmp_path_factory.mktemp('run') / 'finished'
  shutil.copytree(prepared, workdir)
  run = mini.make_run(workdir, 'rl')
  mini.make_stages(run, 'sft', 'grade')
  return run

"""scripts/aot_compile.py: the toy compiled for a slice that is not there."""

from __future__ import annotations

import os
import pathlib
import re
import subprocess
import sys

import jax
import pytest

from gog_jax import models
from gog_jax.aot import compiler
from gog_jax.aot import describe
from gog_jax.aot.environment import ENVIRONMENT
from gog_jax.aot.plan import make_plan
from gog_jax.aot.program import Compiled
from gog_jax.errors import UserError
from gog_jax.models import sharding
from gog_jax.models.folders import TOY_BASE
from tests import helpers
from tests import mini

ROOT = pathlib.Path(__file__).parents[1]
SCRIPT = ROOT / 'scripts' / 'aot_compile.py'
TABLE = """# Title

| profile | chips | tokens | more |
|---|---|---|---|
{begin}
| other, full | v5e:2x4 | 288 | kept |
{end}

after
"""


def require_libtpu():
  helpers.require('libtpu')


def run(*args, config='configs/rl.py'):
  done = subprocess.run(
      [sys.executable, str(SCRIPT), f'--config={config}', *args],
      cwd=ROOT,
      env={k: v for k, v in os.environ.items() if k != 'XLA_FLAGS'},
      capture_output=True,
      text=True,
      check=False,
  )
  return done.returncode, done.stdout, done.stderr.strip().splitlines()


@pytest.mark.slow
def test_the_toy_fits(tmp_path):
  require_libtpu()
  readme = tmp_path / 'README.md'
  readme.write_text(TABLE.format(begin=describe.BEGIN, end=describe.END))
  code, out, errors = run(
      '--topology=v5e:2x4', '--config.trainable=full', f'--readme={readme}',
      '--config.sampler.n_slots=30',
  )  # fmt: skip
  assert code == 0, (out, errors)
  step, update, prefill, decode, vit = out.split(', compiled in ')[1:]
  # In the HLO that would run.
  masks, kernels = ('bidirectional', 'causal'), ('dkv', 'dq', 'fwd')
  called = ', '.join(f'{mask} {what}' for mask in masks for what in kernels)
  assert f'splash attention: {called}\n' in step
  # An image of the toy's is smaller than three windows.
  for other in (update, prefill, decode, vit):
    assert 'splash attention: none' in other
  # 1.6 million gradients in float32, twice 7 eighths of them.
  assert 'all-reduce 0.01' in step
  assert 'all-gather' not in step  # Parameters are on every device.
  assert 'verdict: it fits' in vit
  lines = readme.read_text().splitlines()
  assert lines[5] == '| other, full | v5e:2x4 | 288 | kept |'
  assert lines[6].startswith('| toy, full, n_slots 30 | v5e:2x4 | 288 |')
  assert lines[7] == describe.END


@pytest.mark.slow
def test_what_does_not_fit():
  """Two million slots' cache; the compiler says so of the two that use it."""
  require_libtpu()
  code, out, errors = run(
      '--topology=v5e:2x2', '--config.sampler.n_slots=1048576'
  )
  assert code == 1, (out, errors)
  assert 'gradients, compiled' in out
  assert 'TOO LARGE by ' in out
  assert re.search(r'prefill: TOO LARGE by itself by \d+\.\d\d GB', out)
  assert 'verdict: IT DOES NOT FIT' in out


@pytest.fixture
def as_the_script_does(monkeypatch):
  """The environment that it starts compilers in."""
  require_libtpu()
  jax.devices()  # This process reads its XLA_FLAGS once, and has them now.
  for name, value in ENVIRONMENT.items():
    monkeypatch.setenv(name, value)
  monkeypatch.delenv('XLA_FLAGS')


@pytest.mark.usefixtures('as_the_script_does')
def test_decoding_updates_the_cache_in_place(tmp_path):
  """Nothing as large as a tenth of it lives beside it."""
  long = {'rollout__max_context': 8192, 'batch__row_tokens': 8192}
  config = mini.make_run(tmp_path, 'rl', **long).config
  backbone = models.read_config(TOY_BASE)
  result = compiler.compile_program(config, backbone, 'v5e:2x2', 'decode')
  assert isinstance(result, Compiled)
  text = backbone.text
  n_floats = 2 * text.n_layers * text.n_kv_heads * text.head_dim * 8192
  assert result.temp < 0.1 * 4 * n_floats * config.sampler.n_slots / 4


def test_every_copy_of_what_is_trained_is_counted(tmp_path):
  """As rl.train makes them: of an update's sampler, and of a later update."""
  found = []
  for dtype, sync_every, updates in (
      ('float32', 1, 1),
      ('float32', 1, 2),
      ('float32', 2, 1),
      ('bfloat16', 1, 1),
      ('bfloat16', 1, 2),
      ('bfloat16', 2, 1),
  ):
    options = {
        'model__dtype': dtype,
        'rl__sync_every': sync_every,
        'rl__updates_per_batch': updates,
    }
    config = mini.make_run(tmp_path, 'rl', **options).config
    mesh = sharding.make_mesh(2, 2, 2)
    plan = make_plan(config, models.read_config(TOY_BASE), mesh)
    held, gradients = plan.held, plan.programs['gradients']
    copy = held['reference']
    assert held['trained parameters'] == copy * (2 if dtype != 'float32' else 1)
    sampler = held.get("sampler's copy", 0)
    assert sampler in (0, copy)
    found.append((sampler // copy, gradients.own_bytes // copy))
  assert [n for n, _ in found] == [0, 0, 1, 1, 1, 1]
  own = [n for _, n in found]  # Sums of gradients, too.
  assert own[0] == own[1] == own[2]
  assert own[3] + 1 == own[4] == own[5]
  free = mini.make_run(tmp_path, 'rl', rl__loss__kl_coef=0.0).config
  plan = make_plan(free, models.read_config(TOY_BASE), mesh)
  assert plan.held['reference'] == 0
  assert plan.programs['gradients'].flops < gradients.flops


class Abort:
  """Ends the process that it is sent to."""

  def __reduce__(self):
    return os.abort, ()


@pytest.mark.usefixtures('as_the_script_does')
def test_a_compiler_that_breaks_down(tmp_path):
  """Its process ends and ours goes on; our own errors keep their traceback."""
  backbone = models.read_config(TOY_BASE)
  result = compiler.compile_program(Abort(), backbone, 'v5e:2x2', 'decode')
  assert result == compiler.Broken('exit code -6')
  config = mini.make_run(tmp_path, 'rl').config
  with pytest.raises(RuntimeError, match="KeyError: 'no such program'"):
    compiler.compile_program(config, backbone, 'v5e:2x2', 'no such program')


@pytest.mark.quick
def test_the_line_the_compiler_ends_with():
  fatal = 'F1125 18:07:47.96 27948 fusion_util.cc:5409] Check failed: x'
  text = f'Failed to find bounds\n{fatal}\n*** Check failure stack trace: ***\n'
  assert compiler.fatal_line(text, -6) == fatal
  assert compiler.fatal_line('Failed to find bounds\n', 3) == 'exit code 3'


@pytest.mark.quick
def test_rows_replace_their_like():
  text = TABLE.format(begin=describe.BEGIN, end=describe.END)
  row = '| other, full | v5e:2x4 | 288 | new |'
  assert describe.put_row(text, row) == text.replace('kept', 'new')
  twice = describe.put_row(describe.put_row(text, '| a | b | 1 | x |'), row)
  assert twice.count('\n|') == 4
  assert twice.endswith(f'| a | b | 1 | x |\n{describe.END}\n\nafter\n')
  with pytest.raises(UserError, match='has no table'):
    describe.put_row('# Title', row)


@pytest.mark.parametrize(
    ('args', 'words'),
    [
        ([], ['--topology=', 'v5e, v5p, v6e']),
        (['--topology=h100:8'], ['h100:8', 'v5e, v5p, v6e']),
        (['--topology=v5e:3x5'], ['v5e:3x5', 'not divisible']),
        (['--topology=v5e:2x2x2'], ['v5e:2x2x2', '2 sides', 'v5e:2x2']),
        (['--topology=v5p:2x2'], ['v5p:2x2', '3 sides', 'v5p:2x2x1']),
        (
            ['--topology=v5e:2x4', '--config.mesh.tensor=3'],
            ['must multiply to the 8 devices'],
        ),
        (
            ['--topology=v5e:2x4', '--config.batch.row_tokens=128'],
            ['max_context=288', 'batch.row_tokens=128'],
        ),
        (['--topology=v5e:2x4', '--config.sampler.nslots=1'], ['n_slots']),
        (['--topology=v5e:2x4', '--readme=LICENSE'], ['has no table']),
        (['--topology=v5e:2x4', '--readme=/no/such'], ['cannot be read']),
    ],
)
def test_what_a_user_mistypes(args, words):
  require_libtpu()
  code, out, errors = run(*args)
  assert code == 2, (out, errors)
  assert len(errors) == 1, errors
  for word in words:
    assert word in errors[0]

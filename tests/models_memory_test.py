"""What loading a folder takes of the host beside the parameters themselves."""

from __future__ import annotations

import dataclasses
import json
import os
import pathlib
import subprocess
import sys

from flax import nnx
import jax.numpy as jnp
import numpy as np
import pytest

from gog_jax import models
from tests import helpers

pytestmark = pytest.mark.slow

ROOT = pathlib.Path(__file__).parents[1]

# In a process of its own: what this one has touched is not to be counted.
SCRIPT = """
import json, sys, time
from flax import nnx
import jax
import jax.numpy as jnp
import numpy as np
from gog_jax import models
from gog_jax.models import sharding

def status(field):
  for line in open('/proc/self/status'):
    if line.startswith(field + ':'):
      return int(line.split()[1]) * 1024

folder, sizes = sys.argv[1], json.loads(sys.argv[2])
mesh = sizes and sharding.make_mesh(*sizes)
jax.block_until_ready([jax.device_put(0, device) for device in jax.devices()])
before = status('VmRSS')
start = time.monotonic()
model, _ = models.from_pretrained(folder, mesh=mesh)
seconds = time.monotonic() - start
peak = status('VmHWM')
state = dict(nnx.to_flat_state(nnx.state(model)))
values = {'.'.join(path): leaf.get_value() for path, leaf in state.items()}
print(json.dumps({
    'seconds': round(seconds, 1),
    'before': before,
    'peak': peak,
    'resident': sum(
        shard.data.nbytes for x in values.values()
        for shard in x.addressable_shards
    ),
    'largest': max(x.nbytes for x in values.values()),
    'sums': {
        name: int(np.asarray(x).view(np.uint16).sum(dtype=np.uint64))
        for name, x in values.items()
    },
}))
"""


@pytest.fixture(scope='module')
def big(tmp_path_factory):
  """1.7 GB in several shards, and the sum of each parameter's bits."""
  tiny = helpers.tiny_config()
  config = dataclasses.replace(
      tiny,
      text=dataclasses.replace(
          tiny.text,
          vocab_size=100_000,
          width=2048,
          n_layers=11,
          n_heads=128,
          ffn=8192,
      ),
      vision=dataclasses.replace(tiny.vision, out_width=2048),
  )
  graphdef, state = nnx.split(models.abstract(config, dtype=jnp.bfloat16))
  sums, random = {}, helpers.rng()

  def fill(path, leaf):
    bits = random.integers(0, 2**15 - 2**8, leaf.shape, np.uint16)
    sums['.'.join(path)] = int(bits.sum(dtype=np.uint64))
    return leaf.replace(jnp.asarray(bits.view(jnp.bfloat16)))

  flat = {path: fill(path, leaf) for path, leaf in nnx.to_flat_state(state)}
  model = nnx.merge(graphdef, nnx.from_flat_state(flat))
  folder = tmp_path_factory.mktemp('big')
  models.save_pretrained(model, folder, max_shard_bytes=4 * 10**8)
  weights = list(folder.glob('*.safetensors'))
  assert sum(path.stat().st_size for path in weights) >= 1.5e9
  assert len(weights) >= 4
  return folder, sums


@pytest.mark.parametrize('mesh', [None, (2, 2, 2), (1, 8, 1)], ids=str)
def test_peak_beside_the_parameters(big, mesh):
  folder, sums = big
  result = subprocess.run(
      [sys.executable, '-c', SCRIPT, folder, json.dumps(mesh)],
      check=True,
      capture_output=True,
      text=True,
      cwd=ROOT,
      env=os.environ | {
          'XLA_FLAGS': f'--xla_force_host_platform_device_count='
          f'{np.prod(mesh or 1)}'
      },
  )
  found = json.loads(result.stdout.splitlines()[-1])
  beside = found['peak'] - found['before'] - found['resident']
  assert found.pop('sums') == sums
  print(f'mesh {mesh}: {beside / 2**20:.0f} MiB beside the parameters; {found}')
  assert beside <= 2 * found['largest'] + 2**30
  # Much less than that, in fact: about one device's part of a parameter.
  assert beside <= found['largest'] + 2**28

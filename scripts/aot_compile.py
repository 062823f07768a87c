"""Whether a page's RL fits a TPU slice, asked of the TPU compiler, without one.

    pip install libtpu
    python scripts/aot_compile.py --config=configs/rl.py:qwen3_vl_8b \
      --topology=v5e:8x8 [--config.FIELD=VALUE ...] [--readme=README.md]

Compiles GRPO's gradients of a micro-batch, the optimizer's step, prefill,
decoding and the ViT, each in a process of its own, and prints what each chip
holds, whether that fits, operations (counted by us: the compiler counts a
loop's body once), bytes sent between chips, and the least time a call can take
on the chip's published rates. Weights are not needed: sizes are the profile's
published ones, or those of --config.model.path.

`--readme` also writes the row of the table there. Exit code 0: it fits; 1: it
does not; 2: something is missing, or the compiler broke down.
"""

from __future__ import annotations

import concurrent.futures
import os
import pathlib
import sys
from typing import Any

# Pages import each other from the clone's root.
sys.path.insert(0, str(pathlib.Path(__file__).parents[1]))

from gog_jax.aot.environment import ENVIRONMENT

os.environ |= ENVIRONMENT

from absl import app
from absl import flags

from configs import rl as rl_page
from gog_jax import main as main_lib
from gog_jax import models
from gog_jax.aot import compiler
from gog_jax.aot import describe
from gog_jax.aot.plan import make_plan
from gog_jax.aot.program import Compiled
from gog_jax.chat import load_dialect
from gog_jax.config import from_page
from gog_jax.errors import UserError
from gog_jax.models.config import VLMConfig
from gog_jax.models.folders import check_family
from gog_jax.models.folders import TOY_BASE
from gog_jax.rollout.limits import limits_of

_TOPOLOGY = flags.DEFINE_string(
    'topology', None, 'A slice, e.g. v5e:2x4 (8 chips) or v5p:2x2x4 (16).'
)
_README = flags.DEFINE_string(
    'readme', None, 'A file whose table gets, or renews, this row.'
)

_AT_ONCE = 2  # Programs being compiled, each in a process of its own.


def backbone(c: Any) -> VLMConfig:
  """Of --config.model.path, or the published one of the profile's name.

  Raises:
    UserError: Neither is known, or the folder is of another family.
  """
  if c.model.path == TOY_BASE.name:
    return models.read_config(TOY_BASE)
  if not c.model.path:
    return models.published_config(c.profile.removesuffix('_thinking'))
  config = models.read_config(models.local_folder(c.model.path))
  check_family(c.profile, config.family)
  return config


def main(argv: list[str]) -> None:
  if len(argv) > 1:
    raise UserError(f'unexpected argument {argv[1]!r}; flags start with --')
  if flags.FLAGS.config is None:
    raise UserError('pass --config=configs/rl.py:qwen3_vl_8b, or another page')
  c = from_page(flags.FLAGS.config)
  limits_of(c, load_dialect(c.model.dialect))  # Making them is a check.
  readme = pathlib.Path(_README.value) if _README.value else None
  if readme:
    describe.put_row(_read(readme), '|')
  config, topology = backbone(c), _TOPOLOGY.value or ''
  mesh, chip = compiler.topology_mesh(topology, c.mesh)
  plan = make_plan(c, config, mesh)
  print(describe.describe_plan(c, config, plan, mesh, chip), flush=True)

  def compile_one(name):
    return compiler.compile_program(c, config, topology, name)

  compiled = {}
  with concurrent.futures.ThreadPoolExecutor(_AT_ONCE) as pool:
    for name, result in zip(
        plan.programs,
        pool.map(compile_one, plan.programs),
        strict=True,
    ):
      compiled[name] = result
      print(
          describe.describe_result(name, result, plan, mesh.size, chip),
          flush=True,
      )
  if any(isinstance(one, compiler.Broken) for one in compiled.values()):
    print('verdict: NOT KNOWN, the compiler broke down')
    sys.exit(2)
  if any(
      describe.missing_of(plan.programs[name], one)
      for name, one in compiled.items()
      if isinstance(one, Compiled)
  ):
    print('verdict: WRONG, kernels are missing')
    sys.exit(2)
  if readme:
    usual = from_page(rl_page.get_config(c.profile))
    row = describe.table_row(
        c, usual, topology, plan, compiled, mesh.size, chip
    )
    readme.write_text(describe.put_row(_read(readme), row))
  fits = describe.needed(compiled) <= chip.memory
  print('verdict: it fits' if fits else 'verdict: IT DOES NOT FIT')
  sys.exit(0 if fits else 1)


def _read(path: pathlib.Path) -> str:
  try:
    with path.open('r+') as f:  # It will be written, hours later perhaps.
      return f.read()
  except OSError as error:
    raise UserError(
        f'--readme={path} cannot be read and written ({error.strerror})'
    ) from error


if __name__ == '__main__':
  try:
    app.run(main, flags_parser=main_lib.parse_flags)
  except UserError as error:
    print(f'aot_compile: {" ".join(str(error).split())}', file=sys.stderr)
    sys.exit(2)

"""Whether a page's RL fits a TPU slice, asked of the TPU compiler, without one.

    pip install libtpu
    python scripts/aot_compile.py --config=configs/rl.py:qwen3_vl_8b \
      --topology=v5e:8x8 [--config.FIELD=VALUE ...] [--readme=README.md]

Compiles the GRPO step with one row a chip, prefill, decoding and the ViT, and
prints what each chip holds, whether that fits, operations (counted by us:
the compiler counts a loop's body once), bytes sent between chips, and the least
time a call can take on the chip's published rates. Weights are not needed:
sizes are the profile's published ones, or those of --config.model.path.

`--readme` also writes the row of the table there. Exit code 0: it fits; 1: it
does not; 2: something is missing.
"""

from __future__ import annotations

import os
import pathlib
import sys
from typing import Any

# Before jax is imported: a CPU traces; libtpu asks nobody what machine this is,
# does not complain of it, and lets others compile at the same time.
os.environ |= {
    'JAX_PLATFORMS': 'cpu',
    'TPU_SKIP_MDS_QUERY': '1',
    'TPU_ACCELERATOR_TYPE': 'v5litepod-8',
    'TPU_WORKER_HOSTNAMES': 'localhost',
    'TPU_WORKER_ID': '0',
    'TPU_MIN_LOG_LEVEL': '3',
    'TPU_STDERR_LOG_LEVEL': '3',
    'ALLOW_MULTIPLE_LIBTPU_LOAD': '1',
}

# Pages import each other from the clone's root.
sys.path.insert(0, str(pathlib.Path(__file__).parents[1]))

from absl import app
from absl import flags
from jax.experimental import topologies
from jax.sharding import Mesh

from gog_jax import config_check
from gog_jax import main as main_lib
from gog_jax import models
from gog_jax import sharding
from gog_jax.aot import costs
from gog_jax.aot import program as program_lib
from gog_jax.aot.plan import make_plan
from gog_jax.errors import UserError
from gog_jax.models.config import VLMConfig
from gog_jax.run import Run
from gog_jax.run import TOY_BASE

_TOPOLOGY = flags.DEFINE_string(
    'topology', None, 'A slice, e.g. v5e:2x4 (8 chips) or v5p:2x2x4 (16).'
)
_README = flags.DEFINE_string(
    'readme', None, 'A file whose table gets, or renews, this row.'
)

BEGIN = '<!-- rows by scripts/aot_compile.py -->'
END = '<!-- end of rows -->'


def topology_mesh(name: str | None, sizes: Any) -> tuple[Mesh, costs.Chip]:
  """A mesh over a slice that is not there, and its chip.

  Raises:
    UserError: libtpu is missing, or knows no such slice, or the mesh does not
      fit it.
  """
  known = ', '.join(costs.CHIPS)
  name = name or ''
  generation = name.partition(':')[0]
  if generation not in costs.CHIPS:
    raise UserError(
        f'--topology={name}: name a slice of one of {known}, '
        'e.g. --topology=v5e:2x4'
    )
  try:
    devices = topologies.get_topology_desc(
        platform='tpu', topology_name=name
    ).devices
  except (RuntimeError, ValueError, NotImplementedError) as error:
    if not _has_libtpu():
      raise UserError(
          'the TPU compiler is missing: pip install libtpu (Linux only)'
      ) from error
    raise UserError(
        f'--topology={name}: the TPU compiler refuses it ({error})'
    ) from error
  mesh = sharding.make_mesh(**sizes, devices=devices)
  return mesh, costs.CHIPS[generation]


def _has_libtpu() -> bool:
  try:
    import libtpu  # noqa: F401  # pyright: ignore[reportMissingImports]
  except ImportError:
    return False
  return True


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
  config_check.check_family(c.profile, config.family)
  return config


def describe(
    c: Any,
    config: VLMConfig,
    plan: program_lib.Plan,
    mesh: Mesh,
    chip: costs.Chip,
) -> str:
  """What is compiled, and what each chip holds all the time."""
  n_images = c.batch.row_patches // (
      c.model.max_image_tokens * config.vision.merge_size**2
  )
  axes = ' x '.join(f'{axis} {n}' for axis, n in mesh.shape.items())
  lines = [
      f'{c.profile}, {_trained(c)}, {mesh.size} chips ({axes}), '
      f'{_gb(chip.memory)} GB each for programs',
      f'a step: {plan.n_rows} rows of {c.batch.row_tokens:,} tokens and '
      f'{c.batch.row_patches:,} patches ({n_images} of the largest images)',
      f'the sampler: {plan.n_slots} slots of {c.rollout.max_context:,} tokens, '
      f'{plan.n_images} images at once',
      'held on each chip, GB:',
  ]
  lines += [f'  {name:20}{_gb(n):>8}' for name, n in plan.held.items()]
  lines.append(f'  {"together":20}{_gb(sum(plan.held.values())):>8}')
  return '\n'.join(lines)


def outcome(
    program: program_lib.Program,
    compiled: program_lib.Compiled,
    n_chips: int,
    chip: costs.Chip,
) -> str:
  """A program, in three lines."""
  free = chip.memory - compiled.peak
  fits = f'fits, {_gb(free)} free'
  if free < 0:
    fits = f'TOO LARGE by {_gb(-free)}'
  least = _least(program, compiled, n_chips, chip)
  sent = ', '.join(
      f'{name} {_gb(n)}' for name, n in compiled.sent.items() if n
  )
  return (
      f'  memory: peak {_gb(compiled.peak)} GB a chip ({fits}): own arguments '
      f'{_gb(program.own_bytes)}, activations and temporary '
      f'{_gb(compiled.temp)}\n'
      f'  work: {program.flops / n_chips / 1e12:.4g} TFLOP a chip; sent, GB a '
      f'chip: {sent or "nothing"}\n'
      f'  at least {_time(least.seconds)} for {program.unit}, bound by '
      f'{least.bound} (compute {_time(least.compute)}, memory '
      f'{_time(least.memory)}, links {_time(least.links)}); splash attention: '
      f'{"yes" if compiled.has_splash else "no"}'
  )


def _least(program, compiled, n_chips, chip) -> costs.Roofline:
  return costs.roofline(
      chip,
      flops=program.flops / n_chips,
      memory_bytes=program.memory_bytes,
      link_bytes=sum(compiled.sent.values()),
  )


def table_row(
    c: Any,
    plan: program_lib.Plan,
    compiled: dict[str, program_lib.Compiled | program_lib.TooLarge],
    n_chips: int,
    chip: costs.Chip,
) -> str:
  """A row of the README's table; its first three cells name it."""
  step = compiled['GRPO step']
  held = plan.held
  parts = [
      held['frozen parameters']
      + held['trained parameters']
      + held['reference']
      + held.get("sampler's copy", 0),
      held['optimizer'],
      held['KV cache'],
  ]
  peak = max(_peak(one) for one in compiled.values())
  free = chip.memory - peak
  fits = _gb(free) if free >= 0 else f'none, {_gb(-free)} too much'
  flops = plan.programs['GRPO step'].flops / n_chips
  temp = sent = '-'
  if isinstance(step, program_lib.Compiled):
    temp, sent = _gb(step.temp), _gb(sum(step.sent.values()))

  def least(name):
    one = compiled[name]
    if isinstance(one, program_lib.TooLarge):
      return '-'
    bound = _least(plan.programs[name], one, n_chips, chip)
    return f'{_time(bound.seconds)} ({bound.bound})'

  cells = [
      f'{c.profile}, {_trained(c)}',
      str(_TOPOLOGY.value),
      f'{c.batch.row_tokens:,}',
      *map(_gb, parts),
      temp,
      _gb(peak),
      fits,
      f'{flops / 1e12:,.0f}',
      sent,
      least('GRPO step'),
      least('decode'),
  ]
  return f'| {" | ".join(cells)} |'


def _peak(compiled: program_lib.Compiled | program_lib.TooLarge) -> float:
  """Bytes on a chip; of what was refused, as far as the compiler said."""
  if isinstance(compiled, program_lib.Compiled):
    return compiled.peak
  return compiled.needed or float('inf')


def put_row(text: str, row: str) -> str:
  """The text with the row in its table: in the place of its like, or last.

  Raises:
    UserError: There is no table.
  """
  before, begin, rest = text.partition(BEGIN + '\n')
  table, end, after = rest.partition(END)
  if not begin or not end:
    raise UserError(
        f'--readme has no table: it needs the lines {BEGIN} and {END}, a '
        'table between them'
    )
  name = lambda line: [cell.strip() for cell in line.split('|')[1:4]]
  lines = table.strip().splitlines()
  places = [i for i, line in enumerate(lines) if name(line) == name(row)]
  if places:
    lines[places[0]] = row
  else:
    lines.append(row)
  return before + begin + '\n'.join(lines) + '\n' + end + after


def _trained(c: Any) -> str:
  return f'LoRA r {c.lora.rank}' if c.trainable == 'lora' else c.trainable


def _gb(n: float) -> str:
  return f'{n / 1e9:.2f}'


def _time(seconds: float) -> str:
  return f'{seconds:.2f} s' if seconds >= 1 else f'{seconds * 1e3:.2f} ms'


def main(argv: list[str]) -> None:
  if len(argv) > 1:
    raise UserError(f'unexpected argument {argv[1]!r}; flags start with --')
  if flags.FLAGS.config is None:
    raise UserError('pass --config=configs/rl.py:qwen3_vl_8b, or another page')
  c: Any = flags.FLAGS.config.copy_and_resolve_references()
  config_check.check(c)
  Run(c, '.').limits  # noqa: B018  Making them is a check.
  readme = pathlib.Path(_README.value) if _README.value else None
  if readme:
    put_row(_read(readme), '|')
  config = backbone(c)
  mesh, chip = topology_mesh(_TOPOLOGY.value, c.mesh)
  plan = make_plan(c, config, mesh)
  print(describe(c, config, plan, mesh, chip), flush=True)
  compiled: dict[str, Any] = {}
  for name, program in plan.programs.items():
    try:
      compiled[name] = plan.compile(name)
    except program_lib.TooLarge as error:
      compiled[name] = error
      more = ''
      if error.needed:
        more = f' by {_gb(error.needed - chip.memory)} GB'
      print(f'{name}: TOO LARGE by itself{more}: {error}', flush=True)
      continue
    print(f'{name}, compiled in {compiled[name].seconds:.0f} s', flush=True)
    print(outcome(program, compiled[name], mesh.size, chip), flush=True)
  if readme:
    row = table_row(c, plan, compiled, mesh.size, chip)
    readme.write_text(put_row(_read(readme), row))
  fits = all(_peak(one) <= chip.memory for one in compiled.values())
  print('verdict: it fits' if fits else 'verdict: IT DOES NOT FIT')
  sys.exit(0 if fits else 1)


def _read(path: pathlib.Path) -> str:
  try:
    return path.read_text()
  except OSError as error:
    raise UserError(
        f'--readme={path} cannot be read ({error.strerror})'
    ) from error


if __name__ == '__main__':
  try:
    app.run(main, flags_parser=main_lib.parse_flags)
  except UserError as error:
    print(f'aot_compile: {" ".join(str(error).split())}', file=sys.stderr)
    sys.exit(2)

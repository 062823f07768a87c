"""Compiled programs as text: the report, and the row of README's table."""

from __future__ import annotations

import operator
from typing import Any

from jax.sharding import Mesh

from gog_jax.aot import costs
from gog_jax.aot.compiler import Broken
from gog_jax.aot.program import Compiled
from gog_jax.aot.program import Plan
from gog_jax.aot.program import Program
from gog_jax.aot.program import TooLarge
from gog_jax.errors import UserError
from gog_jax.models.config import VLMConfig

BEGIN = '<!-- rows by scripts/aot_compile.py -->'
END = '<!-- end of rows -->'

# Fields that figures hang on, other than those that a row has cells for.
_SIZES = (
    'mesh.data',
    'mesh.fsdp',
    'mesh.tensor',
    'model.attention',
    'model.dtype',
    'model.logprob_chunk',
    'model.max_image_tokens',
    'model.remat',
    'model.scan',
    'sampler.chunk',
    'sampler.n_slots',
    'batch.row_patches',
    'rl.micro_rows',
    'rl.sync_every',
    'rl.updates_per_batch',
    'lora.vision',
)


def describe_plan(
    c: Any,
    config: VLMConfig,
    plan: Plan,
    mesh: Mesh,
    chip: costs.Chip,
) -> str:
  """The programs' sizes, and what each chip holds throughout."""
  n_images = c.batch.row_patches // (
      c.model.max_image_tokens * config.vision.merge_size**2
  )
  axes = ' x '.join(f'{axis} {n}' for axis, n in mesh.shape.items())
  lines = [
      f'{c.profile}, {_trained(c)}, {mesh.size} chips ({axes}), '
      f'{_gb(chip.memory)} GB each for programs',
      f'a micro-batch: {plan.n_rows} rows of {c.batch.row_tokens:,} tokens, '
      f'{c.batch.row_patches:,} patches ({n_images} of the largest images)',
      f'the sampler: {plan.n_slots} slots of {c.rollout.max_context:,} tokens, '
      f'{plan.n_images} images at once',
      'held on each chip, GB:',
  ]
  lines += [f'  {name:20}{_gb(n):>8}' for name, n in plan.held.items()]
  lines.append(f'  {"together":20}{_gb(sum(plan.held.values())):>8}')
  return '\n'.join(lines)


def describe_result(
    name: str,
    result: Compiled | TooLarge | Broken,
    plan: Plan,
    n_chips: int,
    chip: costs.Chip,
) -> str:
  """How compiling a program ended."""
  if isinstance(result, Broken):
    return f'{name}: the compiler broke down: {result.message}'
  if isinstance(result, TooLarge):
    more = ''
    if result.needed:
      more = f' by {_gb(result.needed - chip.memory)} GB'
    return f'{name}: TOO LARGE by itself{more}: {result}'
  program = plan.programs[name]
  return (
      f'{name}, compiled in {result.seconds:.0f} s\n'
      + _outcome(program, result, n_chips, chip)
  )


def _outcome(
    program: Program,
    compiled: Compiled,
    n_chips: int,
    chip: costs.Chip,
) -> str:
  """A program, in four lines."""
  free = chip.memory - compiled.peak - compiled.code
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
      f'{_gb(compiled.temp)}; code {_gb(compiled.code)}\n'
      f'  work: {program.flops / n_chips / 1e12:.4g} TFLOP a chip; sent, GB a '
      f'chip: {sent or "nothing"}\n'
      f'  at least {_time(least.seconds)} for {program.unit}, bound by '
      f'{least.bound} (compute {_time(least.compute)}, memory '
      f'{_time(least.memory)}, links {_time(least.links)})'
      f'\n  splash attention: {", ".join(sorted(compiled.splash)) or "none"}'
      + ''.join(f'; MISSING: {one}' for one in missing_of(program, compiled))
  )


def missing_of(program: Program, compiled: Compiled) -> list[str]:
  """Kernels that a program should call and does not."""
  return sorted(program.splash - compiled.splash)


def _least(program, compiled, n_chips, chip) -> costs.Roofline:
  return costs.roofline(
      chip,
      flops=program.flops / n_chips,
      memory_bytes=program.memory_bytes,
      link_bytes=sum(compiled.sent.values()),
  )


def table_row(
    c: Any,
    usual: Any,
    topology: str,
    plan: Plan,
    compiled: dict[str, Compiled | TooLarge],
    n_chips: int,
    chip: costs.Chip,
) -> str:
  """A row of the README's table; its first three cells name it.

  Args:
    c: The config; with `usual`, that of its profile, it gives the name.
    usual: See there.
    topology: The slice.
    plan: What was compiled,
    compiled: and what became of it.
    n_chips: Of the slice.
    chip: One of them.
  """
  step = compiled['gradients']
  held = plan.held
  parts = [
      held['frozen parameters']
      + held['trained parameters']
      + held['reference']
      + held.get("sampler's copy", 0),
      held['optimizer'],
      held['KV cache'],
  ]
  free = chip.memory - needed(compiled)
  fits = _gb(free) if free >= 0 else f'none, {_gb(-free)} too much'
  if any(isinstance(one, TooLarge) for one in compiled.values()):
    fits = f'none, at least {_gb(-free)} too much'
  flops = plan.programs['gradients'].flops / n_chips
  temp = sent = '-'
  if isinstance(step, Compiled):
    temp, sent = _gb(step.temp), _gb(sum(step.sent.values()))

  def least(name):
    one = compiled[name]
    if isinstance(one, TooLarge):
      return '-'
    bound = _least(plan.programs[name], one, n_chips, chip)
    return f'{_time(bound.seconds)} ({bound.bound})'

  cells = [
      ', '.join([c.profile, _trained(c), *_unlike_profile(c, usual)]),
      topology,
      f'{c.batch.row_tokens:,}',
      *map(_gb, parts),
      temp,
      _gb(_peak(compiled)),
      _gb(_code(compiled)),
      fits,
      f'{flops / 1e12:,.0f}',
      sent,
      least('gradients'),
      least('decode'),
  ]
  return f'| {" | ".join(cells)} |'


def needed(compiled: dict[str, Compiled | TooLarge]) -> float:
  """Bytes on a chip: the highest peak, and the code of all programs."""
  return _peak(compiled) + _code(compiled)


def _peak(compiled: dict[str, Compiled | TooLarge]) -> float:
  """The highest; of what is refused, its size by itself, if that is known."""
  return max(
      one.peak
      if isinstance(one, Compiled)
      else one.needed or float('inf')
      for one in compiled.values()
  )


def _code(compiled: dict[str, Compiled | TooLarge]) -> int:
  return sum(
      one.code for one in compiled.values() if isinstance(one, Compiled)
  )


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


def _unlike_profile(c: Any, usual: Any) -> list[str]:
  """What a row's figures hang on and no other cell of it says."""
  of = operator.attrgetter(*_SIZES)
  return [
      f'{name.partition(".")[2]} {value}'
      for name, value, before in zip(_SIZES, of(c), of(usual), strict=True)
      if value != before
  ]


def _gb(n: float) -> str:
  return f'{n / 1e9:.2f}'


def _time(seconds: float) -> str:
  return f'{seconds:.2f} s' if seconds >= 1 else f'{seconds * 1e3:.2f} ms'

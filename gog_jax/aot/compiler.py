"""The TPU compiler, run in a process of its own, which it may end."""

from __future__ import annotations

import dataclasses
import multiprocessing
import os
import re
import tempfile
import traceback
from typing import Any

import jax
from jax.experimental import topologies
from jax.sharding import Mesh

from gog_jax.aot import costs
from gog_jax.aot.plan import make_plan
from gog_jax.aot.program import Compiled
from gog_jax.aot.program import TooLarge
from gog_jax.errors import UserError
from gog_jax.models import sharding
from gog_jax.models.config import VLMConfig

_FATAL = re.compile(r'F\d{4} ')


def topology_mesh(name: str, sizes: Any) -> tuple[Mesh, costs.Chip]:
  """A mesh over a slice that is not there, and its chip.

  Raises:
    UserError: libtpu is missing, or knows no such slice, or the mesh does not
      fit it.
  """
  known = ', '.join(costs.CHIPS)
  generation, _, sides = name.partition(':')
  if generation not in costs.CHIPS:
    raise UserError(
        f'--topology={name}: name a slice of one of {known}, '
        'e.g. --topology=v5e:2x4'
    )
  n_axes = costs.CHIPS[generation].n_axes
  if len(sides.split('x')) != n_axes:
    raise UserError(
        f'--topology={name}: slices of {generation} have {n_axes} sides, e.g. '
        f'{generation}:{"x".join("22" + "1" * (n_axes - 2))}'
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
  mesh = sharding.make_mesh(
      sizes.data, sizes.fsdp, sizes.tensor, devices=devices
  )
  return mesh, costs.CHIPS[generation]


def _has_libtpu() -> bool:
  try:
    import libtpu  # noqa: F401  # pyright: ignore[reportMissingImports]
  except ImportError:
    return False
  return True


@dataclasses.dataclass(frozen=True)
class Broken:
  """The compiler failed, or ended its process.

  Attributes:
    message: What it printed.
  """

  message: str


def compile_program(
    c: Any, config: VLMConfig, topology: str, name: str
) -> Compiled | TooLarge | Broken:
  """Compiles a program in a process of its own, which libtpu may abort.

  Raises:
    RuntimeError: Something else went wrong there; with its traceback.
  """
  spawn = multiprocessing.get_context('spawn')
  receiving, sending = spawn.Pipe(duplex=False)
  with tempfile.NamedTemporaryFile('r', errors='replace') as log:
    process = spawn.Process(
        target=_compile, args=(c, config, topology, name),
        kwargs={'sending': sending, 'stderr': log.name},
    )  # fmt: skip
    process.start()
    sending.close()  # Or its end would not be noticed.
    try:
      result = receiving.recv()
    except EOFError:
      result = None
    process.join()
    if result is None:
      return Broken(fatal_line(log.read(), process.exitcode))
  if isinstance(result, str):
    raise RuntimeError(f'{name} was not compiled:\n{result}')
  return result


def fatal_line(text: str, exit_code: int | None) -> str:
  """Why a process ended itself, in one line."""
  # What is fatal begins so; a trace of the stack follows it.
  fatal = [line for line in text.splitlines() if _FATAL.match(line)]
  return fatal[0] if fatal else f'exit code {exit_code}'


def _compile(c, config, topology, name, *, sending, stderr) -> None:
  with open(stderr, 'w') as log:
    os.dup2(log.fileno(), 2)
  try:
    mesh, _ = topology_mesh(topology, c.mesh)
    result = make_plan(c, config, mesh).compile(name)
  except TooLarge as error:
    result = error
  except jax.errors.JaxRuntimeError as error:
    result = Broken(str(error).splitlines()[0])
  except Exception:
    result = traceback.format_exc()
  sending.send(result)

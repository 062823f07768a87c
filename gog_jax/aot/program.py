"""Programs of a run, compiled for devices that are not there."""

from __future__ import annotations

from collections.abc import Callable, Mapping
import dataclasses
import re
import time

import jax

from gog_jax.aot import hlo

# As in '(21.33G) exceeds available HBM (15.75G)'.
_NEEDED = re.compile(r'\(([\d.]+)([KMGT])\) exceeds available')
_UNITS = {'K': 10, 'M': 20, 'G': 30, 'T': 40}


@dataclasses.dataclass(frozen=True)
class Program:
  """What a run compiles.

  Attributes:
    lower: Traces it.
    own_bytes: On each device, of its arguments that RL does not hold anyway.
    flops: Operations of one call, over all devices, see costs.py.
    memory_bytes: What each device has to read and write in one call.
    unit: What one call does.
    splash: Of hlo.splash_kernels, those that it has to call.
  """

  lower: Callable[[], jax.stages.Lowered]
  own_bytes: int
  flops: float
  memory_bytes: float
  unit: str
  splash: frozenset[str] = frozenset()


@dataclasses.dataclass(frozen=True)
class Compiled:
  """A program as the compiler made it; bytes are those of one device.

  Attributes:
    seconds: That its compilation took.
    code: Bytes of the program itself, which stays on the device.
    peak: Bytes while it runs, with all that RL holds, programs apart.
    temp: Of these, what lives only while it runs, outputs that take no
      argument's place included.
    sent: Bytes sent to other devices, by kind of collective; of decoding, for
      one token.
    splash: Which of the kernels are called, see hlo.splash_kernels.
  """

  seconds: float
  code: int
  peak: int
  temp: int
  sent: Mapping[str, int]
  splash: frozenset[str]


@dataclasses.dataclass(frozen=True)
class Plan:
  """What RL holds, and the programs that work on it.

  Attributes:
    held: Name to bytes on each device, of what RL holds all the time.
    programs: By name.
    n_slots: The sampler's conversations, over all devices.
    n_rows: Of a micro-batch, over all devices.
    n_images: That the ViT takes at once, over all devices.
  """

  held: Mapping[str, int]
  programs: Mapping[str, Program]
  n_slots: int
  n_rows: int
  n_images: int

  def compile(self, name: str) -> Compiled:
    """Compiles a program.

    Raises:
      TooLarge: By itself it is more than a device holds.
    """
    program = self.programs[name]
    start = time.monotonic()
    try:
      compiled = program.lower().compile()
    except jax.errors.JaxRuntimeError as error:
      if 'RESOURCE_EXHAUSTED' not in str(error):
        raise
      raise TooLarge(str(error)) from error
    seconds = time.monotonic() - start
    memory = compiled.memory_analysis()
    text = compiled.as_text() or ''
    assert memory is not None
    temp = (
        memory.temp_size_in_bytes
        + memory.output_size_in_bytes
        - memory.alias_size_in_bytes
    )
    return Compiled(
        seconds=seconds,
        code=memory.generated_code_size_in_bytes,
        peak=sum(self.held.values()) + program.own_bytes + temp,
        temp=temp,
        # Decoding runs until all turns are closed: one token is counted.
        sent=hlo.collective_bytes(
            text, of_unknown=1 if name == 'decode' else None
        ),
        splash=hlo.splash_kernels(text),
    )


class TooLarge(Exception):
  """The compiler refuses a program.

  Attributes:
    needed: Bytes of it, without what RL holds that it does not use, if the
      compiler names them.
  """

  def __init__(self, words: str):
    super().__init__(' '.join(words.split()))
    found = _NEEDED.search(words)
    self.needed = float(found[1]) * 2 ** _UNITS[found[2]] if found else None

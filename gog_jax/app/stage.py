"""What a stage is."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
import dataclasses
from typing import Any

from etils import epath

from gog_jax.config import Config
from gog_jax.run import Run
from gog_jax.run import RunOf


@dataclasses.dataclass(frozen=True)
class Plan:
  """What making something would take.

  Attributes:
    lines: For people.
    price: US dollars at most, the judge's apart; NaN where that is unknown.
    judged: Answers that a judge is asked about, at most.
  """

  lines: Sequence[str] = ()
  price: float = 0.0
  judged: float = 0.0


@dataclasses.dataclass(frozen=True)
class Stage:
  """What makes one folder of the workdir.

  Attributes:
    sections: Config fields that its output depends on.
    needs: Stages whose output it reads.
    make: (run, folder) -> facts for the manifest.
    pages: The config pages that make it at any size, the usual one first.
    config: The run's config -> the stage's own.
    inputs: Fingerprints of what else it reads, by name, beside `Run.inputs`.
    about: What else its manifest says, from the start.
    plan: (run, folder) -> what `make` would take. It makes nothing, and raises
      what would stop it.
    again: (run, folder) -> whether to go on with it although it is complete.
    trains: Whether it makes parameters: not reproducible from its settings,
      so later stages record this exact run.
  """

  sections: tuple[str, ...]
  needs: tuple[str, ...]
  make: Callable[[RunOf[Any], epath.Path], Mapping[str, Any]]
  _: dataclasses.KW_ONLY
  pages: tuple[str, ...]
  config: Callable[[Config], Config] = lambda config: config
  inputs: Callable[[RunOf[Any]], Mapping[str, str]] = lambda run: {}
  about: Callable[[Run], Mapping[str, Any]] = lambda run: {}
  plan: Callable[[RunOf[Any], epath.Path], Plan] = lambda run, folder: Plan()
  again: Callable[[Run, epath.Path], bool] = lambda run, folder: False
  trains: bool = False

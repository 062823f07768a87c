"""What one of a config's several seeds is run with."""

from __future__ import annotations

import copy
from typing import Any

from ml_collections import ConfigDict


def of_seed(config: Any, seed: int) -> Any:
  """The config of one of `config.seeds`; `once` belongs to the first alone."""
  own = copy.deepcopy(config)
  own.seed = seed
  own.seeds = ()
  if seed != config.seeds[0]:
    once = set(own.once)
    own.arms = ConfigDict({
        name: fields for name, fields in own.arms.items() if name not in once
    })
    own.eval.policies = tuple(
        name
        for name in own.eval.policies
        if name.rpartition('@')[-1] not in once
    )
  return own

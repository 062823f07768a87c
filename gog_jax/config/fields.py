"""Types of the fields of a config: each says which values are meant.

A section is a frozen dataclass without defaults: those stand in the pages of
configs/. What its fields have to be together is checked in `__post_init__`.
"""

from __future__ import annotations

from collections.abc import Container, Iterable, Mapping
import dataclasses
import operator
from typing import Annotated, Any

from gog_jax.storage.typed import above
from gog_jax.storage.typed import at_least
from gog_jax.storage.typed import Bound

Amount = Annotated[float, at_least(0)]
Seconds = Annotated[float, above(0, ' seconds')]
Given = Annotated[str, Bound('given', str.strip)]
Names = Annotated[tuple[str, ...], Bound('one or more names', bool)]
DIFFERENT = Bound('all different', lambda values: len({*values}) == len(values))


def picked(
    config: Any, names: Iterable[str], *, without: Container[str]
) -> dict[str, Any]:
  """Fields or sections by their dotted names, as plain values for a manifest.

  Args:
    config: A config.
    names: Of what is wanted.
    without: Names of fields that are left out, wherever they stand.
  """

  def plain(value: Any) -> Any:
    if dataclasses.is_dataclass(value):
      # Not vars, which also holds what cached properties have derived.
      fields = dataclasses.fields(value)
      value = {field.name: getattr(value, field.name) for field in fields}
    if isinstance(value, Mapping):
      return {k: plain(v) for k, v in value.items() if k not in without}
    return list(map(plain, value)) if isinstance(value, tuple) else value

  return {name: plain(operator.attrgetter(name)(config)) for name in names}

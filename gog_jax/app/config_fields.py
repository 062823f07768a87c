"""Reads fields of a config by their dotted names."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any


def float_fields(config, prefix: str = '') -> Iterator[tuple[str, float]]:
  """Every field that is no whole number, by its dotted name."""
  for name, value in config.items():
    if hasattr(value, 'items'):
      yield from float_fields(value, f'{prefix}{name}.')
    elif isinstance(value, float):
      yield prefix + name, value


def config_field(config, field: str):
  """A field or section by its dotted name; sections as plain dicts."""
  for part in field.split('.'):
    config = config[part]
  return config.to_dict() if hasattr(config, 'to_dict') else config


def fields_of(
    config, names: Sequence[str], *, without: Sequence[str]
) -> dict[str, Any]:
  """Fields of a config by their dotted names, all that is nested included.

  Args:
    config: A page's.
    names: Of fields or sections.
    without: Names that are left out, wherever they stand.
  """

  def kept(value: Any) -> Any:
    if not isinstance(value, Mapping):
      return value
    return {k: kept(v) for k, v in value.items() if k not in without}

  return {name: kept(config_field(config, name)) for name in names}

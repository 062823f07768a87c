"""Frozen sections of a config, read from a page and checked field by field.

A section declares the type of each field, and, with the functions below, which
values it may have. It has no defaults: those stand in the pages of configs/.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
import dataclasses
import math
import types
import typing
from typing import Any, TypeVar

from gog_jax.errors import UserError

S = TypeVar('S')


class FieldError(UserError):
  """A field has a value that it may not have; the message begins with it."""


def _field(works: Callable[[Any], bool], must: str) -> Any:
  return dataclasses.field(metadata={'works': works, 'must': must})


def at_least(low: float, hint: str = '') -> Any:
  """A number from `low` on."""
  return _field(lambda value: value >= low, f'must be {low:g} or more{hint}')


def above(low: float, hint: str = '') -> Any:
  """A number greater than `low`."""
  return _field(lambda value: value > low, f'must be more than {low:g}{hint}')


def between(low: float, high: float) -> Any:
  """A number from `low` to `high`."""
  return _field(lambda value: low <= value <= high, f'must be {low} to {high}')


def share() -> Any:
  """A number from 0 to 1."""
  return _field(lambda value: 0 <= value <= 1, 'is a share, from 0 to 1')


@dataclasses.dataclass(frozen=True, kw_only=True)
class Section:
  """Fields that belong together; subclasses may check them together."""

  def __post_init__(self):
    hints = typing.get_type_hints(type(self))
    for field in dataclasses.fields(self):
      value = getattr(self, field.name)
      choices = typing.get_args(hints[field.name])
      if typing.get_origin(hints[field.name]) is typing.Literal:
        if value not in choices:
          known = ', '.join(map(str, choices))
          raise FieldError(f'{field.name} is {value!r}, not one of {known}')
      if isinstance(value, float) and not math.isfinite(value):
        raise FieldError(f'{field.name} is {value}; it must be finite')
      if 'works' in field.metadata and not field.metadata['works'](value):
        raise FieldError(f'{field.name} {field.metadata["must"]}')


def read(kind: type[S], values: Mapping[str, Any], name: str = 'config') -> S:
  """A section, with those in it, from the fields of a page.

  Raises:
    UserError: A field is missing, unknown, of another type, or has a value it
      may not have; names it.
  """
  hints = typing.get_type_hints(kind)
  if unknown := sorted(set(values) - set(hints)):
    raise UserError(f'{name}.{unknown[0]}: there is no such field')
  if missing := [field for field in hints if field not in values]:
    raise UserError(f'{name}.{missing[0]} is missing')
  fields = {
      field: _value(hint, values[field], f'{name}.{field}')
      for field, hint in hints.items()
  }
  try:
    return kind(**fields)
  except FieldError as error:
    raise UserError(f'{name}.{error}') from error


def _value(hint: Any, value: Any, name: str) -> Any:
  origin, args = typing.get_origin(hint), typing.get_args(hint)
  if origin in (types.UnionType, typing.Union):
    if value is None:
      return None
    (hint,) = (arg for arg in args if arg is not type(None))
    return _value(hint, value, name)
  if origin is typing.Literal:
    return value  # The section checks it.
  if origin is tuple:
    if isinstance(value, (list, tuple)):
      return tuple(_value(args[0], item, name) for item in value)
  elif isinstance(value, Mapping):
    if isinstance(hint, type) and dataclasses.is_dataclass(hint):
      return read(hint, value, name)
    if origin is Mapping or origin is dict:
      return {
          key: _value(args[1], item, f'{name}.{key}')
          for key, item in value.items()
      }
    if hint is Any:
      return dict(value)
  elif hint is Any:
    return value
  elif hint is float and type(value) in (int, float):
    return float(value)
  elif isinstance(hint, type) and type(value) is hint:
    return value
  raise UserError(f'{name} is {value!r}, which is no {_words(hint)}')


def _words(hint: Any) -> str:
  if typing.get_origin(hint) is tuple:
    return 'list'
  words = {int: 'whole number', float: 'number', str: 'text', bool: 'boolean'}
  return words.get(hint, 'section')


def picked(
    section: Any, names: typing.Iterable[str], *, without: typing.Container[str]
) -> dict[str, Any]:
  """Fields or sections by their dotted names, as plain values for a manifest.

  Args:
    section: A config.
    names: Of what is wanted.
    without: Names of fields that are left out, wherever they stand.
  """

  def plain(value: Any) -> Any:
    if dataclasses.is_dataclass(value):
      value = {
          field.name: getattr(value, field.name)
          for field in dataclasses.fields(value)
      }
    if isinstance(value, Mapping):
      return {k: plain(v) for k, v in value.items() if k not in without}
    return list(map(plain, value)) if isinstance(value, tuple) else value

  def at(name: str) -> Any:
    value = section
    for part in name.split('.'):
      value = getattr(value, part)
    return value

  return {name: plain(at(name)) for name in names}

"""JSON values -> frozen dataclasses, by the types that their fields declare.

`Annotated` with a `Bound` says which values of a type are meant; of a field
that has a default, the value may be missing.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
import dataclasses
import enum
import functools
import math
import sys
import types
import typing
from typing import Annotated, Any, Literal, TypeVar, Union

from immutabledict import immutabledict
import jaxtyping
import numpy as np

from gog_jax.errors import UserError

T = TypeVar('T')

_WORDS = {
    int: 'a whole number',
    float: 'a number',
    str: 'text',
    bytes: 'text',
    bool: 'true or false',
    tuple: 'a list',
    list: 'a list',
}


class FieldError(UserError, ValueError):
  """A field is missing, unknown or of another kind; the message begins with it.

  A ValueError, as what `json` raises: most readers of files treat both alike.
  """


@dataclasses.dataclass(frozen=True)
class Bound:
  """Which values of a type are meant: those for which `holds` is true."""

  must: str
  holds: Callable[[Any], object]


def at_least(low: float, why: str = '') -> Bound:
  return Bound(f'{low:g} or more{why}', lambda value: low <= value < math.inf)


def above(low: float, why: str = '') -> Bound:
  return Bound(f'more than {low:g}{why}', lambda value: low < value < math.inf)


def between(low: float, high: float) -> Bound:
  return Bound(f'from {low} to {high}', lambda value: low <= value <= high)


Count = Annotated[int, at_least(0)]
Positive = Annotated[int, at_least(1)]
PositiveFloat = Annotated[float, above(0)]
Amount = Annotated[float, at_least(0)]
Seconds = Annotated[float, above(0, ' seconds')]
Finite = Annotated[
    float, Bound('finite', lambda value: abs(value) <= sys.float_info.max)
]
Share = Annotated[float, between(0, 1)]
Given = Annotated[str, Bound('given', str.strip)]
Names = Annotated[tuple[str, ...], Bound('one or more names', bool)]
DIFFERENT = Bound('all different', lambda values: len({*values}) == len(values))


def read(
    kind: type[T],
    value: Any,
    name: str = '',
    *,
    keys: Mapping[str, str] | None = None,
    ignore_unknown: bool = False,
    load: Callable[[str], bytes] | None = None,
) -> T:
  """What a JSON value holds.

  Args:
    kind: A dataclass, or another type: plain, Literal, an Enum, a tuple, list
      or mapping of types, X | None. A jaxtyping array has the dtype it names.
    value: What `json.loads` returns.
    name: Stands before the names of fields in errors.
    keys: Names that fields have in the value, where they differ.
    ignore_unknown: Whether there may be fields that `kind` has not.
    load: Turns text into what a field of bytes holds; e.g. reads a file.

  Raises:
    FieldError: A field is missing, unknown, or of another kind; names it.
    OSError: As `load`.
  """
  reader = _Reader(keys or {}, ignore_unknown, load)
  return reader.read(kind, value, name)


@dataclasses.dataclass(frozen=True)
class _Reader:
  """See `read`."""

  keys: Mapping[str, str]
  ignore_unknown: bool
  load: Callable[[str], bytes] | None

  def read(self, hint: Any, value: Any, name: str) -> Any:
    if hint is Any or type(value) is hint:
      return value
    if isinstance(hint, type):
      return self._of_type(hint, value, name)
    origin, args = _form(hint)
    if origin is Annotated:
      value = self.read(args[0], value, name)
      for bound in args[1:]:
        if not bound.holds(value):
          raise _wrong(name, bound.must, value)
      return value
    if origin in (Union, types.UnionType):
      if type(value) in args:
        return value
      *_, hint = (arg for arg in args if arg is not type(None))
      return self.read(hint, value, name)
    if origin is Literal:
      if any(value == arg and type(value) is type(arg) for arg in args):
        return value
      raise _wrong(name, f'one of {", ".join(map(str, args))}', value)
    if origin in (tuple, list) and isinstance(value, (tuple, list)):
      return self._items(origin, args, value, name)
    if origin in (dict, Mapping, immutabledict) and isinstance(value, dict):
      items = value.items()
      if args[1] is not Any:
        items = ((k, self.read(args[1], v, f'{name}.{k}')) for k, v in items)
      return immutabledict(items) if origin is immutabledict else dict(items)
    raise _wrong(name, _WORDS.get(origin, 'an object'), value)

  def _of_type(self, hint: type, value: Any, name: str) -> Any:
    if dataclasses.is_dataclass(hint) and isinstance(value, dict):
      return self._fields(hint, value, name)
    if hint is float and type(value) is int:  # As PEP 484 has it.
      return value
    try:
      if hint is bytes and isinstance(value, str) and self.load:
        return self.load(value)
      if issubclass(hint, enum.Enum):
        return hint(value)
      if issubclass(hint, jaxtyping.AbstractArray):
        array = np.array(value, hint.dtypes[0])
        if array.dtype.kind == 'i' and not np.array_equal(array, value):
          raise ValueError('these are not whole numbers')
        return array
    except (ValueError, TypeError, OverflowError) as error:
      raise FieldError(f'{name}: {error}') from error
    raise _wrong(name, _WORDS.get(hint, 'an object'), value)

  def _items(self, origin: Any, args: Any, value: Any, name: str) -> Any:
    if origin is list or args[-1] is ...:
      args = args[:1] * len(value)
    elif len(args) != len(value):
      raise _wrong(name, f'a list of {len(args)}', value)
    return origin(
        self.read(arg, item, f'{name}[{index}]')
        for index, (arg, item) in enumerate(zip(args, value, strict=True))
    )

  def _fields(self, kind: Any, row: dict[str, Any], name: str) -> Any:
    at = f'{name}.' if name else ''
    declared = _declared(kind)
    values = {}
    for field, (hint, has_default) in declared.items():
      key = self.keys.get(field, field)
      if key in row:
        value = row[key]
        if type(value) is not hint:  # Of most, the rest takes its time.
          value = self.read(hint, value, at + key)
        values[field] = value
      elif not has_default:
        raise FieldError(f'{at}{key} is missing')
    if len(values) < len(row) and not self.ignore_unknown:
      unknown = row.keys() - {self.keys.get(field, field) for field in declared}
      raise FieldError(f'{at}{min(unknown)}: there is no such field')
    try:
      return kind(**values)
    except FieldError as error:  # Of fields that do not fit each other.
      raise FieldError(f'{at}{error}') from error


@functools.cache
def _form(hint: Any) -> tuple[Any, tuple[Any, ...]]:
  return typing.get_origin(hint), typing.get_args(hint)


@functools.cache
def _declared(kind: Any) -> dict[str, tuple[Any, bool]]:
  """The type of each field of a dataclass, and whether it has a default."""
  hints = typing.get_type_hints(kind, include_extras=True)
  return {
      field.name: (
          hints[field.name],
          field.default is not field.default_factory,  # Else both are missing.
      )
      for field in dataclasses.fields(kind)
  }


def _wrong(name: str, must: str, value: Any) -> FieldError:
  return FieldError(f'{name or "it"} must be {must}, not {value!r:.80}')

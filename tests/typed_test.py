"""JSON values read by the annotations of dataclasses."""

from __future__ import annotations

from collections.abc import Mapping
import dataclasses
import enum
import math
from typing import Annotated, Any, Literal

from jaxtyping import Int8
import numpy as np
import pytest

from gog_jax.errors import UserError
from gog_jax.storage import files
from gog_jax.storage import typed

pytestmark = pytest.mark.quick


class Colour(enum.StrEnum):
  RED = 'red'


@dataclasses.dataclass(frozen=True, kw_only=True)
class Part:
  data: bytes
  box: tuple[float, float]


@dataclasses.dataclass(frozen=True, kw_only=True)
class Whole:
  kind: Literal['a', 'b', 1]
  colour: Colour
  name: str
  n: typed.Count
  share: typed.Share
  parts: tuple[str | Part, ...]
  sizes: Mapping[str, typed.Positive]
  mask: Int8[np.ndarray, ' T']
  extra: Mapping[str, Any]
  flags: list[bool]
  more: Annotated[float, typed.above(0, ' seconds')] | None = None

  def __post_init__(self):
    if self.n == 13:
      raise typed.FieldError('n is unlucky')


ROW = {
    'kind': 'a', 'colour': 'red', 'name': 'x', 'n': 3, 'share': 1,
    'parts': ['text', {'data': 'file', 'box': [1, 2.5]}],
    'sizes': {'k': 2}, 'mask': [1, 0], 'extra': {'a': [None, 1]},
    'flags': [True], 'more': 2,
}  # fmt: skip


def read(row, kind=Whole, **options):
  return typed.read(kind, row, 'row', load=str.encode, **options)


def test_every_kind_of_field_is_read():
  got = read(ROW)
  assert got.colour is Colour.RED and type(got.share) is int
  assert got.parts == ('text', Part(data=b'file', box=(1.0, 2.5)))
  assert got.mask.dtype == np.int8 and got.mask.tolist() == [1, 0]
  assert got.extra == {'a': [None, 1]} and got.flags == [True]
  assert got.more == 2.0
  assert read({**ROW, 'more': None}).more is None
  del (row := dict(ROW))['more']
  assert read(row).more is None


def test_other_names_and_unknown_fields():
  row = {'file': 'x', 'box': [1, 2], 'other': 3}
  keys = {'data': 'file'}
  assert read(row, Part, keys=keys, ignore_unknown=True).data == b'x'
  with pytest.raises(UserError, match=r'^row.other: there is no such field$'):
    read(row, Part, keys=keys)
  del row['file']
  with pytest.raises(UserError, match='^row.file is missing$'):
    read(row, Part, keys=keys, ignore_unknown=True)


@pytest.mark.parametrize(
    ('change', 'message'),
    [
        ({'kind': True}, 'row.kind must be one of a, b, 1, not True'),
        ({'colour': 'blue'}, "row.colour: 'blue' is not a valid Colour"),
        ({'colour': {}}, 'row.colour: {} is not a valid Colour'),
        ({'name': 7}, 'row.name must be text, not 7'),
        ({'n': True}, 'row.n must be a whole number, not True'),
        ({'n': 1.0}, 'row.n must be a whole number, not 1.0'),
        ({'n': -1}, 'row.n must be 0 or more, not -1'),
        ({'n': 13}, 'row.n is unlucky'),
        ({'share': math.nan}, 'row.share must be from 0 to 1, not nan'),
        ({'share': 10**400}, 'row.share must be from 0 to 1, not 1000'),
        ({'more': 0}, 'row.more must be more than 0 seconds, not 0'),
        ({'parts': 'x'}, "row.parts must be a list, not 'x'"),
        ({'parts': [3]}, r'row.parts\[0\] must be an object, not 3'),
        ({'parts': [{'data': 'x'}]}, r'row.parts\[0\].box is missing'),
        (
            {'parts': [{'data': 'x', 'box': [1]}]},
            r'row.parts\[0\].box must be a list of 2, not \[1\]',
        ),
        ({'sizes': {'k': 0}}, 'row.sizes.k must be 1 or more, not 0'),
        ({'sizes': []}, r'row.sizes must be an object, not \[\]'),
        ({'mask': [300]}, 'row.mask: '),
        ({'mask': ['x']}, 'row.mask: '),
        ({'mask': [1, 1.7]}, 'row.mask: these are not whole numbers'),
        ({'flags': [0]}, r'row.flags\[0\] must be true or false, not 0'),
    ],
)  # fmt: skip
def test_errors_name_the_very_field(change, message):
  with pytest.raises(UserError, match=f'^{message}') as caught:
    read({**ROW, **change})
  assert isinstance(caught.value, ValueError)
  assert '\n' not in str(caught.value)


def test_every_bound_of_a_type_holds():
  twice = Annotated[typed.Count, typed.Bound('even', lambda n: n % 2 == 0)]
  assert typed.read(twice, 4) == 4
  with pytest.raises(UserError, match='must be even, not 3'):
    typed.read(twice, 3)


def test_what_is_no_object_is_refused():
  with pytest.raises(UserError, match=r'^it must be an object, not \[\]$'):
    typed.read(Part, [])
  with pytest.raises(UserError, match='^it must be a whole number, not None$'):
    typed.read(int, None)


def test_a_json_file_is_read_or_named_with_what_to_do(tmp_path):
  path = tmp_path / 'part.json'
  for text, reason in (
      (None, 'No such file or directory'),
      ('{"data": ', 'Expecting value'),
      ('[' * 100_000, 'maximum recursion'),
      ('{"data": "x"}', 'box is missing'),
      ('[]', 'it must be an object'),
  ):
    if text is not None:
      path.write_text(text)
    with pytest.raises(UserError, match=f'{reason}.*; copy it again') as caught:
      files.read_json(path, Part, advice='copy it again', load=str.encode)
    assert str(caught.value).startswith(f'{path} cannot be read (')
  path.write_text('{"data": "x", "box": [1, 2]}')
  assert files.read_json(path, advice='') == {'data': 'x', 'box': [1, 2]}

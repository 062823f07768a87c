"""A user's function becomes a tool: its schema, and what is refused."""

from __future__ import annotations

import asyncio

import pytest

from gog_jax.errors import UserError
from gog_jax.tools import functions
from gog_jax.tools.base import ToolContext
from gog_jax.tools.functions import tool_of

pytestmark = pytest.mark.quick


def _tool(signature, doc='"Does."', name='f'):
  scope = {}
  code = f'def {name}{signature}:\n  {doc}\n'
  exec('from typing import *\n' + code, scope)
  return tool_of(scope[name], version='f 1')


@pytest.mark.parametrize(
    ('signature', 'words'),
    [
        ('(x)', 'f, parameter x, has no type hint'),
        ('(x: dict)', 'f, parameter x, is of type dict, which has no'),
        ('(x: list)', 'f, parameter x, is of type list, which'),
        ('(x: list[dict])', 'is of type dict'),
        ('(x: Literal[b"a"])', 'which has no JSON schema'),
        ('(*x: int)', 'f, parameter x, cannot be given by its name'),
        ('(x: int, /)', 'cannot be given by its name'),
        ('(x: "Nothing")', 'type hints of f cannot be read'),
        ('(x: int = object())', 'f, parameter x, has a default'),
    ],
)
def test_signatures_that_are_refused(signature, words):
  with pytest.raises(UserError, match='config.tools.extra') as error:
    _tool(signature)
  assert words in str(error.value) and '\n' not in str(error.value)


def test_what_is_no_tool_is_refused():
  with pytest.raises(UserError, match='has no docstring'):
    _tool('(x: int)', doc='pass')
  with pytest.raises(UserError, match='is no function'):
    tool_of(7, version='seven 1')  # type: ignore[arg-type]


def test_a_schema_from_hints():
  tool = _tool(
      '(a: str, b: int = 2, c: Optional[list[float]] = None, '
      'd: Literal["x", 3] = 3, e: "bool | str" = True)'
  )
  assert tool.parameters == {
      'type': 'object',
      'properties': {
          'a': {'type': 'string'},
          'b': {'type': 'integer', 'default': 2},
          'c': {
              'anyOf': [
                  {'type': 'array', 'items': {'type': 'number'}},
                  {'type': 'null'},
              ],
              'default': None,
          },
          'd': {'enum': ['x', 3], 'default': 3},
          'e': {
              'anyOf': [{'type': 'boolean'}, {'type': 'string'}],
              'default': True,
          },
      },
      'required': ['a'],
      'additionalProperties': False,
  }
  assert tool.description == 'Does.'


def test_a_union_takes_what_fits():
  def f(n: int | None, x: int | float):
    """Does."""

  tool = tool_of(f, version='f 1')
  query = asyncio.run(
      tool.query({'n': 2.0, 'x': 2.5}, ToolContext(scope='', views=()))
  )
  (given,) = query.ask.args
  assert given == {'n': 2, 'x': 2.5} and type(given['n']) is int


def test_a_concurrency_is_a_whole_number(tmp_path):
  path = tmp_path / 'half.py'
  path.write_text('def f() -> str:\n  """Does."""\nf.max_concurrency = 2.5\n')
  with pytest.raises(UserError, match='f.max_concurrency must be a whole'):
    functions.load(f'{path}:f')

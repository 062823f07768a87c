"""A user's own tool: a Python function with type hints and a docstring.

    def count(text: str, what: Literal['words', 'lines'] = 'words') -> str:
      '''Counts the words or lines of a text.'''
      return str(len(text.split() if what == 'words' else text.splitlines()))

    count.price = 0.001  # Of a call, in US dollars; if it has one.

The policy is told its name, its docstring and a schema made from the hints:
str, int, float, bool, None, list[...], Literal, Optional and unions. A
parameter annotated ToolContext gets the conversation's images and scope, and
the policy is not told of it. `timeout_s` and `max_concurrency` may be set like
`price`, in place of the config's.

The function may be async; another one runs in a thread, which nothing can stop:
give it time limits of its own. It returns text, a PIL image, a list of both, or
None. A ValueError, or ModelError, is the policy's mistake, and its message is
shown to it; what else it raises is a failure of the infrastructure.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
import concurrent.futures
import dataclasses
import functools
import inspect
import json
import types
import typing
from typing import Any, Literal

import jsonschema
from PIL import Image

from gog_jax import images
from gog_jax import seams
from gog_jax.config.tools import INHERITED
from gog_jax.config.tools import ToolLimits
from gog_jax.errors import UserError
from gog_jax.storage import typed
from gog_jax.tools.base import in_thread
from gog_jax.tools.base import ModelError
from gog_jax.tools.base import one_line
from gog_jax.tools.base import Query
from gog_jax.tools.base import Tool
from gog_jax.tools.base import ToolContext
from gog_jax.types import NO_ROOT
from gog_jax.types import ToolResult
from gog_jax.types import ToolStatus
from gog_jax.types import View

# Tools of ours that `config.tools.extra` may name: a line each.
KNOWN: dict[str, str] = {}

_FIELD = 'config.tools.extra'
# Threads are made as they are needed, and a tool's concurrency bounds them.
_MOST_THREADS = 1024
_TYPES = {
    str: 'string', int: 'integer', float: 'number', bool: 'boolean',
    type(None): 'null',
}  # fmt: skip


def load(name: str) -> Tool:
  """The tool that `config.tools.extra` names.

  Raises:
    UserError: There is no such function, or it cannot be a tool.
  """
  function = seams.load(name, KNOWN, field=_FIELD)
  limits = {
      field.name: getattr(function, field.name, 0)
      for field in dataclasses.fields(ToolLimits)
  }
  version = seams.digest(name, KNOWN, field=_FIELD)
  return tool_of(
      function,
      version=version.rpartition(':')[2],
      limits=typed.read(ToolLimits, limits, f'{_FIELD}: {name}'),
  )


def tool_of(
    function: Callable[..., Any],
    *,
    version: str,
    limits: ToolLimits = INHERITED,
) -> Tool:
  """A tool that calls a function.

  Raises:
    UserError: It has no docstring or no name, or a parameter for which there
      is no schema.
  """
  name = getattr(function, '__name__', '')
  if not inspect.isroutine(function) or not name.isidentifier():
    raise UserError(f'{_FIELD}: {version} is no function')
  description = inspect.getdoc(function)
  if not description:
    raise UserError(
        f'{_FIELD}: {name} has no docstring, which would tell the policy what '
        'it does'
    )
  parameters, context_name = _signature(function, name)
  properties = parameters['properties']
  # Its own: a slow function must not hold up what else needs threads.
  pool = concurrent.futures.ThreadPoolExecutor(
      _MOST_THREADS, thread_name_prefix=name
  )

  async def ask(arguments: Mapping[str, Any]) -> ToolResult:
    call = functools.partial(function, **arguments)
    try:
      if inspect.iscoroutinefunction(function):
        returned = await call()
      else:
        returned = await in_thread(pool, call)
    except (ValueError, ModelError) as error:
      return ToolResult(
          status=ToolStatus.MODEL_ERROR,
          error=one_line(error) or type(error).__name__,
      )
    return ToolResult(parts=_parts(returned))

  async def query(arguments: Mapping[str, Any], context: ToolContext) -> Query:
    given = {k: _as_hinted(v, properties[k]) for k, v in arguments.items()}
    if not context_name:
      return Query(ask=functools.partial(ask, given))
    given[context_name] = context
    return Query(
        ask=functools.partial(ask, given),
        scope=context.scope,
        views=context.views,
    )

  return Tool(
      name=name,
      description=description,
      parameters=parameters,
      version=version,
      query=query,
      limits=limits,
  )


def _signature(
    function: Callable[..., Any], function_name: str
) -> tuple[dict[str, Any], str]:
  """The JSON schema of the parameters, and the one that takes a ToolContext.

  Raises:
    UserError: There is no schema for one of them.
  """
  try:
    hints = typing.get_type_hints(function)
    parameters = inspect.signature(function).parameters.values()
  except (NameError, TypeError, ValueError) as error:
    raise UserError(
        f'{_FIELD}: the type hints of {function_name} cannot be read ({error})'
    ) from error
  properties, context_name = {}, ''
  for parameter in parameters:
    name, default = parameter.name, parameter.default
    where = f'{_FIELD}: {function_name}, parameter {name},'
    if parameter.kind not in (
        parameter.POSITIONAL_OR_KEYWORD, parameter.KEYWORD_ONLY,
    ):  # fmt: skip
      raise UserError(f'{where} cannot be given by its name')
    if name not in hints:
      raise UserError(f'{where} has no type hint')
    if ToolContext in (hint := hints[name], *typing.get_args(hint)):
      context_name = name
      continue
    properties[name] = _schema_of(hint, where)
    if default is parameter.empty:
      continue
    try:
      properties[name]['default'] = json.loads(json.dumps(default))
    except (TypeError, ValueError) as error:
      raise UserError(f'{where} has a default that is not JSON') from error
  schema = {
      'type': 'object',
      'properties': properties,
      'required': [n for n, one in properties.items() if 'default' not in one],
      'additionalProperties': False,
  }
  return schema, context_name


def _schema_of(hint: Any, where: str) -> dict[str, Any]:
  """The JSON schema of the type of what is at `where`.

  Raises:
    UserError: It has none.
  """
  if hint in _TYPES:
    return {'type': _TYPES[hint]}
  origin, args = typing.get_origin(hint), typing.get_args(hint)
  if origin is Literal and all(type(value) in _TYPES for value in args):
    return {'enum': list(args)}
  if origin is list:
    return {'type': 'array', 'items': _schema_of(args[0], where)}
  if origin in (typing.Union, types.UnionType):
    return {'anyOf': [_schema_of(one, where) for one in args]}
  shown = getattr(hint, '__name__', None) or hint
  raise UserError(
      f'{where} is of type {shown}, which has no JSON schema: use str, int, '
      'float, bool, list[...], Literal, Optional or unions of them'
  )


def _as_hinted(value: Any, schema: Mapping[str, Any]) -> Any:
  """JSON does not tell 2.0 from 2."""
  for option in schema.get('anyOf', ()):
    if jsonschema.Draft202012Validator(option).is_valid(value):
      return _as_hinted(value, option)
  if schema.get('type') == 'integer':
    return int(value)
  if schema.get('type') == 'number':
    return float(value)
  if schema.get('type') == 'array':
    return [_as_hinted(item, schema['items']) for item in value]
  return value


def _parts(returned: Any) -> tuple[str | View, ...]:
  """What a function returned, as text and images.

  Raises:
    TypeError: It is neither.
  """
  if returned is None:
    return ()
  if isinstance(returned, (list, tuple)):
    return tuple(part for one in returned for part in _parts(one))
  if isinstance(returned, str):
    return (returned,)
  if not isinstance(returned, Image.Image):
    raise TypeError(
        f'returned {type(returned).__name__} in place of text or an image'
    )
  width, height = returned.size
  if max(width, height) >= images.MAX_ASPECT * min(width, height):
    raise TypeError(f'returned an image of {width} x {height} pixels')
  data = images.encode_png(returned.convert('RGB'))
  return (View(data=data, root=NO_ROOT, box=(0, 0, width, height)),)

"""What can be typed: the pages, and the fields of one with their comments."""

from __future__ import annotations

import ast
from collections.abc import Iterator, Mapping
import dataclasses
import inspect
import io
import json
import pathlib
import shlex
import textwrap
import tokenize
import typing
from typing import Any

from ml_collections import ConfigDict

from gog_jax.config.pages import KINDS

_WIDTH = 80


def pages(folder: pathlib.Path) -> Iterator[str]:
  """A line for each page of a folder: its path, and the sentence it opens with.
  """
  for path in sorted(folder.glob('*.py')):
    tree = ast.parse(path.read_text())
    names = {getattr(node, 'name', '') for node in tree.body}
    if 'get_config' in names:
      about = (ast.get_docstring(tree) or '').partition('\n')[0]
      yield f'{path!s:<22} {about}'


def fields(page: ConfigDict) -> Iterator[str]:
  """Lines that say what a page sets: each field as it is typed, and why."""
  values = page.copy_and_resolve_references().to_dict()
  yield from _fields(KINDS[values['stage']], values, '--config')


def _fields(kind: Any, values: Mapping[str, Any], prefix: str) -> Iterator[str]:
  hints, comments = typing.get_type_hints(kind), comments_of(kind)
  # The page's own bookkeeping is no field.
  for name in filter(hints.__contains__, values):
    value, path = values[name], f'{prefix}.{name}'
    about = textwrap.wrap(
        comments.get(name, ''),
        width=_WIDTH, initial_indent='    ', subsequent_indent='    ',
    )  # fmt: skip
    if not isinstance(value, Mapping):
      yield typed(path, value)
      yield from about
    elif dataclasses.is_dataclass(hints[name]):
      yield from _fields(hints[name], value, path)
    else:  # By name: values, or the fields of a section that differ.
      yield from (typed(path, leaf) for path, leaf in _leaves(value, path))
      yield from about if value else ()


def _leaves(
    values: Mapping[str, Any], prefix: str
) -> Iterator[tuple[str, Any]]:
  for name, value in values.items():
    if isinstance(value, Mapping):
      yield from _leaves(value, f'{prefix}.{name}')
    else:
      yield f'{prefix}.{name}', value


def typed(path: str, value: Any) -> str:
  """As a shell takes it."""
  text = value if isinstance(value, str) else repr(value)
  if not text:
    return f'{path}='
  plain = "'" in text and not set('"$`\\!') & set(text)
  return f'{path}={json.dumps(text) if plain else shlex.quote(text)}'


def comments_of(kind: type[Any]) -> dict[str, str]:
  """What stands above a dataclass's fields, and behind them, by field."""
  found = {}
  for base in reversed(kind.__mro__):
    if not dataclasses.is_dataclass(base):
      continue
    source = textwrap.dedent(inspect.getsource(base))
    comments = {
        token.start[0]: token.string.lstrip('# ')
        for token in tokenize.generate_tokens(io.StringIO(source).readline)
        if token.type == tokenize.COMMENT
    }
    lines = source.splitlines()
    (definition,) = ast.parse(source).body
    assert isinstance(definition, ast.ClassDef)
    for node in definition.body:
      if not isinstance(node, ast.AnnAssign):
        continue
      assert isinstance(node.target, ast.Name) and node.end_lineno
      first = node.lineno
      while lines[first - 2].lstrip().startswith('#'):
        first -= 1
      about = range(first, node.end_lineno + 1)
      found[node.target.id] = ' '.join(
          comments[line] for line in about if line in comments
      )
  return found

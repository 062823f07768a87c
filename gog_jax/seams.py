"""What a config names by a string: ours by a short name, a user's by its place.

    text_search              a short name, in the list of what is built in
    package.module:name      an object of a module that can be imported
    path/to/file.py:name     an object of a file, relative to where one is

Ours are listed as `package.module:name` too, so that what offers a choice does
not import all that can be chosen.
"""

from __future__ import annotations

from collections.abc import Mapping
import functools
import hashlib
import importlib
import importlib.util
import inspect
import os
import sys
from typing import Any

from gog_jax.errors import nearest
from gog_jax.errors import UserError


def load(name: str, known: Mapping[str, str], *, field: str) -> Any:
  """The object that `name` stands for.

  Args:
    name: A key of `known`, FILE.py:NAME or MODULE:NAME.
    known: Short names of what is built in, each with its MODULE:NAME.
    field: Of the config, for messages.

  Raises:
    UserError: There is no such name, file, module or object, or the file or
      module raises when it is imported.
  """
  place, _, attribute = known.get(name, name).rpartition(':')
  if not place or not attribute:
    near = nearest(name, known)
    hint = f'; the nearest is {near!r}' if near else ''
    raise UserError(
        f'{field}: there is no {name!r}{hint} (known: {", ".join(known)}; or '
        'bring your own, as FILE.py:NAME or MODULE:NAME)'
    )
  if name in known:  # Ours: what it raises is a bug and keeps its traceback.
    return getattr(importlib.import_module(place), attribute)
  try:
    is_file = place.endswith('.py')
    module = _file(place) if is_file else importlib.import_module(place)
    return getattr(module, attribute)
  except UserError:
    raise
  except Exception as error:
    what = f'{type(error).__name__}: {error}'
    raise UserError(f'{field}: cannot load {name}: {what}') from error


def digest(name: str, known: Mapping[str, str], *, field: str) -> str:
  """Identifies what a name stands for, for manifests.

  A user's changes with the text of its file or module; ours have versions of
  their own.

  Raises:
    UserError: As `load`, or there is no source in Python.
  """
  if name in known:
    return name
  found = load(name, known, field=field)
  try:
    source = inspect.getsource(inspect.getmodule(found) or found)
  except (OSError, TypeError) as error:
    raise UserError(
        f'{field}: {name} has no Python source, by which a change of it would '
        'be noticed; write a function that calls it'
    ) from error
  return f'{name} {hashlib.sha256(source.encode()).hexdigest()[:16]}'


@functools.cache
def _file(path: str) -> Any:
  """Imports a file under a name of its own, once a process."""
  if not os.path.isfile(path):
    raise UserError(f'there is no file {path}')
  name = 'gog_jax_user_' + hashlib.sha256(path.encode()).hexdigest()[:16]
  spec = importlib.util.spec_from_file_location(name, path)
  assert spec is not None and spec.loader is not None
  module = importlib.util.module_from_spec(spec)
  sys.modules[name] = module  # Dataclasses and pickles look there.
  try:
    spec.loader.exec_module(module)
  except BaseException:
    del sys.modules[name]
    raise
  return module

"""Where questions come from: one list for building, training and evaluation.

    world              the embedded world's split, from the workdir's data stage
    jsonl:FILE         JSON lines of a user's own, see json_lines.py
    verl:FILE          verl's parquet files, or a folder of them: see verl.py
    parquet:FILE       the columns of other trainers, too: likewise
    infoseek:FILE      InfoSeek's JSON lines, see infoseek.py
    examples:FOLDER    examples.jsonl of this project, or its folder
    benchmark:NAME:PATH
                       a published set, see benchmarks/
    FILE.py:NAME       a user's own function; MODULE:NAME as well

A function that has a parameter `split` is passed 'train', 'validation' or
'test'. It returns `types.Example`s, or objects as in json_lines.py whose paths
are relative to `questions.images`, by default the working directory, and may be
absolute. A sequence is read
item by item, on access; any other iterable is held in memory.
"""

from __future__ import annotations

from collections.abc import Sequence
import inspect
from typing import Any

from etils import epath

from gog_jax import seams
from gog_jax.errors import UserError
from gog_jax.questions import checked
from gog_jax.questions.fetched import Fetched
from gog_jax.questions.local_files import ImageFolder
from gog_jax.storage import trajectories as trajectories_lib
from gog_jax.storage.records import Loaded
from gog_jax.types import Example

WORLD = 'world'
# Each takes a path; the world's takes a split and the workdir.
SOURCES = {
    WORLD: 'gog_jax.toy.dataset:questions',
    'jsonl': 'gog_jax.questions.json_lines:read',
    'verl': 'gog_jax.questions.verl:read',
    'parquet': 'gog_jax.questions.verl:read_any',
    'infoseek': 'gog_jax.questions.infoseek:read',
    'examples': 'gog_jax.questions.sources:read_examples',
    'benchmark': 'gog_jax.questions.benchmarks.source:read',
}
_FIELD = 'config.questions'


def read_examples(path: str) -> Loaded[Example]:
  """Reads what `storage.trajectories` wrote, given the file or its folder."""
  file = epath.Path(path)
  if file.suffix != '.jsonl':
    file = file / 'examples.jsonl'
  return Loaded(name=str(file), items=trajectories_lib.read(file, Example))


def check(names: Sequence[str], *, field: str = _FIELD) -> None:
  """Refuses unknown sources, without reading any.

  Raises:
    UserError: None is named, one is named twice or of an unknown kind, or a
      user's function cannot be imported.
  """
  if not names:
    raise UserError(f"{field} is empty: name one at least, e.g. 'world'")
  for name in names:
    _reader(name, field=field)
  if len(set(names)) < len(names):
    raise UserError(f'{field} names a source twice')


def open(
    names: Sequence[str],
    *,
    split: str,
    workdir: epath.PathLike,
    n: int | None = None,
    field: str = _FIELD,
    images: str = '',
    fetched: Fetched | None = None,
    **options: Any,
) -> checked.Questions:
  """Opens sources and takes questions from them in turn, at most `n`.

  All but the world's are read once, to be checked and digested.

  Args:
    names: The sources.
    split: For the world and users' functions.
    workdir: Holds the world.
    n: The number of questions to take; None takes all.
    field: For messages.
    images: A folder of images, beside those of files.
    fetched: Images that are named by their addresses.
    **options: Further ones of `checked.in_turn`.

  Raises:
    UserError: A source cannot be read, or there are no usable questions.
  """
  check(names, field=field)
  found, digests = [], []
  for name in names:
    read = _reader(name, field=field)
    kind, _, path = name.partition(':')
    if kind == WORLD:
      items = read(split, epath.Path(workdir))
      found.append(Loaded(name=f'{workdir}/data/{split}', items=items))
    elif kind in SOURCES:
      given = {} if kind == 'examples' else {'images': images}
      given |= {'fetched': fetched} if kind == 'benchmark' else {}
      found.append(read(path, **given))
    else:
      takes_split = 'split' in inspect.signature(read).parameters
      given = read(split=split) if takes_split else read()
      held = given if isinstance(given, Sequence) else list(given)
      found.append(Loaded(name=name, items=held))
      digests.append(seams.digest(name, {}, field=field))
  if tuple(names) != (WORLD,):
    options |= {'n': n, 'digests': digests, 'fetched': fetched}
    # A user's function may name any file.
    return checked.in_turn(
        found, images=ImageFolder(images or '.', '/'), **options
    )
  size = len(found[0].items)  # The world's need no check.
  size = size if n is None else min(n, size)
  return checked.Questions(found, [(0, i) for i in range(size)])


def _reader(name: str, *, field: str) -> Any:
  kind, _, path = name.partition(':')
  if name == WORLD or kind in SOURCES and kind != WORLD and path:
    return seams.load(kind, SOURCES, field=field)
  try:
    return seams.load(name, {}, field=field)
  except UserError as error:
    known = ', '.join(k if k == WORLD else f'{k}:PATH' for k in SOURCES)
    raise UserError(
        f'{field} has {name!r}; there are {known}, or your own ({error})'
    ) from error

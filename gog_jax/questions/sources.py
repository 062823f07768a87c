"""Where questions come from: one list for building, training and evaluation.

    world              the embedded world's split, from the workdir's data stage
    jsonl:FILE         JSON lines of a user's own, see json_lines.py
    verl:FILE          verl's parquet files, or a folder of them: see verl.py
    parquet:FILE       the columns of other trainers, too: likewise
    infoseek:FILE      InfoSeek's JSON lines, see infoseek.py
    examples:FOLDER    examples.jsonl of this project, or its folder
    FILE.py:NAME       a user's own function; MODULE:NAME as well

A function that has a parameter `split` is passed 'train', 'validation' or
'test'. It returns `types.Example`s, or objects as in json_lines.py whose paths
are relative to the working directory. A sequence is read item by item, on
access; any other iterable is held in memory.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
import dataclasses
import hashlib
import inspect
import io
from typing import Any

from etils import epath
from PIL import Image

from gog_jax import images
from gog_jax import interrupt
from gog_jax import seams
from gog_jax.errors import first_line
from gog_jax.errors import UserError
from gog_jax.questions import json_lines
from gog_jax.questions import questions as q
from gog_jax.storage import trajectories as trajectories_lib
from gog_jax.storage.records import Drop
from gog_jax.storage.records import Lazy
from gog_jax.storage.records import Loaded
from gog_jax.storage.records import Mapped
from gog_jax.storage.records import sift
from gog_jax.storage.records import Unusable
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
) -> Questions:
  """Opens sources and takes questions from them in turn, at most `n`.

  All but the world's are read once, to be checked and digested.

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
      found.append(read(path))
    else:
      takes_split = 'split' in inspect.signature(read).parameters
      given = read(split=split) if takes_split else read()
      held = given if isinstance(given, Sequence) else list(given)
      found.append(Loaded(name=name, items=held))
      digests.append(seams.digest(name, {}, field=field))
  if tuple(names) != (WORLD,):
    return in_turn(found, n=n, digests=digests)
  size = len(found[0].items)  # The world's need no check.
  size = size if n is None else min(n, size)
  return Questions(found, [(0, i) for i in range(size)])


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


@dataclasses.dataclass(frozen=True, eq=False)
class Questions(Lazy[Example]):
  """The questions of all sources, read on access.

  Attributes:
    sources: The open sources.
    places: For each question, the indices of its source and its record there.
    drops: Records that could not be used.
    digest: Changes with any question, answer or image; empty for the world,
      whose data stage has a manifest.
    checked: Whether the images have been decoded before.
  """

  sources: Sequence[Loaded[Any]]
  places: Sequence[tuple[int, int]]
  drops: tuple[Drop, ...] = ()
  digest: str = ''
  checked: bool = False

  def __len__(self) -> int:
    return len(self.places)

  def item(self, index: int) -> Example:
    place = self.places[index]
    example = self.read(place)
    if not self.checked and (bad := _bad_image(example, _decode_if_doubtful)):
      raise UserError(f'{self.where(place)} ({example.id}), {bad}')
    return example

  def part(self, start: int, n: int) -> Sequence[Example]:
    """Questions [start, start + n).

    Raises:
      UserError: There are too few.
    """
    if start + n > len(self):
      names = ', '.join(one.name for one in self.sources)
      raise UserError(
          f'{names} holds {len(self)} examples, {start + n} are needed: ask '
          'for fewer, or make it larger (the world: --config.data.n_*)'
      )
    return Mapped(range(start, start + n), self.item)

  def where(self, place: tuple[int, int]) -> str:
    return f'{self.sources[place[0]].name}, record {place[1]}'

  def read(self, place: tuple[int, int]) -> Example:
    """A record as an example; Unusable if it is none."""
    source, number = self.sources[place[0]], place[1]
    try:
      given = source.items[number]
    except (RuntimeError, ValueError) as error:  # What array_record raises.
      raise UserError(
          f'{self.where(place)}, cannot be read ({first_line(error)}); delete '
          'the data folder to have it made again'
      ) from error
    if isinstance(given, Mapping):
      given = json_lines.question_of(given, '', id=str(number))
    if isinstance(given, q.Question):
      given = given.example(source=source.name)
    if not isinstance(given, Example):
      detail = f'is {type(given).__name__}, no Example or object'
      raise Unusable(q.BAD, detail)
    return given


def in_turn(
    found: Sequence[Loaded[Any]],
    *,
    n: int | None = None,
    digests: Sequence[str] = (),
) -> Questions:
  """Takes the first question of each source, then the second, and so on.

  Each is read and checked; unusable ones are dropped and do not count.

  Args:
    found: The sources.
    n: The number of questions to take; None takes all.
    digests: Of the functions that gave some of them.

  Raises:
    UserError: There are no usable questions.
  """
  records = Questions(found, ())

  def checked(place: tuple[int, int]) -> tuple[str, tuple[int, int], str]:
    """Its id, its place and what it holds."""
    interrupt.check()
    example = records.read(place)
    q.check(example)
    if bad := _bad_image(example, images.decode):
      raise Unusable('bad image', f'{example.id}, {bad}')
    more = (example.search_required, example.hops)
    return example.id, place, f'{digest(example)} {more}'

  everywhere = (
      (source, number)
      for number in range(max((len(one.items) for one in found), default=0))
      for source, one in enumerate(found)
      if number < len(one.items)
  )
  kept = sift(
      ', '.join(one.name for one in found),
      ((records.where(place), place) for place in everywhere),
      checked,
      id_of=lambda one: one[0],
      drops=(
          dataclasses.replace(drop, where=f'{one.name}: {drop.where}')
          for one in found
          for drop in one.drops
      ),
      most=n,
  ).required()
  contents = hashlib.sha256(repr(list(digests)).encode())
  for _, _, content in kept.items:
    contents.update(content.encode())
  return Questions(
      found,
      [place for _, place, _ in kept.items],
      drops=kept.drops,
      digest=contents.hexdigest()[:16],
      checked=True,
  )


def digest(example: Example) -> str:
  """16 hex digits that change with a question, its answers or its images."""
  shown = [hashlib.sha256(image).hexdigest() for image in example.images]
  text = repr((
      example.id, example.question, example.answers, example.scope, shown,
      example.gold_regions,
  ))  # fmt: skip
  return hashlib.sha256(text.encode('utf-8', 'replace')).hexdigest()[:16]


def _bad_image(example: Example, decode: Callable[[bytes], Any]) -> str:
  """Names the first image that cannot be decoded; '' if all can."""
  for number, data in enumerate(example.images, start=1):
    try:
      decode(data)
    except UserError as error:
      return f'image {number}: {error}'
  return ''


def _decode_if_doubtful(data: bytes) -> None:
  """Decodes an image unless it is a PNG with valid checksums, for speed."""
  try:
    with Image.open(io.BytesIO(data), formats=['PNG']) as image:
      image.verify()
  except Exception:  # Of many kinds; decoding says which in our words.
    images.decode(data)

"""Where questions come from: one list for building, training and evaluation.

    world              the embedded world's split, from the workdir's data stage
    jsonl:FILE         JSON lines of a user's own, see json_lines.py
    verl:FILE          verl's parquet files, or a folder of them: see verl.py
    infoseek:FILE      InfoSeek's JSON lines, see infoseek.py
    examples:FOLDER    examples.jsonl of this project, or its folder
    FILE.py:NAME       a user's own function; MODULE:NAME as well

A function is called with `split`, 'train', 'validation' or 'test', if it takes
one. It returns `types.Example`s or objects as json_lines.py has them, whose
paths are relative to where the program runs. A sequence is read at random, each
item when it is needed; of anything else all is held in memory.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
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
from gog_jax.errors import UserError
from gog_jax.questions import json_lines
from gog_jax.questions import questions as q
from gog_jax.storage import blobs
from gog_jax.storage import trajectories as trajectories_lib
from gog_jax.storage.records import Drop
from gog_jax.storage.records import Lazy
from gog_jax.storage.records import Loaded
from gog_jax.storage.records import Part
from gog_jax.storage.records import Unusable
from gog_jax.types import Example

WORLD = 'world'
# Each reads a path; that of the world a split, and the workdir.
SOURCES = {
    WORLD: 'gog_jax.toy.dataset:questions',
    'jsonl': 'gog_jax.questions.json_lines:read',
    'verl': 'gog_jax.questions.verl:read',
    'infoseek': 'gog_jax.questions.infoseek:read',
    'examples': 'gog_jax.questions.sources:read_examples',
}
_FIELD = 'config.questions'


def read_examples(path: str) -> Loaded[Example]:
  """A file of examples as `storage.trajectories` writes it, or its folder."""
  file = epath.Path(path)
  if file.suffix != '.jsonl':
    file = file / 'examples.jsonl'
  return Loaded(name=str(file), items=trajectories_lib.read_examples(file))


def check(names: Sequence[str], *, field: str = _FIELD) -> None:
  """Refuses sources that nothing reads, without reading any.

  Raises:
    UserError: There are none, one is named twice, is of no known kind, or is a
      user's and cannot be imported.
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
  """Opens sources, to be taken in turn until there are `n` questions of use.

  What is not the world's is read once, to check and digest it.

  Raises:
    UserError: One cannot be read, or nothing in them is of use.
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
      found.append(Loaded(name=name, items=_UserItems(held, name)))
      digests.append(seams.digest(name, {}, field=field))
  if tuple(names) != (WORLD,):
    return in_turn(found, n=n, digests=digests)
  size = len(found[0].items)  # The world's are sound: none has to be read.
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


class _UserItems(Lazy[Example]):
  """What a user's function gave, as examples."""

  def __init__(self, items: Sequence[Any], name: str):
    self._items, self._name = items, name

  def __len__(self) -> int:
    return len(self._items)

  def item(self, index: int) -> Example:
    given = self._items[index]
    if isinstance(given, Example):
      return given
    if not isinstance(given, Mapping):
      raise Unusable(q.BAD, f'is {type(given).__name__}, no Example or object')
    question = json_lines.question_of(given, '', id=str(index))
    return question.example(source=self._name)


@dataclasses.dataclass(frozen=True, eq=False)
class Questions(Lazy[Example]):
  """The questions of sources, read as they are asked for.

  Attributes:
    sources: What was opened.
    places: The source and the record of each question.
    drops: Records that no question could be made of.
    digest: Changes with whatever is asked, accepted or shown; empty for the
      world, whose data stage has a manifest.
    checked: Whether the images are known to be sound.
  """

  sources: Sequence[Loaded[Example]]
  places: Sequence[tuple[int, int]]
  drops: tuple[Drop, ...] = ()
  digest: str = ''
  checked: bool = False

  def __len__(self) -> int:
    return len(self.places)

  def item(self, index: int) -> Example:
    place = self.places[index]
    example = self.read(place)
    if not self.checked:
      for number, data in enumerate(example.images, start=1):
        try:
          if not _is_sound_png(data):
            images.decode(data)
        except UserError as error:
          raise UserError(
              f'{self.where(place)} ({example.id}), image {number}: {error}'
          ) from error
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
    return Part(self, range(start, start + n))

  def where(self, place: tuple[int, int]) -> str:
    return f'{self.sources[place[0]].name}, record {place[1]}'

  def read(self, place: tuple[int, int]) -> Example:
    source, number = place
    try:
      return self.sources[source].items[number]
    except (RuntimeError, ValueError) as error:  # What array_record raises.
      raise UserError(
          f'{self.where(place)}, cannot be read '
          f'({(str(error) or repr(error)).splitlines()[0]}); delete the data '
          'folder to have it made again'
      ) from error


def in_turn(
    found: Sequence[Loaded[Example]],
    *,
    n: int | None = None,
    digests: Sequence[str] = (),
) -> Questions:
  """The first question of each, the second of each, ..., up to `n` of use.

  Each is read and checked; what is of no use is dropped.

  Raises:
    UserError: None is of use.
  """
  records = Questions(found, ())
  places, seen = [], set()
  drops = [
      dataclasses.replace(drop, where=f'{one.name}: {drop.where}')
      for one in found
      for drop in one.drops
  ]
  contents = hashlib.sha256(repr(list(digests)).encode())
  everywhere = (
      (source, number)
      for number in range(max((len(one.items) for one in found), default=0))
      for source, one in enumerate(found)
      if number < len(one.items)
  )
  for place in everywhere:
    if len(places) == n:
      break
    interrupt.check()
    try:
      example = records.read(place)
      _check(example, seen)
    except Unusable as error:
      drops.append(Drop.of(records.where(place), error))
      continue
    seen.add(example.id)
    places.append(place)
    more = (example.search_required, example.hops)
    contents.update(f'{digest(example)} {more}'.encode())
  if not places:
    first = str(drops[0]) if drops else 'they are empty'
    raise UserError(f'the sources hold no question of use; {first}')
  return Questions(
      found,
      places,
      drops=tuple(drops),
      digest=contents.hexdigest()[:16],
      checked=True,
  )


def digest(example: Example) -> str:
  """16 hex digits that change with anything that is asked or accepted."""
  shown = [hashlib.sha256(image).hexdigest() for image in example.images]
  text = repr((
      example.id, example.question, example.answers, example.scope, shown,
      example.gold_regions,
  ))  # fmt: skip
  return hashlib.sha256(text.encode('utf-8', 'replace')).hexdigest()[:16]


def _check(example: Example, seen: Collection[str]) -> None:
  """Raises Unusable where nothing can be made of an example."""
  if example.id in seen:
    raise Unusable(q.DUPLICATE, f'{example.id} has been taken before')
  if not example.images:
    raise Unusable(q.NO_IMAGE, f'{example.id} has no image')
  if not any(form.strip() for form in example.answers):
    raise Unusable(q.NO_ANSWER, f'{example.id} has no accepted answer')
  for number, data in enumerate(example.images, start=1):
    try:
      images.decode(data)
    except UserError as error:
      detail = f'{example.id}, image {number}: {error}'
      raise Unusable('bad image', detail) from error


def _is_sound_png(data: bytes) -> bool:
  """By its checksums, which is quicker than to decode it."""
  if blobs.suffix_of(data) != 'png':
    return False
  try:
    with Image.open(io.BytesIO(data)) as image:
      image.verify()
    return True
  except Exception:  # Of many kinds; decoding it says which in our words.
    return False

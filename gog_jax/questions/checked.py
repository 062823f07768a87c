"""The usable questions of open sources: checked once, then read on access."""

from __future__ import annotations

import collections
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
import contextlib
import dataclasses
import hashlib
import io
from typing import Any

from etils import epath
from PIL import Image

from gog_jax import images as image_files
from gog_jax import interrupt
from gog_jax.errors import first_line
from gog_jax.errors import UserError
from gog_jax.questions import json_lines
from gog_jax.questions import questions as q
from gog_jax.questions.fetched import Fetched
from gog_jax.questions.local_files import ImageFolder
from gog_jax.storage import files
from gog_jax.storage.records import Drop
from gog_jax.storage.records import Lazy
from gog_jax.storage.records import Loaded
from gog_jax.storage.records import Mapped
from gog_jax.storage.records import sift
from gog_jax.storage.records import Unusable
from gog_jax.types import Example

LEAKED = 'also evaluated'  # Why a question is left out, see leaks.py.


@dataclasses.dataclass(frozen=True, eq=False)
class Questions(Lazy[Example]):
  """The questions of all sources, read on access.

  Attributes:
    sources: The open sources.
    places: For each question, the indices of its source and its record there.
    drops: Records that could not be used.
    digest: Changes with any question, answer or image; empty for the world,
      whose data stage has a manifest.
    origin: The same, leaks included: it does not change with what is evaluated.
    ids: Of all questions, but for the world's alone.
    leaks: Of those that were left out because they are evaluated.
    images: Where paths of a user's function start.
    fetched: Images that are named by their addresses.
    checked: Whether the images have been decoded before.
  """

  sources: Sequence[Loaded[Any]]
  places: Sequence[tuple[int, int]]
  drops: tuple[Drop, ...] = ()
  digest: str = ''
  origin: str = ''
  ids: tuple[str, ...] = ()
  leaks: tuple[str, ...] = ()
  images: ImageFolder = ImageFolder()
  fetched: Fetched | None = None
  checked: bool = False

  def __len__(self) -> int:
    return len(self.places)

  def item(self, index: int) -> Example:
    place = self.places[index]
    try:
      example = self.read(place)
    except Unusable as error:  # A fetched image was deleted.
      raise UserError(f'{self.where(place)}: {error}') from error
    if not self.checked and (bad := _bad_image(example, _decode_if_doubtful)):
      raise UserError(f'{self.where(place)} ({example.id}), {bad}')
    return example

  @property
  def left_out(self) -> str:
    """How many records were, by reason."""
    counts = collections.Counter(drop.reason for drop in self.drops)
    return ', '.join(f'{n} {reason}' for reason, n in counts.most_common())

  def only(self, indices: Sequence[int], *, why: str) -> Questions:
    """Those at the indices; `why` they were chosen goes into the digests."""
    return dataclasses.replace(
        self,
        places=[self.places[i] for i in indices],
        ids=tuple(self.ids[i] for i in indices),
        digest=f'{self.digest} {why}',
        origin=f'{self.origin} {why}',
    )

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
    given = self.given(place)
    if isinstance(given, q.Question):
      if self.fetched is not None:
        given = self.fetched.found(given)
      given = given.example(source=self.sources[place[0]].name)
    if not isinstance(given, Example):
      detail = f'is {type(given).__name__}, no Example or object'
      raise Unusable(q.BAD, detail)
    return given

  def given(self, place: tuple[int, int]) -> Any:
    """A record, a Question if it is an object; Unusable if that is none."""
    source, number = self.sources[place[0]], place[1]
    try:
      given = source.items[number]
    except (RuntimeError, ValueError) as error:  # What array_record raises.
      raise UserError(
          f'{self.where(place)}, cannot be read ({first_line(error)}); delete '
          'the data folder to have it made again'
      ) from error
    if isinstance(given, Mapping):
      return json_lines.question_of(given, self.images, id=str(number))
    return given

  def links(self, places: Iterable[tuple[int, int]]) -> Iterator[str]:
    """The addresses of images; those of published sets are read as files."""
    for place in places:
      if isinstance(self.sources[place[0]].items, Lazy):
        continue
      with contextlib.suppress(Unusable):
        for image in getattr(self.given(place), 'images', ()):
          if isinstance(image, q.Link):
            yield image.url


def in_turn(
    found: Sequence[Loaded[Any]],
    *,
    n: int | None = None,
    digests: Sequence[str] = (),
    images: ImageFolder = ImageFolder(),
    fetched: Fetched | None = None,
    accept: Callable[[Example], bool] = lambda example: True,
    leaked: Callable[[Example], str] = lambda example: '',
) -> Questions:
  """Takes the first question of each source, then the second, and so on.

  Each is read and checked; unusable ones are dropped and do not count.

  Args:
    found: The sources.
    n: The number of questions to take; None takes all.
    digests: Of the functions that gave some of them.
    images: Where paths of objects start.
    fetched: Images that are named by their addresses; fetches what is missing.
    accept: Whether one belongs to the split; raises Unusable to drop it.
    leaked: Why one is left out that is evaluated, too; '' if it is not.

  Raises:
    UserError: There are no usable questions.
  """
  records = Questions(found, (), images=images, fetched=fetched)
  read, leaks = list[str](), list[str]()

  def kept(place: tuple[int, int]) -> tuple[str, tuple[int, int], str] | None:
    """Its id, its place and what it holds."""
    interrupt.check()
    example = records.read(place)
    q.check(example)
    if bad := _bad_image(example, image_files.decode):
      raise Unusable('bad image', f'{example.id}, {bad}')
    if not accept(example):
      return None
    content = f'{digest(example)} {(example.search_required, example.hops)}'
    read.append(content)
    if why := leaked(example):
      leaks.append(example.id)
      raise Unusable(LEAKED, why)
    return example.id, place, content

  everywhere = [
      (source, number)
      for number in range(max((len(one.items) for one in found), default=0))
      for source, one in enumerate(found)
      if number < len(one.items)
  ]

  def fetched_ahead() -> Iterator[tuple[int, int]]:
    step = n or len(everywhere)
    for start in range(0, len(everywhere), step or 1):
      some = everywhere[start : start + step]
      if fetched is not None:
        fetched.fetch(records.links(some))
      yield from some

  usable = sift(
      ', '.join(one.name for one in found),
      ((records.where(place), place) for place in fetched_ahead()),
      kept,
      id_of=lambda one: one[0],
      drops=(
          dataclasses.replace(drop, where=f'{one.name}: {drop.where}')
          for one in found
          for drop in one.drops
      ),
      most=n,
  ).required()
  ids, places, contents = zip(*usable.items, strict=True)
  return Questions(
      found,
      places,
      drops=usable.drops,
      digest=_of_all(digests, contents),
      origin=_of_all(digests, read),
      ids=ids,
      leaks=tuple(leaks),
      images=images,
      fetched=fetched,
      checked=True,
  )


def _of_all(digests: Sequence[str], contents: Sequence[str]) -> str:
  whole = repr(list(digests)) + ''.join(contents)
  return hashlib.sha256(whole.encode()).hexdigest()[:16]


def check_same(ids: Sequence[str], path: epath.Path) -> None:
  """Refuses to go on with other questions than at the first start.

  What is left out hangs on what is evaluated, which is no part of a stage's
  identity: it may change once the stage is done.

  Args:
    ids: Of the questions; kept in the file.
    path: The file, in the stage's folder.

  Raises:
    UserError: They are others.
  """
  held = files.read_json(path, list, advice='') if path.exists() else list(ids)
  if held != list(ids):
    raise UserError(
        f'{path.parent} was begun with other questions, because what is '
        f'evaluated was another: put it back, or delete {path.parent}'
    )
  files.write_json(path, held)


def digest(example: Example) -> str:
  """16 hex digits that change with a question, its answers or its images."""
  shown = [hashlib.sha256(image).hexdigest() for image in example.images]
  text = repr((
      example.id, example.question, example.answers, example.scope, shown,
      example.gold_regions, *filter(None, [example.image_places]),
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
    image_files.decode(data)

"""Where the questions come from, and which of them are of use."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
import hashlib
from typing import Any, overload

from etils import epath

from gog_jax import images
from gog_jax import interrupt
from gog_jax import seams
from gog_jax.errors import UserError
from gog_jax.questions import infoseek
from gog_jax.questions import verl
from gog_jax.questions.records import Drop
from gog_jax.questions.records import Records
from gog_jax.questions.sources import KNOWN
from gog_jax.storage import trajectories as trajectories_lib
from gog_jax.types import Example

WORLD = 'world'


def read_examples(path: str) -> Records[Example]:
  """A file of examples as `rollout.trajectories` writes it, or its folder.

  Raises:
    UserError: It is missing or damaged.
  """
  file = epath.Path(path)
  if file.suffix != '.jsonl':
    file = file / 'examples.jsonl'
  return Records(name=str(file), items=trajectories_lib.read_examples(file))


# KIND:PATH in `config.instruct.sources` -> what reads PATH.
READERS: dict[str, Callable[[str], Records[Example]]] = {
    'examples': read_examples,
    # MMSearch-R1's parquet, FVQA-train among it.
    'verl': lambda path: verl.read(path, name='verl'),
    'infoseek': infoseek.read,
}


def check(names: Sequence[str]) -> None:
  """Refuses sources that nothing reads.

  Raises:
    UserError: There are none, one is named twice, or is of no known kind.
  """
  if not names:
    raise UserError(
        'config.instruct.sources is empty: name one at least, e.g. '
        f'{WORLD!r} or \'examples:FOLDER\''
    )
  for name in names:
    kind, _, path = name.partition(':')
    if name != WORLD and not (kind in READERS and path):
      known = ', '.join([WORLD, *(f'{kind}:PATH' for kind in READERS)])
      raise UserError(
          f'config.instruct.sources has {name!r}; there are {known}'
      )
  if len(set(names)) < len(names):
    raise UserError('config.instruct.sources names a source twice')


def sources(run: Any) -> list[Records[Example]]:
  """What `config.instruct.sources` names, in that order.

  Raises:
    UserError: One of them cannot be read.
  """
  found = []
  for name in run.config.instruct.sources:
    if name == WORLD:
      # Lazy: a record is read when it is asked for.
      source = seams.load(WORLD, KNOWN, field='config.instruct.sources')
      items = source('train', run.workdir)
      found.append(Records(name=WORLD, items=items))
    else:
      kind, _, path = name.partition(':')
      found.append(READERS[kind](path))
  return found


class Queries(Sequence[Example]):
  """The questions of a build, in its order; read as they are asked for.

  Attributes:
    drops: Records that no question could be made of.
  """

  def __init__(self, found: Sequence[Records[Example]], *, n: int):
    """Takes the sources in turn until there are `n` of use.

    Raises:
      UserError: There is none.
    """
    self._found = found
    self._places: list[tuple[int, int]] = []
    self.drops = [
        Drop(where=f'{one.name}: {drop.where}', reason=drop.reason,
             detail=drop.detail)
        for one in found
        for drop in one.drops
    ]  # fmt: skip
    seen: set[str] = set()
    for place in _in_turn([len(one.items) for one in found]):
      if len(self._places) == n:
        break
      interrupt.check()
      example = self._read(place)
      if wrong := _wrong(example, seen):
        reason, detail = wrong
        where = f'{found[place[0]].name}, record {place[1]}'
        self.drops.append(Drop(where=where, reason=reason, detail=detail))
        continue
      seen.add(example.id)
      self._places.append(place)
    if not self._places:
      raise UserError(
          'config.instruct.sources hold no question of use; '
          + (str(self.drops[0]) if self.drops else 'they are empty')
      )

  def __len__(self) -> int:
    return len(self._places)

  @overload
  def __getitem__(self, index: int) -> Example:
    ...

  @overload
  def __getitem__(self, index: slice) -> list[Example]:
    ...

  def __getitem__(self, index: int | slice) -> Example | list[Example]:
    if isinstance(index, slice):
      return [self._read(place) for place in self._places[index]]
    return self._read(self._places[index])

  def _read(self, place: tuple[int, int]) -> Example:
    source, number = place
    try:
      return self._found[source].items[number]
    except (RuntimeError, ValueError) as error:  # What array_record raises.
      raise UserError(
          f'{self._found[source].name}, record {number}, cannot be read '
          f'({(str(error) or repr(error)).splitlines()[0]})'
      ) from error


def digest(example: Example) -> str:
  """16 hex digits that change with anything that is asked or accepted."""
  shown = [hashlib.sha256(image).hexdigest() for image in example.images]
  text = repr((
      example.id, example.question, example.answers, example.scope, shown,
      example.gold_regions,
  ))  # fmt: skip
  return hashlib.sha256(text.encode('utf-8', 'replace')).hexdigest()[:16]


def _in_turn(lengths: Sequence[int]) -> Iterator[tuple[int, int]]:
  """(source, number): the first of each, the second of each, and so on."""
  for number in range(max(lengths, default=0)):
    for source, length in enumerate(lengths):
      if number < length:
        yield source, number


def _wrong(example: Example, seen: set[str]) -> tuple[str, str] | None:
  """Why nothing can be made of an example: the reason, and a line."""
  if example.id in seen:
    return 'duplicate id', f'{example.id} has been taken before'
  if not example.images:
    return 'no image', f'{example.id} has no image'
  if not any(form.strip() for form in example.answers):
    return 'no answer', f'{example.id} has no accepted answer'
  for number, data in enumerate(example.images, start=1):
    try:
      images.decode(data)
    except UserError as error:
      return 'bad image', f'{example.id}, image {number}: {error}'
  return None
